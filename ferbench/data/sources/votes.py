"""The votes of FERPlus (Barsoum et al. 2016): ten people named the expression of each image of FER2013."""

from collections.abc import Sequence

from ferbench.data.archive import Tree
from ferbench.data.sources import tables
from ferbench.errors import DataError
from ferbench.labels import FERPLUS, USAGES

COLUMNS = (*FERPLUS, "unknown", "NF")  # of fer2013new.csv, in its order; the last two are no emotions
FILE = "fer2013new.csv"
RULE = {"ferplus": "majority"}  # for the card


def table(tree: Tree, path: str) -> list[tables.Row]:
    """Return the rows of fer2013new.csv; DataError for one that is not of it."""
    rows = tables.rows(tree, path, ("Usage", "Image name", *COLUMNS))
    for row in rows:
        if row["Usage"] not in USAGES:
            raise DataError(f"{row.where}: Usage {row['Usage'][:20]!r} is not one of {', '.join(USAGES)}")
        counted([row[name] for name in COLUMNS], row.where)
    return rows


def counted(cells: Sequence[str], where: str) -> list[int]:
    """Return the ten votes of a row as numbers."""
    votes = [tables.whole(cell) for cell in cells]
    found = [vote for vote in votes if vote is not None and 0 <= vote <= 10]
    if len(found) != len(COLUMNS) or len(votes) != len(COLUMNS):
        raise DataError(f"{where}: {', '.join(cells)[:40]!r} should be {len(COLUMNS)} numbers of votes from 0 to 10")
    return found


def majority(votes: Sequence[int]) -> str:
    """Return the emotion that most people named, or "" (as the authors' src/ferplus.py decides).

    Single votes are noise and count as none; the winner needs more than half of the remaining votes; "unknown" and
    "NF" (no face) are no emotions.
    """
    votes = [vote if vote > 1 else 0 for vote in votes]
    best = max(votes)
    name = COLUMNS[votes.index(best)]
    return name if name in FERPLUS and best > 0.5 * sum(votes) else ""


def of_row(row: tables.Row) -> str:
    """Return the majority label of a row of :func:`table`."""
    return majority([int(row[name]) for name in COLUMNS])
