"""What all tables share: their shape, the texts of their cells, and the names of trainings. Accuracy is in percent with
two decimals, as the paper prints it."""

import re
from collections import Counter

from ferbench import metrics
from ferbench.report.model import Training
from ferbench.report.told import Level

WITHOUT = "Accuracy without these"  # which were learned from, as the column before says
OURS = "▸"  # marks our own rows among the published ones
SELECTIONS = {"last": "last epoch", "best-val": "best epoch on held-out training subjects"}
KEY = re.compile("[0-9a-f]{8,16}")  # an experiment or a run

Grid = tuple[str, list[str], list[list[str]]]  # caption, header, rows
Section = tuple[str, list[str], list[Grid]]  # title, what must be known to read the tables, the tables


def named(trainings: list[Training]) -> dict[str, str]:
    """What the tables call each training, by experiment: the experiment is named where the rest leaves a doubt."""
    plain = {t.experiment: f"{t.method} ({before_seed(t)}seed {t.seed})" for t in trainings}
    shared = Counter(plain.values())
    return {key: name if shared[name] == 1 else f"{name[:-1]}, {key})" for key, name in plain.items()}


def before_seed(t: Training) -> str:
    """The preset before a seed; nothing where there is none."""
    return f"{t.preset}, " if t.preset else ""


def percent(share: float) -> str:
    """A share in percent."""
    return f"{100 * share:.2f}"


def reach(interval: metrics.Interval, level: Level = "image") -> str:
    """An interval of accuracies in percent; level: what is drawn where subjects are unknown."""
    drawn = interval.over if interval.over == "subjects" else f"{level}s"
    if interval.degenerate:
        return f"none: one {drawn[:-1]}"
    over = "" if drawn == "subjects" else f" over {drawn}"
    return f"{percent(interval.low)}–{percent(interval.high)}{over}"


def done(t: Training) -> str:
    """The folds that are there, of all."""
    return f"{len(t.folds)}/{len(t.expected)}"


def listed(values: list[str], most: int = 6) -> str:
    """Some values, and how many more there are."""
    return ", ".join(values[:most]) + (f" and {len(values) - most} more" if len(values) > most else "")


def without_seen(share: float | None, count: int) -> str:
    """The accuracy without the samples that were learned from, and of how many; empty where there are none."""
    return "" if share is None else f"{percent(share)} of {count:,}"


def numeric(rows: list[list[str]], column: int) -> bool:
    """Whether a column is to be aligned as numbers: all begin with a digit and none is a run's key."""
    cells = [row[column] for row in rows if row[column] not in ("", "–")]
    return all(cell[0].isdigit() and not KEY.fullmatch(cell) for cell in cells)


def without_empty(grid: Grid) -> Grid:
    """A table without the columns in which nothing stands."""
    caption, header, rows = grid
    kept = [place for place in range(len(header)) if not place or any(row[place] for row in rows)]
    return caption, [header[place] for place in kept], [[row[place] for place in kept] for row in rows]
