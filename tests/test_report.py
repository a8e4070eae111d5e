"""Reports from records and predictions written by hand: no training, no torch."""

import json
from pathlib import Path

import pandas as pd
import pytest
from support.command import watched

from ferbench.errors import DataError, UsageError
from ferbench.report.build import build
from ferbench.report.conclusions import sections
from ferbench.report.formats.text import markdown
from ferbench.report.verbs import list_runs, write_report
from ferbench.runs.record import Identity, Record
from ferbench.runs.store import Store

CLASSES = ["anger", "contempt", "disgust", "fear", "happiness", "sadness", "surprise"]


def store_fold(
    store: Store, fold: str, predictions: list[tuple[str, str, str]], seed: int = 0, error: str = "", **more
) -> str:
    """Store one fold: (subject, truth, prediction) a row."""
    identity = Identity(
        kind="fold",
        method="wslgan",
        preset="tiny",
        recipe={"stage": {"epochs": 3}},
        protocol="ckplus@1",
        data="d" * 64,
        split="f" * 64,
        fold=fold,
        seed=seed,
        precision="fp32",
        code=1,
        **more,
    )
    store.begin(identity)
    if not error:
        store.write_predictions(
            identity.key,
            pd.DataFrame(
                [
                    {
                        "id": f"{fold}-{i}",
                        "subject": s,
                        "sequence": f"{s}-{t}",
                        "truth": t,
                        "prediction": p,
                        **{f"p_{name}": 0.9 if name == p else 0.1 / 6 for name in CLASSES},
                    }
                    for i, (s, t, p) in enumerate(predictions)
                ]
            ),
        )
    facts = {
        "display": "WS-LGAN",
        "published": "WS-LGAN",
        "command": "ferbench train wslgan --dataset ckplus --preset tiny",
        "folds": ["01", "02"],
        "rule": "step, 2 folds by subject",
        "split_hash": "f" * 64,
        "test_subjects": 1,
        "notes": [],
        "parameters": 1000,
    }
    store.finish(
        Record(
            key=identity.key,
            experiment=identity.experiment,
            identity=identity,
            dataset="ckplus",
            classes=CLASSES,
            environment={"device": "cpu: test, 1 thread"},
            facts={} if error else facts,
            timings={"training": 2.0},
            result={"accuracy": 0.5, "images": 2},
            error=error,
        )
    )
    return identity.key


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "runs")


FIRST = [("S1", "anger", "anger"), ("S1", "fear", "anger"), ("S2", "happiness", "happiness")]
SECOND = [("S3", "anger", "anger")]


def test_pooled_figures_are_those_of_all_folds_together(store):
    store_fold(store, "01", FIRST)
    store_fold(store, "02", SECOND)
    (report,) = build(store)
    (training,) = report.trainings
    assert training.accuracy == 0.75
    assert training.fold_mean == pytest.approx((2 / 3 + 1) / 2)
    assert (training.images, training.subjects, training.sequences, training.whole) == (4, 3, 4, True)
    assert training.matrix[0, 0] == 2
    assert training.matrix[3, 0] == 1
    assert report.missing_folds == []
    assert training.folds[1].absent == ["Co", "Di", "Fe", "Ha", "Sa", "Su"]


def test_missing_and_failed_folds_are_holes_with_their_command(store):
    store_fold(store, "01", FIRST)
    store_fold(store, "02", [], error="RuntimeError: no memory")
    (report,) = build(store)
    (hole,) = report.missing_folds
    assert (hole.fold, hole.reason) == ("02", "RuntimeError: no memory")
    assert hole.command == "ferbench train wslgan --dataset ckplus --preset tiny --folds 02"
    assert "1/2 folds" in markdown(sections([report]))


def test_seeds_of_one_recipe_are_aggregated_and_others_are_not(store):
    for seed, rows in ((0, SECOND), (1, [("S3", "anger", "fear")])):
        store_fold(store, "01", FIRST, seed)
        store_fold(store, "02", rows, seed)
    (report,) = build(store)
    assert len(report.trainings) == 2
    (over,) = report.seeds
    assert (over.seeds, over.mean) == ([0, 1], pytest.approx((0.75 + 0.5) / 2))
    assert over.std == pytest.approx(0.25 / 2**0.5)


def test_markdown_says_what_was_done(store):
    store_fold(store, "01", FIRST)
    store_fold(store, "02", SECOND)
    text = markdown(sections(build(store)))
    assert "| ▸ WS-LGAN (tiny, seed 0)" in text
    assert "75.00" in text
    assert "Published (Table 3)" in text
    assert "962 of 981" in text
    assert "step, 2 folds by subject" in text
    assert "last epoch" in text
    row = next(line for line in text.splitlines() if line.startswith("| Fe "))  # ours comes first
    assert [cell.strip() for cell in row.strip("|").split("|")] == ["Fe", "100.0", "0", "0", "0", "0", "0", "0", "1"]


def test_json_is_one_document_with_the_same_figures(store, capsys):
    store_fold(store, "01", FIRST)
    store_fold(store, "02", SECOND)
    write_report("ckplus", "json", None, store.home)
    (report,) = json.loads(capsys.readouterr().out)
    assert report["trainings"][0]["accuracy"] == 0.75
    assert report["published"][0]["method"] == "HOG 3D"
    list_runs(store.home, "json")
    assert [row["state"] for row in json.loads(capsys.readouterr().out)] == ["done", "done"]


def test_the_report_is_written_whole_and_console_shows_it(store, tmp_path, capsys):
    store_fold(store, "01", FIRST)
    write_report(None, "markdown", tmp_path / "deep" / "report.md", store.home)
    assert (tmp_path / "deep" / "report.md").read_text().startswith("# ckplus")
    write_report(None, "console", None, store.home)
    assert "WS-LGAN" in capsys.readouterr().out
    with pytest.raises(UsageError, match="--out"):
        write_report(None, "console", tmp_path / "x", store.home)
    with pytest.raises(UsageError, match="unknown format"):
        write_report(None, "pdf", None, store.home)


def test_nothing_there_says_how_to_begin(store, capsys):
    write_report(None, "console", None, store.home)
    assert "ferbench train wslgan --dataset synth" in capsys.readouterr().out
    with pytest.raises(DataError, match="ferbench train wslgan --dataset oulu"):
        write_report("oulu", "console", None, store.home)


def test_states_are_read_off_the_files(store):
    key = store_fold(store, "01", FIRST)
    assert store.state(key) == "done"
    (store.folder(key) / "record.json").unlink()
    assert store.state(key) == "partial"
    assert [identity.fold for identity in store.unfinished()] == ["01"]
    assert store.state("nothing") == "absent"
    assert store.state(store_fold(store, "02", [], error="boom")) == "failed"
    with pytest.raises(UsageError, match="no finished run"):
        store.find("zz")


def test_predictions_survive_the_file_exactly(store):
    key = store_fold(store, "01", FIRST)
    frame = store.predictions(key)
    assert frame["subject"].tolist() == ["S1", "S1", "S2"]
    assert frame["p_anger"].tolist() == [0.9, 0.9, 0.0166666667]  # nine digits: all that a float32 has


def test_a_hundred_runs_are_reported_without_torch_and_each_file_is_opened_once(store, tmp_path):
    for number in range(100):
        store_fold(store, f"{number % 2 + 1:02d}", FIRST * 30, seed=number)
    opened, loaded = watched(store.home, "report", "--format", "json", "--out", "r.json", cwd=tmp_path)
    assert len(opened) > 100
    assert max(opened.values()) == 1
    assert loaded == []
