"""A finished model on a protocol's test set, with nothing learned there: cross-dataset accuracy, or zero-shot."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ferbench import metrics
from ferbench.environment import describe_device
from ferbench.errors import DataError, UsageError
from ferbench.execution import learned
from ferbench.execution.views import TestSet, view_facts
from ferbench.files import data_home, runs_home
from ferbench.inference import priors
from ferbench.inference.models import Model, open_model
from ferbench.inference.priors import AS_GIVEN, Adjustment
from ferbench.protocol import protocol as protocols
from ferbench.protocol.protocol import Protocol
from ferbench.runs.record import Record
from ferbench.runs.store import Store, predictions_frame
from ferbench.training.arithmetic import FP32, Arithmetic

if TYPE_CHECKING:
    import pandas as pd


SIGNIFICANT = 0.001  # p-value below which a note says that the labels are in another order


def evaluate(
    name: str,
    preset: str,
    dataset: str,
    runs: Path | None,
    home: Path | None,
    *,
    predictions: Path | None = None,
    trained_on: tuple[str, ...] = (),
    fresh: bool = False,
    notify: Callable[[str], None] = lambda line: None,
    arithmetic: Arithmetic = FP32,
    adjustment: Adjustment = AS_GIVEN,
) -> Record:
    """Test a model on all test samples of a protocol and store the result as a run of kind "transfer".

    name, preset, arithmetic : of a model, as :func:`~ferbench.inference.models.open_model` takes them. predictions :
    instead a file of another program (:mod:`ferbench.inference.prediction_files`) with the predictions of a model that
    is called ``name``. trained_on : datasets that this model learned from; of shipped weights at most one. fresh :
    test again where a result is stored; else that is returned, with what is now known of the training data, and
    ``notify`` gets a line that says so. adjustment : of the scores; what it gives is a run of its own, made from the
    stored predictions of the usual one.

    As a rule all classes of the model stay in play: one that the protocol lacks is an error wherever it is predicted.
    Images of classes that the model does not have are left out, and counted. Raises UsageError for a model that has
    learned from all of these images or their people, DataError where no image is left.
    """
    store = Store(runs_home(runs))
    if predictions is None:
        # Before the dataset is loaded, so that a name that does not exist is refused at once.
        protocol, labels = protocols.load(dataset).name, next(iter(trained_on), "")
        model: Model = open_model(name, preset, runs, protocol, data_home(home), arithmetic, labels)
        whole = TestSet.of(dataset, home)
    else:
        arithmetic.check_default("--predictions")
        if not predictions.is_file():
            raise DataError(f"{predictions} does not exist")
        from ferbench.inference.prediction_files import PredictionFile

        whole = TestSet.of(dataset, home)
        model = PredictionFile(predictions, name, trained_on, whole)
    known = whole.table["label"].isin(model.classes).to_numpy()
    if not known.any():
        raise DataError(f"{whole.faces.name} has no image of a class that {model.facts()['display']} knows")
    test_set = whole.with_rows(whole.rows[known])
    held_out, seen = model.held_out(test_set)
    if seen.all() or (held_out.status, held_out.by) == ("no", "names"):
        raise UsageError(learned.refusal(held_out, model.facts()["display"], test_set.protocol, test_set.faces))
    provenance = {"held_out": held_out.model_dump(), "seen": test_set.table["id"][seen].tolist()}
    adjustment = adjustment.of(model.classes, test_set.protocol)
    shares = priors.trained_shares(adjustment, model, test_set.protocol)  # refused before anything is predicted
    left_out = whole.table["label"][~known].value_counts().to_dict()
    record = _tested(model, test_set, store, provenance, left_out, fresh, notify)
    return record if adjustment == AS_GIVEN else _adjusted(record, store, adjustment, test_set.protocol, shares)


def _tested(
    model: Model,
    test_set: TestSet,
    store: Store,
    provenance: dict[str, Any],
    left_out: dict[str, int],
    fresh: bool,
    notify: Callable[[str], None],
) -> Record:
    """The evaluation of a model with its scores as they are, a stored one where there is one and ``fresh`` is not set.

    provenance : facts about what was learned from. left_out : how many images of each class the model does not have.
    """
    identity = model.identity(test_set)
    if not fresh and store.checked(identity.key) == "done":
        date = datetime.fromtimestamp((store.folder(identity.key) / "record.json").stat().st_mtime)
        notify(f"reused from {identity.key}, tested {date:%Y-%m-%d %H:%M} (--fresh tests again)")
        return learned.corrected(store, store.record(identity.key), {**model.facts(), **provenance})
    start = time.perf_counter()
    frame = predictions_frame(test_set.table, model.classes, model.test(test_set))
    store.begin(identity)
    store.write_predictions(identity.key, frame)
    record = Record.of(
        identity,
        dataset=test_set.faces.name,
        classes=model.classes,
        environment=describe_device("cpu", identity.precision, identity.engine),
        timings={"prediction": round(time.perf_counter() - start, 3)},
        facts={
            **model.facts(),
            **provenance,
            "level": test_set.protocol.level,
            **view_facts(test_set.faces, model.view),
            "left_out": left_out,
            "notes": [*test_set.notes, *model.notes, *_doubts(frame, model.classes)],
        },
        result=learned.result(frame, provenance["seen"]),
    )
    store.finish(record)
    return record


def _adjusted(source: Record, store: Store, adjustment: Adjustment, protocol: Protocol, shares: np.ndarray) -> Record:
    """Store what an adjustment of stored scores gives. It is computed each time, as the scores may be new."""
    record, frame = priors.adjusted(source, store, adjustment, protocol, shares)
    doubts = _doubts(store.predictions(source.key, source), source.classes)
    notes = [note for note in source.facts["notes"] if note not in doubts] + _doubts(frame, record.classes)
    record.facts["notes"] = notes
    result = learned.result(frame, record.facts["seen"])
    store.begin(record.identity)
    store.write_predictions(record.key, frame)
    store.finish(record := record.model_copy(update={"result": result}))
    return record


def _doubts(frame: pd.DataFrame, classes: list[str]) -> list[str]:
    """Notes on predictions that can hardly be what the model meant."""
    return [*_below_chance(frame), *_other_order(frame, classes)]


def _below_chance(frame: pd.DataFrame) -> list[str]:
    """A note where the accuracy is below that of the same predictions in random order, by a one-sided binomial test.

    Expected is Σ_k P(truth = k) · P(prediction = k), as for Cohen's kappa (1960): a model that always predicts a rare
    class is poor, but not below chance.
    """
    from scipy.special import bdtr

    predicted = frame["prediction"].value_counts(normalize=True)
    chance = float(frame["truth"].value_counts(normalize=True).mul(predicted, fill_value=0).sum())
    correct = int(metrics.correct(frame).sum())
    if bdtr(correct, len(frame), chance) >= SIGNIFICANT:
        return []
    return [
        f"the accuracy of {correct / len(frame):.2%} is below the {chance:.2%} of these predictions in random order "
        f"(p < {SIGNIFICANT}): the order of the labels, or of the rows, is probably wrong"
    ]


def _other_order(frame: pd.DataFrame, classes: list[str]) -> list[str]:
    """A note where the names of some classes seem to be exchanged.

    These are the classes that change in the assignment of predictions to truths with the highest accuracy, if each of
    them is taken for its new name more often than it is recognised, by a one-sided binomial test.
    """
    from scipy.optimize import linear_sum_assignment
    from scipy.special import bdtr

    counts = metrics.confusion(frame["truth"], frame["prediction"], classes)
    best = linear_sum_assignment(counts, maximize=True)[1]
    changed = np.flatnonzero(best != np.arange(len(classes)))
    recognised, taken = counts[changed, changed], counts[changed, best[changed]]
    if not len(changed) or bdtr(recognised, recognised + taken, 0.5).max() >= SIGNIFICANT:
        return []
    pairs = ", ".join(
        f"{classes[k]} is predicted as {classes[best[k]]} {n} times and recognised {m} times"
        for k, n, m in zip(changed, taken, recognised, strict=True)
    )
    return [f"{pairs}: the labels of the model are probably in another order"]
