"""Stored runs become tables: plain data, the same behind every format.

The fields of these classes are the keys of ``ferbench report --format json``. Figures of ours are fractions,
computed from the stored predictions; published ones are in percent, as printed. Times are in seconds.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from ferbench import metrics
from ferbench.errors import DataError
from ferbench.labels import ABBREVIATIONS
from ferbench.report import published
from ferbench.report.lineage import lineage, variant, varying
from ferbench.report.predictions import predictions
from ferbench.report.published import PublishedMatrix, PublishedRow
from ferbench.runs.record import IMAGE_FOLDS, Identity, Kind, Record
from ferbench.runs.store import Store


@dataclass(frozen=True)
class Fold:
    """One fold of one training."""

    fold: str
    images: int
    subjects: int  # 0 where they are unknown
    accuracy: float
    absent: list[str]  # classes of the protocol without a test image in this fold, abbreviated
    seconds: float
    run: str  # key


@dataclass(frozen=True)
class Training:
    """One method trained under one protocol with one seed: all of its folds that are done.

    All figures but ``fold_mean`` and ``fold_std`` are of the folds' predictions put together.
    """

    experiment: str  # 8 digits that its folds share
    variant: str  # 8 digits that trainings share which differ in nothing but their seeds
    name: str  # of baselines/*.toml
    method: str  # as printed in tables
    published: str  # the paper's row that it reproduces, or empty
    preset: str
    protocol: str
    selection: str
    seed: int
    devices: list[str]
    precision: str
    rule: str  # how the folds were made, in words
    split_hash: str
    data: str  # fingerprint of the prepared set
    parameters: int
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
    worst_subject: tuple[str, float, int]  # the lowest accuracy of one person, with its images; "" where unknown
    worst_class: tuple[str, float, int]  # the lowest recall, with its images
    sequence_accuracy: float
    sequences: int  # 0 where they are unknown
    images: int
    subjects: int  # 0 where they are unknown
    parents: dict[str, str]  # kind of the stage → key of its run
    notes: list[str]

    @property
    def whole(self) -> bool:
        """Whether every fold of the protocol is there: only then may it be compared."""
        return len(self.folds) == len(self.expected)


@dataclass(frozen=True)
class Seeds:
    """Whole trainings of one variant: what chance alone does to the pooled accuracy."""

    variant: str
    method: str
    preset: str
    seeds: list[int]
    experiments: list[str]
    mean: float
    std: float  # ddof 1
    ensemble: float  # accuracy of the mean of their probabilities
    ensemble_interval: metrics.Interval


@dataclass(frozen=True)
class Together:
    """The presets of one method as an ensemble: for each seed the mean of one network's probabilities of each."""

    method: str
    presets: list[str]
    seeds: list[int]
    accuracies: list[float]  # by seed
    intervals: list[metrics.Interval]
    mean: float
    std: float  # ddof 1; 0 for a single seed


@dataclass(frozen=True)
class Stage:
    """A run that folds start from: attention maps or pre-training."""

    run: str
    kind: str
    protocol: str
    seed: int
    result: dict  # validation figures, by part for attention
    epochs: int
    images: int
    device: str
    seconds: float
    shipped: bool  # it came with the package


@dataclass(frozen=True)
class Transfer:
    """A finished network tested on this protocol's images with nothing learned there, all its classes in play."""

    run: str
    method: str
    preset: str
    seed: int
    trained_on: str  # protocol
    classes: list[str]  # of the network
    matrix: np.ndarray  # counts [K,K] over them
    images: int
    left_out: dict[str, int]  # images of classes that the network never learned
    accuracy: float
    interval: metrics.Interval
    balanced_accuracy: float
    macro_f1: float
    shipped: bool  # the network came with the package


@dataclass(frozen=True)
class Hole:
    """A fold without a finished run, and the command that fills it (empty where no run tells it)."""

    experiment: str
    method: str
    preset: str
    seed: int
    fold: str
    reason: str  # the error of a failed run, "begun, not finished" or "not begun"
    command: str


@dataclass(frozen=True)
class Report:
    """Everything that is said about one protocol."""

    dataset: str  # the protocol's name, without its version
    protocol: str
    published: list[PublishedRow]
    published_matrix: PublishedMatrix | None
    errata: list[str]
    varying: dict[str, list[str]]  # what differs between the trainings: field → values
    trainings: list[Training]
    seeds: list[Seeds]
    together: list[Together]
    stages: list[Stage]
    holes: list[Hole]
    transfers: list[Transfer]
    habits: int = 0  # folds of habits of the literature, which are no results: left out


def build(store: Store, dataset: str | None = None, habits: bool = False) -> list[Report]:
    """Return one report for each protocol that folds were trained under (of ``dataset`` only, when given).

    habits : runs that measure habits of the literature take part too (see ``Identity.is_habit``); they are no
        results, and only their number is told otherwise.
    Raises DataError where a record or predictions are damaged.
    """
    records = store.known()  # of which the package's own are neither folds nor transfers
    groups: dict[str, list[Record]] = defaultdict(list)
    begun: dict[str, list[Identity]] = defaultdict(list)
    transfers: dict[str, list[Transfer]] = defaultdict(list)
    left_out: Counter[str] = Counter()
    for record in records.values():
        if _asked_for(record.identity, dataset, "transfer") and not record.error:
            transfers[record.identity.protocol].append(_transfer(store, record))
        if _asked_for(record.identity, dataset):
            if record.identity.is_habit and not habits:
                left_out[record.identity.protocol.removesuffix(IMAGE_FOLDS)] += 1
            else:
                groups[record.identity.protocol].append(record)
    for identity in store.unfinished():
        if _asked_for(identity, dataset) and (habits or not identity.is_habit):
            begun[identity.protocol].append(identity)
    return [
        _report(store, protocol, groups[protocol], begun[protocol], records, transfers[protocol],
                left_out[protocol])
        for protocol in sorted({*groups, *begun, *transfers})
    ]  # fmt: skip


def _asked_for(identity: Identity, dataset: str | None, kind: Kind = "fold") -> bool:
    return identity.kind == kind and dataset in (None, identity.protocol.partition("@")[0])


def _report(
    store: Store, protocol: str, records: list[Record], begun: list[Identity], by_key: Mapping[str, Record],
    transfers: list[Transfer], habits: int,
) -> Report:  # fmt: skip
    done: dict[str, list[Record]] = defaultdict(list)
    missed: dict[str, dict[str, tuple[Identity, str]]] = defaultdict(dict)  # by experiment and fold, with the reason
    for record in sorted(records, key=lambda record: record.identity.fold):
        if record.error:
            missed[record.experiment][record.identity.fold] = record.identity, record.error
        else:
            done[record.experiment].append(record)
    for identity in begun:
        missed[identity.experiment][identity.fold] = identity, "begun, not finished"
    for group in done.values():
        group.sort(key=lambda record: record.facts["folds"].index(record.identity.fold))
    frames = {experiment: [predictions(store, record) for record in group] for experiment, group in done.items()}
    pooled = {experiment: pd.concat(group, ignore_index=True) for experiment, group in frames.items()}
    trainings = sorted(
        (_training(group, frames[experiment], pooled[experiment], by_key) for experiment, group in done.items()),
        key=lambda t: (t.method, t.preset, t.variant, t.seed, t.experiment),
    )
    commands = {record.experiment: record.facts["command"] for record in records if "command" in record.facts}
    holes = [hole for t in trainings for hole in _holes(t, missed.pop(t.experiment, {}), commands[t.experiment])]
    for experiment, folds in missed.items():
        command = commands.get(experiment, "")
        holes += [_hole(*folds[fold], command) for fold in sorted(folds)]
    used = dict.fromkeys(key for t in trainings for key in t.parents.values())
    compared = [(group[0].identity, lineage(group[0].identity, by_key)) for group in done.values()]
    name = protocol.partition("@")[0]
    return Report(
        name, protocol, published.rows(name), published.matrix(name), published.errata(name),
        varying(compared), trainings, across_seeds(trainings, pooled), across_presets(trainings, pooled),
        [_stage(by_key[key], store.holder(key) != store) for key in used if key in by_key and not by_key[key].error],
        holes, transfers, habits,
    )  # fmt: skip


def _training(
    records: list[Record], frames: list[pd.DataFrame], pooled: pd.DataFrame, by_key: Mapping[str, Record]
) -> Training:
    first = records[0]
    identity, facts, classes = first.identity, first.facts, first.classes
    if pooled["id"].duplicated().any():
        twice = pooled.loc[pooled["id"].duplicated(), "id"].iloc[0]
        raise DataError(f"experiment {first.experiment} tests {twice} more than once: its runs were mixed up; delete "
                        "their folders and train again")  # fmt: skip
    matrix = metrics.confusion(pooled["truth"], pooled["prediction"], classes)
    folds = [_fold(record, frame) for record, frame in zip(records, frames, strict=True)]
    mean, std = metrics.spread([fold.accuracy for fold in folds])
    sequence, sequences = metrics.sequence_accuracy(pooled, classes)
    return Training(
        experiment=first.experiment, variant=variant(lineage(identity, by_key)), name=identity.method,
        method=facts["display"],
        published=facts["published"], preset=identity.preset, protocol=identity.protocol,
        selection=identity.selection, seed=identity.seed,
        devices=list(dict.fromkeys(record.environment["device"] for record in records)),
        precision=identity.precision, rule=facts["rule"], split_hash=facts["split_hash"], data=identity.data,
        parameters=facts["parameters"], classes=classes, folds=folds, expected=facts["folds"], matrix=matrix,
        accuracy=metrics.accuracy(matrix), interval=metrics.subject_interval(pooled), fold_mean=mean, fold_std=std,
        balanced_accuracy=metrics.balanced_accuracy(matrix), macro_f1=metrics.macro_f1(matrix),
        worst_subject=_worst(pooled[pooled["subject"] != ""], "subject"), worst_class=_worst(pooled, "truth"),
        sequence_accuracy=sequence, sequences=sequences, images=len(pooled),
        subjects=_subjects(pooled), parents=identity.parents,
        notes=list(dict.fromkeys(note for record in records for note in record.facts["notes"])),
    )  # fmt: skip


def _transfer(store: Store, record: Record) -> Transfer:
    identity, frame = record.identity, predictions(store, record)
    matrix = metrics.confusion(frame["truth"], frame["prediction"], record.classes)
    return Transfer(
        record.key, record.facts["display"], identity.preset, identity.seed, record.facts["trained_on"], record.classes,
        matrix, len(frame), record.facts["left_out"], metrics.accuracy(matrix), metrics.subject_interval(frame),
        metrics.balanced_accuracy(matrix), metrics.macro_f1(matrix), store.holder(identity.parents["network"]) != store,
    )  # fmt: skip


def _fold(record: Record, frame: pd.DataFrame) -> Fold:
    present = set(frame["truth"])
    return Fold(
        record.identity.fold, len(frame), _subjects(frame), float((frame["truth"] == frame["prediction"]).mean()),
        [ABBREVIATIONS[name] for name in record.classes if name not in present],
        sum(record.timings.values()), record.key,
    )  # fmt: skip


def _worst(frame: pd.DataFrame, by: str) -> tuple[str, float, int]:
    """The group with the lowest accuracy, the larger of equals, with its accuracy and images."""
    if frame.empty:
        return "", float("nan"), 0
    hits = (frame["truth"] == frame["prediction"]).groupby(frame[by]).agg(["mean", "size"]).reset_index()
    name, mean, size = hits.sort_values(["mean", "size", by], ascending=[True, False, True]).iloc[0]
    return str(name), float(mean), int(size)


def _subjects(frame: pd.DataFrame) -> int:
    return frame.loc[frame["subject"] != "", "subject"].nunique()


def _holes(t: Training, missed: dict[str, tuple[Identity, str]], command: str) -> list[Hole]:
    there = {fold.fold for fold in t.folds}
    return [
        Hole(t.experiment, t.method, t.preset, t.seed, fold, missed[fold][1] if fold in missed else "not begun",
             f"{command} --folds {fold}")
        for fold in t.expected if fold not in there
    ]  # fmt: skip


def _hole(identity: Identity, reason: str, command: str) -> Hole:
    """A hole of a training without any fold that is done."""
    command = f"{command} --folds {identity.fold}" if command else ""
    return Hole(
        identity.experiment, identity.method, identity.preset, identity.seed, identity.fold, reason, command
    )  # fmt: skip


def _stage(record: Record, shipped: bool) -> Stage:
    identity = record.identity
    images = record.facts.get("train_images") or sum(part["train_images"] for part in record.result.values())
    return Stage(
        record.key, identity.kind, identity.protocol, identity.seed, record.result,
        identity.recipe["stage"]["epochs"], images, record.environment["device"], sum(record.timings.values()),
        shipped,
    )  # fmt: skip


def across_seeds(trainings: list[Training], pooled: Mapping[str, pd.DataFrame]) -> list[Seeds]:
    """Return what whole trainings of equal variant say together, where there are two or more.

    pooled : by experiment the predictions of all its folds.
    """
    groups: dict[str, list[Training]] = defaultdict(list)
    for training in trainings:
        if training.whole:
            groups[training.variant].append(training)
    return [_seeds(group, pooled) for group in groups.values() if len(group) > 1]


def across_presets(trainings: list[Training], pooled: Mapping[str, pd.DataFrame]) -> list[Together]:
    """Return what all presets of a method give together, by the seeds that each of them has, where there are two or
    more presets. A method with several recipes for one preset is left out: nothing says which of them to take.

    pooled : by experiment the predictions of all its folds.
    """
    methods: dict[tuple[str, ...], dict[tuple[str, str], dict[int, Training]]] = defaultdict(lambda: defaultdict(dict))
    for t in trainings:
        if t.whole:
            methods[t.method, t.selection, t.split_hash, t.data][t.preset, t.variant][t.seed] = t
    found = []
    for (method, *_), recipes in methods.items():
        presets = [preset for preset, _ in recipes]
        seeds = sorted(set.intersection(*map(set, recipes.values())))
        if len(presets) == len(set(presets)) > 1 and seeds:
            figures = [_ensemble([one[seed] for one in recipes.values()], pooled) for seed in seeds]
            shares = [accuracy for accuracy, _ in figures]
            found.append(Together(method, presets, seeds, shares, [interval for _, interval in figures],
                                  *metrics.spread(shares)))  # fmt: skip
    return found


def _ensemble(group: list[Training], pooled: Mapping[str, pd.DataFrame]) -> tuple[float, metrics.Interval]:
    """The accuracy of some trainings' mean probabilities, with its interval."""
    classes = group[0].classes
    together = metrics.ensemble([pooled[t.experiment] for t in group], classes)
    matrix = metrics.confusion(together["truth"], together["prediction"], classes)
    return metrics.accuracy(matrix), metrics.subject_interval(together)


def _seeds(group: list[Training], pooled: Mapping[str, pd.DataFrame]) -> Seeds:
    first = group[0]
    return Seeds(
        first.variant, first.method, first.preset, [t.seed for t in group], [t.experiment for t in group],
        *metrics.spread([t.accuracy for t in group]),
        *_ensemble(group, pooled),
    )  # fmt: skip
