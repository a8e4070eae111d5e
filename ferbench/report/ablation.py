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
from ferbench.report import published, tables
from ferbench.report.cells import Grid
from ferbench.report.lineage import Lineage, lineage
from ferbench.report.model import Training
from ferbench.report.told import epochs
from ferbench.runs.record import Record
from ferbench.runs.store import Store

WHOLE = {"features": "local+global", "fusion": "sfu", "contrastive": True}  # of the architecture: WS-LGAN itself
PARTS = {
    "features": "Features, as Table 8",
    "fusion": "Fusion, as Table 9",
    "contrastive": "Contrastive loss, as Table 10",
}
LEVEL = 0.05  # of the corrected tests


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
    for report in tables.build(store, dataset, contrasting=False):
        for training in report.trainings:
            if chosen is None or training.experiment in chosen:
                made = lineage(records[training.folds[0].run].identity, records)
                groups[canonical_json(_in_common(made))].append((training, made))
    found = []
    for group in groups.values():
        # A variant without attention maps belongs to each set of maps that the others have.
        maps = dict.fromkeys(canonical_json(made["attention"]) for _, made in group if "attention" in made)
        for one in maps or [""]:
            members = [(t, _changed(m)) for t, m in group if canonical_json(m.get("attention")) in (one, "null")]
            if any(part == "" for _, part in members) and any(part in PARTS for _, part in members):
                found.append(_ablation(store, members, records))
    return found


def _in_common(made: Lineage) -> Lineage:
    """A lineage without what the variants change: equal for trainings that may be compared."""
    content = {name: value for name, value in made.items() if name not in ("method", "attention")}
    recipe = content["recipe"]
    shape = {name: value for name, value in _shape(content).items() if name not in WHOLE}
    content["recipe"] = {**recipe, "architecture": shape}
    for kind, parent in content.items():
        if isinstance(parent, dict) and "recipe" in parent:
            content[kind] = _in_common(parent)
    return content


def _changed(made: Lineage) -> str | None:
    """The one part in which a training differs from WS-LGAN: empty for none, None for several."""
    shape = _shape(made)
    changed = [name for name, value in WHOLE.items() if shape.get(name, value) != value]
    return None if len(changed) > 1 else "".join(changed)


def _shape(made: Lineage) -> dict[str, Any]:
    """The fields of a network's shape; none where a method says it otherwise."""
    shape = made["recipe"].get("architecture")
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
    held = iter([Against(*one, q, _verdict(one[1], q)) for one, q in zip(tested, corrected, strict=True)])
    against = [None, *(next(held) if pair else None for pair in pairs)]
    printed = {row.method: row.accuracy for row in published.rows(members[0][0].protocol.partition("@")[0])}
    variants = [
        _variant(part, by_seed, frames, printed, one)
        for ((part, _), by_seed), one in zip(ordered, against, strict=True)
    ]
    first, everyone = reference[min(reference)], [t for by_seed in rows.values() for t in by_seed.values()]
    name = first.protocol.partition("@")[0]
    return Ablation(
        name,
        first.protocol,
        first.preset,
        first.selection,
        first.precision,
        _epochs(first, records),
        first.rule,
        first.split_hash,
        first.data,
        list(dict.fromkeys(device for t in everyone for device in t.devices)),
        published.errata(name),
        list(dict.fromkeys(note for t in everyone for note in t.notes)),
        variants,
    )


def _epochs(training: Training, records: Mapping[str, Record]) -> dict[str, int]:
    own = records[training.folds[0].run].identity
    stages = {kind: records[key].identity for kind, key in own.parents.items() if key in records} | {"fine-tuning": own}
    return {kind: epochs(one) for kind, one in stages.items()}


def pooled(store: Store, training: Training) -> pd.DataFrame:
    """All folds' predictions of a training put together."""
    records = [store.record(fold.run) for fold in training.folds]
    return store.pooled(records)[0]


def _pair(
    reference: dict[int, Training], variant: dict[int, Training], frames: Mapping[str, pd.DataFrame]
) -> tuple[list[int], statistics.Paired] | None:
    """The seeds in which both have the same folds done, and their predictions paired; None without any."""
    names = {
        seed: [[fold.fold for fold in trained[seed].folds] for trained in (reference, variant)]
        for seed in sorted({*reference} & {*variant})
    }
    seeds = [seed for seed, (a, b) in names.items() if a == b]
    seeds = [seed for seed in seeds if names[seed][0] == names[seeds[0]][0]]
    if not seeds:
        return None
    both = [[frames[trained[seed].experiment] for seed in seeds] for trained in (reference, variant)]
    return seeds, statistics.paired(*both)


def _verdict(difference: statistics.Difference, p: float) -> str:
    if p > LEVEL:
        return "no difference shown"
    return "better" if difference.value > 0 else "worse"


def _variant(
    part: str,
    by_seed: dict[int, Training],
    frames: Mapping[str, pd.DataFrame],
    printed: Mapping[str, float],
    against: Against | None,
) -> Variant:
    seeds = sorted(by_seed)
    trainings = [by_seed[seed] for seed in seeds]
    together = pd.concat([frames[t.experiment] for t in trainings], ignore_index=True)
    fewest = min(trainings, key=lambda t: len(t.folds))
    return Variant(
        fewest.method,
        part,
        printed.get(fewest.published),
        seeds,
        [t.experiment for t in trainings],
        f"{len(fewest.folds)}/{len(fewest.expected)}",
        len(together),
        metrics.hit_rate(together),
        metrics.spread([t.accuracy for t in trainings])[1],
        metrics.subject_interval(together),
        against,
    )


def heading(ablation: Ablation) -> list[str]:
    """What must be known to read the tables, a sentence or two each."""
    one = ablation
    lines = [
        f"Protocol {one.protocol}: {one.rule}; fold file {one.split_hash[:12]}, data {one.data[:12]}. Preset "
        f"{one.preset}, {one.precision}; {'; '.join(one.devices)}. Weights tested: {one.selection}.",
        f"Epochs: {', '.join(f'{kind} {epochs}' for kind, epochs in one.epochs.items())}.",
        "What varies is the part that is named: folds, seeds, attention maps and every other setting are the same.",
        "Accuracy is pooled over all test images of all folds and seeds, from stored predictions. Differences are of "
        "the same images; intervals are 95 %, with subjects as clusters; p by flipping the signs of whole subjects, "
        f"corrected for all variants (Holm). Better or worse is said where the corrected p is at most {LEVEL}.",
    ]
    lines += [f"Published: {erratum}." for erratum in one.errata]
    return lines + [f"Note: {note.rstrip('.')}." for note in one.notes]


def grids(ablation: Ablation) -> list[Grid]:
    """The paper's tables with ours beside the published figures, then the differences from WS-LGAN."""
    reference, *variants = ablation.variants
    found: list[Grid] = []
    for part, title in PARTS.items():
        if chosen := [variant for variant in variants if variant.part == part]:
            found.append(
                (
                    f"{title}: accuracy in percent, published and ours",
                    ["Method", "Published", "Ours", "95 % interval", "Std over seeds", "Seeds", "Folds", "n", "From"],
                    [_row(variant) for variant in (reference, *chosen)],
                )
            )
    printed = reference.published
    rows = []
    for one in variants:
        said = (
            ["none: no seed with the same folds done", "", "", "", ""]
            if one.against is None
            else [
                f"{100 * one.against.difference.value:+.2f}",
                span_text(one.against.difference),
                _p(one.against.p),
                _p(one.against.p_holm),
                one.against.verdict,
            ]
        )
        gap = "never published" if one.published is None or printed is None else f"{one.published - printed:+.2f}"
        rows.append([one.method, *said, gap])
    found.append(
        (
            "Variants minus WS-LGAN, in points of accuracy on the same images",
            ["Variant", "Difference", "95 % interval", "p", "p (Holm)", "Against WS-LGAN", "Published difference"],
            rows,
        )
    )
    return found


def _row(one: Variant) -> list[str]:
    return [
        one.method,
        "never published" if one.published is None else f"{one.published:.2f}",
        f"{100 * one.accuracy:.2f}",
        interval_text(one.interval),
        f"{100 * one.std:.2f}" if len(one.seeds) > 1 else "one seed",
        " ".join(map(str, one.seeds)),
        one.folds,
        f"{one.images:,}",
        " ".join(one.experiments),
    ]


def interval_text(interval: metrics.Interval) -> str:
    """An interval of accuracies in percent."""
    if interval.degenerate:
        return f"none: one {interval.over[:-1]}"
    over = "" if interval.over == "subjects" else " over images"
    return f"{100 * interval.low:.2f}–{100 * interval.high:.2f}{over}"


def span_text(difference: statistics.Difference) -> str:
    """The interval of a difference in points."""
    if difference.units < 2:
        return f"none: one {difference.over[:-1]}"
    over = "" if difference.over == "subjects" else " over images"
    return f"{100 * difference.low:+.2f} to {100 * difference.high:+.2f}{over}"


def _p(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"{p:.3f}"
