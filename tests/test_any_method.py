"""Reports of whatever method: sequences beside images, what each has seen, and what may stand beside a published figure."""

import json

import pandas as pd
import pytest
from support.command import ferbench
from support.runs import CLASSES, grids, store_fold, store_stage

from ferbench import metrics
from ferbench.data.synthetic import SYNTHETIC
from ferbench.report import published
from ferbench.report.build import build
from ferbench.report.conclusions import heading
from ferbench.report.formats.html import page
from ferbench.report.table import text
from ferbench.report.tables import overview, tables
from ferbench.report.tested_runs import TestedRun, is_synthetic
from ferbench.runs.store import Store

PEOPLE = [f"S{n}" for n in range(6)]
WHOLE = {"level": "sequence", "sees": "whole + landmarks", "display": "DTAGN", "published": "DTAGN"}
FEW = {"level": "sequence", "sees": "3 frames", "display": "HOG 3D", "published": "HOG 3D"}


@pytest.fixture
def store(tmp_path) -> Store:
    return Store(tmp_path / "runs")


def lay(store: Store, wrong: int = 0, frames: int = 3, facts=None, **more) -> str:
    """A training of two folds, each person with two sequences; of the first people all frames of one are wrong. Sequences
    have one prediction. Returns its experiment."""
    count = 1 if (facts or {}).get("level") == "sequence" else frames
    for fold, people in (("01", PEOPLE[:3]), ("02", PEOPLE[3:])):
        rows = [
            (s, t, "fear" if t == "anger" and s in PEOPLE[:wrong] else t)
            for s in people
            for t in ("anger", "surprise")
            for _ in range(count)
        ]
        key = store_fold(store, fold, rows, facts=facts, **more)
    return store.record(key).experiment


def lay_sequences(store: Store, wrong: int = 0, facts=None, **more) -> str:
    more = {"method": "dtagn", "protocol": "ckplus-sequences@1", "split": "e" * 64, "recipe": {"frames": 12}} | more
    return lay(store, wrong, facts=WHOLE | (facts or {}), **more)


def rows_of(report, caption: str) -> list[dict[str, str]]:
    (found,) = [(header, rows) for title, header, rows in grids(tables(report)) if title.startswith(caption)]
    return [dict(zip(found[0], row, strict=True)) for row in found[1]]


def row(report, name: str, caption: str = "Accuracy") -> dict[str, str]:
    (found,) = [row for row in rows_of(report, caption) if next(iter(row.values())).startswith(name)]
    return found


def test_a_run_of_before_is_of_images_held_out_and_trained_on_what_its_parents_were(store):
    amg = store_stage(store, "attention")
    teacher = store_stage(store, "teacher of features", protocol="mine@2", recipe={"C": 1.0})
    start = store_stage(store, "pretrain", parents={"attention": amg, "teacher wide": teacher})
    key = store_fold(store, "01", [("S1", "anger", "anger")], parents={"pretrain": start, "other": "0" * 16})
    facts = TestedRun.of(store.record(key), store.known())
    assert (facts.level, facts.sees, str(facts.held_out), facts.uncalibrated, facts.differs) == (
        "image",
        "image",
        "by name",
        False,
        [],
    )
    assert facts.trained_on == ["celeba@1", "mine@2", "fer2013@1", "run 0000000000000000", "ckplus@1"]
    assert (facts.method, facts.published) == ("WS-LGAN", "WS-LGAN")
    key = store_fold(store, "02", [("S1", "anger", "anger")], facts={"method": {"differs": ["It is smaller."]}})
    assert TestedRun.of(store.record(key), {}).differs == ["It is smaller."]
    rows = [("S1", "anger", "anger")]
    key = store_fold(
        store, "01", rows, seed=1, facts={"changed": ["epochs=9"], "command": "ferbench train wslgan --epochs 7"}
    )
    assert TestedRun.of(store.record(key), {}).changed == ["epochs=9"]  # what was stored, not what the command says


def test_images_and_sequences_stand_in_one_report_in_columns_of_their_own(store):
    lay(store, wrong=2)
    lay_sequences(store, wrong=1)
    (report,) = build(store, "ckplus")
    assert report.protocols == ["ckplus-sequences@1", "ckplus@1"]
    images, sequences = row(report, "▸ WS-LGAN"), row(report, "▸ DTAGN")
    assert (images["By image"], images["By sequence"]) == ("83.33", "83.33")  # 30 of 36 and 10 of 12
    assert (sequences["By image"], sequences["95 % interval"], sequences["By sequence"]) == ("", "", "91.67")
    assert images["Details"].startswith("n = 36 images, 12 sequences; ckplus@1")
    assert sequences["Details"].startswith("n = 12 sequences; ckplus-sequences@1")
    training = next(t for t in report.trainings if t.level == "sequence")
    assert (training.images, training.sequences, training.sequence_accuracy) == (0, 12, training.accuracy)
    frames = [store.predictions(fold.run) for t in report.trainings if t.level == "image" for fold in t.folds]
    whole = metrics.by_sequence(pd.concat(frames), CLASSES)
    interval = metrics.subject_interval(whole)
    assert images["95 %, by sequence"] == f"{100 * interval.low:.2f}–{100 * interval.high:.2f}"
    told_of = "\n".join(heading(report))
    assert "every sequence of the test set is tested once" in told_of
    assert "compared by this accuracy only" in told_of
    assert page([report], store).count("whole sequences, percent") == 2


def test_a_protocol_of_sequences_is_reported_alone_when_it_is_named(store):
    lay(store)
    lay_sequences(store)
    (report,) = build(store, "ckplus-sequences")
    assert ([t.method for t in report.trainings], report.dataset) == (["DTAGN"], "ckplus-sequences")
    assert {row.feature for row in report.published} == {"dynamic"}
    assert "PHRNN-MSCNN" in {one.method for one in report.compared}
    assert "IL-CNN" not in {one.method for one in report.compared}
    assert [report.dataset for report in build(store)] == ["ckplus"]


def test_published_figures_stand_beside_what_is_of_their_kind_alone(store):
    lay_sequences(store)
    lay_sequences(store, facts=FEW, method="hog3d")
    (report,) = build(store, "ckplus")
    assert row(report, "▸ DTAGN")["Published"] == "97.25"
    assert row(report, "▸ HOG 3D (3 frames) (tiny")["Published"] == ""
    assert row(report, "HOG 3D")["Details"] == "Table 2: 327 sequences; ours is not comparable: 3 frames only"
    details = rows_of(report, "Ours of whole sequences")
    assert [one["Published: difference"] for one in details] == ["97.25: +2.75", "91.44: 3 frames only"]
    assert "Images" not in details[0]


@pytest.mark.parametrize(("held", "said"), [(False, "not held out"), ("unknown", "not known to be held out")])
def test_what_is_not_held_out_is_marked_and_compared_with_nothing(store, held, said):
    lay(store, facts={"held_out": held, "trained_on": ["everything"]})
    lay(store, method="gfnet", facts={"display": "GFNet", "published": "GFNet"})
    lay(store, method="gfnet", protocol="oulu@1", facts={"display": "GFNet", "published": ""})
    report = build(store, "ckplus")[0]
    first = row(report, "▸ WS-LGAN")
    assert first["Published"] == ""
    assert first["Details"].endswith(said)
    assert row(report, "▸ WS-LGAN", "Ours in detail")["Published: difference"] == f"98.06: {said}"
    seen = row(report, "▸ WS-LGAN", "Input and training data")
    assert (seen["Trained on"], seen["Held out"]) == ("everything", "no (by name)" if held is False else "unknown")
    assert row(report, "▸ GFNet", "Input and training data")["Held out"] == "by name"
    assert not any(title.startswith("Same training data") for title, *_ in grids(tables(report)))
    table = overview(build(store))
    assert table is not None
    assert [cells[0] for cells in table.rows] == ["▸ GFNet (tiny)"]


def test_methods_of_one_data_side_are_put_in_order_by_sequences(store):
    for seed in (0, 1):
        lay(store, wrong=2 + seed, seed=seed)
    lay_sequences(store, wrong=1)
    lay(store, wrong=0, method="svm", preset="own", facts={"display": "HOG + linear SVM", "published": ""})
    (report,) = build(store)
    found = rows_of(report, "Same training data, preset tiny")
    assert [(one["Training"], one["By image"], one["By sequence"], one["Seeds"], one["Input"]) for one in found] == [
        ("▸ DTAGN", "", "91.67", "1", "whole + landmarks"),
        ("▸ WS-LGAN", "79.17 ± 5.89", "79.17 ± 5.89", "2", "image"),
    ]
    assert len([title for title, *_ in grids(tables(report)) if title.startswith("Same training data")]) == 1


def test_trainings_that_were_not_tested_on_the_same_are_not_put_side_by_side(store):
    lay(store)
    key = lay_sequences(store)
    lay_sequences(store, method="other", facts={"display": "Other", "published": ""})
    record = next(r for r in store.records() if r.experiment == key)
    store.write_predictions(record.key, store.predictions(record.key).iloc[1:])
    store.finish(record)
    (report,) = build(store)
    found = rows_of(report, "Same training data")
    assert sorted(one["Training"] for one in found) == ["▸ Other", "▸ WS-LGAN"]


@pytest.mark.parametrize("dataset", ["ckplus", "oulu", "rafdb"])
def test_every_compared_method_has_a_row_with_ours_or_the_reason(store, dataset):
    lay(store, protocol=f"{dataset}@1")
    (report,) = build(store, dataset)
    assert len(published.compared()) == 21
    shown = {one["Method"]: one for one in rows_of(report, "Accuracy")}
    figures = {row.method: text(row.cell, "percent") for row in published.rows(dataset)}
    for method in published.compared():
        assert shown[method]["Published"] == figures.get(method, "")
        assert "not run here" in shown[method]["Details"]
    names = {one["methods"][0] for one in published._compared()["reason"]}
    assert names <= {*published.compared()}


def _oulu(store: Store):
    lay(store, protocol="oulu@1")
    return build(store, "oulu")[0]


def test_reasons_and_commands_are_those_of_the_set(store):
    lay(store, protocol="rafdb@1")
    lay(store)
    reports = {report.dataset: report for report in build(store)}
    why = {one.method: (one.why, one.command) for one in reports["ckplus"].compared}
    assert why["PHRNN-MSCNN"] == ("not run here: CK+48 has no landmarks and no onset", "")
    assert why["WS-LGAN"] == ("", "")
    oulu = {one.method: one.command for one in _oulu(store).compared}
    assert oulu["HOG 3D"] == "ferbench train hog3d --dataset oulu-sequences"
    assert why["GFNet"] == ("not run here", "ferbench train gfnet --dataset ckplus")
    assert {one.method: one.why for one in reports["rafdb"].compared}["HOG 3D"].endswith("RAF-DB has single images")
    assert "ferbench train gfnet --dataset ckplus" in row(reports["ckplus"], "GFNet")["Details"]


def test_a_slip_is_shown_with_what_should_stand_there_and_ours_is_compared_with_that(store):
    lay_sequences(store, protocol="oulu-sequences@1")
    (report,) = build(store, "oulu")
    assert row(report, "DTAGN")["Published"] == "81.86 (81.46)"
    assert row(report, "▸ DTAGN")["Published"] == "81.46"
    assert rows_of(report, "Ours of whole")[0]["Published: difference"] == "81.46: +18.54"
    assert any(line.startswith("Table 4: DTAGN should have 81.46 instead of 81.86") for line in report.errata)


def test_a_method_without_epochs_or_parameters_is_reported(store, tmp_path):
    seen = store_stage(store, "codebook", recipe={"words": 500})
    lay(
        store,
        method="bow",
        recipe={"C": 1.0},
        parents={"codebook": seen},
        facts={
            "display": "HOG + linear SVM",
            "published": "",
            "parameters": 0,
            "uncalibrated": True,
            "differs": ["No codebook was printed: ours has 500 words."],
        },
    )
    (report,) = build(store)
    assert row(report, "▸ HOG", "Ours in detail")["Parameters"] == "–"
    assert row(report, "▸ HOG", "Input and training data")["Scores"] == "uncalibrated"
    assert "ECE" not in row(report, "▸ HOG", "Ours in detail")
    assert "ece" not in ferbench("report", "--format", "model-card", cwd=tmp_path).stdout
    assert rows_of(report, "What the folds start from")[0]["Epochs"] == "–"
    assert rows_of(report, "What differs")[0]["Difference"] == "No codebook was printed: ours has 500 words."
    ferbench("report", "--figures", "figures", cwd=tmp_path)
    drawn = {path.name for path in (tmp_path / "figures").glob("*.png")}
    assert not any("reliability" in name or "curves" in name for name in drawn)
    assert "ckplus-confusion-hog-linear-svm-tiny-seed-0.png" in drawn


def test_drawn_faces_are_said_and_nothing_published_is_beside_them(store, tmp_path):
    assert all(is_synthetic(name) for name in SYNTHETIC)
    lay_sequences(store, protocol="synth-sequences@1")
    words = ("report", "--dataset", "synth-sequences", "--format", "markdown", "--out", "r.md")
    ferbench(*words, cwd=tmp_path)
    text = (tmp_path / "r.md").read_text()
    assert "\n\n# synth-sequences\n\n- The faces are drawn by ferbench. No published figure is comparable" in text
    assert "97.25" not in text
    assert "By image" not in text


@pytest.mark.parametrize("format", ["markdown", "latex", "csv", "html", "json", "console"])
def test_every_format_carries_what_is_new(store, tmp_path, format):
    lay(store, wrong=2)
    lay_sequences(store, wrong=1)
    told_of = ferbench("report", "--dataset", "ckplus", "--format", format, cwd=tmp_path).stdout
    words = [
        "DTAGN",
        "landmarks",
        "Input" if format != "json" else "sees",
        "Held out" if format != "json" else "held_out",
    ]
    for word in words if format == "console" else [*words, "ckplus-sequences@1", "CK+48 has no landmarks and no onset"]:
        assert word in told_of, word
    if format == "json":
        (report,) = json.loads(told_of)
        (one,) = [t for t in report["trainings"] if t["level"] == "sequence"]
        assert (one["sees"], one["trained_on"], one["held_out"], one["images"]) == (
            "whole + landmarks",
            ["ckplus-sequences@1"],
            "by name",
            0,
        )
        assert {"method", "experiments", "why", "command"} == set(report["compared"][0])
