"""What a report says about tested runs, as plain data: the same behind every format.

The fields of :class:`Report` and its parts are the keys of ``ferbench report --format json``, those of
:attr:`Tested.metrics` among them. Figures of ours are fractions, computed from the stored predictions; published ones
are in percent, as printed. Times are in seconds. What is tested is an image or, under a protocol of sequences, a whole
sequence (``level``); figures of the two are never compared.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from ferbench import metrics
from ferbench.errors import DataError
from ferbench.metrics import Interval
from ferbench.report.compare import Result, paired_results
from ferbench.report.published import PublishedMatrix, PublishedRow
from ferbench.report.table import SIGNIFICANCE
from ferbench.report.tested_runs import FEW, LEVELS, Level, TestedRun, dataset_of, is_synthetic
from ferbench.statistics import Difference

SELECTIONS = {"last": "last epoch", "best-val": "best epoch on held-out training subjects"}


@dataclass(frozen=True)
class Fold:
    """One fold of one training."""

    fold: str
    images: int  # that were tested; sequences under a protocol of sequences
    subjects: int  # 0 where they are unknown
    accuracy: float
    absent: list[str]  # classes of the protocol without anything to test in this fold, abbreviated
    seconds: float
    run: str  # key


@dataclass(frozen=True, kw_only=True)
class Tested(TestedRun):
    """One network, or one for each fold, that was tested under a protocol."""

    preset: str  # size and schedule: trainings of different presets differ in more than the method
    protocol: str
    seed: int
    classes: list[str]
    images: int  # that were tested; sequences of a :class:`Transfer` under a protocol of sequences
    held_out_accuracy: float | None  # without the samples that were learned from; null where there are none
    held_out_count: int  # how many samples remain without them
    matrix: np.ndarray  # counts [K,K], rows are the truth
    metrics: dict[str, Any]  # see metrics.METRICS
    interval: Interval  # of the accuracy

    @property
    def accuracy(self) -> float:
        return self.metrics["accuracy"]


@dataclass(frozen=True, kw_only=True)
class Training(Tested):
    """One method trained under one protocol with one seed: all of its folds that are done.

    All figures but ``fold_mean`` and ``fold_std`` are computed from the folds' predictions put together, of images or
    of sequences as ``level`` says; ``sequence_accuracy`` and its interval are always of sequences. ``images`` is 0
    under a protocol of sequences.
    """

    experiment: str  # 8 digits that its folds share
    variant: str  # 8 digits shared by trainings that differ only in their seeds
    name: str  # of baselines/*.toml
    selection: str
    devices: list[str]
    precision: str
    rule: str  # how the folds were formed, as text
    split_hash: str
    test_set: str  # 8 digits shared by trainings tested on the same in the same folds, by sequences where known
    data: str  # fingerprint of the prepared dataset
    parameters: int  # 0 where they are not counted
    folds: list[Fold]
    expected: list[str]  # names of all folds of the protocol
    fold_mean: float
    fold_std: float
    sequence_interval: Interval | None  # null where sequences are unknown
    sequences: int  # 0 where they are unknown
    subjects: int  # 0 where they are unknown
    parents: dict[str, str]  # kind of the stage → key of its run
    audit: str  # what training and test sets have in common, in words; "" in older records
    seen: int  # tested that are training images too, or near copies of one
    unseen_accuracy: float  # of the others
    notes: list[str]

    @property
    def sequence_accuracy(self) -> float:
        """Of images by the mean of their probabilities; NaN where sequences are unknown."""
        return self.metrics["sequence_accuracy"]

    @property
    def whole(self) -> bool:
        """Whether every fold of the protocol is done: only then may it be compared."""
        return len(self.folds) == len(self.expected)

    @property
    def done(self) -> str:
        """The number of folds that are done, of all: ``7/10``."""
        return f"{len(self.folds)}/{len(self.expected)}"

    @property
    def comparable(self) -> bool:
        """Whether it may be compared with others of ours: whole, and known to be tested on held-out people."""
        return self.whole and self.held_out.comparable

    @property
    def title(self) -> str:
        """The method with its preset: ``WS-LGAN (tiny)``."""
        return f"{self.method} ({self.preset})" if self.preset else self.method

    @property
    def seeded(self) -> str:
        """The method with its preset and seed: ``WS-LGAN (tiny, seed 0)``."""
        return f"{self.method} ({self.preset and f'{self.preset}, '}seed {self.seed})"

    @property
    def weights(self) -> str:
        """Which weights were tested: ``last epoch``."""
        return SELECTIONS.get(self.selection, self.selection)

    @property
    def tested(self) -> int:
        """How many images, or sequences, were tested."""
        return self.images if self.level == "image" else self.sequences

    @property
    def n(self) -> str:
        """What was tested: ``981 images``."""
        return f"{self.tested:,} {self.level}s"

    @property
    def not_comparable_reason(self) -> str:
        """Why it is compared with no published figure; empty where it may be."""
        if not self.whole:
            return "folds missing"
        if not self.held_out.comparable:
            return "not held out" if self.held_out.status == "no" else "not known to be held out"
        if self.sees.startswith(FEW):
            return f"{FEW} only"
        return "drawn faces" if is_synthetic(dataset_of(self.protocol)) else ""


@dataclass(frozen=True, kw_only=True)
class Transfer(Tested):
    """A finished model tested under this protocol with nothing learned there, all its classes in play."""

    run: str
    source: str  # the run whose stored scores were adjusted; empty where they are as the model gave them
    left_out: dict[str, int]  # images or sequences of classes that the model never learned
    shipped: bool  # the model came with the package


@dataclass(frozen=True)
class Seeds:
    """Whole trainings of one variant: what chance alone does to the pooled accuracy."""

    variant: str
    method: str
    preset: str
    level: Level
    seeds: list[int]
    experiments: list[str]
    mean: float
    std: float  # ddof 1
    ensemble: float  # accuracy of the mean of their probabilities
    ensemble_interval: Interval
    tested: int  # images or sequences, as ``level`` says
    wrong_with_some: int  # of them, those that at least one seed predicts wrongly
    wrong_with_all: int  # and those that every seed does: more seeds of the same recipe would hardly help them
    wrong_subjects: list[str]  # the subjects of the latter, where known


@dataclass(frozen=True)
class PresetEnsemble:
    """The presets of one method as an ensemble: for each seed, one network of each preset."""

    method: str
    level: Level
    presets: list[str]
    seeds: list[int]
    accuracies: list[float]  # by seed
    intervals: list[Interval]
    mean: float
    std: float  # ddof 1; 0 for a single seed


@dataclass(frozen=True)
class Contrast:
    """Two leading methods compared on the same images, or sequences, as ``ferbench compare`` does it."""

    first: str  # that is not below the other
    second: str
    protocol: str  # of both, where they differ
    level: Level
    tested: int
    seeds: tuple[int, int]  # how many each has: its accuracy is their mean
    accuracy: tuple[float, float]
    difference: Difference  # second minus first
    p: float  # permutation over subjects
    shown: bool  # whether chance in the choice of tested people does not explain the difference
    among: int  # methods that these two are the best of
    remarks: list[str]  # what differs between them besides the method, a sentence each


@dataclass(frozen=True)
class Stage:
    """A run that folds start from, such as a pre-training; it is never tested."""

    run: str
    kind: str
    protocol: str
    seed: int
    result: dict  # validation figures, by part where it has several
    epochs: int  # 0 where it is not counted by epochs
    images: int  # 0 where they were not counted
    device: str
    seconds: float
    shipped: bool  # it came with the package


@dataclass(frozen=True)
class MissingFold:
    """A fold without a finished run, and the command that trains it (empty where no run states it)."""

    experiment: str
    method: str
    preset: str
    seed: int
    fold: str
    reason: str  # the error of a failed run, "begun, not finished" or "not begun"
    command: str


@dataclass(frozen=True)
class Compared:
    """A method with a published row, or one that the paper compares itself with, and what is here of it."""

    method: str  # as the paper prints it
    experiments: list[str]  # trainings of ours that reproduce it, whatever their input
    why: str  # why no figure of ours stands beside the published one; empty where one does
    command: str  # what would train it, where nothing but the run is missing


@dataclass(frozen=True)
class Report:
    """Everything that is said about one dataset, tested by images and by whole sequences."""

    dataset: str  # name of a protocol without its version, and without "-sequences" unless that alone is reported
    protocol: str  # the first of them
    protocols: list[str]
    synthetic: bool  # ferbench drew the faces: nothing published is about them
    published: list[PublishedRow]
    compared: list[Compared]
    published_matrix: PublishedMatrix | None
    errata: list[str]
    varying: dict[str, list[str]]  # what differs between the trainings: field → values
    trainings: list[Training]
    seeds: list[Seeds]
    preset_ensembles: list[PresetEnsemble]
    stages: list[Stage]
    missing_folds: list[MissingFold]
    transfers: list[Transfer]
    leakage_folds: int = 0  # folds that measure data leakage, which are no results: left out
    contrasts: list[Contrast] = field(default_factory=list)  # the leading methods compared with each other


def named(trainings: list[Training]) -> dict[str, str]:
    """Return what tables call each training, by experiment, which is part of the name where the rest is not unique."""
    shared = Counter(t.seeded for t in trainings)
    return {t.experiment: t.seeded if shared[t.seeded] == 1 else f"{t.seeded[:-1]}, {t.experiment})" for t in trainings}


def by_variant(trainings: Iterable[Training]) -> list[list[Training]]:
    """Return trainings in groups that differ in their seeds only."""
    groups: dict[str, list[Training]] = defaultdict(list)
    for t in trainings:
        groups[t.variant].append(t)
    return list(groups.values())


# Several trainings together: seeds of one recipe, presets of one method, and the leading methods compared

Frames = Mapping[str, pd.DataFrame]  # by experiment, the predictions of all its folds


def across_seeds(trainings: list[Training], frames: Frames) -> list[Seeds]:
    """Return what whole trainings of equal variant come to together, where there are two or more."""
    groups = by_variant(t for t in trainings if t.whole)
    return [_seeds(group, frames) for group in groups if len(group) > 1]


def _seeds(group: list[Training], frames: Frames) -> Seeds:
    first, predicted = group[0], [frames[t.experiment] for t in group]
    times = metrics.times_wrong(predicted)
    always = predicted[0]["subject"].to_numpy()[times == len(predicted)]
    mean, std = metrics.spread([t.accuracy for t in group])
    ensemble, interval = _ensemble(group, frames)
    return Seeds(
        **{name: getattr(first, name) for name in ("variant", "method", "preset", "level")},
        seeds=[t.seed for t in group],
        experiments=[t.experiment for t in group],
        mean=mean,
        std=std,
        ensemble=ensemble,
        ensemble_interval=interval,
        tested=len(times),
        wrong_with_some=int((times > 0).sum()),
        wrong_with_all=len(always),
        wrong_subjects=sorted({*always} - {""}),
    )


def _ensemble(group: list[Training], frames: Frames) -> tuple[float, metrics.Interval]:
    """The accuracy of the mean of several trainings' probabilities, with its interval."""
    together = metrics.ensemble([frames[t.experiment] for t in group], group[0].classes)
    return metrics.share_correct(together), metrics.subject_interval(together)


def across_presets(trainings: list[Training], frames: Frames) -> list[PresetEnsemble]:
    """Return what all presets of a method give together, by the seeds that each of them has, where there are two or
    more presets. A method with several recipes for one preset is left out: nothing says which of them to take."""
    methods: dict[tuple[str, Level, str, str, str], dict[tuple[str, str], dict[int, Training]]]
    methods = defaultdict(lambda: defaultdict(dict))
    for t in trainings:
        if t.whole:
            methods[t.method, t.level, t.selection, t.split_hash, t.data][t.preset, t.variant][t.seed] = t
    ensembles = []
    for (method, level, *_), recipes in methods.items():
        presets = [preset for preset, _ in recipes]
        seeds = sorted(set.intersection(*map(set, recipes.values())))
        if len(presets) == len(set(presets)) > 1 and seeds:
            figures = [_ensemble([by_seed[seed] for by_seed in recipes.values()], frames) for seed in seeds]
            shares, intervals = map(list, zip(*figures, strict=True))
            ensembles.append(PresetEnsemble(method, level, presets, seeds, shares, intervals, *metrics.spread(shares)))
    return ensembles


def contrasts(trainings: list[Training], frames: Frames) -> list[Contrast]:
    """Return comparisons of the best two methods that predict images, of the best two that predict sequences, and of
    the best of either kind by sequences. The better one stands first.

    Only whole trainings are compared, tested on the same in the same folds, on people they did not learn from; of a
    method its best recipe, over all of its seeds.
    """
    alike: dict[str, list[Training]] = defaultdict(list)
    for t in trainings:
        if t.comparable:
            alike[t.test_set].append(t)
    comparisons = []
    for group in alike.values():
        ranked = [_ranked([t for t in group if t.level == level]) for level in LEVELS]
        pairs = [(methods[:2], len(methods)) for methods in ranked if len(methods) > 1]
        if all(ranked):
            pairs.append(([methods[0] for methods in ranked], sum(map(len, ranked))))
        for (first, second), among in pairs:
            # Data or fold files may still differ, or sequences be unknown: then there is nothing to say.
            with suppress(DataError):
                comparisons.append(_contrast(first, second, frames, among))
    return comparisons


def _ranked(trainings: list[Training]) -> list[list[Training]]:
    """The best recipe of each method, the best first, each with the trainings of all its seeds."""
    best: dict[str, list[Training]] = {}
    for group in sorted(by_variant(trainings), key=lambda group: -float(np.mean([t.accuracy for t in group]))):
        best.setdefault(group[0].method, group)
    return list(best.values())


def _contrast(first: list[Training], second: list[Training], frames: Frames, among: int) -> Contrast:
    """As ``compare`` does it, without a row for each class and image. Raises DataError as it does."""
    facts, pair, _ = paired_results(_result(first, frames), _result(second, frames))
    if pair.second.mean() > pair.first.mean():  # by sequences another leads than by images
        return _contrast(second, first, frames, among)
    names: dict[str, Any] = {"first": first[0].title, "second": second[0].title}
    return Contrast(**names, **facts, tested=len(pair.ids), shown=facts["p"] <= SIGNIFICANCE, among=among)


def _result(group: list[Training], frames: Frames) -> Result:
    first = group[0]
    return Result(
        method=first.name,
        title=first.method,
        split=first.split_hash,
        seeds=[t.seed for t in group],
        frames=[frames[t.experiment] for t in group],
        evaluation=False,
        **{name: getattr(first, name) for name in ("preset", "protocol", "data", "selection", "variant", "classes")},
        **{name: getattr(first, name) for name in ("level", "trained_on", "held_out", "uncalibrated")},
    )
