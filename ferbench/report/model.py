"""What a report says, as plain data, the same behind every format.

The fields of these classes are the keys of ``ferbench report --format json``. Figures of ours are fractions, computed
from the stored predictions; published ones are in percent, as printed. Times are in seconds. What is tested is an image
or, under a protocol of sequences, a whole sequence (``level``); figures of the two are never compared.
"""

from dataclasses import dataclass, field

import numpy as np

from ferbench import metrics
from ferbench.report.published import PublishedMatrix, PublishedRow
from ferbench.report.told import FEW, Level, is_drawn, set_of
from ferbench.runs.facts import HeldOut
from ferbench.statistics import Difference


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


@dataclass(frozen=True)
class Training:
    """One method trained under one protocol with one seed: all of its folds that are done.

    All figures but ``fold_mean`` and ``fold_std`` are of the folds' predictions put together, and of images or of
    sequences as ``level`` says; ``sequence_accuracy`` and its interval are of sequences always.
    """

    experiment: str  # 8 digits that its folds share
    variant: str  # 8 digits that trainings share which differ in nothing but their seeds
    name: str  # of baselines/*.toml
    method: str  # as printed in tables
    published: str  # the paper's row that it reproduces, or empty
    preset: str  # its size and schedule: trainings of different ones differ in more than the method
    protocol: str
    level: Level  # what one prediction is of
    sees: str  # what of it the method reads: image, 3 frames, whole, whole + landmarks, whole + neutral
    trained_on: list[str]  # protocols of all that was learned from, first to last
    held_out: HeldOut  # whether nothing of what is tested was learned from
    held_out_accuracy: float | None  # without the samples that were learned from; null where there are none
    held_out_count: int  # how many samples remain without them
    uncalibrated: bool  # the scores are no probabilities: nothing is said of their calibration
    selection: str
    seed: int
    devices: list[str]
    precision: str
    rule: str  # how the folds were made, in words
    split_hash: str
    test_side: str  # 8 digits that trainings share which tested the same in the same folds, by sequences where known
    data: str  # fingerprint of the prepared dataset
    parameters: int  # 0 where they are not counted
    classes: list[str]
    folds: list[Fold]
    expected: list[str]  # names of all folds of the protocol
    matrix: np.ndarray  # counts [K,K], rows are the truth
    accuracy: float
    interval: metrics.Interval
    fold_mean: float
    fold_std: float
    balanced_accuracy: float
    macro_f1: float
    worst_subject: tuple[str, float, int]  # the lowest accuracy of one person, with its n; "" where unknown
    worst_class: tuple[str, float, int]  # the lowest recall, with its n
    sequence_accuracy: float  # of images by the mean of their probabilities
    sequence_interval: metrics.Interval | None  # null where sequences are unknown
    sequences: int  # 0 where they are unknown
    images: int  # 0 under a protocol of sequences
    subjects: int  # 0 where they are unknown
    parents: dict[str, str]  # kind of the stage → key of its run
    differs: list[str]  # what is not as in the original, a sentence each
    changed: list[str]  # hyperparameters that are not the preset's, such as finetune.flip=true
    audit: str  # what training and test sets have in common, in words; "" of runs from before this was recorded
    seen: int  # tested that are training images too, or near copies of one
    unseen_accuracy: float  # of the others
    notes: list[str]

    @property
    def whole(self) -> bool:
        """Whether every fold of the protocol is there: only then may it be compared."""
        return len(self.folds) == len(self.expected)

    @property
    def comparable(self) -> bool:
        """Whether it may be compared with others of ours: whole, and tested on people that it did not learn from."""
        return self.whole and self.held_out.comparable

    @property
    def tested(self) -> int:
        """How many images, or sequences, were tested."""
        return self.images if self.level == "image" else self.sequences

    @property
    def n(self) -> str:
        """What was tested, in words: ``981 images``."""
        return f"{self.tested:,} {self.level}s"

    @property
    def apart(self) -> str:
        """Why it stands beside no published figure, in words; empty where it may."""
        if not self.whole:
            return "folds missing"
        if not self.held_out.comparable:
            return "not held out" if self.held_out.status == "no" else "not known to be held out"
        if self.sees.startswith(FEW):
            return f"{FEW} only"
        return "drawn faces" if is_drawn(set_of(self.protocol)) else ""


@dataclass(frozen=True)
class Seeds:
    """Whole trainings of one variant: what chance alone does to the pooled accuracy, of what ``level`` says."""

    variant: str
    method: str
    preset: str
    level: Level
    seeds: list[int]
    experiments: list[str]
    mean: float
    std: float  # ddof 1
    ensemble: float  # accuracy of the mean of their probabilities
    ensemble_interval: metrics.Interval
    tested: int  # samples of ``level``
    wrong_with_some: int  # of them, those that at least one seed predicts wrongly
    wrong_with_all: int  # and those that every seed does: more seeds of the same recipe would hardly help them
    wrong_subjects: list[str]  # whose these last are, where subjects are known


@dataclass(frozen=True)
class Together:
    """The presets of one method as an ensemble: for each seed the mean of one network's probabilities of each."""

    method: str
    level: Level
    presets: list[str]
    seeds: list[int]
    accuracies: list[float]  # by seed
    intervals: list[metrics.Interval]
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
    shown: bool  # whether chance over those who were tested does not explain the difference
    among: int  # methods that these two lead
    remarks: list[str]  # what else differs between them than the method, a sentence each


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
class Transfer:
    """A finished model tested under this protocol with nothing learned there, all its classes in play."""

    run: str
    method: str
    preset: str
    seed: int
    protocol: str
    level: Level
    sees: str
    trained_on: list[str]  # protocols of all that it learned from
    held_out: HeldOut
    held_out_accuracy: float | None  # without the samples that were learned from; null where there are none
    held_out_count: int
    uncalibrated: bool
    classes: list[str]  # of the model
    matrix: np.ndarray  # counts [K,K] over them
    images: int  # that were tested; sequences where the level says so
    left_out: dict[str, int]  # of classes that the model never learned
    accuracy: float
    interval: metrics.Interval
    balanced_accuracy: float
    macro_f1: float
    shipped: bool  # the model came with the package


@dataclass(frozen=True)
class Hole:
    """A missing fold, which has no finished run, and the command that trains it (empty where no run tells it)."""

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
    experiments: list[str]  # trainings of ours that reproduce it, whatever they saw
    why: str  # why no figure of ours stands beside the published one; empty where one does
    command: str  # what would train it, where nothing but the run is missing


@dataclass(frozen=True)
class Report:
    """Everything that is said about one set, tested by images and by whole sequences."""

    dataset: str  # its name: of a protocol without its version, and without "-sequences" unless that alone is asked for
    protocol: str  # the first of them
    protocols: list[str]
    drawn: bool  # ferbench drew the faces: nothing published is about them
    published: list[PublishedRow]
    compared: list[Compared]
    published_matrix: PublishedMatrix | None
    errata: list[str]
    varying: dict[str, list[str]]  # what differs between the trainings: field → values
    trainings: list[Training]
    seeds: list[Seeds]
    together: list[Together]
    stages: list[Stage]
    holes: list[Hole]
    transfers: list[Transfer]
    habits: int = 0  # folds that measure data leakage, which are no results: left out
    contrasts: list[Contrast] = field(default_factory=list)  # the leading methods compared with each other
