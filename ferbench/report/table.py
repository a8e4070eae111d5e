"""Typed tables: columns with a name, a kind and a unit, and raw values; :mod:`ferbench.report.formats` renders them.

A value stands in the unit of its column, such as percent, points or seconds. The kind of a column decides how its
numbers are written and aligned.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ferbench.labels import ABBREVIATIONS
from ferbench.metrics import Interval
from ferbench.report.tested_runs import Level
from ferbench.statistics import Difference

OURS = "▸"  # begins the rows of our own figures among published ones
SIGNIFICANCE = 0.05  # a difference is shown where p is at most this


def _row_percent(value: float) -> str:
    return "–" if np.isnan(value) else "0" if value == 0 else f"{value:.1f}"


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


# The format of numbers of each kind, and their unit; texts have none.
KINDS: dict[str, tuple[str | Callable[[float], str], str]] = {
    "text": ("", ""),
    "key": ("", ""),  # of a run or an experiment: never broken into lines
    "number": ("", ""),
    "count": (",", ""),
    "percent": (".2f", "percent"),
    "row percent": (_row_percent, "percent"),  # of a row of a confusion matrix, as the paper prints it
    "printed": ("g", "percent"),  # with the digits that were published
    "points": ("+.2f", "points"),  # a difference of two percentages
    "short points": ("+.1f", "points"),
    "fraction": (".0%", "fraction"),
    "fine fraction": (".1%", "fraction"),
    "accuracy": (".2%", "fraction"),
    "p": (_p, ""),
    "seconds": (".0f", "s"),
    "tenths": (".1f", "s"),
    "hundredths": (".2f", "s"),
    "milliseconds": (".2f", "ms"),
    "rate": (",.1f", "images/s"),
    "ratio": (".2f", ""),
    "error": (".0e", ""),
    "megabytes": (",.0f", "MB"),
}


@dataclass(frozen=True)
class Spread:
    """A mean and the standard deviation around it."""

    mean: float
    std: float


@dataclass(frozen=True)
class Range:
    """The ends of an interval."""

    low: float
    high: float


@dataclass(frozen=True)
class Estimate:
    """A value with the interval around it."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Noted:
    """A value with what must be read with it: text before or after it."""

    value: Any
    after: str = ""
    before: str = ""


class Code(str):
    """A command line."""


Value = None | str | float | Spread | Range | Estimate | Noted | tuple  # a tuple holds several values
ColumnOf = tuple[str, str, Callable[[Any], Value]]  # its name, its kind, and what it shows of an item


@dataclass(frozen=True)
class Column:
    """A column of a table. kind : of :data:`KINDS`."""

    name: str
    kind: str = "text"

    @property
    def unit(self) -> str:
        return KINDS[self.kind][1]

    def text(self, value: Value) -> str:
        return text(value, self.kind)


@dataclass(frozen=True)
class Table:
    """Rows of values under columns. matrix : so many columns after the first are the cells of a confusion matrix."""

    caption: str
    columns: list[Column]
    rows: list[list[Any]]
    matrix: int = 0

    @property
    def header(self) -> list[str]:
        return [column.name for column in self.columns]

    @property
    def right(self) -> list[bool]:
        """Whether each column is aligned to the right: those that hold numbers alone."""
        return [
            column.kind not in ("text", "key") and not any(_has_words(row[place]) for row in self.rows)
            for place, column in enumerate(self.columns)
        ]

    def texts(self) -> list[list[str]]:
        """Return all values as text, a list for each row."""
        return [[c.text(value) for c, value in zip(self.columns, row, strict=True)] for row in self.rows]


@dataclass(frozen=True)
class Section:
    """A part of a document: what must be known to read its tables, a sentence or two each, the tables, and pictures
    (title and path), which markdown shows."""

    title: str
    lines: list[str] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    pictures: list[tuple[str, str]] = field(default_factory=list)


def table(caption: str, items: Iterable[Any], *columns: ColumnOf) -> Table:
    """Return a table with a row for each item; columns without any value are left out."""
    items = list(items)
    rows = [[value(item) for _, _, value in columns] for item in items]
    kept = [place for place in range(len(columns)) if not (place and rows) or any(_there(row[place]) for row in rows)]
    return Table(
        caption, [Column(*columns[place][:2]) for place in kept], [[row[place] for place in kept] for row in rows]
    )


def matrix_table(
    caption: str, classes: list[str], cells: np.ndarray, kind: str, sizes: tuple[str, list[int]] | None = None
) -> Table:
    """A confusion matrix [K,K]. sizes : the name of a last column, and how many each row is of."""
    short = [ABBREVIATIONS.get(name, name) for name in classes]
    columns = [Column(""), *(Column(name, kind) for name in short)]
    rows = [[name, *row] for name, row in zip(short, cells.tolist(), strict=True)]
    if sizes:
        columns, rows = [*columns, Column(sizes[0], "count")], [[*r, n] for r, n in zip(rows, sizes[1], strict=True)]
    return Table(caption, columns, rows, matrix=len(short))


def _has_words(value: Value) -> bool:
    return value not in ("", "–") if isinstance(value, str) else isinstance(value, Noted) and bool(value.before)


def _there(value: Value) -> bool:
    return not (value is None or value in ("", ()) or (isinstance(value, float) and np.isnan(value)))


def text(value: Value, kind: str = "text") -> str:
    """Return a value as text, its numbers as those of a kind. A number that does not exist is empty."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, tuple):
        return "; ".join(text(part, kind) for part in value)
    if isinstance(value, Noted):
        return f"{value.before}{text(value.value, kind)}{value.after}"
    form, _ = KINDS[kind]
    if isinstance(value, Range):
        between = " to " if str(form).startswith("+") else "–"
        return between.join((text(value.low, kind), text(value.high, kind)))
    if isinstance(value, Estimate):
        return f"{text(value.value, kind)} [{text(value.low, kind)}, {text(value.high, kind)}]"
    if isinstance(value, Spread):
        return f"{text(value.mean, kind)} ± {value.std:{str(form).removeprefix('+')}}"
    if callable(form):
        return form(value)
    return "" if np.isnan(value) else format(value, form)


def parts(value: Value) -> Iterator[tuple[str, str | float]]:
    """Give the numbers and texts that a value is made of, each with its name; the name of the value itself is empty."""
    if isinstance(value, Spread):
        yield from (("", value.mean), ("standard deviation", value.std))
    elif isinstance(value, Range | Estimate):
        if isinstance(value, Estimate):
            yield "", value.value
        yield from (("low", value.low), ("high", value.high))
    elif isinstance(value, Noted):
        yield from parts(value.value)
        if note := f"{value.before.strip()} {value.after.strip(' :;,()')}".strip():
            yield "note", note
    elif isinstance(value, tuple):
        for number, part in enumerate(value, 1):
            yield from ((f"{number} {name}".strip(), content) for name, content in parts(part))
    elif value is None or (isinstance(value, float) and np.isnan(value)):
        yield "", ""
    else:
        yield "", value


# What several tables and sentences share


def percent(share: float) -> str:
    """A fraction in percent with two decimals, as the paper prints accuracies."""
    return f"{100 * share:.2f}"


def limits(interval: Interval | Difference, level: Level = "image") -> Value:
    """An interval of accuracies in percent, or of their difference in points. level : what was resampled where
    subjects are unknown."""
    over = interval.over if interval.over == "subjects" else f"{level}s"
    if interval.units < 2:
        return f"none: one {over[:-1]}"
    ends = Range(100 * interval.low, 100 * interval.high)
    return ends if over == "subjects" else Noted(ends, f" over {over}")


def limits_text(interval: Interval, level: Level = "image") -> str:
    """The same interval of accuracies as text."""
    return text(limits(interval, level), "percent")


def listed(values: list[str], most: int = 6) -> str:
    """Some values, and how many more there are."""
    return ", ".join(values[:most]) + (f" and {len(values) - most} more" if len(values) > most else "")
