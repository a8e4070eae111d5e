"""Reading the tables that come with datasets: header names with blanks, CRLF, commas or semicolons."""

import csv
import io

from ferbench.data.archive import Tree
from ferbench.errors import DataError


def text(tree: Tree, path: str) -> str:
    """Return a text file's content with plain line ends, whatever it was written with."""
    content = tree.read(path)
    try:
        decoded = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        decoded = content.decode("latin-1")
    return decoded.replace("\r\n", "\n").replace("\r", "\n")


def rows(tree: Tree, path: str, needed: tuple[str, ...]) -> list[dict[str, str]]:
    """Return a CSV's rows by column name, names and cells stripped; DataError when a needed column is missing."""
    content = text(tree, path)
    first = content.partition("\n")[0]
    delimiter = ";" if first.count(";") > first.count(",") else ","
    csv.field_size_limit(1 << 24)
    lines = csv.reader(io.StringIO(content), delimiter=delimiter)
    header = [name.strip() for name in next(lines, [])]
    if missing := [name for name in needed if name not in header]:
        raise DataError(f"{path} in {tree.name} has no column {', '.join(missing)}; it has {', '.join(header[:8])}")
    return [dict(zip(header, (cell.strip() for cell in line), strict=False)) for line in lines if any(line)]
