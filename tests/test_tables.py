"""The tables' figures and their text, from runs written by hand."""

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.runs import CLASSES, grids, store_fold, store_stage

from ferbench import metrics
from ferbench.errors import DataError
from ferbench.report.build import build, trainings_of
from ferbench.report.conclusions import heading, headlines, sections
from ferbench.report.formats.text import json as json_text
from ferbench.report.formats.text import markdown
from ferbench.report.results import Report
from ferbench.report.tables import tables
from ferbench.runs.store import Store

FIRST = [("S1", "anger", "anger"), ("S1", "fear", "anger"), ("S2", "happiness", "happiness")]
SECOND = [("S3", "anger", "anger")]


@pytest.fixture
def store(tmp_path) -> Store:
    return Store(tmp_path / "runs")


def ours(report: Report) -> list[list[str]]:
    """Our rows of the first table."""
    return [row for row in grid(report, "Accuracy") if row[0].startswith("▸")]


def grid(report: Report, caption: str) -> list[list[str]]:
    """The cells of the one table whose caption begins so."""
    (found,) = [rows for title, _, rows in grids(tables(report)) if title.startswith(caption)]
    return found


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_pooling_folds_is_the_metrics_of_all_predictions_together(tmp_path_factory, seed):
    store = Store(tmp_path_factory.mktemp("runs"))
    rng = np.random.default_rng(seed)
    names = ("01", "02", "03")
    everyone = []
    for fold in names:
        rows = [
            (f"S{fold}{rng.integers(3)}", CLASSES[rng.integers(7)], CLASSES[rng.integers(7)])
            for _ in range(rng.integers(1, 20))
        ]
        store_fold(store, fold, rows, folds=names)
        everyone += rows
    ((training,),) = [report.trainings for report in build(store)]
    whole = pd.DataFrame(everyone, columns=["subject", "truth", "prediction"])
    matrix = metrics.confusion(whole["truth"], whole["prediction"], CLASSES)
    assert (training.matrix == matrix).all()
    assert training.accuracy == (whole["truth"] == whole["prediction"]).mean()
    assert training.metrics["macro_f1"] == metrics.macro_f1(matrix)
    assert training.metrics["balanced_accuracy"] == metrics.balanced_accuracy(matrix)
    assert training.interval == metrics.subject_interval(whole)
    assert training.interval.low <= training.accuracy <= training.interval.high
    assert (training.images, training.subjects) == (len(whole), whole["subject"].nunique())
    sizes = [fold.images for fold in training.folds]
    assert np.average([fold.accuracy for fold in training.folds], weights=sizes) == pytest.approx(training.accuracy)


def test_every_cell_of_a_whole_training(store):
    key = store_fold(store, "01", FIRST)
    other = store_fold(store, "02", SECOND)
    (report,) = build(store)
    experiment = report.trainings[0].experiment
    interval = metrics.subject_interval(pd.concat([store.predictions(key), store.predictions(other)]))
    assert grid(report, "Accuracy")[1] == [
        "Cov3D",
        "92.30",
        "",
        "",
        "",
        "",
        "Table 2: sequences, n unknown; not run here: "
        "it reads whole sequences, and CK+48 has the last three frames of each",
    ]
    span = f"{100 * interval.low:.2f}–{100 * interval.high:.2f}"  # a sequence of one image is its image
    assert ours(report) == [
        [
            "▸ WS-LGAN (tiny, seed 0)",
            "98.06",
            "75.00",
            span,
            "75.00",
            span,
            f"n = 4 images, 4 sequences; ckplus@1; {experiment}",
        ]
    ]
    # Recalls: anger 2/2, fear 0/1, happiness 1/1. F1: anger 2·2/(2+3), fear 0, happiness 1.
    assert grid(report, "Ours in detail") == [
        [
            "▸ WS-LGAN (tiny, seed 0)",
            "4",
            "3",
            "2/2",
            "83.33 ± 23.57",
            "66.67",
            "60.00",
            "15.00",  # 3 of 4 are correct, all with a probability of 0.9
            "75.00 of 4",
            "fear 0.00 of 1",
            "S1 50.00 of 2",
            "98.06: -23.06",
            "1,234,567",
            "fp32",
            "cpu: test, 1 thread",
        ]
    ]
    assert grid(report, "WS-LGAN (tiny, seed 0): confusion in percent")[:2] == [
        ["An", "100.0", "0", "0", "0", "0", "0", "0", "2"],
        ["Co", "–", "–", "–", "–", "–", "–", "–", "0"],
    ]
    assert grid(report, "WS-LGAN (tiny, seed 0): confusion in images")[3] == ["Fe", "1", "0", "0", "0", "0", "0", "0"]
    assert grid(report, "WS-LGAN (tiny, seed 0): 2/2 folds") == [
        ["01", "3", "2", "66.67", "Co Di Sa Su", "2", key],
        ["02", "1", "1", "100.00", "Co Di Fe Ha Sa Su", "2", other],
    ]
    assert grid(report, "Published (Table 3): counts of images")[5] == ["Sa", "7", "0", "0", "3", "0", "74", "0"]
    assert not any(
        title.startswith(("Missing folds", "What the folds", "Over seeds")) for title, *_ in grids(tables(report))
    )


def test_a_small_report_to_the_letter(store):
    """A protocol without published figures and one training of one fold of one person."""
    key = store_fold(
        store,
        "01",
        [("S1", "anger", "anger"), ("S1", "fear", "anger")],
        folds=("01",),
        protocol="synth@1",
        facts={"notes": ["contempt is rare"], "published": ""},
    )
    (report,) = build(store)
    experiment = report.trainings[0].experiment
    text = markdown(sections([report]))
    head, accuracy, *_ = text.split("\n\n**")
    assert head == (
        "# synth\n\n"
        "- The faces are drawn by ferbench. No published figure is comparable, and these figures say nothing about how well "
        "people's expressions are recognised.\n"
        "- Protocol synth@1: step, 1 folds by subject; no subject is in both training and test set, every image of the test set is "
        "tested once. Fold file ffffffffffff, data dddddddddddd.\n"
        "- Weights tested: last epoch. No test image was used to choose them.\n"
        "- There is one training.\n"
        "- Accuracy is pooled over all test images of all folds, as in the paper, and computed from stored "
        "predictions. Intervals are 95 %, with subjects as clusters where they are known.\n"
        "- Note: contempt is rare."
    )
    assert accuracy == (
        "Accuracy on synth, percent: ours, on drawn faces, for which nothing is published (▸)**\n\n"
        "| Method                   |   By image | 95 % interval     |   By sequence | 95 %, by sequence   | "
        "Details                                      |\n"
        "|--------------------------|------------|-------------------|---------------|---------------------|-"
        "---------------------------------------------|\n"
        "| ▸ WS-LGAN (tiny, seed 0) |      50.00 | none: one subject |         50.00 | none: one subject   | "
        f"n = 2 images, 2 sequences; synth@1; {experiment} |"
    )
    assert "| 01     |        2 |          1 |      50.00 | Co Di Ha Sa Su    |         2 |" in text
    assert key in text


def test_a_training_without_all_folds_is_shown_and_not_compared(store):
    store_fold(store, "01", FIRST)
    store.begin(_identity_of_fold(store, "02"))
    (report,) = build(store)
    assert ours(report)[0][1:3] == ["", "66.67 (1/2 folds)"]  # beside no published figure
    assert grid(report, "Ours in detail")[0][4] == "one fold"
    assert grid(report, "Ours in detail")[0][11] == "98.06: folds missing"
    assert "not compared" in "\n".join(heading(report))
    assert grid(report, "Missing folds") == [
        [
            "WS-LGAN (tiny, seed 0)",
            "02",
            "begun, not finished",
            "ferbench train wslgan --dataset ckplus --seed 0 --folds 02",
        ]
    ]
    assert "| `ferbench train wslgan --dataset ckplus --seed 0 --folds 02` |" in markdown(sections([report]))


def _identity_of_fold(store: Store, fold: str):
    return store.records()[0].identity.model_copy(update={"fold": fold})


def test_a_training_that_only_failed_is_a_hole(store):
    store_fold(store, "01", [], error="RuntimeError: a | b [red]")
    (report,) = build(store, "ckplus")
    assert report.trainings == []
    assert grid(report, "Missing folds") == [
        ["wslgan (tiny, seed 0)", "01", "RuntimeError: a | b [red]", "the same command again"]
    ]
    assert "a \\| b [red]" in markdown(sections([report]))


def test_a_fold_that_is_trained_again_is_no_hole_any_more(store):
    store_fold(store, "01", [], error="boom")
    store_fold(store, "01", FIRST)
    store_fold(store, "02", SECOND)
    assert build(store)[0].missing_folds == []


def test_seeds_are_one_variant_although_their_parents_differ(store):
    for seed in (0, 1):
        amg = store_stage(store, "attention", seed)
        start = store_stage(store, "pretrain", seed, parents={"attention": amg})
        for fold, rows in (("01", FIRST), ("02", SECOND if seed else [("S3", "anger", "fear")])):
            store_fold(store, fold, rows, seed, parents={"attention": amg, "pretrain": start})
    (report,) = build(store)
    (over,) = report.seeds
    assert (over.seeds, over.mean) == ([0, 1], pytest.approx((0.5 + 0.75) / 2))
    assert report.varying == {"seed": ["0", "1"]}
    # S3: anger has (0.1/6 + 0.9)/2 and fear the same, so the first of both, which is right: 3 of 4.
    assert over.ensemble == 0.75
    interval = metrics.subject_interval(pd.DataFrame(FIRST + SECOND, columns=["subject", "truth", "prediction"]))
    assert over.ensemble_interval == interval
    # FIRST has one error with either seed; that of S3 is seed 0's alone.
    (wrong,) = (subject for subject, truth, prediction in FIRST if truth != prediction)
    assert grid(report, "Over seeds")[0][:7] == [
        "▸ WS-LGAN (tiny)",
        "62.50 ± 17.68",
        "2",
        f"75.00 ({100 * interval.low:.2f}–{100 * interval.high:.2f})",
        f"1 of 4 images ({wrong})",
        "2",
        "0, 1",
    ]
    stages = grid(report, "What the folds start from")
    assert [row[:6] for row in stages[:2]] == [
        ["attention", "celeba@1", "0", "400", "3", "eyes 50.00 of 40; mouth 50.00 of 40"],
        ["pretrain", "fer2013@1", "0", "400", "3", "50.00 of 40"],
    ]
    assert len(stages) == 4


def test_presets_of_one_seed_are_averaged_where_each_has_one_recipe(store):
    sure, other = [("S3", "anger", "anger")], [("S3", "anger", "fear")]
    for seed in (0, 1):
        for preset, rows in (("tiny", sure), ("wide", other), ("light", other)):
            if (seed, preset) != (1, "light"):
                store_fold(store, "01", FIRST, seed, preset=preset)
                store_fold(store, "02", rows, seed, preset=preset)
    (report,) = build(store)
    (found,) = report.preset_ensembles
    # Only seed 0 has all three: two of them say fear of S3, so FIRST alone is right, 2 of 4.
    assert (found.presets, found.seeds, found.accuracies) == (["light", "tiny", "wide"], [0], [0.5])
    assert (found.mean, found.std) == (0.5, 0.0)
    wrong = pd.DataFrame(FIRST + other, columns=["subject", "truth", "prediction"])
    assert found.intervals == [metrics.subject_interval(wrong)]
    assert grid(report, "Presets together")[0][:3] == ["▸ WS-LGAN (light + tiny + wide)", "50.00", "1"]
    for fold, rows in (("01", FIRST), ("02", sure)):
        store_fold(store, fold, rows, 0, preset="tiny", recipe={"stage": {"epochs": 4}})
    assert build(store)[0].preset_ensembles == []


def test_a_training_without_all_folds_is_left_out_of_the_seeds(store):
    for seed in (0, 1):
        store_fold(store, "01", FIRST, seed)
    store_fold(store, "02", SECOND, 0)
    assert build(store)[0].seeds == []


@pytest.mark.parametrize(
    ("more", "varying"),
    [
        ({"recipe": {"stage": {"epochs": 20}}}, {"recipe.stage.epochs": ["3", "20"]}),
        ({"selection": "best-val"}, {"selection": ["best-val", "last"]}),
        ({"precision": "bf16"}, {"precision": ["bf16", "fp32"]}),
        ({"code": 2}, {"code": ["1", "2"]}),
    ],
)
def test_trainings_that_differ_in_more_than_their_seed_stay_apart(store, more, varying):
    for seed, change in ((0, {}), (1, more)):
        store_fold(store, "01", FIRST, seed, **change)
        store_fold(store, "02", SECOND, seed, **change)
    (report,) = build(store)
    assert report.seeds == []
    assert report.varying == {"seed": ["0", "1"], **varying}


def test_a_pretraining_that_differs_or_is_left_out_stays_apart(store):
    short, long = (store_stage(store, "pretrain", epochs=epochs) for epochs in (3, 7))
    for seed, parents in ((0, {"pretrain": short}), (1, {"pretrain": long})):
        store_fold(store, "01", FIRST, seed, folds=("01",), parents=parents)
    assert build(store)[0].varying == {"seed": ["0", "1"], "pretrain.recipe.stage.epochs": ["3", "7"]}
    store_fold(store, "01", FIRST, 2, folds=("01",))
    (report,) = build(store)
    assert report.varying["pretrain"] == ["none", "used"]
    assert report.seeds == []


def test_names_tell_trainings_apart_by_experiment_only_where_they_must(store):
    store_fold(store, "01", FIRST)
    assert ours(build(store)[0])[0][0] == "▸ WS-LGAN (tiny, seed 0)"
    store_fold(store, "01", FIRST, recipe={"stage": {"epochs": 20}})
    (report,) = build(store)
    names = [row[0] for row in ours(report)]
    assert names == [f"▸ WS-LGAN (tiny, seed 0, {t.experiment})" for t in report.trainings]


def test_unknown_subjects_are_said(store):
    store_fold(
        store,
        "official",
        [("", "anger", "anger"), ("", "fear", "anger")],
        folds=("official",),
        protocol="rafdb@1",
        facts={"rule": "official split"},
    )
    (report,) = build(store)
    assert report.trainings[0].interval.over == "images"
    assert ours(report)[0][3].endswith(" over images")
    row = grid(report, "Ours in detail")[0]
    assert (row[2], *row[8:12]) == ("unknown", "unknown", "fear 0.00 of 1", "unknown", "85.07: -35.07")
    assert "may be in training and test sets" in heading(report)[0]
    (plain,) = json.loads(json_text([report]))
    assert plain["trainings"][0]["sequence_accuracy"] is None


def test_protocols_are_reported_apart(store):
    store_fold(store, "01", FIRST)
    store_fold(store, "01", FIRST, protocol="oulu@1")
    assert [report.dataset for report in build(store)] == ["ckplus", "oulu"]
    assert [report.published[-1].accuracy for report in build(store, "oulu")] == [88.26]


def test_devices_are_all_named(store):
    store_fold(store, "01", FIRST)
    key = store_fold(store, "02", SECOND)
    record = store.record(key)
    store.finish(record.model_copy(update={"environment": {"device": "another"}}))
    assert grid(build(store)[0], "Ours in detail")[0][-1] == "cpu: test, 1 thread; another"


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda frame: frame.drop(columns="p_fear"), "lack the column p_fear"),
        (lambda frame: frame.assign(truth="joy"), "name the class 'joy'"),
        (lambda frame: frame.iloc[:0], "are empty"),
    ],
)
def test_damaged_predictions_are_one_line_with_what_to_do(store, change, problem):
    key = store_fold(store, "01", FIRST)
    store.write_predictions(key, change(store.predictions(key)))
    store.finish(store.record(key))
    with pytest.raises(DataError, match=f"run {key} {problem}: delete .* and train again"):
        build(store)


def test_an_image_that_is_tested_twice_stops_the_report(store):
    key = store_fold(store, "01", FIRST)
    other = store_fold(store, "02", SECOND)
    store.write_predictions(other, store.predictions(key))
    store.finish(store.record(other))
    with pytest.raises(DataError, match="tests 01-000 more than once"):
        build(store)


def test_the_results_at_the_end_of_a_command_are_those_of_the_report_and_no_other_training_is_read(store):
    key, other = store_fold(store, "01", FIRST), store_fold(store, "02", SECOND)
    (report,) = build(store)
    incomplete = store_fold(store, "01", FIRST, seed=1)
    damaged = store_fold(store, "01", FIRST, seed=2)
    (store.folder(damaged) / "predictions.csv").unlink()
    (line,) = headlines(store, "ckplus", [other, incomplete])
    assert line.startswith("WS-LGAN (tiny, seed 0): ")
    assert f"{100 * report.trainings[0].accuracy:.2f} % of {report.trainings[0].n}" in line
    assert "ckplus@1, last epoch; published 98.06 %" in line
    assert headlines(store, "ckplus", [key, other]) == [line]
    assert trainings_of(store, [key])[0].folds == report.trainings[0].folds
