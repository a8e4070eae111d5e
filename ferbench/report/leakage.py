"""How much data leakage inflates the accuracy of one training: a measure of optimism that is no result.

The same training is tested four ways: folds by subject or of images chosen at random, with the last epoch or with each
fold's best epoch on the test set. The fields of these classes are the keys of the JSON document.
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

import pandas as pd

from ferbench import metrics, statistics
from ferbench.files import canonical_json
from ferbench.report.ablation import over_seeds, pooled
from ferbench.report.build import build as build_reports
from ferbench.report.results import Training
from ferbench.report.table import Section, Table, limits, table
from ferbench.report.tested_runs import Lineage, lineage
from ferbench.runs.record import BEST_TEST, IMAGE_FOLDS
from ferbench.runs.store import Store

# Folds of random images, epoch chosen on the test set: the four ways, the one without leakage first.
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
    for report in build_reports(store, dataset, leaking=True, contrasting=False):
        for training in report.trainings:
            if training.whole:
                line = lineage(records[training.folds[0].run].identity, records)
                groups[canonical_json(_in_common(line))].append(training)
    measured = []
    for group in groups.values():
        unbiased = [t for t in group if not any(_way(t)) and (chosen is None or t.experiment in chosen)]
        for split in dict.fromkeys(t.split_hash for t in unbiased):
            ways = {
                way: {t.seed: t for t in group if _way(t) == way and (way[0] or t.split_hash == split)} for way in WAYS
            }
            if any(ways[way] for way in WAYS if any(way)):
                epochs = {t.experiment: [records[fold.run].result.get("epoch", 0) for fold in t.folds] for t in group}
                measured.append(_measured(store, ways, epochs))
    return measured


def _way(training: Training) -> tuple[bool, bool]:
    return training.protocol.endswith(IMAGE_FOLDS), training.selection == BEST_TEST


def _in_common(line: Lineage) -> Lineage:
    """A lineage without folds and selection: equal for one training that is tested in several ways.

    ``best-val`` trains on fewer images, which is another training.
    """
    content = {name: value for name, value in line.items() if name != "split"}
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
            pair = [[frames[trainings[seed].experiment] for seed in seeds] for trainings in (unbiased, by_seed)]
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
    first = trainings[0]
    return Way(
        way=WAYS[way],
        protocol=first.protocol,
        selection=first.selection,
        rule=first.rule,
        split_hash=first.split_hash,
        epochs=[epoch for t in trainings for epoch in epochs[t.experiment]] if way[1] else [],
        optimism=optimism,
        **over_seeds(by_seed, frames),
    )


def section(leakage: Leakage) -> Section:
    """Return what leakage does as it is shown: a row for each way of testing."""
    return Section(f"{leakage.dataset}: data leakage", heading(leakage), tables(leakage))


def heading(leakage: Leakage) -> list[str]:
    """What must be known to read the table."""
    return [
        *(
            f"Protocol {way.protocol}: {way.rule}; fold file {way.split_hash[:12]}."
            for way in {way.split_hash: way for way in leakage.ways}.values()
        ),
        "This measures how much data leakage inflates accuracy. Only the unbiased row is a result of the method.",
        "One training, tested four ways. best-test takes, in each fold, the epoch that does best on the test images "
        "themselves; image folds draw images at random, so frames of one person are in training and test set.",
        "Differences are of the same images, in points; intervals are 95 %, with subjects as clusters.",
    ]


def tables(leakage: Leakage) -> list[Table]:
    """One row for each way of testing."""
    name = f"{leakage.method} ({leakage.preset}, {leakage.precision}) on {leakage.dataset}"
    return [
        table(
            f"Effect of data leakage, {name}: accuracy in percent; a row with leakage is no result",
            leakage.ways,
            ("Way of testing", "text", lambda way: way.way),
            ("Accuracy", "percent", lambda way: 100 * way.accuracy),
            ("95 % interval", "percent", lambda way: limits(way.interval)),
            ("Inflated by", "points", lambda way: way.optimism and 100 * way.optimism.value),
            ("95 % of it", "points", lambda way: way.optimism and limits(way.optimism)),
            ("Epochs taken", "text", lambda way: f"{min(way.epochs)}–{max(way.epochs)}" if way.epochs else "last"),
            ("Seed", "text", lambda way: " ".join(map(str, way.seeds))),
            ("n", "count", lambda way: way.images),
            ("From", "text", lambda way: f"{way.protocol}; {way.selection}; {' '.join(way.experiments)}"),
        )
    ]
