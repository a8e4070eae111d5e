"""The published figures that stand beside ours."""

from dataclasses import dataclass

import numpy as np

from ferbench import metrics
from ferbench.files import shipped
from ferbench.labels import ABBREVIATIONS
from ferbench.schema import read_toml


@dataclass(frozen=True)
class PublishedRow:
    """One method's accuracy in percent, as printed, and the table that it stands in."""

    method: str
    feature: str
    accuracy: float
    table: str


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
    found: dict[str, PublishedRow] = {}
    for table in _tables(dataset):
        if "rows" in table and "erratum" not in table:
            for method, feature, accuracy in table["rows"]:
                found.setdefault(method, PublishedRow(method, feature, accuracy, printed(table["id"])))
    return list(found.values())


def matrix(dataset: str) -> PublishedMatrix | None:
    """Return the printed confusion matrix of a dataset (Tables 3, 5, 7)."""
    names = {short: name for name, short in ABBREVIATIONS.items()}
    for table in _tables(dataset):
        if "matrix" in table:
            return PublishedMatrix(
                tuple(names[short] for short in table["classes"]), np.array(table["matrix"], dtype=np.float64),
                tuple(table["images_per_class"]), printed(table["id"]),
            )  # fmt: skip
    return None


def errata(dataset: str) -> list[str]:
    """Return what is wrong in the printed tables of a dataset, a sentence each."""
    return [f"{printed(table['id'])}: {table['erratum']}" for table in _tables(dataset) if "erratum" in table]


def all_tables() -> list[tuple[dict, str]]:
    """Return every table of ``baselines/published/*.toml`` with the citation of its paper."""
    files = [read_toml(file) for file in sorted((shipped("baselines") / "published").glob("*.toml"))]
    return [(table, file["citation"]) for file in files for table in file["table"]]


def _tables(dataset: str) -> list[dict]:
    return [table for table, _ in all_tables() if table["dataset"] == dataset]


def printed(identifier: str) -> str:
    """Return a table's name as papers print it: ``table3`` → ``Table 3``."""
    return identifier.replace("table", "Table ")
