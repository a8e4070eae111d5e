"""The tables that come with datasets, read out of their tree (see :mod:`ferbench.tables`)."""

from collections.abc import Iterator

from ferbench import tables
from ferbench.data.archive import HEAD, Tree
from ferbench.errors import DataError
from ferbench.tables import Row, whole

__all__ = ["Row", "columns", "lines", "rows", "text", "whole"]


def text(tree: Tree, path: str) -> str:
    """Return a text file's content with plain line ends, whatever it was written with."""
    return tables.decoded(tree.read(path), path)


def lines(tree: Tree, path: str) -> Iterator[tuple[int, list[str]]]:
    """Yield number and words of each line that holds something, separated by blanks, commas or semicolons."""
    for number, line in tables.lines(text(tree, path)):
        if words := line.replace(",", " ").replace(";", " ").split():
            yield number, words


def rows(
    tree: Tree, path: str, needed: tuple[str, ...], optional: tuple[str, ...] = (), headless: tuple[str, ...] = ()
) -> list[Row]:
    """Return a CSV's rows (see :func:`ferbench.tables.rows`)."""
    return tables.rows(text(tree, path), path, needed, optional, headless)


def columns(tree: Tree, path: str, headless: tuple[str, ...] = ()) -> list[str]:
    """Return the names in a CSV's first line, in lower case; empty for what cannot be read or is no text.

    Only the beginning of the file is read.
    """
    try:
        head = tree.read(path, HEAD)
        even = (
            head[: len(head) // 4 * 4] if head[:2] in (b"\xff\xfe", b"\xfe\xff") else head.rpartition(b"\n")[0] or head
        )
        return tables.columns(tables.decoded(even, path), headless)
    except DataError:
        return []
