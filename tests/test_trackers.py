"""Stored runs as TensorBoard and MLflow show them: the report's figures and the histories, one way."""

import struct
import sys
from pathlib import Path

import pytest
from support.command import ferbench
from support.runs import CLASSES, store_fold

from ferbench.errors import UsageError
from ferbench.report.build import build
from ferbench.report.formats import renderer
from ferbench.report.formats.trackers import logged
from ferbench.runs.store import Store

ROWS = [(f"S{n:02d}", truth, truth if n % 5 else "sadness") for n in range(10) for truth in CLASSES]
HISTORY = "epoch,lr,loss_total\n1,0.1,2.0\n2,0.05,1.0\n"


@pytest.fixture
def store(tmp_path) -> Store:
    store = Store(tmp_path / "runs")
    for fold, rows in (("01", ROWS[:35]), ("02", ROWS[35:])):
        key = store_fold(store, fold, rows)
        (store.folder(key) / "history.csv").write_text(HISTORY)
    return store


def events(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Read the scalars of an event file, the way TensorBoard does: length, checksum, message, checksum."""
    from tensorboardX.proto.event_pb2 import Event

    (path,) = folder.glob("events.*")
    content, place, found = path.read_bytes(), 0, {}
    while place < len(content):
        (size,) = struct.unpack_from("<Q", content, place)
        event = Event.FromString(content[place + 12 : place + 12 + size])
        for value in event.summary.value:
            if value.WhichOneof("value") == "simple_value":
                found.setdefault(value.tag, []).append((event.step, value.simple_value))
        place += size + 16
    return found


def test_tensorboard_has_each_training_and_each_fold_with_its_history(store, tmp_path):
    pytest.importorskip("tensorboardX")
    (report,) = build(store)
    (training,) = report.trainings
    told = ferbench("report", "--format", "tensorboard", "--out", "logs", cwd=tmp_path).stderr
    assert "wrote 3 runs to logs" in told
    folder = tmp_path / "logs" / "ckplus" / f"WS-LGAN-tiny-seed-0-{training.experiment}"
    whole = events(folder)
    assert whole["test/accuracy"] == [(0, pytest.approx(training.accuracy))]
    assert whole["test/accuracy__95___from"] == [(0, pytest.approx(training.interval.low))]
    fold = events(folder / "02")
    assert fold["training/loss_total"] == [(1, 2.0), (2, 1.0)]
    assert fold["training/lr"] == [(1, pytest.approx(0.1)), (2, pytest.approx(0.05))]
    assert fold["test/accuracy"] == [(2, pytest.approx(training.folds[1].accuracy))]


@pytest.mark.filterwarnings("ignore")  # of its libraries about each other
def test_mlflow_has_them_too_each_fold_below_its_training(store, tmp_path):
    pytest.importorskip("mlflow")
    pytest.importorskip("alembic")
    from mlflow.tracking import MlflowClient

    (report,) = build(store)
    (training,) = report.trainings
    assert renderer("mlflow")([report], store, tmp_path / "logs" / "mlflow.db") == 3
    client = MlflowClient(tracking_uri=f"sqlite:///{tmp_path / 'logs' / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("ckplus")
    found = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    whole = found.pop(f"WS-LGAN-tiny-seed-0-{training.experiment}")
    assert set(found) == {"01", "02"}
    assert whole.data.metrics["test/accuracy"] == pytest.approx(training.accuracy)
    assert whole.data.params["protocol"] == "ckplus@1"
    for run in found.values():
        assert run.data.tags["mlflow.parentRunId"] == whole.info.run_id
        losses = client.get_metric_history(run.info.run_id, "training/loss_total")
        assert [(one.step, one.value) for one in losses] == [(1, 2.0), (2, 1.0)]


@pytest.mark.parametrize("kind", ["tensorboard", "mlflow"])
def test_a_missing_library_is_named_with_what_installs_it(store, tmp_path, monkeypatch, kind):
    for name in ("tensorboardX", "mlflow.entities", "mlflow.tracking", "mlflow"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(UsageError, match=rf"--format {kind} needs \w+: pip install 'ferbench\[{kind}\]'"):
        renderer(kind)(build(store), store, tmp_path / "logs")
    assert not (tmp_path / "logs").exists()


def test_nothing_is_mixed_with_what_is_there(store, tmp_path):
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "mine").touch()
    (tmp_path / "empty").mkdir()
    for kind, place, said in (
        ("tensorboard", "logs", "choose another name"),
        ("mlflow", "logs/mine", "choose another name"),
        ("mlflow", "empty", "this is a folder; give a file"),
    ):
        assert said in ferbench("report", "--format", kind, "--out", place, cwd=tmp_path, code=2).stderr
        assert "takes --out" in ferbench("report", "--format", kind, cwd=tmp_path, code=2).stderr
    assert (
        "no folds have been trained"
        in ferbench(
            "report", "--format", "tensorboard", "--out", "new", "--runs", "nowhere", cwd=tmp_path, code=3
        ).stderr
    )
    assert not (tmp_path / "new").exists()


def test_names_of_records_lead_nowhere_and_odd_histories_do_no_harm(tmp_path):
    pytest.importorskip("tensorboardX")
    store = Store(tmp_path / "runs")
    key = store_fold(store, "01", ROWS, folds=("01",), facts={"display": "../../x/\x1b[2J"})
    (store.folder(key) / "history.csv").write_text("epoch,../y,z\n1,1.5,red\ninf,1,1\n-1,1,1\nno,1,1\n1e300,2,2\n")
    runs = list(logged(build(store), store))
    assert [run.fold for run in runs] == ["", "01"]
    assert renderer("tensorboard")(build(store), store, tmp_path / "logs") == 2
    inside = set(tmp_path.rglob("events.*"))
    assert len(inside) == 2
    assert all(path.is_relative_to(tmp_path / "logs" / "ckplus") for path in inside)
    (fold,) = [path.parent for path in inside if path.parent.name == "01"]
    assert events(fold)["training/y"] == [(1, 1.5)]
