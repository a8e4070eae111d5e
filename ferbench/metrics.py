"""Metrics, from stored predictions and nothing else.

A frame of predictions has the columns id, subject, sequence, truth, prediction and p_<class>. The headline
is the pooled accuracy: correct images over all images of all folds. It is what the paper printed: its
matrices give 962/981, 1271/1440 and 2610/3068, which are 98.06, 88.26 and 85.07 %.

All but the interval and the sequences follow from the counts of the confusion matrix. scikit-learn has the
same figures (the tests compare) from lists of labels, and takes longer to import than a report to build.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ferbench.errors import DataError

if TYPE_CHECKING:
    import pandas as pd


def sums_to_one(probabilities: np.ndarray) -> np.ndarray:
    """Return which rows of [N,K] are probabilities, bool [N]: none is negative and their sum is 1.

    Both within the error of float16. Of numbers that are rounded to two decimals the sum may be off by K · 0.005.
    """
    percent = 100 * probabilities
    rounded = (np.abs(percent - np.round(percent)) < 1e-4).all(axis=1)
    allowed = np.where(rounded, np.maximum(0.01, 0.005 * probabilities.shape[1] + 1e-9), 0.01)
    return (probabilities >= -1e-3).all(axis=1) & (np.abs(probabilities.sum(axis=1) - 1) <= allowed)


def correct(frame: pd.DataFrame) -> np.ndarray:
    """Return whether each prediction is correct, bool [N]."""
    return frame["truth"].to_numpy() == frame["prediction"].to_numpy()


def share_correct(frame: pd.DataFrame) -> float:
    """Return the share of predictions that are correct: the accuracy, computed without a confusion matrix."""
    return float(correct(frame).mean())


def confusion(truth: pd.Series, prediction: pd.Series, classes: list[str]) -> np.ndarray:
    """Return counts int64 [K,K]: rows are the truth, columns what was predicted.

    Raises DataError for a name that is not one of ``classes``.
    """
    rows, columns = (_places(names.to_numpy(), classes) for names in (truth, prediction))
    if unknown := sorted({*truth[rows < 0], *prediction[columns < 0]}, key=str):
        raise DataError(f"{', '.join(map(repr, unknown))} is none of the classes {', '.join(classes)}")
    pairs = rows * len(classes) + columns
    return np.bincount(pairs, minlength=len(classes) ** 2).reshape(len(classes), len(classes))


def _places(names: np.ndarray, classes: list[str]) -> np.ndarray:
    """The place of each name among the classes; -1 for an unknown one."""
    import pandas as pd

    codes, unique = pd.factorize(names, use_na_sentinel=False)
    return np.array([classes.index(name) if name in classes else -1 for name in unique], dtype=np.int64)[codes]


def accuracy(matrix: np.ndarray) -> float:
    """Pooled accuracy: trace / total."""
    return float(np.trace(matrix) / matrix.sum())


def recalls(matrix: np.ndarray) -> np.ndarray:
    """Recall of each class [K], the diagonal of the paper's matrices; NaN for a class without images."""
    sizes = matrix.sum(axis=1)
    return np.divide(np.diag(matrix), sizes, out=np.full(len(matrix), np.nan), where=sizes > 0)


def balanced_accuracy(matrix: np.ndarray) -> float:
    """Mean recall over the classes that have images (``balanced_accuracy_score`` of scikit-learn)."""
    return float(np.nanmean(recalls(matrix)))


def macro_f1(matrix: np.ndarray) -> float:
    """Mean of F1 = 2·TP / (2·TP + FP + FN) over the classes that have images; 0 where nothing is correct.

    A class that was predicted but has no images has no F1: its false positives count in the rows of their true
    classes (``f1_score(labels=present, average="macro", zero_division=0)``).
    """
    present = matrix.sum(axis=1) > 0
    right = np.diag(matrix)
    return float((2 * right / np.maximum(matrix.sum(axis=0) + matrix.sum(axis=1), 1))[present].mean())


def row_percent(matrix: np.ndarray) -> np.ndarray:
    """Each row in percent of its truth, as the paper prints; NaN in the row of an absent class."""
    sizes = matrix.sum(axis=1, keepdims=True)
    return np.divide(100 * matrix, sizes, out=np.full(matrix.shape, np.nan), where=sizes > 0)


def counts_from_percent(percent: np.ndarray, sizes: list[int]) -> np.ndarray:
    """Undo the printing of a matrix in percent: counts int64 [K,K] whose rows sum to ``sizes``.

    Counts are the nearest whole numbers, which is exact for classes of fewer than 1000 images printed with one
    decimal, unless a row's printed cells contradict its size. Where a row is then too long or too short, the
    cells beside the diagonal that were rounded furthest give or take one each; the diagonal has the rest.
    """
    exact = np.asarray(percent, dtype=np.float64) * np.asarray(sizes)[:, None] / 100
    counts = np.rint(exact).astype(np.int64)
    for row, size in enumerate(sizes):
        gap = size - int(counts[row].sum())
        # Most in need first. A cell printed as 0 stays 0, none falls below 0; the diagonal, which is the
        # accuracy, stays nearest as long as others can give.
        free = (exact[row] > 0) & (np.arange(len(exact)) != row) & (counts[row] + np.sign(gap) >= 0)
        need = np.where(free, np.sign(gap) * (exact[row] - counts[row]), -np.inf)
        counts[row, np.argsort(-need, kind="stable")[: min(abs(gap), free.sum())]] += np.sign(gap)
        counts[row, row] += size - counts[row].sum()
    return counts


@dataclass(frozen=True)
class Interval:
    """A confidence interval and what it treats as independent: ``units`` subjects, or images where any subject is
    unknown."""

    low: float
    high: float
    over: Literal["subjects", "images"]
    units: int

    @property
    def degenerate(self) -> bool:
        """One subject (or image) says nothing about others: the interval is a point."""
        return self.units < 2


def subject_interval(frame: pd.DataFrame, level: float = 0.95) -> Interval:
    """Return the confidence interval of the pooled accuracy.

    Images of one person err together, so that subjects, not images, are the independent units. Where the subject of
    any image is unknown, images are. See :func:`proportion_interval`.
    """
    import pandas as pd

    known = bool((frame["subject"] != "").all())
    codes, names = pd.factorize(frame["subject" if known else "id"])
    counts = np.bincount(codes, weights=correct(frame))
    low, high = proportion_interval(counts, np.bincount(codes), level)
    return Interval(low, high, "subjects" if known else "images", len(names))


def proportion_interval(correct: np.ndarray, sizes: np.ndarray, level: float = 0.95) -> tuple[float, float]:
    """Return both ends of the confidence interval of Σ correct / Σ sizes, a proportion observed on whole clusters.

    correct, sizes : for each cluster (subject) the number of its correct images and of its images [U].

    It is the score interval of Wilson (1927) for clustered data, which Franco, Little, Louis & Slud (2019) recommend,
    with the effective sample size p(1 − p) / v of Korn & Graubard (1998), at most the number of images, and the
    quantile of Student's t with U − 1 degrees of freedom. v and its p are of :func:`cluster_variance`.
    At 0 and 100 % no case is special: one end is then 0 or 1, and the other as far as unseen subjects may err.
    One cluster gives a point. The measured coverage is in ``docs/protocols.md``.
    """
    images, clusters = float(sizes.sum()), len(sizes)
    p = float(correct.sum()) / images
    if clusters < 2:
        return p, p
    centre, variance = cluster_variance(correct, sizes, (0, 1))
    effective = min(centre * (1 - centre) / variance, images)
    share = student(clusters - 1, level) ** 2 / effective
    middle = p + share / 2
    half = float(np.sqrt(share * (p * (1 - p) + share / 4)))
    # Rounding must not separate an end from the proportion that lies there: p = 0 and p = 1.
    return max(0.0, min(p, (middle - half) / (1 + share))), min(1.0, max(p, (middle + half) / (1 + share)))


def cluster_variance(sums: np.ndarray, sizes: np.ndarray, outcomes: tuple[int, ...]) -> tuple[float, float]:
    """Return Σ sums / Σ sizes and its variance over clusters, both with one cluster added.

    sums, sizes : what each cluster adds to the numerator and to the denominator [U].
    outcomes : the values that a single image can have. The added cluster has the mean size, and each outcome in an
        equal part of it.

    The variance is that of the jackknife, which leaves out one cluster at a time (Shao & Tu 1995, 2.1). Without the
    added cluster it is too small where errors are few, and 0 where there are none, because clusters that err are
    then missing from the sample. One cluster of added images was chosen by the coverage that ``docs/protocols.md``
    shows; Agresti & Coull (1998) add four images to a sample of independent ones.
    """
    clusters, part = len(sizes), float(np.mean(sizes)) / len(outcomes)
    sums = np.append(sums, [part * outcome for outcome in outcomes])
    sizes = np.append(sizes, [part] * len(outcomes))
    ratio = sums.sum() / sizes.sum()
    changes = (sums - ratio * sizes) / (sizes.sum() - sizes)  # of the ratio, when a cluster is left out
    return float(ratio), float((clusters - 1) / clusters * (changes**2).sum())


def student(freedom: int, level: float) -> float:
    """Return the quantile of Student's t between −q and q of which a share ``level`` lies."""
    from scipy.special import stdtrit

    return float(stdtrit(freedom, (1 + level) / 2))


def by_sequence(frame: pd.DataFrame, classes: list[str]) -> pd.DataFrame:
    """Return one row for each sequence instead of its tested frames: the mean of their probabilities, and the class
    of the highest mean (the first of equals, in the order of ``classes``); sorted by name, which is the ``id`` too.

    Images of no sequence are left out. Other columns keep what the first frame has.
    """
    import pandas as pd

    columns = [f"p_{name}" for name in classes]
    unknown = frame["sequence"].to_numpy() == ""
    known = frame[~unknown] if unknown.any() else frame
    codes, names = pd.factorize(known["sequence"].to_numpy(), sort=True)
    sizes = np.bincount(codes, minlength=len(names))
    means = [np.bincount(codes, known[column], minlength=len(names)) / sizes for column in columns]
    sequences = known.iloc[np.unique(codes, return_index=True)[1]].reset_index(drop=True)
    for column, values in zip(columns, means, strict=True):
        sequences[column] = values
    sequences["id"] = pd.Series(names, dtype=object)
    sequences["prediction"] = pd.Series(np.array(classes, dtype=object)[np.argmax(means, axis=0)], dtype=object)
    return sequences


def sequence_accuracy(frame: pd.DataFrame, classes: list[str]) -> tuple[float, int]:
    """Return the accuracy over sequences (see :func:`by_sequence`) and their number; (NaN, 0) where there are none."""
    sequences = by_sequence(frame, classes)
    return (float("nan"), 0) if sequences.empty else (share_correct(sequences), len(sequences))


def ensemble(frames: list[pd.DataFrame], classes: list[str]) -> pd.DataFrame:
    """Return the predictions of several trainings of one method together: the mean of their probabilities, each
    weighing the same (deep ensembles; Lakshminarayanan et al. 2017, 2.4), in the order of the first frame.

    The class of the highest mean is predicted (the first of equals, in the order of ``classes``).
    Raises DataError unless all frames hold the same images, each once.
    """
    columns, images = [f"p_{name}" for name in classes], frames[0]["id"].to_numpy()
    ordered = [_in_order(frame, images) for frame in frames]
    means = np.stack([np.mean([frame[column] for frame in ordered], axis=0) for column in columns], axis=1)
    together = frames[0].copy()
    together[columns] = means
    return together.assign(prediction=np.array(classes)[means.argmax(axis=1)])


def times_wrong(frames: list[pd.DataFrame]) -> np.ndarray:
    """Return how many of several trainings predict each sample wrongly, int64 [N], in the order of the first frame.

    Raises DataError unless all frames hold the same samples, each once.
    """
    samples = frames[0]["id"].to_numpy()
    return np.stack([~correct(_in_order(frame, samples)) for frame in frames]).sum(axis=0, dtype=np.int64)


def _in_order(frame: pd.DataFrame, images: np.ndarray) -> pd.DataFrame:
    """The frame in this order of images; DataError unless it holds these and no others, each once."""
    import pandas as pd

    names = frame["id"].to_numpy()
    same = len(names) == len(images) and bool((names == images).all())
    if len({*names}) < len(names) or not (same or {*names} == {*images}):
        raise DataError("trainings that tested different images cannot be averaged")
    return frame if same else frame.take(pd.Index(names).get_indexer(images))


def spread(values: list[float]) -> tuple[float, float]:
    """Mean and sample standard deviation (ddof 1; 0 for a single value), unweighted: folds differ in size."""
    array = np.asarray(values, dtype=np.float64)
    return float(array.mean()), float(array.std(ddof=1)) if len(array) > 1 else 0.0


def reliability(confidence: np.ndarray, correct: np.ndarray, bins: int = 15) -> tuple[np.ndarray, float]:
    """Return equal-width bins of confidence and the expected calibration error (Guo et al. 2017, Eq. 3).

    confidence : the probability of each predicted class [N]. correct : bool [N].
    The bins are rows (images, mean confidence, accuracy) [bins,3], NaN means where a bin is empty;
    ECE = Σ n_b/N · |accuracy_b − confidence_b|.
    """
    places = np.minimum((confidence * bins).astype(np.int64), bins - 1)
    count = np.bincount(places, minlength=bins)
    sums = [np.bincount(places, weights=values, minlength=bins) for values in (confidence, correct.astype(np.float64))]
    means = [np.divide(total, count, out=np.full(bins, np.nan), where=count > 0) for total in sums]
    error = float(np.nansum(count / len(confidence) * np.abs(means[1] - means[0])))
    return np.column_stack([count, *means]), error


def calibration_error(confidence: np.ndarray, correct: np.ndarray) -> float:
    """Expected calibration error with 15 bins of equal width, see :func:`reliability`."""
    return reliability(confidence, correct, bins=15)[1]


def worst_group(frame: pd.DataFrame, by: str) -> tuple[str, float, int]:
    """Return the group of ``by`` with the lowest accuracy, the larger of equals, with its accuracy and its number of
    predictions. Rows without a group are left out; ("", NaN, 0) where no row has one."""
    import pandas as pd

    known = frame[by].to_numpy() != ""
    codes, names = pd.factorize(frame[by].to_numpy()[known], sort=True)
    if not len(names):
        return "", float("nan"), 0
    sizes = np.bincount(codes)
    shares = np.bincount(codes, weights=correct(frame)[known]) / sizes
    place = np.lexsort((-sizes, shares))[0]
    return str(names[place]), float(shares[place]), int(sizes[place])


@dataclass(frozen=True)
class Metric:
    """One metric as JSON, tables and model cards show it. ``compute`` returns a fraction, or what ``kind`` says.

    name : key in JSON. title : column of tables. needs : the arguments of ``compute``: counts [K,K], the predictions,
    the predictions by sequence, or the probability of each predicted class with whether it is correct.
    kind : "percent", "of sequences" (a fraction of sequences), "group" (its name, a fraction, n), "by class" ([K]).
    card : type and name in the metadata of a model card; None where a card does not state it.
    """

    name: str
    title: str
    needs: Literal["confusion", "predictions", "sequences", "confidence"]
    compute: Callable[..., Any]
    kind: Literal["percent", "of sequences", "group", "by class"] = "percent"
    card: tuple[str, str] | None = None

    @property
    def words(self) -> str:
        """Its name in words: ``balanced accuracy``."""
        return self.name.replace("_", " ").replace("f1", "F1")


METRICS = (
    Metric("accuracy", "Accuracy", "confusion", accuracy, card=("accuracy", "Accuracy, pooled over all folds")),
    Metric(
        "balanced_accuracy",
        "Balanced",
        "confusion",
        balanced_accuracy,
        card=("recall", "Balanced accuracy (mean recall of all classes)"),
    ),
    Metric("macro_f1", "Macro F1", "confusion", macro_f1, card=("f1", "Macro F1")),
    Metric("ece", "ECE", "confidence", calibration_error, card=("ece", "Expected calibration error, 15 bins")),
    Metric("sequence_accuracy", "By sequence", "sequences", share_correct, "of sequences"),
    Metric("worst_class", "Worst class", "predictions", partial(worst_group, by="truth"), "group"),
    Metric("worst_subject", "Worst subject", "predictions", partial(worst_group, by="subject"), "group"),
    Metric("recalls", "Recall", "confusion", recalls, "by class"),
)


def measure(
    frame: pd.DataFrame, classes: list[str], matrix: np.ndarray, sequences: pd.DataFrame, calibrated: bool
) -> dict[str, Any]:
    """Return every metric of predictions, by name; NaN where they do not have what it needs.

    matrix : their counts [K,K]. sequences : see :func:`by_sequence`; empty where sequences are unknown.
    calibrated : whether scores are probabilities.
    """
    arguments: dict[str, tuple[Any, ...]] = {"confusion": (matrix,), "predictions": (frame,)}
    if len(sequences):
        arguments["sequences"] = (sequences,)
    if calibrated:
        arguments["confidence"] = frame[[f"p_{name}" for name in classes]].to_numpy().max(axis=1), correct(frame)
    return {
        metric.name: metric.compute(*arguments[metric.needs]) if metric.needs in arguments else float("nan")
        for metric in METRICS
    }
