"""The same from Python: a protocol's folds, scores of predictions, and runs that reports take. An example:

>>> from sklearn.neighbors import KNeighborsClassifier
>>> from ferbench import api
>>> judge = api.Judge("My method", "synth")
>>> for fold in api.folds("synth"):
...     train, test = (part.images.reshape(len(part), -1) / 255 for part in (fold.train, fold.test))
...     judge.add(fold, KNeighborsClassifier(9).fit(train, fold.train.labels).predict_proba(test))
>>> score = judge.score()
>>> print(f"{score.accuracy:.2%} of {score.n} images of {score.subjects} people")
20.50% of 600 images of 40 people
>>> keys = judge.store()     # now `ferbench report`, `compare` and `check` know it
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from ferbench import metrics
from ferbench.data import faces as prepared_sets
from ferbench.data import synthetic
from ferbench.data.faces import Faces
from ferbench.environment import describe_device
from ferbench.errors import DataError, UsageError
from ferbench.execution.views import fold_facts, sample_set, training_set
from ferbench.files import data_home, runs_home, sha256_of
from ferbench.methods.interface import SampleSet, TrainingSet
from ferbench.metrics import Interval
from ferbench.protocol import protocol as protocols
from ferbench.protocol import splits
from ferbench.protocol.protocol import Protocol
from ferbench.protocol.splits import Split, Splits
from ferbench.runs.record import Identity, Record
from ferbench.runs.store import Store, predictions_frame

REVISION = 1  # raised when a change of code changes what is stored of the same predictions


@dataclass(frozen=True)
class Fold:
    """One fold. train : images uint8 [N,48,48] with labels int64 [N] (places in ``train.classes``), subjects and, under
    a protocol of sequences, videos. test : the same without labels. ids : names of the test samples, in their order."""

    name: str
    train: TrainingSet
    test: SampleSet
    ids: tuple[str, ...]


@dataclass(frozen=True)
class Score:
    """What predictions come to, as fractions; n samples of so many subjects.

    accuracy : of all folds put together, with its 95 % interval by bootstrap over subjects. fold_mean, fold_std : over
    folds (ddof 1). sequence_accuracy : by the mean of a sequence's probabilities; not a number where unknown.
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


def folds(dataset: str, home: Path | None = None) -> list[Fold]:
    """Return the folds of a protocol on its prepared dataset: no person is in both the training and
    the test set of a fold, each sample is tested once.

    dataset : name of a protocol, or a path of one. home : where prepared datasets live.
    Raises UsageError for an unknown protocol, DataError for a set that is not prepared or does not fit.
    """
    protocol, faces, made = _opened(dataset, home)
    names = faces.samples["id"].to_numpy()
    return [
        Fold(
            split.fold,
            training_set(protocol, faces, split.train, made.classes),
            sample_set(protocol, faces, split.test),
            tuple(names[split.test]),
        )
        for split in made.folds
    ]


class Judge:
    """Takes the predictions of one method, fold by fold, and says what they come to."""

    def __init__(self, method: str, dataset: str, home: Path | None = None):
        self.method = method
        self.protocol, self.faces, self.made = _opened(dataset, home)
        self.frames: dict[str, pd.DataFrame] = {}

    def add(self, fold: Fold, probabilities: np.ndarray) -> None:
        """Take probabilities [N,K] of a fold's test samples, columns in the order of ``fold.train.classes``.

        Raises UsageError for another shape, or rows that do not sum to 1 or hold what is no number.
        """
        given = np.asarray(probabilities, dtype=np.float64)
        if given.shape != (len(fold.ids), len(self.made.classes)):
            raise UsageError(
                f"fold {fold.name} takes probabilities [{len(fold.ids)},{len(self.made.classes)}], not "
                f"{list(given.shape)}"
            )
        if not np.isfinite(given).all() or (given < 0).any() or np.abs(given.sum(axis=1) - 1).max() > 1e-3:
            raise UsageError(f"probabilities of fold {fold.name} are no numbers from 0 that sum to 1 in each row")
        rows = self._split(fold.name).test
        self.frames[fold.name] = predictions_frame(self.faces.samples.iloc[rows], list(self.made.classes), given)

    def score(self) -> Score:
        """Raises UsageError while folds are missing: their people would be missing from the figure."""
        pooled = self._pooled()
        classes = list(self.made.classes)
        matrix = metrics.confusion(pooled["truth"], pooled["prediction"], classes)
        each = [metrics.hit_rate(frame) for frame in self.frames.values()]
        return Score(
            len(pooled),
            pooled["subject"].nunique(),
            metrics.accuracy(matrix),
            metrics.subject_interval(pooled),
            float(np.mean(each)),
            float(np.std(each, ddof=1)) if len(each) > 1 else float("nan"),
            metrics.balanced_accuracy(matrix),
            metrics.macro_f1(matrix),
            metrics.sequence_accuracy(pooled, classes)[0] if (pooled["sequence"] != "").any() else float("nan"),
        )

    def store(self, runs: Path | None = None) -> list[str]:
        """Write one run for each fold, for ``ferbench report``, ``compare`` and ``check``. Returns their keys."""
        store, keys = Store(runs_home(runs)), []
        said = sha256_of(self._pooled().to_csv(index=False, float_format="%.9g").encode())[:16]
        for name, frame in self.frames.items():
            split = self._split(name)
            identity = Identity(
                kind="fold",
                method=self.method,
                preset="",
                recipe={"predictions": said},
                protocol=self.protocol.identifier,
                data=self.faces.fingerprint,
                split=self.made.hash,
                fold=name,
                seed=0,
                precision="fp64",
                code=REVISION,
            )
            store.begin(identity)
            store.write_predictions(identity.key, frame)
            facts = {
                "display": self.method,
                "published": "",
                "command": "",
                "trained_on": [self.protocol.identifier],
                "sees": self.protocol.level,
                "parameters": 0,
                "notes": list(self.made.notes),
                **fold_facts(self.protocol, self.faces, self.made, split, split.train, 0),
            }
            store.finish(
                Record(
                    key=identity.key,
                    experiment=identity.experiment,
                    identity=identity,
                    dataset=self.faces.name,
                    classes=list(self.made.classes),
                    environment=describe_device("cpu", "fp64", "plain"),
                    facts=facts,
                    timings={},
                    result={"accuracy": metrics.hit_rate(frame), "images": len(frame)},
                )
            )
            keys.append(identity.key)
        return keys

    def _pooled(self) -> pd.DataFrame:
        """All folds' predictions in the order of the folds."""
        missing = [split.fold for split in self.made.folds if split.fold not in self.frames]
        if missing:
            raise UsageError(f"{self.method} has no predictions of fold {', '.join(missing)} yet")
        return pd.concat([self.frames[split.fold] for split in self.made.folds], ignore_index=True)

    def _split(self, name: str) -> Split:
        found = [split for split in self.made.folds if split.fold == name]
        if not found:
            raise DataError(f"{self.protocol.identifier} has no fold {name}")
        return found[0]


def _opened(dataset: str, home: Path | None) -> tuple[Protocol, Faces, Splits]:
    protocol, place = protocols.load(dataset), data_home(home)
    synthetic.ensure(protocol.dataset, place)
    faces = prepared_sets.load(protocol.dataset, place)
    return protocol, faces, splits.make(protocol, faces)
