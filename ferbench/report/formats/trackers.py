"""Stored runs as logs of TensorBoard or MLflow, written after training; nothing is read back from them.

Each training is a run with the figures of the report, and each of its folds a run with its accuracy and its history,
an entry for each epoch.
"""

import math
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import pandas as pd

from ferbench.errors import UsageError
from ferbench.metrics import METRICS
from ferbench.report.results import Report, Training, named
from ferbench.runs.store import Store


@dataclass(frozen=True)
class Logged:
    """A training, or one of its folds, as a tracker has it.

    figures : by name, fractions and counts. facts : what they must be read with. history : a row for each epoch, with
    the column ``epoch``; empty for a training, and where a method does not learn by epochs.
    """

    set: str
    training: str
    fold: str  # empty of a training
    figures: dict[str, float]
    facts: dict[str, str]
    history: pd.DataFrame


Writer = Callable[[list[Logged], Path], None]


def tensorboard(reports: list[Report], store: Store, out: Path) -> int:
    """Write all trainings and folds to ``out``, a new folder of TensorBoard, and return how many there were.

    Raises UsageError where something is there already, or tensorboardX is not installed.
    """
    return _write(_tensorboard, reports, store, out, out.exists() and not (out.is_dir() and not any(out.iterdir())))


def mlflow(reports: list[Report], store: Store, out: Path) -> int:
    """Write all trainings and folds to ``out``, a new database of MLflow, and return how many there were.

    Raises UsageError where something is there already, or MLflow is not installed.
    """
    return _write(_mlflow, reports, store, out, out.exists())


def _write(writer: Writer, reports: list[Report], store: Store, out: Path, taken: bool) -> int:
    if taken:
        raise UsageError(f"{out} exists, and a second log of the same runs would mix with it: choose another name")
    runs = list(logged(reports, store))
    writer(runs, out)
    return len(runs)


def logged(reports: list[Report], store: Store) -> Iterator[Logged]:
    """Give each training, followed by its folds."""
    for report in reports:
        names = named(report.trainings)
        for t in report.trainings:
            facts = {
                "method": t.method,
                "preset": t.preset,
                "protocol": t.protocol,
                "selection": t.selection,
                "seed": str(t.seed),
                "held out": str(t.held_out),
                "folds": f"{len(t.folds)} of {len(t.expected)}",
                "tested": t.n,
                "learned from": ", ".join(t.trained_on),
                "device": "; ".join(t.devices),
                "precision": t.precision,
                "experiment": t.experiment,
                "fold file": t.split_hash,
                "data": t.data,
            }
            if report.synthetic:
                facts["faces"] = "drawn by ferbench: the figures say nothing of people"
            # With the experiment, names stay different that are equal after special characters are removed.
            training = f"{_plain(names[t.experiment])}-{t.experiment}"
            yield Logged(report.dataset, training, "", _figures(t), facts, pd.DataFrame())
            for fold in t.folds:
                history = store.history(store.record(fold.run))
                figures = {"test/accuracy": fold.accuracy, f"test/{t.level}s": fold.images, "seconds": fold.seconds}
                of_fold = {**facts, "run": fold.run, "folds": fold.fold}
                yield Logged(report.dataset, training, _plain(fold.fold), figures, of_fold, history)


def _figures(t: Training) -> dict[str, float]:
    values = {metric.words: t.metrics[metric.name] for metric in METRICS if metric.kind == "percent"}
    figures = {f"test/{name}": value for name, value in values.items() if not math.isnan(value)}
    figures[f"test/{t.level}s"] = t.tested
    if not t.interval.degenerate:
        figures |= {"test/accuracy, 95 % from": t.interval.low, "test/accuracy, 95 % to": t.interval.high}
    return figures


def _plain(text: str) -> str:
    """A name as the part of a path: no other folder, and nothing that a shell or a database would read otherwise."""
    return re.sub(r"[^A-Za-z0-9_]+", "-", text).strip("-") or "unnamed"


def _epochs(history: pd.DataFrame) -> Iterator[tuple[str, int, float]]:
    """Give what a history holds, a figure at a time: its name, its epoch, its value."""
    rows = history.apply(pd.to_numeric, errors="coerce")
    if "epoch" in rows:
        rows = rows[rows["epoch"].between(0, 2**31)]
        for column in rows.columns.drop("epoch"):
            for epoch, value in rows[["epoch", column]].dropna().itertuples(index=False):
                yield f"training/{_plain(column)}", int(epoch), float(value)


def _tensorboard(runs: list[Logged], out: Path) -> None:
    try:
        from tensorboardX import SummaryWriter
    except ModuleNotFoundError:
        raise UsageError("--format tensorboard needs tensorboardX: pip install 'ferbench[tensorboard]'") from None
    for run in runs:
        with SummaryWriter(str(out / _plain(run.set) / run.training / run.fold)) as writer:
            last = 0
            for name, epoch, value in _epochs(run.history):
                writer.add_scalar(name, value, epoch)
                last = max(last, epoch)
            for name, value in run.figures.items():
                writer.add_scalar(name, value, last)
            writer.add_text("facts", "\n".join(f"    {name}: {value}" for name, value in run.facts.items()), last)


def _mlflow(runs: list[Logged], out: Path) -> None:
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # ferbench uses no network, and neither may MLflow
    try:
        for name in ("sqlalchemy", "alembic"):  # without them MLflow fails later, with an unclear message
            import_module(name)
        from mlflow.entities import Metric, Param
        from mlflow.tracking import MlflowClient
    except ModuleNotFoundError as error:
        missing = (error.name or "mlflow").partition(".")[0]
        raise UsageError(f"--format mlflow needs {missing}: pip install 'ferbench[mlflow]'") from None
    out.parent.mkdir(parents=True, exist_ok=True)
    client = MlflowClient(tracking_uri=f"sqlite:///{out.resolve()}")
    experiments = {name: client.create_experiment(name) for name in dict.fromkeys(_plain(run.set) for run in runs)}
    parent = ""
    for run in runs:
        tags = {"mlflow.parentRunId": parent} if run.fold else {}
        name = run.fold or run.training
        created = client.create_run(experiments[_plain(run.set)], tags=tags, run_name=name).info.run_id
        parent = parent if run.fold else created
        history = [Metric(name, value, 0, epoch) for name, epoch, value in _epochs(run.history)]
        last = max((metric.step for metric in history), default=0)
        figures = [Metric(_accepted(name), value, 0, last) for name, value in run.figures.items()]
        for start in range(0, len(history + figures), 1000):  # as many as MLflow takes at once
            client.log_batch(created, (history + figures)[start : start + 1000])
        client.log_batch(created, params=[Param(_accepted(name), value[:6000]) for name, value in run.facts.items()])
        client.set_terminated(created)


def _accepted(name: str) -> str:
    """A name as MLflow takes it: no commas, no percent."""
    return re.sub(r"[^A-Za-z0-9_./ -]+", "", name)
