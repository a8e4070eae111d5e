"""``ferbench compare``: two trainings held against each other on the same images."""

import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from ferbench import statistics
from ferbench.errors import UsageError
from ferbench.files import write_text
from ferbench.report.sides import Side, chosen, comparable
from ferbench.statistics import Difference

FORMATS = ("console", "markdown", "json")


@dataclass(frozen=True)
class ClassRow:
    """One class: its images, the share that each side has right, and the difference."""

    name: str
    images: int
    first: float
    second: float


@dataclass(frozen=True)
class Flip:
    """An image that one side has right more often than the other (with one seed a side: alone).

    Predictions are those of each side's first seed, with the probability of each.
    """

    id: str
    truth: str
    first: str
    first_probability: float
    second: str
    second_probability: float
    gain: float  # share of seeds that are right: second minus first


@dataclass(frozen=True)
class Comparison:
    """All that is said about two sides. Shares are fractions; ``mcnemar`` is null where a side has several seeds."""

    first: str
    second: str
    protocol: str
    images: int
    seeds: tuple[int, int]
    accuracy: tuple[float, float]
    difference: Difference  # second minus first
    p: float  # permutation over subjects
    mcnemar: float | None
    classes: list[ClassRow]
    flips: list[Flip]  # losses first, the surest first


def compare(first: Side, second: Side) -> Comparison:
    """Hold two sides against each other. Raises DataError where they were not tested on the same."""
    comparable(first, second)
    pair = statistics.paired(first.frames, second.frames)
    a, b = (side.frames[0].set_index("id").loc[pair.ids] for side in (first, second))
    truth = a["truth"].to_numpy()
    rows = [
        ClassRow(name, int(mine.sum()), float(pair.first[mine].mean()), float(pair.second[mine].mean()))
        for name in first.classes if (mine := truth == name).any()
    ]  # fmt: skip
    gain = pair.second - pair.first
    flips = [
        Flip(pair.ids[i], truth[i], a["prediction"].iloc[i], _probability(a, i), b["prediction"].iloc[i],
             _probability(b, i), float(gain[i]))
        for i in map(int, np.flatnonzero(gain))
    ]  # fmt: skip
    flips.sort(key=lambda flip: (flip.gain, -flip.second_probability, flip.id))
    single = len(first.frames) == len(second.frames) == 1
    return Comparison(
        first.name, second.name, first.protocol, len(pair.ids), (len(first.frames), len(second.frames)),
        (float(pair.first.mean()), float(pair.second.mean())), statistics.difference(pair),
        statistics.permutation(pair), statistics.mcnemar(pair) if single else None, rows, flips,
    )  # fmt: skip


def _probability(frame, row: int) -> float:
    return float(frame[f"p_{frame['prediction'].iloc[row]}"].iloc[row])


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
    if found.p > 0.05:
        return "no difference shown"
    return "the second is better" if found.difference.value > 0 else "the second is worse"


def _text(found: Comparison, flips: int, format: str) -> str:
    from tabulate import tabulate

    style = "github" if format == "markdown" else "simple"
    gap, seeds = found.difference, ["one seed" if n == 1 else f"mean of {n} seeds" for n in found.seeds]
    lines = [
        f"first:  {found.first}: {found.accuracy[0]:.2%} ({seeds[0]})",
        f"second: {found.second}: {found.accuracy[1]:.2%} ({seeds[1]})",
        f"second minus first: {100 * gap.value:+.2f} points, 95 % interval {100 * gap.low:+.2f} to "
        f"{100 * gap.high:+.2f} over {gap.units} {gap.over}, n = {found.images} images; {verdict(found)}",
        f"p = {found.p:.4f} by permutation over {gap.over}" + (
            "" if found.mcnemar is None else f"; McNemar on single images p = {found.mcnemar:.4f}, too small where "
            "images of one person err together"),
    ]  # fmt: skip
    classes = tabulate(
        [[row.name, row.images, f"{row.first:.1%}", f"{row.second:.1%}", f"{100 * (row.second - row.first):+.1f}"]
         for row in found.classes],
        ["class", "images", "first", "second", "points"], style,
        colalign=("left", "right", "right", "right", "right"), disable_numparse=True,
    )  # fmt: skip
    lost = sum(flip.gain < 0 for flip in found.flips)
    told = f"{lost} images lost, {len(found.flips) - lost} won" + (
        f"; the first {flips}" if len(found.flips) > flips else "")  # fmt: skip
    listed = tabulate(
        [[flip.id, flip.truth, f"{flip.first} {flip.first_probability:.0%}",
          f"{flip.second} {flip.second_probability:.0%}"]
         for flip in found.flips[:flips]],
        ["image", "truth", "first", "second"], style, disable_numparse=True,
    )  # fmt: skip
    bullet = "- " if format == "markdown" else ""
    head = "\n".join(bullet + line for line in lines)
    return f"{head}\n\n{classes}\n\n{told}\n" + (f"\n{listed}\n" if flips and found.flips else "")
