"""Folds with the same share of each class in all of them, as far as that can be."""

import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np


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
