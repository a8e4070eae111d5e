"""What a method receives from a prepared dataset: a training set, or samples to predict, without labels; and the test
set of a protocol."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ferbench.data import faces as prepared_sets
from ferbench.data import synthetic
from ferbench.data.faces import Faces
from ferbench.data.views import IMAGES, View, images, seen
from ferbench.errors import DataError, UsageError
from ferbench.files import data_home
from ferbench.methods.interface import SampleSet, TrainingSet, Video
from ferbench.methods.recipes import Method
from ferbench.protocol import protocol as protocols
from ferbench.protocol import splits
from ferbench.protocol.leakage import overlap
from ferbench.protocol.protocol import Protocol
from ferbench.protocol.splits import LAST, Split, Splits

if TYPE_CHECKING:
    import pandas as pd


SEQUENCE = "sequence"


def training_set(
    protocol: Protocol,
    faces: Faces,
    rows: np.ndarray,
    classes: tuple[str, ...],
    tables: Path | None = None,
    folds: int = 1,
    view: View = IMAGES,
) -> TrainingSet:
    """Return the samples ``rows`` (indices into the prepared dataset) with their labels.

    tables : the folder where the folds of this dataset share tables of derived samples; None: no tables. folds : how
    many of them are trained. view : of the images.
    """
    samples = faces.samples.iloc[rows]
    shared = None
    if tables is not None and view.is_default:
        from ferbench.training.samples import Shared

        shared = Shared(faces.images, rows, tables, folds)
    return TrainingSet(
        images=images(faces, rows, view, store=True),
        videos=_videos(protocol, faces, rows),
        classes=classes,
        labels=targets(faces, rows, classes),
        subjects=samples["subject"].to_numpy(dtype=str),
        sequences=samples["sequence"].to_numpy(dtype=str),
        shared=shared,
    )


def targets(faces: Faces, rows: np.ndarray, classes: tuple[str, ...]) -> np.ndarray:
    """Return the labels of some rows as indices into ``classes``, int64 [N]."""
    indices = faces.samples["label"].iloc[rows].map(classes.index)
    return np.array(indices, dtype=np.int64)  # a copy, since the array of pandas may be read-only


def label_counts(faces: Faces, rows: np.ndarray, classes: Sequence[str]) -> dict[str, int]:
    """Return how many of some rows each class has."""
    counts = faces.samples["label"].iloc[rows].value_counts()
    return {name: int(counts.get(name, 0)) for name in classes}


def sample_set(protocol: Protocol, faces: Faces, rows: np.ndarray, view: View = IMAGES) -> SampleSet:
    """Return the samples ``rows`` without labels or names. view : of the images."""
    return SampleSet(images=images(faces, rows, view), videos=_videos(protocol, faces, rows))


def sees(method: Method, protocol: Protocol, faces: Faces, rows: np.ndarray) -> str:
    """Return what a method reads of a sample: "image", with its view where that is not the one of 48 grey pixels, or of
    a sequence "3 frames" or "whole", and what else."""
    needs = method.family.needs(method)
    if protocol.level != SEQUENCE or "sequences" not in needs:
        return image_seen(faces, method.family.view(method))
    lengths = _lengths(faces, rows)
    frames = f"{lengths.max()} frames" if lengths.max() <= LAST else "whole"
    return " + ".join([frames, *(what for what in ("landmarks", "neutral") if what in needs)])


def image_seen(faces: Faces, view: View) -> str:
    """Return what a model sees of an image: "image" is the one of 48 grey pixels."""
    return "image" if view.is_default else f"image, {seen(faces, view)}"


def view_facts(faces: Faces, view: View) -> dict[str, Any]:
    """Return the facts of a record about another view than that of 48 grey pixels."""
    return {} if view.is_default else {"sees": image_seen(faces, view), "view": view.model_dump()}


def fold_facts(
    protocol: Protocol, faces: Faces, folds: Splits, split: Split, train: np.ndarray, validation: int
) -> dict[str, Any]:
    """Return the facts of a fold's record about its training and test set.

    train : rows that were learned from. validation : the number of training samples held out.
    """
    subjects = faces.samples["subject"].to_numpy()
    return {
        "level": protocol.level,
        "folds": [split.fold for split in folds.folds],
        "rule": folds.rule,
        "split_hash": folds.hash,
        "train_images": len(train),
        "train_labels": label_counts(faces, train, protocol.classes),
        "validation_images": validation,
        "test_images": len(split.test),
        "train_subjects": len(set(subjects[train]) - {""}),
        "test_subjects": len(set(subjects[split.test]) - {""}),
        "audit": overlap(split.train, split.test, faces).model_dump(),
    }


def check_needs(method: Method, protocol: Protocol, faces: Faces) -> None:
    """Raise UsageError if a protocol lacks what a method needs, DataError if the prepared dataset does."""
    needs = method.family.needs(method)
    if "sequences" in needs and protocol.level != SEQUENCE:
        raise UsageError(
            f"{method.title} reads whole sequences, and {protocol.identifier} tests single images: choose "
            f"a protocol of sequences, such as {protocol.dataset}-sequences"
        )
    if "landmarks" in needs and faces.landmarks is None:
        raise DataError(
            f"{method.title} reads landmarks, and the prepared dataset {faces.name} has none: prepare it "
            "from a source that comes with them"
        )
    rows = np.flatnonzero((faces.samples["sequence"] != "").to_numpy())
    if "neutral" in needs and not (len(rows) and _lengths(faces, rows).max() > LAST):
        raise DataError(
            f"{method.title} needs sequences that begin with a neutral face, and the prepared dataset "
            f"{faces.name} has only the last frames of each: prepare it from whole sequences"
        )
    if "subjects" in needs and (faces.samples["subject"] == "").all():
        raise DataError(f"{method.title} needs subjects, and the prepared dataset {faces.name} names none")


def _videos(protocol: Protocol, faces: Faces, rows: np.ndarray) -> tuple[Video, ...]:
    if protocol.level != SEQUENCE:
        return ()
    return tuple(Video(*faces.sequence(int(row))) for row in rows)


def _lengths(faces: Faces, rows: np.ndarray) -> np.ndarray:
    """Return the number of frames of the sequences that some rows belong to."""
    counts = faces.samples["sequence"].value_counts()
    return faces.samples["sequence"].iloc[rows].map(counts).to_numpy()


@dataclass(frozen=True)
class TestSet:
    """Rows of a prepared dataset that a protocol tests. split : hash of the fold file, or empty."""

    protocol: Protocol
    faces: Faces
    rows: np.ndarray
    split: str
    notes: tuple[str, ...] = ()

    @classmethod
    def of(cls, dataset: str, home: Path | None) -> TestSet:
        """All that a protocol tests. A dataset with a test set alone is enough, and people need not be known.

        Raises what ``protocols.load`` and ``faces.load`` raise, DataError where nothing is tested.
        """
        protocol, home = protocols.load(dataset), data_home(home)
        synthetic.ensure(protocol.dataset, home)
        faces = prepared_sets.load(protocol.dataset, home)
        try:
            folds = splits.make(protocol, faces)
        except DataError as error:
            rows, note = splits.tested(protocol, faces)
            return cls(protocol, faces, rows, "", (note or str(error), *splits.alignment(faces, rows)))
        rows = np.sort(np.concatenate([fold.test for fold in folds.folds]))
        return cls(protocol, faces, rows, folds.hash, tuple(splits.alignment(faces, rows)))

    def with_rows(self, rows: np.ndarray) -> TestSet:
        """The same with other rows of the prepared dataset."""
        return replace(self, rows=rows)

    @property
    def table(self) -> pd.DataFrame:
        """The rows of ``samples.csv``."""
        return self.faces.samples.iloc[self.rows]

    def samples(self, view: View = IMAGES) -> SampleSet:
        """The samples as a model gets to see them."""
        return sample_set(self.protocol, self.faces, self.rows, view)
