"""``ferbench report`` and ``ferbench runs`` as a user meets them."""

import json
import subprocess
import sys

import pytest
from support.command import output
from support.runs import store_fold, store_stage

from ferbench.errors import DataError, UsageError
from ferbench.runs.store import Store

FIRST = [("S1", "anger", "anger"), ("S2", "fear", "anger")]


@pytest.fixture
def store(tmp_path) -> Store:
    return Store(tmp_path / "runs")  # FERBENCH_RUNS of the tests


def test_json_has_its_documented_keys(store):
    store_fold(store, "01", FIRST)
    (report,) = json.loads(output("report", "--format", "json"))
    assert list(report) == [
        "dataset",
        "protocol",
        "protocols",
        "synthetic",
        "published",
        "compared",
        "published_matrix",
        "errata",
        "varying",
        "trainings",
        "seeds",
        "preset_ensembles",
        "stages",
        "missing_folds",
        "transfers",
        "leakage_folds",
        "contrasts",
    ]
    assert list(report["trainings"][0]) == [
        "method",
        "published",
        "level",
        "sees",
        "trained_on",
        "held_out",
        "uncalibrated",
        "differs",
        "changed",
        "preset",
        "protocol",
        "seed",
        "classes",
        "images",
        "held_out_accuracy",
        "held_out_count",
        "matrix",
        "accuracy",
        "balanced_accuracy",
        "macro_f1",
        "ece",
        "sequence_accuracy",
        "worst_class",
        "worst_subject",
        "recalls",
        "interval",
        "experiment",
        "variant",
        "name",
        "selection",
        "devices",
        "precision",
        "rule",
        "split_hash",
        "test_set",
        "data",
        "parameters",
        "folds",
        "expected",
        "fold_mean",
        "fold_std",
        "sequence_interval",
        "sequences",
        "subjects",
        "parents",
        "audit",
        "seen",
        "unseen_accuracy",
        "notes",
    ]
    interval = report["trainings"][0]["interval"]
    assert interval == {"low": pytest.approx(0.003, abs=1e-3), "high": pytest.approx(0.997, abs=1e-3)} | {
        "over": "subjects",
        "units": 2,
    }
    assert report["missing_folds"][0]["fold"] == "02"
    assert report["published_matrix"]["images"] == [135, 54, 177, 75, 207, 84, 249]


def test_runs_lists_every_state_and_cuts_no_key(store):
    amg = store_stage(store, "attention")
    done = store_fold(store, "01", FIRST, parents={"attention": amg})
    failed = store_fold(store, "02", [], error="RuntimeError: [red]no memory")
    begun = store.record(done).identity.model_copy(update={"fold": "02"})
    store.begin(begun)
    text = output("runs")
    assert all(key in text for key in (amg, done, failed, begun.key))
    assert "RuntimeError: [red]no memory" in text
    assert "50.00%" in text
    rows = {row["key"]: row for row in json.loads(output("runs", "--format", "json"))}
    assert {key: row["state"] for key, row in rows.items()} == {
        amg: "done",
        done: "done",
        failed: "failed",
        begun.key: "partial",
    }
    assert rows[done]["accuracy"] == 0.5
    assert rows[begun.key]["accuracy"] is None
    assert list(rows[done]) == [
        "key",
        "experiment",
        "kind",
        "method",
        "preset",
        "protocol",
        "fold",
        "selection",
        "seed",
        "state",
        "accuracy",
        "seconds",
        "error",
    ]


@pytest.mark.parametrize("words", [["runs"], ["report"], ["report", "--format", "markdown"]])
def test_nothing_there_says_how_to_begin(words):
    assert "`ferbench train wslgan --dataset synth`" in output(*words)
    assert output(*words).count("\n") == 1


@pytest.mark.parametrize("words", [["runs", "--format", "json"], ["report", "--format", "json"]])
def test_nothing_there_is_an_empty_list_in_json(words):
    assert json.loads(output(*words)) == []


def test_wrong_use_is_explained(store, tmp_path):
    store_fold(store, "01", FIRST)
    with pytest.raises(DataError, match="no fold of oulu .* `ferbench train wslgan --dataset oulu`"):
        output("report", "--dataset", "oulu")
    with pytest.raises(UsageError, match="unknown format 'pdf': it is console, markdown, latex, csv, json, html"):
        output("report", "--format", "pdf")
    with pytest.raises(UsageError, match="it is console or json"):
        output("runs", "--format", "markdown")
    with pytest.raises(UsageError, match="--out takes"):
        output("report", "--out", str(tmp_path / "x.md"))


def test_out_takes_the_very_text_that_is_printed(store, tmp_path):
    store_fold(store, "01", FIRST)
    for form in ("markdown", "json"):
        path = tmp_path / f"report.{form}"
        assert output("report", "--format", form, "--out", str(path)) == ""
        assert path.read_text() == output("report", "--format", form)


def test_the_console_shows_brackets_as_they_are(store):
    store_fold(store, "01", FIRST, facts={"notes": ["a [dim]note"]})
    assert "Note: a [dim]note." in output("report")


@pytest.mark.parametrize("count", [2, 21])
def test_a_terminal_shows_each_trainings_details_while_they_are_few(store, count):
    for seed in range(count):
        store_fold(store, "01", FIRST, folds=("01",), seed=seed)
    few = count == 2
    brief, whole = output("report"), output("report", "--format", "markdown")
    assert (f"of the {count} trainings are left out here" in brief) == (not few)
    assert brief.count(": confusion in images") == (count if few else 0)
    assert whole.count(": confusion in images") == count
    assert "left out here" not in whole


def test_a_report_loads_no_torch(store):
    store_fold(store, "01", FIRST)
    code = (
        "import sys; from ferbench.cli.main import app\n"
        "app(sys.argv[1:], standalone_mode=False)\n"
        "sys.exit(9 if {'torch', 'sklearn', 'matplotlib'} & set(sys.modules) else 0)"
    )
    for words in (["report"], ["report", "--format", "markdown"], ["runs"]):
        done = subprocess.run([sys.executable, "-c", code, *words, "--runs", str(store.home)], capture_output=True)
        assert done.returncode == 0, done.stderr
