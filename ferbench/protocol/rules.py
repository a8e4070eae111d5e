"""The rules by which people are assigned to folds, with the same share of each class in all of them where possible, and
what is asserted of folds: no person and no picture on both sides, every sample tested once."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from ferbench.data.faces import Faces, linked
from ferbench.errors import DataError, UsageError
from ferbench.seeds import derive_seed

if TYPE_CHECKING:
    from ferbench.protocol.splits import Split


def people(faces: Faces, rows: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Return the person of each row, text [N], and a note: subjects who share a picture, directly or through others,
    are one person, under the first of their names."""
    import pandas as pd

    subjects = faces.samples["subject"].iloc[rows]
    groups = linked(subjects, pd.Series(faces.pictures[rows]))
    if len(np.unique(groups)) == subjects.nunique():
        return subjects.to_numpy(), []
    people = subjects.groupby(groups).transform("min")
    joined = subjects[people != subjects]
    note = (
        f"{joined.nunique():,} subjects share a picture with another subject and are in the fold of that one, such as "
        f"{joined.iloc[0]} with {people[joined.index[0]]}"
    )
    return people.to_numpy(), [note]


def fold_of_person(rule: str, count: int, faces: Faces, rows: np.ndarray, people: np.ndarray, seed: int) -> np.ndarray:
    """Return the fold of each row, int64 [N], from 0. people : whose image a row is, text [N]."""
    import pandas as pd

    everyone, place = np.unique(people, return_inverse=True)
    if len(everyone) < count:
        subjects = faces.samples["subject"].iloc[rows].nunique()
        same = f" (of {subjects}, counting those who share a picture as one)" if subjects > len(everyone) else ""
        raise DataError(f"{len(everyone)} subjects{same} cannot fill {count} folds; write a protocol file with fewer")
    if rule == "step":
        return place % count
    if rule == "block":
        ends = [round(len(everyone) / count * number) for number in range(1, count + 1)]
        return np.searchsorted(ends, place, side="right")
    if rule == "random":
        from sklearn.model_selection import StratifiedGroupKFold

        labels = faces.samples["label"].iloc[rows].to_numpy()
        if pd.Series(labels).value_counts().max() < count:
            raise DataError(f"no class has {count} images: too few to stratify {count} folds")
        order = np.argsort(faces.samples["id"].iloc[rows].to_numpy())  # the rows' order on disk must not matter
        chance = derive_seed(seed, "folds") % 2**32
        folder = StratifiedGroupKFold(count, shuffle=True, random_state=chance)
        fold = np.empty(len(rows), dtype=np.int64)
        with rare_classes():
            for number, (_, test) in enumerate(folder.split(order, labels[order], people[order])):
                fold[order[test]] = number
        return fold
    raise UsageError(f"unknown fold rule {rule!r}: it is step, block, random or file")


def grouped_folds(
    labels: np.ndarray, subjects: np.ndarray, count: int, seed: int
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Split a training set [N] again: pairs of rows (to learn from, held out), no subject in both.

    Without regard to subjects where not all of them are known. Fewer than ``count`` folds where there are
    fewer subjects, or fewer samples of the largest class; none where not even two can be made.
    """
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    known = not (subjects == "").any()
    count = min(count, len(set(subjects)) if known else len(labels), max(Counter(labels).values()))
    if count < 2:
        return []
    kind = StratifiedGroupKFold if known else StratifiedKFold
    folder = kind(count, shuffle=True, random_state=seed % 2**32)
    with rare_classes():
        return list(folder.split(labels, labels, subjects if known else None))


@contextmanager
def rare_classes() -> Iterator[None]:
    """A class with fewer images than folds cannot be in all of them; the fold table shows where it is not."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The least populated class", UserWarning)
        yield


def check_folds(folds: tuple[Split, ...], faces: Faces, rows: np.ndarray) -> None:
    """Assert what every result claims: no subject and no picture in both training and test set, every sample tested
    exactly once.

    Raises DataError naming the subjects or samples.
    """
    check_subjects(folds, faces)
    check_pictures(folds, faces)
    check_tested_once(folds, faces, rows)


def check_tested_once(folds: tuple[Split, ...], faces: Faces, rows: np.ndarray) -> None:
    """Assert that the test sets hold each of ``rows`` exactly once and nothing else; DataError otherwise."""
    tested = np.concatenate([split.test for split in folds])
    counts = np.bincount(tested, minlength=len(faces))
    wrong = rows[counts[rows] != 1]
    if wrong.size or len(tested) != len(rows):
        ids = faces.samples["id"].iloc[wrong[:3]].tolist()
        raise DataError(f"{len(wrong)} samples are not tested exactly once, such as {', '.join(ids)}")


def check_subjects(folds: tuple[Split, ...], faces: Faces) -> None:
    """Assert :func:`check_images` and that training and test set of no fold have a subject in common.

    Raises DataError naming the fold and the first subjects.
    """
    subjects = faces.samples["subject"].to_numpy()
    for split in folds:
        if shared := sorted((set(subjects[split.train]) & set(subjects[split.test])) - {""}):
            raise DataError(
                f"fold {split.fold} has {len(shared)} subjects in training and test set: {', '.join(shared[:5])}"
            )
    check_images(folds)


def check_pictures(folds: tuple[Split, ...], faces: Faces) -> None:
    """Assert that no picture is in training and test set of a fold, under whichever name; else DataError."""
    for split in folds:
        shared = split.test[np.isin(faces.pictures[split.test], faces.pictures[split.train])]
        if len(shared):
            other = split.train[faces.pictures[split.train] == faces.pictures[shared[0]]][0]
            raise DataError(
                f"fold {split.fold} tests {len(shared)} images whose picture it trains on, such as "
                f"{faces.samples['id'].iloc[shared[0]]}, which is {faces.samples['id'].iloc[other]} too: "
                "assign both to one fold"
            )


def check_images(folds: tuple[Split, ...]) -> None:
    """Assert that training and test set of each fold have images, none twice and none in common; else DataError."""
    for split in folds:
        for verb, rows in (("trains on", split.train), ("tests", split.test)):
            if not len(rows):
                raise DataError(f"fold {split.fold} {verb} nothing")
            if len(np.unique(rows)) < len(rows):
                raise DataError(f"fold {split.fold} {verb} some images twice")
        if np.intersect1d(split.train, split.test).size:
            raise DataError(f"fold {split.fold} trains on images that it tests")
