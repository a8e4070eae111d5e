"""The published figures, what is known of each, and ``ferbench paper``, which checks their arithmetic."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ferbench import metrics
from ferbench.errors import CheckFailed, DataError
from ferbench.files import shipped
from ferbench.labels import ABBREVIATIONS
from ferbench.report.formats import check_format
from ferbench.report.table import Noted, Section, Table, Value, matrix_table, percent, table
from ferbench.schema import read_toml

UNKNOWN = "unknown"
CELL_ROUNDING = 0.05  # of a cell printed with one decimal
ACCURACY_ROUNDING = 0.005  # of an accuracy printed with two decimals


@dataclass(frozen=True)
class PublishedRow:
    """One method's accuracy in percent, as printed, the table that it stands in, and what is known of the figure.

    What could not be found out is "unknown"; ``n`` and ``classes`` are 0 then.
    """

    method: str
    feature: str  # static: single images; dynamic: sequences
    accuracy: float
    table: str
    level: str = UNKNOWN  # what one prediction is of: image or sequence
    n: int = 0
    folds: str = UNKNOWN  # how many, or the split
    average: str = UNKNOWN  # pooled, or fold mean
    classes: int = 0
    source: str = UNKNOWN
    correct: float | None = None  # the right figure, where the printed one is a misprint; ``note`` says why
    note: str = ""

    @property
    def figure(self) -> float:
        """The accuracy that ours stands beside: as printed, unless that is a misprint."""
        return self.accuracy if self.correct is None else self.correct

    @property
    def cell(self) -> Value:
        """The accuracy as printed, with the right one in brackets where it is a misprint."""
        return self.accuracy if self.correct is None else Noted(self.accuracy, f" ({self.correct:.2f})")

    @property
    def tested(self) -> str:
        """What it was tested on: ``327 sequences``."""
        if self.level == UNKNOWN:
            return "level unknown"
        return f"{self.n:,} {self.level}s" if self.n else f"{self.level}s, n unknown"

    @property
    def misprint(self) -> str:
        """What is wrong with the printed figure."""
        return f"{self.method} should have {self.figure:.2f} instead of {self.accuracy:.2f}: {self.note}"


@dataclass(frozen=True)
class PublishedMatrix:
    """A printed confusion matrix: percent of each row [K,K], the classes, and the images of each class."""

    classes: tuple[str, ...]
    percent: np.ndarray
    images: tuple[int, ...]
    table: str

    def counts(self) -> np.ndarray:
        """The counts that the percentages come from, int64 [K,K]."""
        return metrics.counts_from_percent(self.percent, list(self.images))

    def tables(self) -> list[Table]:
        """Return the matrix as printed, and its counts."""
        classes, counts, name = list(self.classes), self.counts(), f"Published ({self.table})"
        pooled = f"{np.trace(counts):,} of {counts.sum():,} images, {percent(metrics.accuracy(counts))} %"
        sizes = ("images", list(self.images))
        caption = f"{name}: confusion in percent, as printed; it comes to {pooled}"
        return [
            matrix_table(caption, classes, self.percent, "row percent", sizes),
            matrix_table(f"{name}: counts of images, computed from the percentages", classes, counts, "count"),
        ]


def all_tables() -> list[tuple[dict, str]]:
    """Return every table of ``baselines/published/*.toml`` with the citation of its paper."""
    files = [read_toml(file) for file in sorted((shipped("baselines") / "published").glob("*.toml"))]
    return [(content, file["citation"]) for file in files for content in file["table"]]


def _tables(dataset: str) -> list[dict]:
    return [content for content, _ in all_tables() if content["dataset"] == dataset]


def _title(content: dict) -> str:
    """A table's name as papers print it: ``table3`` → ``Table 3``."""
    return content["id"].replace("table", "Table ")


def rows(dataset: str) -> list[PublishedRow]:
    """Return the comparison rows of a dataset (Tables 2, 4, 6), then its ablations (Tables 8, 9), each once.

    Table 10 is left out: it is printed as a copy of Table 9, and WS-LGAN-WCL was never published.
    """
    unique: dict[str, PublishedRow] = {}
    for content in _tables(dataset):
        if "rows" in content and "erratum" not in content:
            for row in _rows(content):
                unique.setdefault(row.method, row)
    return list(unique.values())


def _rows(content: dict[str, Any]) -> list[PublishedRow]:
    about = content.get("about", {})
    return [
        PublishedRow(method, feature, accuracy, _title(content), **about.get(method, {}))
        for method, feature, accuracy in content["rows"]
    ]


def matrix(dataset: str) -> PublishedMatrix | None:
    """Return the printed confusion matrix of a dataset (Tables 3, 5, 7)."""
    names = {short: name for name, short in ABBREVIATIONS.items()}
    for content in _tables(dataset):
        if "matrix" in content:
            classes = tuple(names[short] for short in content["classes"])
            percents = np.array(content["matrix"], dtype=np.float64)
            return PublishedMatrix(classes, percents, tuple(content["images_per_class"]), _title(content))
    return None


def errata(dataset: str) -> list[str]:
    """Return what is wrong in the printed tables of a dataset, a sentence each."""
    errors = [f"{_title(content)}: {content['erratum']}" for content in _tables(dataset) if "erratum" in content]
    return errors + [f"{row.table}: {row.misprint}" for row in rows(dataset) if row.correct is not None]


def _compared() -> dict[str, Any]:
    return read_toml(shipped("baselines") / "compared" / "methods.toml")


def compared() -> list[str]:
    """Return the methods that the paper compares itself with, by their names in its tables."""
    return list(_compared()["methods"])


def reason(method: str, dataset: str) -> str:
    """Return why a compared method is not run on a dataset; empty where nothing prevents it."""
    for entry in _compared()["reason"]:
        if method in entry["methods"] and dataset in entry.get("datasets", [dataset]):
            return str(entry["why"])
    return ""


def dynamic() -> set[str]:
    """Return the methods that read sequences, of all tables."""
    return {
        method for content, _ in all_tables() for method, feature, _ in content.get("rows", []) if feature == "dynamic"
    }


def reproducing() -> dict[str, str]:
    """Return the shipped method of each published row that one reproduces: ``{"GFNet": "gfnet"}``."""
    methods: dict[str, str] = {}
    for path in sorted(shipped("baselines").glob("*.toml")):
        if row := read_toml(path).get("published"):
            methods.setdefault(row, path.stem)
    return methods


def about(published: list[PublishedRow], caption: str) -> Table:
    """Return what is known of published figures as a table."""
    return table(
        caption,
        published,
        ("Method", "text", lambda row: row.method),
        ("Accuracy", "percent", lambda row: row.cell),
        ("Feature", "text", lambda row: row.feature),
        ("Level", "text", lambda row: row.level),
        ("n", "count", lambda row: row.n or UNKNOWN),
        ("Folds", "text", lambda row: row.folds),
        ("Average", "text", lambda row: row.average),
        ("Classes", "count", lambda row: row.classes or UNKNOWN),
        ("Source", "text", lambda row: row.source),
        ("Note", "text", lambda row: row.note),
    )


# The audit of the printed tables


def write_paper(number: str, format: str, out: Path | None) -> None:
    """Print the published tables, or write them to ``out``, and check their arithmetic. number : of one table.

    Raises CheckFailed, after all is printed, where a table contradicts itself and no erratum states it.
    """
    from ferbench.report.formats import text

    check_format(format, out)
    audited = audits(number)
    data = [
        {"title": section.title, "facts": section.lines, "tables": section.tables, "problems": problems}
        for section, problems in audited
    ]
    text.write([section for section, _ in audited], data, format, out)
    check(audited)


def audits(number: str = "") -> list[tuple[Section, list[str]]]:
    """Return every published table (``number`` alone, when given) as a section, with the contradictions in it that no
    erratum states.

    A confusion matrix must have rows that add up to 100 within rounding, counts that belong to its percentages,
    and a pooled accuracy that is the one printed for that method on that dataset.
    Raises DataError for a number that does not exist.
    """
    numbered = {content["id"].removeprefix("table"): (content, citation) for content, citation in all_tables()}
    if number and number not in numbered:
        raise DataError(f"there is no table {number}: there are {', '.join(numbered)}")
    return [_audit(*entry) for key, entry in numbered.items() if number in ("", key)]


def check(audited: list[tuple[Section, list[str]]]) -> None:
    """Raise CheckFailed where a table contradicts itself."""
    if problems := [problem for _, contradictions in audited for problem in contradictions]:
        raise CheckFailed(f"published tables contradict themselves: {'; '.join(problems)}")


def _audit(content: dict, citation: str) -> tuple[Section, list[str]]:
    name = _title(content)
    lines, problems = [citation, f"{name}: {content['metric']}; {content['dataset']}."], list[str]()
    if "matrix" in content:
        shown, total, problems = _matrix_audit(content, name)
        lines.append(total)
    else:
        shown = about(_rows(content), f"{name}, percent, as printed, and what is known of each figure")
        lines += [f"Misprint: {row.misprint}." for row in _rows(content) if row.correct is not None]
    if "erratum" in content:
        lines.append(f"Erratum: {content['erratum']}.")
        problems = []
    lines += [f"Contradiction: {problem}." for problem in problems]
    return Section(f"{name}: {content['dataset']}", lines, [shown]), problems


def _matrix_audit(content: dict, name: str) -> tuple[Table, str, list[str]]:
    percents, sizes = np.array(content["matrix"], dtype=np.float64), content["images_per_class"]
    counts = metrics.counts_from_percent(percents, sizes)
    correct, total = int(np.trace(counts)), int(counts.sum())
    pooled = 100 * correct / total
    problems = [
        f"{name}: row {short} adds up to {row.sum():.1f}"
        for short, row in zip(content["classes"], percents, strict=True)
        if abs(row.sum() - 100) > CELL_ROUNDING * len(row) + 1e-9
    ]
    line = f"It comes to {correct:,} of {total:,} images: {pooled:.2f} % pooled accuracy"
    row = next((row for row in rows(content["dataset"]) if row.method == content.get("method", "WS-LGAN")), None)
    if row is not None:
        if abs(pooled - row.accuracy) > ACCURACY_ROUNDING + 1e-9:
            problems.append(f"{name} comes to {pooled:.2f} %, {row.table} prints {row.accuracy:.2f}")
        line += f", and {row.table} prints {row.accuracy:.2f}"
    caption = f"{name}, percent of the row, as printed"
    return matrix_table(caption, content["classes"], percents, "printed", ("images", sizes)), line + ".", problems
