"""ferbench from Python: the folds of a protocol, scores of predictions, and runs that reports read. An example:

>>> from sklearn.neighbors import KNeighborsClassifier
>>> from ferbench import api
>>> evaluator = api.Evaluator("My method", "synth")
>>> for fold in api.folds("synth"):
...     train, test = (part.images.reshape(len(part), -1) / 255 for part in (fold.train, fold.test))
...     evaluator.add(fold, KNeighborsClassifier(9).fit(train, fold.train.labels).predict_proba(test))
>>> score = evaluator.score()
>>> print(f"{score.accuracy:.2%} of {score.n} images of {score.subjects} people")
20.50% of 600 images of 40 people
>>> keys = evaluator.store()     # now `ferbench report`, `compare` and `check` know it
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from ferbench import metrics
from ferbench.data import faces as prepared_sets
from ferbench.data import synthetic
from ferbench.data.faces import Faces
from ferbench.data.views import IMAGES, View
from ferbench.environment import describe_device
from ferbench.errors import DataError, UsageError
from ferbench.execution.views import fold_facts, sample_set, training_set, view_facts
from ferbench.files import data_home, runs_home, sha256_of
from ferbench.methods.interface import SampleSet, TrainingSet
from ferbench.metrics import Interval
from ferbench.protocol import protocol as protocols
from ferbench.protocol.protocol import Protocol
from ferbench.protocol.splits import Split, Splits
from ferbench.protocol.splits import make as make_splits
from ferbench.runs.facts import HeldOut
from ferbench.runs.record import Identity
from ferbench.runs.store import Store, predictions_frame

REVISION = 1  # incremented when a change of code changes what is stored for the same predictions


@dataclass(frozen=True)
class Fold:
    """One fold of a protocol.

    train : images uint8 [N,48,48], or of another view, with labels int64 [N] (indices into ``train.classes``), subjects
    and, under a protocol of sequences, videos. test : the same without labels. ids : of the test samples, in their
    order.
    """

    name: str
    train: TrainingSet
    test: SampleSet
    ids: tuple[str, ...]


@dataclass(frozen=True)
class Score:
    """The metrics of the predictions of all folds, as fractions.

    n, subjects : the number of samples and of subjects. accuracy : pooled over folds; interval : its 95 % interval
    over subjects. fold_mean, fold_std : of the accuracies of the folds (ddof 1). sequence_accuracy : by the mean
    probabilities of each sequence; NaN if sequences are unknown.
    """

    n: int
    subjects: int
    accuracy: float
    interval: Interval
    fold_mean: float
    fold_std: float
    balanced_accuracy: float
    macro_f1: float
    sequence_accuracy: float


def folds(dataset: str, home: Path | None = None, view: View = IMAGES) -> list[Fold]:
    """Return the folds of a protocol on its prepared dataset.

    No subject is in both the training and the test set of a fold, and each sample is tested once.
    dataset : name of a protocol, or the path of its file. home : the data home. view : of the images, such as
    ``View(size=112, colour="rgb")``; other views than 48×48 grey are read as they are indexed by rows.
    Raises UsageError for an unknown protocol, DataError for a dataset that is not prepared or does not fit.
    """
    protocol, faces, splits = _load(dataset, home)
    names = faces.samples["id"].to_numpy()
    return [
        Fold(
            split.fold,
            training_set(protocol, faces, split.train, splits.classes, view=view),
            sample_set(protocol, faces, split.test, view),
            tuple(names[split.test]),
        )
        for split in splits.folds
    ]


class Evaluator:
    """Collects the predictions of one method, fold by fold, and computes their metrics.

    method : its name, as printed in tables. dataset, home, view : as for :func:`folds`.
    """

    def __init__(self, method: str, dataset: str, home: Path | None = None, view: View = IMAGES):
        self.method, self.view = method, view
        self.protocol, self.faces, self.splits = _load(dataset, home)
        self.predictions: dict[str, pd.DataFrame] = {}  # by fold

    def add(self, fold: Fold, probabilities: np.ndarray) -> None:
        """Add the probabilities [N,K] of a fold's test samples, columns in the order of ``fold.train.classes``.

        Raises UsageError for another shape, for values that are not finite, and for rows that do not sum to 1.
        """
        table = np.asarray(probabilities, dtype=np.float64)
        if table.shape != (len(fold.ids), len(self.splits.classes)):
            raise UsageError(
                f"fold {fold.name} takes probabilities [{len(fold.ids)},{len(self.splits.classes)}], not "
                f"{list(table.shape)}"
            )
        if not np.isfinite(table).all() or (table < 0).any() or not metrics.sums_to_one(table).all():
            raise UsageError(f"probabilities of fold {fold.name} are no numbers from 0 that sum to 1 in each row")
        sums = table.sum(axis=1, keepdims=True)
        table = np.where(np.abs(sums - 1) > 1e-3, table / sums, table)  # rounded probabilities are normalised
        samples = self.faces.samples.iloc[self._split(fold.name).test]
        self.predictions[fold.name] = predictions_frame(samples, list(self.splits.classes), table)

    def score(self) -> Score:
        """Return the metrics. Raises UsageError if folds are missing, since a part of the subjects would be too."""
        pooled = self._pooled()
        classes = list(self.splits.classes)
        matrix = metrics.confusion(pooled["truth"], pooled["prediction"], classes)
        by_fold = [metrics.share_correct(frame) for frame in self.predictions.values()]
        return Score(
            len(pooled),
            pooled["subject"].nunique(),
            metrics.accuracy(matrix),
            metrics.subject_interval(pooled),
            float(np.mean(by_fold)),
            float(np.std(by_fold, ddof=1)) if len(by_fold) > 1 else float("nan"),
            metrics.balanced_accuracy(matrix),
            metrics.macro_f1(matrix),
            metrics.sequence_accuracy(pooled, classes)[0] if (pooled["sequence"] != "").any() else float("nan"),
        )

    def store(self, runs: Path | None = None) -> list[str]:
        """Write one run for each fold, for ``ferbench report``, ``compare`` and ``check``. Returns their keys."""
        store = Store(runs_home(runs))
        digest = sha256_of(self._pooled().to_csv(index=False, float_format="%.9g").encode())[:16]
        keys = []
        for name, predictions in self.predictions.items():
            split = self._split(name)
            identity = Identity(
                kind="fold",
                method=self.method,
                preset="",
                recipe={"predictions": digest},
                protocol=self.protocol.identifier,
                data=self.faces.fingerprint,
                split=self.splits.hash,
                fold=name,
                seed=0,
                precision="fp64",
                code=REVISION,
            )
            facts = {
                "display": self.method,
                "published": "",
                "command": "",
                "trained_on": [self.protocol.identifier],
                "held_out": HeldOut(status="yes", by="authors").model_dump(),
                "sees": self.protocol.level,
                **view_facts(self.faces, self.view),
                "parameters": 0,
                "notes": list(self.splits.notes),
                **fold_facts(self.protocol, self.faces, self.splits, split, split.train, 0),
            }
            store.add_tested(
                identity,
                predictions,
                dataset=self.faces.name,
                classes=list(self.splits.classes),
                environment=describe_device("cpu", "fp64", "plain"),
                facts=facts,
                timings={},
            )
            keys.append(identity.key)
        return keys

    def _pooled(self) -> pd.DataFrame:
        """Return the predictions of all folds in their order."""
        missing = [split.fold for split in self.splits.folds if split.fold not in self.predictions]
        if missing:
            raise UsageError(f"{self.method} has no predictions of fold {', '.join(missing)} yet")
        return pd.concat([self.predictions[split.fold] for split in self.splits.folds], ignore_index=True)

    def _split(self, name: str) -> Split:
        for split in self.splits.folds:
            if split.fold == name:
                return split
        raise DataError(f"{self.protocol.identifier} has no fold {name}")


Judge = Evaluator  # the former name, for this version only


def _load(dataset: str, home: Path | None) -> tuple[Protocol, Faces, Splits]:
    protocol, folder = protocols.load(dataset), data_home(home)
    synthetic.ensure(protocol.dataset, folder)
    faces = prepared_sets.load(protocol.dataset, folder)
    return protocol, faces, make_splits(protocol, faces)
