"""``ferbench paper``: the published tables as printed, and whether their own arithmetic holds."""

from dataclasses import dataclass

import numpy as np

from ferbench import metrics
from ferbench.errors import CheckFailed, DataError
from ferbench.report import published
from ferbench.report.details import matrix
from ferbench.report.table import Section, Table
from ferbench.report.tables import about

ROUNDING = 0.05  # of a cell printed with one decimal
PRINTED = 0.005  # of an accuracy printed with two decimals


@dataclass(frozen=True)
class Audit:
    """One published table as a section, and the contradictions in it that no erratum records."""

    section: Section
    problems: list[str]


def audits(number: str = "") -> list[Audit]:
    """Return every published table (``number`` alone, when given) with its arithmetic checked.

    A confusion matrix must have rows that add up to 100 within rounding, counts that belong to its percentages,
    and a pooled accuracy that is the one printed for that method on that dataset.
    Raises DataError for a number that does not exist.
    """
    chosen = [
        _audit(table, citation)
        for table, citation in published.all_tables()
        if number in ("", table["id"].removeprefix("table"))
    ]
    if not chosen:
        numbers = ", ".join(table["id"].removeprefix("table") for table, _ in published.all_tables())
        raise DataError(f"there is no table {number}: there are {numbers}")
    return chosen


def _audit(table: dict, citation: str) -> Audit:
    name = published.printed(table["id"])
    lines, problems = [citation, f"{name}: {table['metric']}; {table['dataset']}."], list[str]()
    if "matrix" in table:
        shown, total, problems = _matrix(table, name)
        lines.append(total)
    else:
        rows = published.rows_of(table)
        shown = about(rows, f"{name}, percent, as printed, and what is known of each figure")
        lines += [f"Slip: {published.slip(row)}." for row in rows if row.correct is not None]
    if "erratum" in table:
        lines.append(f"Erratum: {table['erratum']}.")
        problems = []
    lines += [f"Contradiction: {problem}." for problem in problems]
    return Audit(Section(f"{name}: {table['dataset']}", lines, [shown]), problems)


def _matrix(table: dict, name: str) -> tuple[Table, str, list[str]]:
    percent, sizes = np.array(table["matrix"], dtype=np.float64), table["images_per_class"]
    counts = metrics.counts_from_percent(percent, sizes)
    correct, total = int(np.trace(counts)), int(counts.sum())
    problems = [
        f"{name}: row {short} adds up to {row.sum():.1f}"
        for short, row in zip(table["classes"], percent, strict=True)
        if abs(row.sum() - 100) > ROUNDING * len(row) + 1e-9
    ]
    line = f"It comes to {correct:,} of {total:,} images: {100 * correct / total:.2f} % pooled accuracy"
    row = next((row for row in published.rows(table["dataset"]) if row.method == table.get("method", "WS-LGAN")), None)
    if row is not None:
        if abs(100 * correct / total - row.accuracy) > PRINTED + 1e-9:
            problems.append(f"{name} comes to {100 * correct / total:.2f} %, {row.table} prints {row.accuracy:.2f}")
        line += f", and {row.table} prints {row.accuracy:.2f}"
    caption = f"{name}, percent of the row, as printed"
    return matrix(caption, table["classes"], percent, "printed", ("images", sizes)), line + ".", problems


def check(tables: list[Audit]) -> None:
    """Raise CheckFailed where a table contradicts itself."""
    if problems := [problem for audit in tables for problem in audit.problems]:
        raise CheckFailed(f"published tables contradict themselves: {'; '.join(problems)}")
