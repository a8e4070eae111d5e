"""``ferbench compare``: two trainings compared on the same images. ``ferbench check`` reads the same results."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ferbench import metrics, statistics
from ferbench.errors import DataError, UsageError
from ferbench.files import runs_home
from ferbench.report.formats import check_format
from ferbench.report.table import SIGNIFICANCE, Section, table
from ferbench.report.tested_runs import (
    Level,
    Lineage,
    TestedRun,
    changes,
    check_one_training,
    in_words,
    lineage,
    pooled,
    variant_of,
)
from ferbench.runs.facts import BY_NAMES, HeldOut
from ferbench.runs.record import Record
from ferbench.runs.store import Store
from ferbench.statistics import Difference


@dataclass(frozen=True)
class Result:
    """What ``compare`` and ``check`` compare: trainings that differ in their seeds alone, all folds of each put
    together, or the evaluation of one network.

    frames : the predictions of each seed, in the order of ``seeds``, with the ``fold`` that tested each.
    evaluation : nothing was learned, so that the same code gives the same predictions. level, trained_on, held_out,
    uncalibrated, changed : see :class:`TestedRun`. stages : the recipes and data of all stages.
    """

    method: str
    title: str
    preset: str
    protocol: str
    split: str  # hash of the fold file
    data: str  # fingerprint of the prepared dataset
    selection: str
    variant: str
    classes: list[str]
    seeds: list[int]
    frames: list[pd.DataFrame]
    evaluation: bool
    level: Level = "image"
    trained_on: list[str] = field(default_factory=list)
    held_out: HeldOut = BY_NAMES
    uncalibrated: bool = False
    changed: list[str] = field(default_factory=list)
    stages: Lineage = field(default_factory=dict)

    @property
    def name(self) -> str:
        changed = f" with {', '.join(self.changed)}" if self.changed else ""
        return self.named(self.title, self.preset, self.protocol, self.evaluation) + changed

    @staticmethod
    def named(title: str, preset: str, protocol: str, evaluation: bool) -> str:
        """The name of a method under a protocol, as messages show it."""
        size = f" ({preset})" if preset else ""
        return f"{title}{size} {'evaluated on' if evaluation else 'under'} {protocol}"


def results(store: Store, prefix: str = "") -> list[Result]:
    """Return the results in a store, only of runs or experiments that begin with ``prefix``."""
    records = store.known()
    groups: dict[str, dict[str, list[Record]]] = defaultdict(lambda: defaultdict(list))
    for record in records.values():
        tested = record.identity.kind in ("fold", "transfer") and not (record.error or record.identity.leaks)
        if tested and (record.experiment.startswith(prefix) or record.key.startswith(prefix)):
            groups[variant_of(lineage(record.identity, records))][record.experiment].append(record)
    return [_result(store, key, trainings, records) for key, trainings in groups.items()]


def _result(store: Store, variant: str, trainings: dict[str, list[Record]], known: Mapping[str, Record]) -> Result:
    by_seed = sorted(trainings.values(), key=lambda records: records[0].identity.seed)
    everything = [record for records in by_seed for record in records]
    check_one_training(everything)
    first = everything[0]
    identity, runs = first.identity, [TestedRun.of(record, known) for record in everything]
    return Result(
        **{name: getattr(identity, name) for name in ("method", "preset", "protocol", "split", "data", "selection")},
        **{name: getattr(runs[0], name) for name in ("level", "trained_on", "uncalibrated", "changed")},
        title=runs[0].method,
        variant=variant,
        classes=first.classes,
        seeds=[records[0].identity.seed for records in by_seed],
        frames=list(pooled(store, {records[0].experiment: records for records in by_seed}).values()),
        evaluation=identity.kind == "transfer",
        held_out=HeldOut.of_all([run.held_out for run in runs]),
        stages=lineage(identity, known),
    )


def chosen(text: str, runs: Path | None) -> Result:
    """Return the result that a user names: a folder of runs, or how a run or an experiment of the store begins.

    Raises UsageError where it is none or more than one.
    """
    folder = Path(text)
    matches = results(Store(folder)) if folder.is_dir() else results(Store(runs_home(runs)), text)
    if not matches:
        raise UsageError(f"{text} is neither a folder of runs nor the beginning of a tested run: see `ferbench runs`")
    if len(matches) > 1:
        names = ", ".join(f"{result.name} ({result.variant})" for result in matches)
        raise UsageError(f"{text} has {len(matches)} methods: {names}; name one run or experiment of them")
    return matches[0]


def comparable(first: Any, second: Any) -> None:
    """Raise DataError unless two results, or accepted figures, were tested under one protocol with one fold file,
    which names the test images."""
    agree("protocols", first.protocol, second.protocol)
    agree("fold files", first.split[:12], second.split[:12])


def agree(what: str, first: str, second: str) -> None:
    """Raise DataError where two results differ in what both must have."""
    if first != second:
        raise DataError(f"different {what}, so nothing can be compared: {first} and {second}")


def at_one_level(first: Result, second: Result) -> tuple[Result, Result]:
    """Return both results as they may be compared: as they are where both predict images or both predict sequences,
    else both by sequences, each sequence of images predicted by the mean of its images' probabilities.

    Raises DataError where they cannot be compared: not tested on the same, in the same folds, or one was tested on
    people that it learned from.
    """
    for result in (first, second):
        if result.held_out.status == "no" and not result.held_out.comparable:
            raise DataError(f"{result.name} was tested on people that it was trained on, so nothing can be compared")
    if first.level == second.level:
        comparable(first, second)
        return first, second
    first, second = _of_sequences(first), _of_sequences(second)
    folds = [result.frames[0].set_index("id")[["truth", "fold"]].sort_index() for result in (first, second)]
    if differing := sorted({*folds[0].index} ^ {*folds[1].index}):
        raise DataError(
            f"{first.protocol} and {second.protocol} test different sequences ({len(differing)} are in one "
            f"alone, such as {differing[0]}), so nothing can be compared"
        )
    for what in ("truth", "fold"):
        if (differs := folds[0][what] != folds[1][what]).any():
            name = differs.idxmax()
            raise DataError(
                f"{first.protocol} and {second.protocol} differ in the {what} of {int(differs.sum())} "
                f"sequences, such as {name} ({folds[0][what][name]} and {folds[1][what][name]}), so "
                "nothing can be compared"
            )
    return first, second


def _of_sequences(result: Result) -> Result:
    """A result by sequences; the name of a sequence is its ``id``."""
    if result.level == "image":
        frames = [metrics.by_sequence(frame, result.classes) for frame in result.frames]
    else:
        frames = [
            frame.assign(id=frame["sequence"].where(frame["sequence"] != "", frame["id"])) for frame in result.frames
        ]
    if any(frame.empty for frame in frames):
        raise DataError(
            f"{result.name} was tested on images of no known sequence, so nothing can be compared with sequences"
        )
    return replace(result, frames=frames, level="sequence")


@dataclass(frozen=True)
class ClassRow:
    """One class: its images (or sequences), the share that each result predicts correctly, and the difference."""

    name: str
    images: int
    first: float
    second: float


@dataclass(frozen=True)
class Flip:
    """An image (or a sequence) that one result predicts correctly more often than the other.

    Predictions are those of each result's first seed, with the probability of each; null where scores are none.
    """

    id: str
    truth: str
    first: str
    first_probability: float | None
    second: str
    second_probability: float | None
    gain: float  # share of seeds that are correct: second minus first


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """All that is said about two results. Shares are fractions; ``mcnemar`` is null where a result has several seeds.

    level : what is counted. A result of images is reduced to sequences where the other predicts sequences.
    """

    first: str
    second: str
    protocol: str  # of both, where they differ
    level: Level
    images: int  # or sequences, as the level says
    seeds: tuple[int, int]
    accuracy: tuple[float, float]
    difference: Difference  # second minus first
    p: float  # permutation over subjects
    mcnemar: float | None
    classes: list[ClassRow]
    flips: list[Flip]  # losses first, the most confident first
    remarks: list[str]  # see remarks_on


def compare(first: Result, second: Result) -> Comparison:
    """Compare two results. Raises DataError where they were not tested on the same."""
    facts, pair, (first, second) = paired_results(first, second)
    a, b = (result.frames[0].set_index("id").loc[pair.ids] for result in (first, second))
    truth = a["truth"].to_numpy()
    gain = pair.second - pair.first
    flips = [
        Flip(pair.ids[i], truth[i], *_predicted(first, a, i), *_predicted(second, b, i), float(gain[i]))
        for i in map(int, np.flatnonzero(gain))
    ]
    return Comparison(
        **facts,
        first=first.name,
        second=second.name,
        images=len(pair.ids),
        mcnemar=statistics.mcnemar(pair) if len(first.frames) == len(second.frames) == 1 else None,
        classes=[
            ClassRow(name, int(of.sum()), float(pair.first[of].mean()), float(pair.second[of].mean()))
            for name in first.classes
            if (of := truth == name).any()
        ],
        flips=sorted(flips, key=lambda flip: (flip.gain, -(flip.second_probability or 0), flip.id)),
    )


def paired_results(first: Result, second: Result) -> tuple[dict[str, Any], statistics.Paired, tuple[Result, Result]]:
    """Return what is said of any two results (fields of a comparison), their predictions in pairs, and both results
    at the level of the pairs. Raises DataError where they were not tested on the same."""
    a, b = at_one_level(first, second)
    pair = statistics.paired(a.frames, b.frames)
    facts = {
        "protocol": " and ".join(dict.fromkeys((a.protocol, b.protocol))),
        "level": a.level,
        "seeds": (len(a.frames), len(b.frames)),
        "accuracy": (float(pair.first.mean()), float(pair.second.mean())),
        "difference": statistics.difference(pair),
        "p": statistics.permutation(pair),
        "remarks": remarks_on(first, second),
    }
    return facts, pair, (a, b)


def _predicted(result: Result, frame: pd.DataFrame, row: int) -> tuple[str, float | None]:
    name = frame["prediction"].iloc[row]
    return name, None if result.uncalibrated else float(frame[f"p_{name}"].iloc[row])


def remarks_on(first: Result, second: Result) -> list[str]:
    """What differs between two results besides the method, a sentence each."""
    remarks = [
        f"Whether {result.name} was trained on test subjects is unknown."
        for result in (first, second)
        if result.held_out.status == "unknown"
    ]
    if first.level != second.level:
        remarks.append("Sequences are compared: one of images is predicted by the mean of its images' probabilities.")
    alike = (first.method, first.preset) == (second.method, second.preset)
    if alike and (changed := changes(first.stages, second.stages)):
        remarks.append(f"From the first to the second changes: {in_words(changed)}.")
    elif first.data != second.data:
        remarks.append(
            f"Their images were prepared differently (data fingerprints {first.data[:12]} and {second.data[:12]})."
        )
    if first.method != second.method:
        earlier = [[name for name in result.trained_on if name != result.protocol] for result in (first, second)]
        for what, *values in (
            ("the preset differs", [first.preset], [second.preset]),
            ("the earlier training data differ", *earlier),
        ):
            if values[0] != values[1]:
                a, b = (", ".join(names) or "none" for names in values)
                remarks.append(f"Besides the method, {what}: {a} ({first.title}), {b} ({second.title}).")
    return remarks


def verdict(comparison: Comparison) -> str:
    """Return whether the second result is better or worse, or that chance over subjects may explain the difference."""
    if comparison.p > SIGNIFICANCE:
        return "no difference shown"
    return "the second is better" if comparison.difference.value > 0 else "the second is worse"


def section(comparison: Comparison, flips: int) -> Section:
    """Return a comparison as it is shown. flips : how many images with another outcome are listed."""
    c, gap, units = comparison, comparison.difference, f"{comparison.level}s"
    over = gap.over if gap.over == "subjects" else units
    seeds = ["one seed" if n == 1 else f"mean of {n} seeds" for n in c.seeds]
    low, value, high = (f"{100 * end:+.2f}" for end in (gap.low, gap.value, gap.high))
    mcnemar = (
        f"; McNemar's test p = {c.mcnemar:.4f}, which is too small where {units} of one person are not independent"
    )
    lines = [
        f"first:  {c.first}: {c.accuracy[0]:.2%} ({seeds[0]})",
        f"second: {c.second}: {c.accuracy[1]:.2%} ({seeds[1]})",
        f"second minus first: {value} points, 95 % interval {low} to {high} over {gap.units} {over}, "
        f"n = {c.images} {units}; {verdict(c)}",
        f"p = {c.p:.4f} by permutation over {over}" + ("" if c.mcnemar is None else mcnemar),
        *c.remarks,
    ]
    classes = table(
        "",
        c.classes,
        ("class", "text", lambda row: row.name),
        (units, "count", lambda row: row.images),
        ("first", "fine fraction", lambda row: row.first),
        ("second", "fine fraction", lambda row: row.second),
        ("points", "short points", lambda row: 100 * (row.second - row.first)),
    )
    lost = sum(flip.gain < 0 for flip in c.flips)
    counts = f"{lost} {units} lost, {len(c.flips) - lost} won"
    if not c.flips[:flips]:
        return Section("", [*lines, counts], [classes])

    def sure(name: str, probability: float | None) -> str:
        return name if probability is None else f"{name} {probability:.0%}"

    changed = table(
        counts + (f"; the first {flips}" if len(c.flips) > flips else ""),
        c.flips[:flips],
        (c.level, "text", lambda flip: flip.id),
        ("truth", "text", lambda flip: flip.truth),
        ("first", "text", lambda flip: sure(flip.first, flip.first_probability)),
        ("second", "text", lambda flip: sure(flip.second, flip.second_probability)),
    )
    return Section("", lines, [classes, changed])


def write_comparison(first: str, second: str, flips: int, format: str, out: Path | None, runs: Path | None) -> None:
    """Print a comparison of two results, or write it to ``out``. flips : how many images that differ are listed."""
    from ferbench.report.formats import text

    check_format(format, out)
    comparison = compare(chosen(first, runs), chosen(second, runs))
    text.write([section(comparison, flips)], comparison, format, out)
