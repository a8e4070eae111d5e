"""What each part of WS-LGAN is worth: its variants under one protocol, in the form of Tables 8 to 10.

The fields of these classes are the keys of the JSON document. Figures of ours are fractions, published ones percent.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from ferbench import metrics, statistics
from ferbench.files import canonical_json
from ferbench.report import published
from ferbench.report.build import build as build_reports
from ferbench.report.results import Training
from ferbench.report.table import SIGNIFICANCE, Section, Table, limits, table
from ferbench.report.tested_runs import Lineage, epochs, lineage
from ferbench.runs.record import Record
from ferbench.runs.store import Store

WHOLE = {"features": "local+global", "fusion": "sfu", "contrastive": True}  # of the architecture: WS-LGAN itself
PARTS = {
    "features": "Features, as Table 8",
    "fusion": "Fusion, as Table 9",
    "contrastive": "Contrastive loss, as Table 10",
}


@dataclass(frozen=True)
class Against:
    """A variant compared with WS-LGAN on the same images, folds and seeds: accuracy of the variant minus its."""

    seeds: list[int]
    difference: statistics.Difference
    p: float  # sign flips of subjects (statistics.permutation)
    p_holm: float  # corrected for all variants of the ablation
    verdict: str  # better or worse only where the corrected test says so, else: no difference shown


@dataclass(frozen=True)
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


@dataclass(frozen=True)
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


def build(store: Store, dataset: str | None = None, experiments: Iterable[str] | None = None) -> list[Ablation]:
    """Return an ablation for each group of comparable trainings that holds WS-LGAN and at least one variant.

    experiments : only these; all that are stored when left out. Runs with leakage (``Identity.leaks``) never take part.
    Raises DataError where a record or predictions are damaged.
    """
    chosen = None if experiments is None else set(experiments)
    records = store.known()
    groups: dict[str, list[tuple[Training, Lineage]]] = defaultdict(list)
    for report in build_reports(store, dataset, contrasting=False):
        for training in report.trainings:
            if chosen is None or training.experiment in chosen:
                line = lineage(records[training.folds[0].run].identity, records)
                groups[canonical_json(_in_common(line))].append((training, line))
    ablations = []
    for group in groups.values():
        # A variant without attention maps belongs to each set of maps that the others have.
        maps = dict.fromkeys(canonical_json(line["attention"]) for _, line in group if "attention" in line)
        for used in maps or [""]:
            members = [(t, _changed(m)) for t, m in group if canonical_json(m.get("attention")) in (used, "null")]
            if any(part == "" for _, part in members) and any(part in PARTS for _, part in members):
                ablations.append(_ablation(store, members, records))
    return ablations


def _in_common(line: Lineage) -> Lineage:
    """A lineage without what the variants change: equal for trainings that may be compared."""
    content = {name: value for name, value in line.items() if name not in ("method", "attention")}
    shape = {name: value for name, value in _shape(content).items() if name not in WHOLE}
    content["recipe"] = {**content["recipe"], "architecture": shape}
    for kind, parent in content.items():
        if isinstance(parent, dict) and "recipe" in parent:
            content[kind] = _in_common(parent)
    return content


def _changed(line: Lineage) -> str | None:
    """The one part in which a training differs from WS-LGAN: empty for none, None for several."""
    shape = _shape(line)
    changed = [name for name, value in WHOLE.items() if shape.get(name, value) != value]
    return None if len(changed) > 1 else "".join(changed)


def _shape(line: Lineage) -> dict[str, Any]:
    """The fields of a network's shape; none where a method describes it in another way."""
    shape = line["recipe"].get("architecture")
    return shape if isinstance(shape, dict) else {}


def _ablation(store: Store, members: list[tuple[Training, str | None]], records: Mapping[str, Record]) -> Ablation:
    rows: dict[tuple[str, str], dict[int, Training]] = defaultdict(dict)
    for training, part in members:
        if part is not None:
            rows[part, training.variant][training.seed] = training
    order = ["", *PARTS]
    ordered = sorted(rows.items(), key=lambda item: (order.index(item[0][0]), item[1][min(item[1])].method))
    frames = {t.experiment: pooled(store, t) for by_seed in rows.values() for t in by_seed.values()}
    reference = ordered[0][1]
    pairs = [_pair(reference, by_seed, frames) for _, by_seed in ordered[1:]]
    tested = [(seeds, statistics.difference(pair), statistics.permutation(pair)) for seeds, pair in filter(None, pairs)]
    corrected = statistics.holm([p for *_, p in tested])
    compared = iter([Against(*test, p, _verdict(test[1], p)) for test, p in zip(tested, corrected, strict=True)])
    against = [None, *(next(compared) if pair else None for pair in pairs)]
    first, everyone = reference[min(reference)], [t for by_seed in rows.values() for t in by_seed.values()]
    name = first.protocol.partition("@")[0]
    printed = {row.method: row.accuracy for row in published.rows(name)}
    return Ablation(
        **{name: getattr(first, name) for name in ("protocol", "preset", "selection", "precision")},
        **{name: getattr(first, name) for name in ("rule", "split_hash", "data")},
        dataset=name,
        epochs=_epochs(first, records),
        devices=list(dict.fromkeys(device for t in everyone for device in t.devices)),
        errata=published.errata(name),
        notes=list(dict.fromkeys(note for t in everyone for note in t.notes)),
        variants=[
            _variant(part, by_seed, frames, printed, compared_with)
            for ((part, _), by_seed), compared_with in zip(ordered, against, strict=True)
        ],
    )


def _epochs(training: Training, records: Mapping[str, Record]) -> dict[str, int]:
    last = records[training.folds[0].run].identity
    stages = {kind: records[key].identity for kind, key in last.parents.items() if key in records}
    return {kind: epochs(identity) for kind, identity in (stages | {"fine-tuning": last}).items()}


def pooled(store: Store, training: Training) -> pd.DataFrame:
    """All folds' predictions of a training put together."""
    return store.pooled([store.record(fold.run) for fold in training.folds])[0]


def _pair(
    reference: dict[int, Training], variant: dict[int, Training], frames: Mapping[str, pd.DataFrame]
) -> tuple[list[int], statistics.Paired] | None:
    """The seeds in which both have the same folds done, and their predictions paired; None without any."""
    names = {
        seed: [[fold.fold for fold in by_seed[seed].folds] for by_seed in (reference, variant)]
        for seed in sorted({*reference} & {*variant})
    }
    seeds = [seed for seed, (a, b) in names.items() if a == b]
    seeds = [seed for seed in seeds if names[seed][0] == names[seeds[0]][0]]
    if not seeds:
        return None
    both = [[frames[by_seed[seed].experiment] for seed in seeds] for by_seed in (reference, variant)]
    return seeds, statistics.paired(*both)


def _verdict(difference: statistics.Difference, p: float) -> str:
    if p > SIGNIFICANCE:
        return "no difference shown"
    return "better" if difference.value > 0 else "worse"


def over_seeds(by_seed: dict[int, Training], frames: Mapping[str, pd.DataFrame]) -> dict[str, Any]:
    """Fields of what was trained with several seeds: the predictions of all seeds, put together."""
    trainings = [by_seed[seed] for seed in sorted(by_seed)]
    together = pd.concat([frames[t.experiment] for t in trainings], ignore_index=True)
    return {
        "seeds": sorted(by_seed),
        "experiments": [t.experiment for t in trainings],
        "images": len(together),
        "accuracy": metrics.hit_rate(together),
        "interval": metrics.subject_interval(together),
    }


def _variant(
    part: str,
    by_seed: dict[int, Training],
    frames: Mapping[str, pd.DataFrame],
    printed: Mapping[str, float],
    against: Against | None,
) -> Variant:
    fewest = min((by_seed[seed] for seed in sorted(by_seed)), key=lambda t: len(t.folds))
    return Variant(
        method=fewest.method,
        part=part,
        published=printed.get(fewest.published),
        folds=f"{len(fewest.folds)}/{len(fewest.expected)}",
        std=metrics.spread([by_seed[seed].accuracy for seed in sorted(by_seed)])[1],
        against=against,
        **over_seeds(by_seed, frames),
    )


def section(ablation: Ablation) -> Section:
    """Return an ablation as it is shown."""
    return Section(f"{ablation.dataset}: ablation", heading(ablation), tables(ablation))


def heading(ablation: Ablation) -> list[str]:
    """What must be known to read the tables, a sentence or two each."""
    a = ablation
    lines = [
        f"Protocol {a.protocol}: {a.rule}; fold file {a.split_hash[:12]}, data {a.data[:12]}. Preset "
        f"{a.preset}, {a.precision}; {'; '.join(a.devices)}. Weights tested: {a.selection}.",
        f"Epochs: {', '.join(f'{kind} {epochs}' for kind, epochs in a.epochs.items())}.",
        "What varies is the part that is named: folds, seeds, attention maps and every other setting are the same.",
        "Accuracy is pooled over all test images of all folds and seeds, from stored predictions. Differences are of "
        "the same images; intervals are 95 %, with subjects as clusters; p by flipping the signs of whole subjects, "
        f"corrected for all variants (Holm). Better or worse is said where the corrected p is at most {SIGNIFICANCE}.",
    ]
    lines += [f"Published: {erratum}." for erratum in a.errata]
    return lines + [f"Note: {note.rstrip('.')}." for note in a.notes]


def tables(ablation: Ablation) -> list[Table]:
    """The paper's tables with ours beside the published figures, then the differences from WS-LGAN."""
    reference, *variants = ablation.variants
    shown = [
        table(
            f"{title}: accuracy in percent, published and ours",
            [reference, *chosen],
            ("Method", "text", lambda v: v.method),
            ("Published", "percent", lambda v: "never published" if v.published is None else v.published),
            ("Ours", "percent", lambda v: 100 * v.accuracy),
            ("95 % interval", "percent", lambda v: limits(v.interval)),
            ("Std over seeds", "percent", lambda v: 100 * v.std if len(v.seeds) > 1 else "one seed"),
            ("Seed", "text", lambda v: " ".join(map(str, v.seeds))),
            ("Folds", "text", lambda v: v.folds),
            ("n", "count", lambda v: v.images),
            ("From", "text", lambda v: " ".join(v.experiments)),
        )
        for part, title in PARTS.items()
        if (chosen := [variant for variant in variants if variant.part == part])
    ]
    printed = reference.published

    def gap(v: Variant) -> str | float:
        return "never published" if v.published is None or printed is None else v.published - printed

    differences = table(
        "Variants minus WS-LGAN, in points of accuracy on the same images",
        variants,
        ("Variant", "text", lambda v: v.method),
        (
            "Difference",
            "points",
            lambda v: 100 * v.against.difference.value if v.against else "none: no seed with the same folds done",
        ),
        ("95 % interval", "points", lambda v: v.against and limits(v.against.difference)),
        ("p", "p", lambda v: v.against and v.against.p),
        ("p (Holm)", "p", lambda v: v.against and v.against.p_holm),
        ("Against WS-LGAN", "text", lambda v: v.against and v.against.verdict),
        ("Published difference", "points", gap),
    )
    return [*shown, differences]
