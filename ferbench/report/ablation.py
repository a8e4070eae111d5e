"""What each part of WS-LGAN is worth, in the form of Tables 8 to 10, and how much data leakage inflates an accuracy.

The fields of these classes are the keys of the JSON document. Figures of ours are fractions, published ones percent.
"""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from ferbench import metrics, statistics
from ferbench.errors import DataError
from ferbench.files import canonical_json, runs_home
from ferbench.report import published
from ferbench.report.build import build as build_reports
from ferbench.report.formats import check_format, text
from ferbench.report.results import Training
from ferbench.report.table import SIGNIFICANCE, Section, limits, table
from ferbench.report.tested_runs import Lineage, epochs, lineage, pooled
from ferbench.runs.record import BEST_TEST, IMAGE_FOLDS, Record
from ferbench.runs.store import Store

WHOLE = {"features": "local+global", "fusion": "sfu", "contrastive": True}  # of the architecture: WS-LGAN itself
PARTS = {"features": "Features, as Table 8", "fusion": "Fusion, as Table 9"}
PARTS["contrastive"] = "Contrastive loss, as Table 10"
# Folds of random images, epoch chosen on the test set: the four ways of testing, the one without leakage first.
WAYS = {
    (False, False): "unbiased: subject-disjoint folds, last epoch",
    (False, True): "best-test: subject-disjoint folds, best epoch on the test images",
    (True, False): "image folds: subjects in training and test set, last epoch",
    (True, True): "image folds and best-test",
}
Frames = Mapping[str, pd.DataFrame]  # predictions by experiment
BySeed = dict[int, Training]
Chosen = Collection[str] | None  # experiments


@dataclass(frozen=True)
class Against:
    """A variant compared with WS-LGAN on the same images, folds and seeds: accuracy of the variant minus its."""

    seeds: list[int]
    difference: statistics.Difference
    p: float  # sign flips of subjects (statistics.permutation)
    p_holm: float  # corrected for all variants of the ablation
    verdict: str  # better or worse only where the corrected test says so, else: no difference shown


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One method of an ablation over all of its seeds."""

    method: str  # as printed
    part: str  # what is changed: features, fusion or contrastive; empty for WS-LGAN
    published: float | None  # percent; None where it was never published
    seeds: list[int]
    experiments: list[str]
    folds: str  # "10/10" of each seed; the fewest where they differ
    images: int  # predictions: images × seeds
    accuracy: float
    std: float  # over seeds, ddof 1
    interval: metrics.Interval
    against: Against | None  # None for WS-LGAN, and where no seed has the same folds done


@dataclass(frozen=True, kw_only=True)
class Ablation:
    """WS-LGAN first, then its variants: trainings that differ in nothing but the part and the seed."""

    dataset: str
    protocol: str
    preset: str
    selection: str
    precision: str
    epochs: dict[str, int]  # of each training that a figure comes from, by stage
    rule: str
    split_hash: str
    data: str
    devices: list[str]
    errata: list[str]
    notes: list[str]
    variants: list[Variant]


@dataclass(frozen=True, kw_only=True)
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


def write_ablation(
    dataset: str | None, format: str, out: Path | None, runs: Path | None, experiments: list[str] | None = None
) -> None:
    """Print what each part of WS-LGAN is worth and how much data leakage inflates it, or write it to ``out``.

    experiments : of these trainings only; of all that are stored when left out.
    Raises DataError where there is neither, with the command that makes it.
    """
    check_format(format, out)
    store = Store(runs_home(runs))
    ablations, measured = build(store, dataset, experiments), build_leakage(store, dataset, experiments)
    if not ablations and not measured:
        raise DataError(
            f"no variants of WS-LGAN with the same folds and seeds are in {store.home}: `ferbench ablate"
            f"{f' --dataset {dataset}' if dataset else ''}`"
        )
    shown = [*map(section, ablations), *map(leakage_section, measured)]
    text.write(shown, {"ablations": ablations, "leakage": measured}, format, out)


def build(store: Store, dataset: str | None = None, experiments: Chosen = None) -> list[Ablation]:
    """Return an ablation for each group of comparable trainings (of ``experiments``, when given) that holds WS-LGAN
    and at least one variant. Raises DataError where a record or predictions are damaged.
    """
    records = store.known()
    ablations = []
    for group in _alike(store, records, dataset, _without_parts):
        group = [(t, line) for t, line in group if experiments is None or t.experiment in experiments]
        # A variant without attention maps belongs to each set of maps that the others have.
        maps = dict.fromkeys(canonical_json(line["attention"]) for _, line in group if "attention" in line)
        for used in maps or [""]:
            lines = [(t, line) for t, line in group if canonical_json(line.get("attention")) in (used, "null")]
            members = [(t, "".join(_changed(line))) for t, line in lines if len(_changed(line)) < 2]
            if len({bool(part) for _, part in members}) == 2:  # WS-LGAN itself and a variant
                ablations.append(_ablation(store, members, records))
    return ablations


def _alike(
    store: Store,
    records: Mapping[str, Record],
    dataset: str | None,
    in_common: Callable[[Lineage], Lineage],
    leaking: bool = False,
) -> list[list[tuple[Training, Lineage]]]:
    """Trainings with their lineages, in groups that are equal in what must be in common."""
    groups: dict[str, list[tuple[Training, Lineage]]] = defaultdict(list)
    for report in build_reports(store, dataset, leaking=leaking, contrasting=False):
        for training in report.trainings:
            line = lineage(records[training.folds[0].run].identity, records)
            groups[canonical_json(in_common(line))].append((training, line))
    return list(groups.values())


def _without_parts(line: Lineage) -> Lineage:
    """A lineage without what the variants change: equal for trainings that may be compared."""
    content = {name: value for name, value in line.items() if name not in ("method", "attention")}
    shape = {name: value for name, value in _shape(content).items() if name not in WHOLE}
    content["recipe"] = {**content["recipe"], "architecture": shape}
    for kind, parent in content.items():
        if isinstance(parent, dict) and "recipe" in parent:
            content[kind] = _without_parts(parent)
    return content


def _shape(line: Lineage) -> dict[str, Any]:
    """The fields of a network's shape; none where a method describes it in another way."""
    shape = line["recipe"].get("architecture")
    return shape if isinstance(shape, dict) else {}


def _changed(line: Lineage) -> list[str]:
    """The parts in which a training differs from WS-LGAN."""
    return [name for name, value in WHOLE.items() if _shape(line).get(name, value) != value]


def _frames(store: Store, trainings: Iterable[Training]) -> Frames:
    return pooled(store, {t.experiment: [store.record(fold.run) for fold in t.folds] for t in trainings})


def _ablation(store: Store, members: list[tuple[Training, str]], records: Mapping[str, Record]) -> Ablation:
    rows: dict[tuple[str, str], dict[int, Training]] = defaultdict(dict)
    for training, part in members:
        rows[part, training.variant][training.seed] = training
    order = ["", *PARTS]
    ordered = sorted(rows.items(), key=lambda item: (order.index(item[0][0]), item[1][min(item[1])].method))
    everyone = [t for by_seed in rows.values() for t in by_seed.values()]
    frames = _frames(store, everyone)
    reference = ordered[0][1]
    pairs = [_pair(reference, by_seed, frames) for _, by_seed in ordered[1:]]
    tested = [(seeds, statistics.difference(pair), statistics.permutation(pair)) for seeds, pair in filter(None, pairs)]
    compared = [
        Against(
            seeds, gap, p, holm, "no difference shown" if holm > SIGNIFICANCE else ("worse", "better")[gap.value > 0]
        )
        for (seeds, gap, p), holm in zip(tested, statistics.holm([p for *_, p in tested]), strict=True)
    ]
    against = [None, *(compared.pop(0) if pair else None for pair in pairs)]
    first = reference[min(reference)]
    name = first.protocol.partition("@")[0]
    printed = {row.method: row.accuracy for row in published.rows(name)}
    last = records[first.folds[0].run].identity
    stages = {kind: records[key].identity for kind, key in last.parents.items() if key in records}
    return Ablation(
        **{name: getattr(first, name) for name in ("protocol", "preset", "selection", "precision")},
        **{name: getattr(first, name) for name in ("rule", "split_hash", "data")},
        dataset=name,
        epochs={kind: epochs(identity) for kind, identity in (stages | {"fine-tuning": last}).items()},
        devices=list(dict.fromkeys(device for t in everyone for device in t.devices)),
        errata=published.errata(name),
        notes=list(dict.fromkeys(note for t in everyone for note in t.notes)),
        variants=[
            Variant(
                **_over_seeds(by_seed, frames),
                method=fewest.method,
                part=part,
                published=printed.get(fewest.published),
                folds=fewest.done,
                std=metrics.spread([by_seed[seed].accuracy for seed in sorted(by_seed)])[1],
                against=compared_with,
            )
            for ((part, _), by_seed), compared_with in zip(ordered, against, strict=True)
            for fewest in [min((by_seed[seed] for seed in sorted(by_seed)), key=lambda t: len(t.folds))]
        ],
    )


def _pair(
    reference: BySeed, variant: BySeed, frames: Frames, same_folds: bool = True
) -> tuple[list[int], statistics.Paired] | None:
    """The seeds in which both have the same folds done (or all folds), and their predictions paired; None without."""
    both = {
        seed: [[fold.fold for fold in by_seed[seed].folds] for by_seed in (reference, variant)]
        for seed in sorted({*reference} & {*variant})
    }
    seeds = [seed for seed, (a, b) in both.items() if a == b or not same_folds]
    seeds = [seed for seed in seeds if both[seed] == both[seeds[0]]]
    pair = [[frames[by_seed[seed].experiment] for seed in seeds] for by_seed in (reference, variant)]
    return (seeds, statistics.paired(*pair)) if seeds else None


def _over_seeds(by_seed: BySeed, frames: Frames) -> dict[str, Any]:
    """Fields of what was trained with several seeds: the predictions of all seeds, put together."""
    experiments = [by_seed[seed].experiment for seed in sorted(by_seed)]
    together = pd.concat([frames[experiment] for experiment in experiments], ignore_index=True)
    return {
        "seeds": sorted(by_seed),
        "experiments": experiments,
        "images": len(together),
        "accuracy": metrics.share_correct(together),
        "interval": metrics.subject_interval(together),
    }


def section(a: Ablation) -> Section:
    """Return the paper's tables with ours beside the published figures, then the differences from WS-LGAN."""
    reference, *variants = a.variants
    paper, never, unpaired = reference.published, "never published", "none: no seed with the same folds done"
    lines = [
        f"Protocol {a.protocol}: {a.rule}; fold file {a.split_hash[:12]}, data {a.data[:12]}. Preset "
        f"{a.preset}, {a.precision}; {'; '.join(a.devices)}. Weights tested: {a.selection}.",
        f"Epochs: {', '.join(f'{kind} {epochs}' for kind, epochs in a.epochs.items())}.",
        "Only the named part differs: folds, seeds, attention maps and every other setting are the same.",
        "Accuracy is pooled over all test images of all folds and seeds, from stored predictions. Differences are of "
        "the same images. Intervals are 95 %, with subjects as clusters. p: permutation test over subjects, corrected "
        f"for all variants (Holm). A variant is better or worse where the corrected p is at most {SIGNIFICANCE}.",
        *(f"Published: {erratum}." for erratum in a.errata),
        *(f"Note: {note.rstrip('.')}." for note in a.notes),
    ]
    tables = [
        table(
            f"{title}: accuracy in percent, published and ours",
            [reference, *chosen],
            ("Method", "text", lambda v: v.method),
            ("Published", "percent", lambda v: never if v.published is None else v.published),
            ("Ours", "percent", lambda v: 100 * v.accuracy),
            ("95 % interval", "percent", lambda v: limits(v.interval)),
            ("Std over seeds", "percent", lambda v: 100 * v.std if len(v.seeds) > 1 else "one seed"),
            ("Seed", "text", lambda v: " ".join(map(str, v.seeds))),
            ("Folds", "text", lambda v: v.folds),
            ("n", "count", lambda v: v.images),
            ("Experiments", "text", lambda v: " ".join(v.experiments)),
        )
        for part, title in PARTS.items()
        if (chosen := [variant for variant in variants if variant.part == part])
    ]
    differences = table(
        "Variants minus WS-LGAN, in points of accuracy on the same images",
        variants,
        ("Variant", "text", lambda v: v.method),
        ("Difference", "points", lambda v: 100 * v.against.difference.value if v.against else unpaired),
        ("95 % interval", "points", lambda v: v.against and limits(v.against.difference)),
        ("p", "p", lambda v: v.against and v.against.p),
        ("p (Holm)", "p", lambda v: v.against and v.against.p_holm),
        ("Against WS-LGAN", "text", lambda v: v.against and v.against.verdict),
        ("Published difference", "points", lambda v: never if None in (v.published, paper) else v.published - paper),
    )
    return Section(f"{a.dataset}: ablation", lines, [*tables, differences])


def build_leakage(store: Store, dataset: str | None = None, experiments: Chosen = None) -> list[Leakage]:
    """Return complete trainings with leakage beside the same training without it, of which only ``experiments``.

    Raises DataError where a record or predictions are damaged.
    """
    records = store.known()
    if not any(record.identity.leaks for record in records.values()):
        return []  # before all predictions are read once more
    measured = []
    for members in _alike(store, records, dataset, _without_testing, leaking=True):
        group = [t for t, _ in members if t.whole]
        unbiased = [t for t in group if not any(_way(t)) and (experiments is None or t.experiment in experiments)]
        for split in dict.fromkeys(t.split_hash for t in unbiased):
            ways = {
                way: {t.seed: t for t in group if _way(t) == way and (way[0] or t.split_hash == split)} for way in WAYS
            }
            if any(ways[way] for way in WAYS if any(way)):
                measured.append(_leakage(store, ways, records))
    return measured


def _way(training: Training) -> tuple[bool, bool]:
    return training.protocol.endswith(IMAGE_FOLDS), training.selection == BEST_TEST


def _without_testing(line: Lineage) -> Lineage:
    """A lineage without folds and selection; ``best-val`` trains on fewer images, which is another training."""
    content = {name: value for name, value in line.items() if name != "split"}
    selection = "last" if line["selection"] == BEST_TEST else line["selection"]
    return content | {"protocol": line["protocol"].removesuffix(IMAGE_FOLDS), "selection": selection}


def _leakage(store: Store, ways: dict[tuple[bool, bool], BySeed], records: Mapping[str, Record]) -> Leakage:
    frames = _frames(store, (t for by_seed in ways.values() for t in by_seed.values()))
    unbiased = ways[False, False]
    rows = []
    for way, by_seed in ways.items():
        if by_seed:
            pair = _pair(unbiased, by_seed, frames, same_folds=False) if any(way) else None
            chosen = [fold for seed in sorted(by_seed) for fold in by_seed[seed].folds] if way[1] else []
            first = by_seed[min(by_seed)]
            rows.append(
                Way(
                    **{name: getattr(first, name) for name in ("protocol", "selection", "rule", "split_hash")},
                    **_over_seeds(by_seed, frames),
                    way=WAYS[way],
                    epochs=[records[fold.run].result.get("epoch", 0) for fold in chosen],
                    optimism=statistics.difference(pair[1]) if pair else None,
                )
            )
    first = next(iter(unbiased.values()))
    return Leakage(first.protocol.partition("@")[0], first.method, first.preset, first.precision, rows)


def leakage_section(leakage: Leakage) -> Section:
    """Return what leakage does as it is shown: a row for each way of testing."""
    rules = {way.split_hash: f"Protocol {way.protocol}: {way.rule}; fold file" for way in leakage.ways}
    lines = [
        *(f"{rule} {split[:12]}." for split, rule in rules.items()),
        "This measures how much data leakage inflates accuracy. Only the unbiased row is a result of the method.",
        "best-test takes, in each fold, the epoch with the highest accuracy on the test images. Image folds assign "
        "images at random, so images of one person are in training and test set.",
        "Differences are of the same images, in points. Intervals are 95 %, with subjects as clusters.",
    ]
    name = f"{leakage.method} ({leakage.preset}, {leakage.precision}) on {leakage.dataset}"
    rows = table(
        f"Effect of data leakage, {name}: accuracy in percent; a row with leakage is no result",
        leakage.ways,
        ("Way of testing", "text", lambda way: way.way),
        ("Accuracy", "percent", lambda way: 100 * way.accuracy),
        ("95 % interval", "percent", lambda way: limits(way.interval)),
        ("Inflated by", "points", lambda way: way.optimism and 100 * way.optimism.value),
        ("95 %, inflated by", "points", lambda way: way.optimism and limits(way.optimism)),
        ("Epochs chosen", "text", lambda way: f"{min(way.epochs)}–{max(way.epochs)}" if way.epochs else "last"),
        ("Seed", "text", lambda way: " ".join(map(str, way.seeds))),
        ("n", "count", lambda way: way.images),
        ("Protocol", "text", lambda way: way.protocol),
        ("Weights tested", "text", lambda way: way.selection),
        ("Experiments", "text", lambda way: " ".join(way.experiments)),
    )
    return Section(f"{leakage.dataset}: data leakage", lines, [rows])
