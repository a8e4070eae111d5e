"""Stored runs become tables: plain data, the same behind every format."""

from collections import defaultdict
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from ferbench import metrics
from ferbench.files import canonical_json, sha256_of
from ferbench.labels import ABBREVIATIONS
from ferbench.report import published
from ferbench.report.published import PublishedMatrix, PublishedRow
from ferbench.runs.record import Record
from ferbench.runs.store import Store


@dataclass(frozen=True)
class Fold:
    """One fold of one training."""

    fold: str
    images: int
    subjects: int
    accuracy: float
    absent: list[str]  # classes of the protocol without a test image in this fold
    seconds: float
    run: str


@dataclass(frozen=True)
class Training:
    """One method trained under one protocol with one seed: all of its folds that are done.

    ``matrix`` is pooled over the folds [K,K]; ``expected`` names all folds of the protocol.
    """

    experiment: str
    method: str
    published: str
    preset: str
    recipe: str  # 8 digits of the recipe's hash: tells overrides apart
    protocol: str
    selection: str
    seed: int
    device: str
    precision: str
    rule: str
    split_hash: str
    data: str
    classes: list[str]
    folds: list[Fold]
    expected: list[str]
    matrix: np.ndarray
    accuracy: float
    interval: metrics.Interval
    fold_mean: float
    fold_std: float
    balanced_accuracy: float
    macro_f1: float
    sequence_accuracy: float
    sequences: int
    images: int
    subjects: int
    parents: dict[str, str]
    notes: list[str]

    @property
    def whole(self) -> bool:
        return len(self.folds) == len(self.expected)


@dataclass(frozen=True)
class Stage:
    """A run that folds start from: attention maps or pre-training."""

    run: str
    kind: str
    protocol: str
    result: dict
    epochs: int
    images: int
    device: str
    seconds: float


@dataclass(frozen=True)
class Hole:
    """A fold without a finished run, and the command that fills it."""

    experiment: str
    method: str
    fold: str
    reason: str
    command: str


@dataclass(frozen=True)
class Report:
    """Everything that is said about one dataset."""

    dataset: str
    protocol: str
    published: list[PublishedRow]
    published_matrix: PublishedMatrix | None
    errata: list[str]
    trainings: list[Training]
    stages: list[Stage]
    holes: list[Hole] = field(default_factory=list)


def build(store: Store, dataset: str | None = None) -> list[Report]:
    """Return one report for each protocol that has runs (of ``dataset`` only, when given)."""
    records = store.records()
    folds = [record for record in records if record.identity.kind == "fold"]
    by_key = {record.key: record for record in records}
    groups: dict[str, list[Record]] = defaultdict(list)
    for record in folds:
        if dataset is None or _name(record) == dataset:
            groups[record.identity.protocol].append(record)
    return [_report(store, protocol, group, by_key) for protocol, group in sorted(groups.items())]


def _report(store: Store, protocol: str, records: list[Record], by_key: dict[str, Record]) -> Report:
    groups: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        groups[record.experiment].append(record)
    trainings, holes = [], []
    for group in groups.values():
        done = sorted((record for record in group if not record.error), key=lambda record: record.identity.fold)
        if done:
            trainings.append(_training(store, done))
            holes += _holes(done, [record for record in group if record.error])
        else:
            holes += [Hole(r.experiment, r.identity.method, r.identity.fold, r.error, "") for r in group]
    trainings.sort(key=lambda t: (t.method, t.preset, t.recipe, t.selection, t.seed))
    used = dict.fromkeys(key for t in trainings for key in t.parents.values() if key in by_key)
    name = protocol.partition("@")[0]
    return Report(
        name, protocol, published.rows(name), published.matrix(name), published.errata(name),
        trainings, [_stage(by_key[key]) for key in used], holes,
    )  # fmt: skip


def _training(store: Store, records: list[Record]) -> Training:
    first = records[0]
    identity, facts, classes = first.identity, first.facts, first.classes
    frames = {record.identity.fold: store.predictions(record.key) for record in records}
    pooled = pd.concat(frames.values(), ignore_index=True)
    matrix = metrics.confusion(pooled["truth"], pooled["prediction"], classes)
    folds = [_fold(record, frames[record.identity.fold]) for record in records]
    mean, std = metrics.spread([fold.accuracy for fold in folds])
    sequence, sequences = metrics.sequence_accuracy(pooled, classes)
    return Training(
        experiment=first.experiment, method=facts["display"], published=facts["published"], preset=identity.preset,
        recipe=sha256_of(canonical_json(identity.recipe).encode())[:8], protocol=identity.protocol,
        selection=identity.selection, seed=identity.seed, device=first.environment["device"],
        precision=identity.precision, rule=facts["rule"], split_hash=facts["split_hash"], data=identity.data,
        classes=classes, folds=folds, expected=facts["folds"], matrix=matrix, accuracy=metrics.accuracy(matrix),
        interval=metrics.subject_interval(pooled), fold_mean=mean, fold_std=std,
        balanced_accuracy=metrics.balanced_accuracy(matrix), macro_f1=metrics.macro_f1(matrix),
        sequence_accuracy=sequence, sequences=sequences, images=len(pooled),
        subjects=pooled["subject"][pooled["subject"] != ""].nunique(), parents=identity.parents,
        notes=list(dict.fromkeys(note for record in records for note in record.facts["notes"])),
    )  # fmt: skip


def _fold(record: Record, frame: pd.DataFrame) -> Fold:
    present = set(frame["truth"])
    return Fold(
        record.identity.fold, len(frame), record.facts["test_subjects"],
        float((frame["truth"] == frame["prediction"]).mean()),
        [ABBREVIATIONS[name] for name in record.classes if name not in present],
        sum(record.timings.values()), record.key,
    )  # fmt: skip


def _holes(done: list[Record], failed: list[Record]) -> list[Hole]:
    first, facts = done[0], done[0].facts
    errors = {record.identity.fold: record.error for record in failed}
    there = {record.identity.fold for record in done}
    return [
        Hole(first.experiment, facts["display"], fold, errors.get(fold, "no run"), f"{facts['command']} --folds {fold}")
        for fold in facts["folds"] if fold not in there
    ]  # fmt: skip


def _stage(record: Record) -> Stage:
    identity = record.identity
    images = record.facts.get("train_images") or sum(part["train_images"] for part in record.result.values())
    return Stage(
        record.key, identity.kind, identity.protocol, record.result, identity.recipe["stage"]["epochs"], images,
        record.environment["device"], sum(record.timings.values()),
    )  # fmt: skip


def _name(record: Record) -> str:
    return record.identity.protocol.partition("@")[0]


def across_seeds(trainings: list[Training]) -> list[tuple[Training, int, float, float]]:
    """Whole trainings that differ in their seed alone: (the first, seeds, mean and std of the accuracy)."""
    groups: dict[tuple, list[Training]] = defaultdict(list)
    for training in trainings:
        if training.whole:
            key = (training.method, training.preset, training.recipe, training.selection, training.precision,
                   training.data, training.split_hash)  # fmt: skip
            groups[key].append(training)
    return [
        (group[0], len(group), *metrics.spread([training.accuracy for training in group]))
        for group in groups.values() if len(group) > 1
    ]  # fmt: skip
