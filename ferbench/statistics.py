"""Two sets of predictions of the same images compared with each other.

A frame has the columns id, subject, truth and prediction. Images of one person are not independent, so tests and
intervals treat subjects as the independent units, or single images where subjects are unknown.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from ferbench import metrics
from ferbench.errors import DataError

FLIPS = 10_000  # sign flips of the permutation test: a p of 0.05 then has a standard error of 0.002
_AT_ONCE = 500  # of them: all signs of tens of thousands of images would be gigabytes


@dataclass(frozen=True)
class Paired:
    """Correct (1) or wrong (0) of two results on the same images, in one order: ``first`` and ``second`` [N].

    With several seeds an entry is the share of a result's seeds that are correct. unit : code of each image's
    subject [N], from 0; of the image itself where any subject is unknown.
    """

    ids: list[str]
    first: np.ndarray
    second: np.ndarray
    unit: np.ndarray
    over: Literal["subjects", "images"]

    @property
    def units(self) -> int:
        return int(self.unit.max()) + 1

    def gains(self) -> tuple[np.ndarray, np.ndarray]:
        """Return by unit [U] how many more of its images the second has correct, and the number of its images."""
        return np.bincount(self.unit, weights=self.second - self.first), np.bincount(self.unit)


@dataclass(frozen=True)
class Difference:
    """Accuracy of the second result minus that of the first, with its confidence interval over ``units``."""

    value: float
    low: float
    high: float
    over: Literal["subjects", "images"]
    units: int


def paired(first: list[pd.DataFrame], second: list[pd.DataFrame]) -> Paired:
    """Put the predictions of two results together by image; each has one frame for each of its seeds.

    Raises DataError unless all frames hold the same images with the same truths.
    """
    base = first[0].sort_values("id")
    if base["id"].duplicated().any():
        raise DataError(f"image {base.loc[base['id'].duplicated(), 'id'].iloc[0]} is predicted twice")
    shares = [np.mean([_correct(frame, base) for frame in seeds], axis=0) for seeds in (first, second)]
    known = bool((base["subject"] != "").all())
    unit = pd.factorize(base["subject"])[0] if known else np.arange(len(base))
    return Paired(list(base["id"]), shares[0], shares[1], unit, "subjects" if known else "images")


def _correct(frame: pd.DataFrame, base: pd.DataFrame) -> np.ndarray:
    frame = frame.sort_values("id")
    if len(frame) != len(base) or (frame["id"].to_numpy() != base["id"].to_numpy()).any():
        differing = sorted({*frame["id"]} ^ {*base["id"]})
        raise DataError(f"the two predict different images ({len(differing)} are in one alone, such as {differing[0]})")
    if (frame["truth"].to_numpy() != base["truth"].to_numpy()).any():
        raise DataError("the two disagree about the truth of the same images: their data differ")
    return metrics.correct(frame).astype(np.float64)


def difference(pair: Paired, level: float = 0.95) -> Difference:
    """Return the difference of two accuracies on the same images, with Student's t interval over subjects.

    The variance is :func:`ferbench.metrics.cluster_variance`, over what an image can be: correct in the second alone
    (1), in both or in neither (0 and 0), in the first alone (−1). One subject gives a point.
    """
    gain, size = pair.gains()
    value = float(gain.sum() / size.sum())
    half = 0.0
    if len(gain) > 1:
        _, variance = metrics.cluster_variance(gain, size, (1, 0, 0, -1))
        half = metrics.student(len(gain) - 1, level) * float(np.sqrt(variance))
    return Difference(value, max(-1.0, value - half), min(1.0, value + half), pair.over, len(gain))


def permutation(pair: Paired, seed: int = 0, side: Literal["both", "worse"] = "both") -> float:
    """The p-value of "neither is better": signs of whole subjects' differences flipped at random
    (Good 2005, 3.2; Phipson & Smyth 2010 for the added one). "worse" is one-sided: whether the second is worse.

    Exact where the two results are exchangeable within each subject, whatever the dependence of its images.
    """
    gain, _ = pair.gains()
    gain = gain[gain != 0]
    seen = gain.sum()
    rng = np.random.default_rng(seed)
    sums = np.concatenate([rng.choice((-1.0, 1.0), (_AT_ONCE, len(gain))) @ gain for _ in range(FLIPS // _AT_ONCE)])
    extreme = sums <= seen + 1e-9 if side == "worse" else np.abs(sums) >= abs(seen) - 1e-9
    return float((extreme.sum() + 1) / (FLIPS + 1))


def mcnemar(pair: Paired) -> float:
    """McNemar's exact test, two-sided, on single images: 2·P(X ≤ min(b, c)), X ~ Binomial(b + c, ½), where b
    and c images are correct in one alone (Agresti 2013, 11.1). For one seed each.

    It treats images as independent. Where images of one person are not, its p is too small.
    """
    from scipy.special import bdtr

    b, c = int((pair.first > pair.second).sum()), int((pair.second > pair.first).sum())
    return min(1.0, float(2 * bdtr(min(b, c), b + c, 0.5))) if b + c else 1.0


def holm(values: list[float]) -> list[float]:
    """Holm's step-down correction (1979): adjusted p-values in the order given."""
    order = np.argsort(values, kind="stable")
    stepped = np.asarray(values, dtype=np.float64)[order] * np.arange(len(values), 0, -1)
    adjusted = np.empty(len(values))
    adjusted[order] = np.minimum(np.maximum.accumulate(stepped), 1)
    return [float(value) for value in adjusted]
