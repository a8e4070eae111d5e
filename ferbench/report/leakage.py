"""How much data leakage inflates the accuracy of one training: a measure of optimism that is no result.

The same training is tested four ways: subjects apart or images drawn at random, its last epoch or each fold's best
epoch on the test set. The fields of these classes are the keys of the JSON document.
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

import pandas as pd

from ferbench import metrics, statistics
from ferbench.files import canonical_json
from ferbench.report import tables
from ferbench.report.ablation import interval_text, pooled, span_text
from ferbench.report.cells import Grid
from ferbench.report.lineage import Lineage, lineage
from ferbench.report.model import Training
from ferbench.runs.record import BEST_TEST, IMAGE_FOLDS
from ferbench.runs.store import Store

# Images drawn at random, epoch chosen on the test set: the four ways, the one without leakage first.
WAYS = {
    (False, False): "unbiased: subject-disjoint folds, last epoch",
    (False, True): "best-test: subject-disjoint folds, best epoch on the test images",
    (True, False): "image folds: subjects in training and test set, last epoch",
    (True, True): "image folds and best-test",
}


@dataclass(frozen=True)
class Way:
    """One way of testing, over all seeds that were tested so."""

    way: str
    protocol: str
    selection: str
    rule: str
    split_hash: str
    seeds: list[int]
    experiments: list[str]
    epochs: list[int]  # that were chosen on the test set, by fold and seed; empty where none was
    images: int  # predictions: images × seeds
    accuracy: float
    interval: metrics.Interval
    optimism: statistics.Difference | None  # this way minus the one without leakage, same images and seeds


@dataclass(frozen=True)
class Leakage:
    """One method trained under one protocol, tested in several ways; the one without leakage first."""

    dataset: str
    method: str
    preset: str
    precision: str
    ways: list[Way]


def build(store: Store, dataset: str | None = None, experiments: Iterable[str] | None = None) -> list[Leakage]:
    """Return trainings with leakage beside the same training without it.

    experiments : of those without leakage only these; all when left out. Trainings that lack folds are left out.
    Raises DataError where a record or predictions are damaged.
    """
    chosen = None if experiments is None else set(experiments)
    records = store.known()
    if not any(record.identity.leaks for record in records.values()):
        return []  # before all predictions are read once more
    groups: dict[str, list[Training]] = defaultdict(list)
    for report in tables.build(store, dataset, leaking=True, contrasting=False):
        for training in report.trainings:
            if training.whole:
                made = lineage(records[training.folds[0].run].identity, records)
                groups[canonical_json(_in_common(made))].append(training)
    found = []
    for group in groups.values():
        unbiased = [t for t in group if not any(_way(t)) and (chosen is None or t.experiment in chosen)]
        for split in dict.fromkeys(t.split_hash for t in unbiased):
            ways = {
                way: {t.seed: t for t in group if _way(t) == way and (way[0] or t.split_hash == split)} for way in WAYS
            }
            if any(ways[way] for way in WAYS if any(way)):
                epochs = {t.experiment: [records[fold.run].result.get("epoch", 0) for fold in t.folds] for t in group}
                found.append(_measured(store, ways, epochs))
    return found


def _way(training: Training) -> tuple[bool, bool]:
    return training.protocol.endswith(IMAGE_FOLDS), training.selection == BEST_TEST


def _in_common(made: Lineage) -> Lineage:
    """A lineage without folds and selection: equal for one training that is tested in several ways.

    ``best-val`` trains on fewer images, which is another training.
    """
    content = {name: value for name, value in made.items() if name != "split"}
    content["protocol"] = content["protocol"].removesuffix(IMAGE_FOLDS)
    content["selection"] = "last" if content["selection"] == BEST_TEST else content["selection"]
    return content


def _measured(
    store: Store, ways: dict[tuple[bool, bool], dict[int, Training]], epochs: dict[str, list[int]]
) -> Leakage:
    frames = {t.experiment: pooled(store, t) for by_seed in ways.values() for t in by_seed.values()}
    unbiased = ways[False, False]
    rows = []
    for way, by_seed in ways.items():
        if by_seed:
            seeds = sorted({*by_seed} & {*unbiased}) if any(way) else []
            pair = [[frames[trained[seed].experiment] for seed in seeds] for trained in (unbiased, by_seed)]
            optimism = statistics.difference(statistics.paired(*pair)) if seeds else None
            rows.append(_row(way, by_seed, frames, epochs, optimism))
    first = next(iter(unbiased.values()))
    return Leakage(first.protocol.partition("@")[0], first.method, first.preset, first.precision, rows)


def _row(
    way: tuple[bool, bool],
    by_seed: dict[int, Training],
    frames: dict[str, pd.DataFrame],
    epochs: dict[str, list[int]],
    optimism: statistics.Difference | None,
) -> Way:
    trainings = [by_seed[seed] for seed in sorted(by_seed)]
    together = pd.concat([frames[t.experiment] for t in trainings], ignore_index=True)
    first = trainings[0]
    chosen = [epoch for t in trainings for epoch in epochs[t.experiment]] if way[1] else []
    return Way(
        WAYS[way],
        first.protocol,
        first.selection,
        first.rule,
        first.split_hash,
        sorted(by_seed),
        [t.experiment for t in trainings],
        chosen,
        len(together),
        metrics.hit_rate(together),
        metrics.subject_interval(together),
        optimism,
    )


def heading(found: Leakage) -> list[str]:
    """What must be known to read the table."""
    return [
        *(
            f"Protocol {one.protocol}: {one.rule}; fold file {one.split_hash[:12]}."
            for one in {way.split_hash: way for way in found.ways}.values()
        ),
        "This measures how much data leakage inflates accuracy. Only the unbiased row is a result of the method.",
        "One training, tested four ways. best-test takes, in each fold, the epoch that does best on the test images "
        "themselves; image folds draw images at random, so frames of one person are in training and test set.",
        "Differences are of the same images, in points; intervals are 95 %, with subjects as clusters.",
    ]


def grids(found: Leakage) -> list[Grid]:
    """One row for each way of testing."""
    rows = [
        [
            one.way,
            f"{100 * one.accuracy:.2f}",
            interval_text(one.interval),
            "" if one.optimism is None else f"{100 * one.optimism.value:+.2f}",
            "" if one.optimism is None else span_text(one.optimism),
            f"{min(one.epochs)}–{max(one.epochs)}" if one.epochs else "last",
            " ".join(map(str, one.seeds)),
            f"{one.images:,}",
            f"{one.protocol}; {one.selection}; {' '.join(one.experiments)}",
        ]
        for one in found.ways
    ]
    header = [
        "Way of testing",
        "Accuracy",
        "95 % interval",
        "Inflated by",
        "95 % of it",
        "Epochs taken",
        "Seeds",
        "n",
        "From",
    ]
    name = f"{found.method} ({found.preset}, {found.precision}) on {found.dataset}"
    return [(f"Effect of data leakage, {name}: accuracy in percent; a row with leakage is no result", header, rows)]
