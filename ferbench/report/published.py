"""The published figures that are compared with ours, and what is known of each."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from ferbench import metrics
from ferbench.files import shipped
from ferbench.labels import ABBREVIATIONS
from ferbench.schema import read_toml

UNKNOWN = "unknown"


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
    correct: float | None = None  # the right figure, where the printed one is a slip; ``note`` says why
    note: str = ""

    @property
    def figure(self) -> float:
        """The accuracy that ours stands beside: as printed, unless that is a slip."""
        return self.accuracy if self.correct is None else self.correct

    @property
    def shown(self) -> str:
        """The accuracy as printed, with the right one in brackets where it is a slip."""
        return f"{self.accuracy:.2f}" + ("" if self.correct is None else f" ({self.correct:.2f})")

    @property
    def tested(self) -> str:
        """What it was tested on, in words: ``327 sequences``."""
        if self.level == UNKNOWN:
            return "level unknown"
        return f"{self.n:,} {self.level}s" if self.n else f"{self.level}s, n unknown"


@dataclass(frozen=True)
class PublishedMatrix:
    """A printed confusion matrix: percent of each row [K,K], the classes, and the images of each class."""

    classes: tuple[str, ...]
    percent: np.ndarray
    images: tuple[int, ...]
    table: str

    def counts(self) -> np.ndarray:
        """The counts behind the percentages, int64 [K,K]."""
        return metrics.counts_from_percent(self.percent, list(self.images))


def rows(dataset: str) -> list[PublishedRow]:
    """Return the comparison rows of a dataset (Tables 2, 4, 6), then its ablations (Tables 8, 9), each once.

    Table 10 is left out: it is printed as a copy of Table 9, and WS-LGAN-WCL was never published.
    """
    unique: dict[str, PublishedRow] = {}
    for table in _tables(dataset):
        if "rows" in table and "erratum" not in table:
            for row in rows_of(table):
                unique.setdefault(row.method, row)
    return list(unique.values())


def rows_of(table: dict[str, Any]) -> list[PublishedRow]:
    """Return the rows of one table."""
    about = table.get("about", {})
    return [
        PublishedRow(method, feature, accuracy, printed(table["id"]), **about.get(method, {}))
        for method, feature, accuracy in table["rows"]
    ]


def matrix(dataset: str) -> PublishedMatrix | None:
    """Return the printed confusion matrix of a dataset (Tables 3, 5, 7)."""
    names = {short: name for name, short in ABBREVIATIONS.items()}
    for table in _tables(dataset):
        if "matrix" in table:
            return PublishedMatrix(
                tuple(names[short] for short in table["classes"]),
                np.array(table["matrix"], dtype=np.float64),
                tuple(table["images_per_class"]),
                printed(table["id"]),
            )
    return None


def errata(dataset: str) -> list[str]:
    """Return what is wrong in the printed tables of a dataset, a sentence each."""
    tables = [f"{printed(table['id'])}: {table['erratum']}" for table in _tables(dataset) if "erratum" in table]
    return tables + [f"{row.table}: {slip(row)}" for row in rows(dataset) if row.correct is not None]


def slip(row: PublishedRow) -> str:
    """What is wrong with a printed figure, in words."""
    return f"{row.method} should have {row.figure:.2f} instead of {row.accuracy:.2f}: {row.note}"


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
    rows = (row for table, _ in all_tables() for row in table.get("rows", []))
    return {method for method, feature, _ in rows if feature == "dynamic"}


def reproducing() -> dict[str, str]:
    """Return the shipped method of each published row that one reproduces: ``{"GFNet": "gfnet"}``."""
    methods: dict[str, str] = {}
    for path in sorted(shipped("baselines").glob("*.toml")):
        if row := read_toml(path).get("published"):
            methods.setdefault(row, path.stem)
    return methods


def _compared() -> dict[str, Any]:
    return read_toml(shipped("baselines") / "compared" / "methods.toml")


def all_tables() -> list[tuple[dict, str]]:
    """Return every table of ``baselines/published/*.toml`` with the citation of its paper."""
    files = [read_toml(file) for file in sorted((shipped("baselines") / "published").glob("*.toml"))]
    return [(table, file["citation"]) for file in files for table in file["table"]]


def _tables(dataset: str) -> list[dict]:
    return [table for table, _ in all_tables() if table["dataset"] == dataset]


def printed(identifier: str) -> str:
    """Return a table's name as papers print it: ``table3`` → ``Table 3``."""
    return identifier.replace("table", "Table ")
