"""``ferbench compare``: two trainings compared on the same images."""

import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from ferbench import statistics
from ferbench.errors import UsageError
from ferbench.files import write_text
from ferbench.report.lineage import changes, in_words
from ferbench.report.results import Result, at_one_level, chosen
from ferbench.report.told import Level
from ferbench.statistics import Difference
from ferbench.text import markdown

FORMATS = ("console", "markdown", "json")
SHOWN = 0.05  # a p of at most so much shows a difference


@dataclass(frozen=True)
class ClassRow:
    """One class: its images (or sequences), the share that each result has right, and the difference."""

    name: str
    images: int
    first: float
    second: float


@dataclass(frozen=True)
class Flip:
    """An image (or a sequence) that one result has right more often than the other (with one seed a result: alone).

    Predictions are those of each result's first seed, with the probability of each; null where scores are none.
    """

    id: str
    truth: str
    first: str
    first_probability: float | None
    second: str
    second_probability: float | None
    gain: float  # share of seeds that are right: second minus first


@dataclass(frozen=True)
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
    remarks: list[str]  # what else differs between them than the method, a sentence each


def compare(first: Result, second: Result) -> Comparison:
    """Compare two results. Raises DataError where they were not tested on the same."""
    remarks = remarks_on(first, second)
    first, second = at_one_level(first, second)
    pair = statistics.paired(first.frames, second.frames)
    a, b = (result.frames[0].set_index("id").loc[pair.ids] for result in (first, second))
    truth = a["truth"].to_numpy()
    rows = [
        ClassRow(name, int(mine.sum()), float(pair.first[mine].mean()), float(pair.second[mine].mean()))
        for name in first.classes
        if (mine := truth == name).any()
    ]
    gain = pair.second - pair.first
    flips = [
        Flip(
            pair.ids[i],
            truth[i],
            a["prediction"].iloc[i],
            _probability(first, a, i),
            b["prediction"].iloc[i],
            _probability(second, b, i),
            float(gain[i]),
        )
        for i in map(int, np.flatnonzero(gain))
    ]
    flips.sort(key=lambda flip: (flip.gain, -(flip.second_probability or 0), flip.id))
    single = len(first.frames) == len(second.frames) == 1
    return Comparison(
        first.name,
        second.name,
        " and ".join(dict.fromkeys((first.protocol, second.protocol))),
        first.level,
        len(pair.ids),
        (len(first.frames), len(second.frames)),
        (float(pair.first.mean()), float(pair.second.mean())),
        statistics.difference(pair),
        statistics.permutation(pair),
        statistics.mcnemar(pair) if single else None,
        rows,
        flips,
        remarks,
    )


def remarks_on(first: Result, second: Result) -> list[str]:
    """What must be known before the difference is laid to the methods."""
    found = [
        f"Whether {one.name} was trained on test subjects is unknown."
        for one in (first, second)
        if one.held_out.status == "unknown"
    ]
    if first.level != second.level:
        found.append("Sequences are compared: one of images is predicted by the mean of its images' probabilities.")
    alike = (first.method, first.preset) == (second.method, second.preset)
    if alike and (changed := changes(first.made, second.made)):
        found.append(f"From the first to the second changes: {in_words(changed)}.")
    elif first.data != second.data:
        found.append(
            f"Their images were prepared differently (data fingerprints {first.data[:12]} and {second.data[:12]})."
        )
    if first.method != second.method:
        learned = [[name for name in one.trained_on if name != one.protocol] for one in (first, second)]
        for what, one, other in (("preset", [first.preset], [second.preset]), ("trained before on", *learned)):
            if one != other:
                was = [
                    f"{', '.join(values) or 'nothing'} ({result.title})"
                    for values, result in ((one, first), (other, second))
                ]
                found.append(f"The methods are not all that differs: {what} {was[0]}, {was[1]}.")
    return found


def _probability(result: Result, frame: pd.DataFrame, row: int) -> float | None:
    return None if result.uncalibrated else float(frame[f"p_{frame['prediction'].iloc[row]}"].iloc[row])


def write_comparison(first: str, second: str, flips: int, format: str, out: Path | None, runs: Path | None) -> None:
    """Print a comparison, or write it to ``out``. flips : how many images that differ are listed."""
    if format not in FORMATS:
        raise UsageError(f"unknown format {format!r}: it is {', '.join(FORMATS)}")
    if out is not None and format == "console":
        raise UsageError("--out takes --format markdown or json")
    found = compare(chosen(first, runs), chosen(second, runs))
    if format == "json":
        text = json.dumps(asdict(found), indent=2, ensure_ascii=False) + "\n"
    else:
        text = _text(found, flips, format)
    if out is None:
        sys.stdout.write(text)
    else:
        write_text(out, text)


def verdict(found: Comparison) -> str:
    """Say what may be said: better or worse only where chance over subjects does not explain it."""
    if found.p > SHOWN:
        return "no difference shown"
    return "the second is better" if found.difference.value > 0 else "the second is worse"


def _sure(name: str, probability: float | None) -> str:
    return name if probability is None else f"{name} {probability:.0%}"


def _text(found: Comparison, flips: int, format: str) -> str:
    from tabulate import tabulate

    style = "github" if format == "markdown" else "simple"

    def cell(text: str) -> str:
        return markdown(text, cell=True) if format == "markdown" else text

    over = found.difference.over if found.difference.over == "subjects" else f"{found.level}s"
    gap, seeds = found.difference, ["one seed" if n == 1 else f"mean of {n} seeds" for n in found.seeds]
    lines = [
        f"first:  {found.first}: {found.accuracy[0]:.2%} ({seeds[0]})",
        f"second: {found.second}: {found.accuracy[1]:.2%} ({seeds[1]})",
        f"second minus first: {100 * gap.value:+.2f} points, 95 % interval {100 * gap.low:+.2f} to "
        f"{100 * gap.high:+.2f} over {gap.units} {over}, n = {found.images} {found.level}s; {verdict(found)}",
        f"p = {found.p:.4f} by permutation over {over}"
        + (
            ""
            if found.mcnemar is None
            else f"; McNemar on single {found.level}s p = {found.mcnemar:.4f}, too small "
            f"where {found.level}s of one person err together"
        ),
        *found.remarks,
    ]
    classes = tabulate(
        [
            [
                cell(row.name),
                row.images,
                f"{row.first:.1%}",
                f"{row.second:.1%}",
                f"{100 * (row.second - row.first):+.1f}",
            ]
            for row in found.classes
        ],
        ["class", f"{found.level}s", "first", "second", "points"],
        style,
        colalign=("left", "right", "right", "right", "right"),
        disable_numparse=True,
    )
    lost = sum(flip.gain < 0 for flip in found.flips)
    told = f"{lost} {found.level}s lost, {len(found.flips) - lost} won" + (
        f"; the first {flips}" if len(found.flips) > flips else ""
    )
    listed = tabulate(
        [
            [
                cell(flip.id),
                cell(flip.truth),
                cell(_sure(flip.first, flip.first_probability)),
                cell(_sure(flip.second, flip.second_probability)),
            ]
            for flip in found.flips[:flips]
        ],
        [found.level, "truth", "first", "second"],
        style,
        disable_numparse=True,
    )
    head = "\n".join(f"- {markdown(line)}" if format == "markdown" else line for line in lines)
    return f"{head}\n\n{classes}\n\n{told}\n" + (f"\n{listed}\n" if flips and found.flips else "")
