"""Tables and arrays on disk: read with the expected types, or refused in one line. No code in them is ever executed.

CSV tables of other programs may have any encoding and delimiter (:func:`rows`); a line names the file and the row of
what is wrong. Rows are read
strictly, so that a row that is too short, too long or badly quoted never becomes data unnoticed. Each row knows its
line in an editor.
"""

import csv
import io
import re
import tokenize
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ferbench.errors import DataError, refusal
from ferbench.files import explained, read_bytes
from ferbench.text import printable

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

DELIMITERS = (",", ";", "\t")
_CELL = 1 << 24  # characters of one cell; 2,304 grey values have under 10,000
_SHOWN = 40  # characters of a foreign line that a message shows
_FORMULA = re.compile(r"=|#(?:REF!|NAME\?|VALUE!|DIV/0!|N/A|NUM!|NULL!)$")
# The first bytes of files that are no text, whatever their names.
_KINDS = {
    b"PK\x03\x04": "a zip archive or an Excel workbook",
    b"\x1f\x8b": "a gzip file",
    b"BZh91AY&SY": "a bzip2 file",
    b"\xfd7zXZ": "an xz file",
    b"7z\xbc\xaf": "a 7z archive",
    b"Rar!": "a rar archive",
    b"PAR1\x15": "a Parquet file",
    b"\xd0\xcf\x11\xe0": "an old Excel workbook",
    b"\x89PNG": "an image",
    b"\xff\xd8\xff": "an image",
}


class Row(dict[str, str]):
    """A row's cells by column name, stripped. line : its first line, from 1. where : file and line, in words."""

    def __init__(self, cells: dict[str, str], origin: str, line: int):
        super().__init__(cells)
        self.line, self.where = line, f"{origin}, line {line}"


def decoded(content: bytes, origin: str) -> str:
    """Return a text with plain line ends, whatever it was written with: UTF-8, UTF-16 or UTF-32 with their mark, else
    Latin-1, which takes any byte. Raises DataError for what is no text."""
    kind = next((words for magic, words in _KINDS.items() if content.startswith(magic)), "")
    if not kind and content[257:262] == b"ustar":
        kind = "a tar archive"
    if kind:
        raise DataError(f"{origin} is no text file but {kind}: unpack it, or save it as CSV")
    marks = {b"\xff\xfe\x00\x00": "utf-32", b"\x00\x00\xfe\xff": "utf-32", b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}
    encoding = next((name for mark, name in marks.items() if content.startswith(mark)), "utf-8-sig")
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        if encoding != "utf-8-sig":
            raise DataError(
                f"{origin} is not whole {encoding.upper()} ({error.reason} at byte {error.start})"
            ) from None
        text = content.decode("latin-1")
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    if (place := text.find("\0")) >= 0:
        raise DataError(
            f"{origin}, line {text.count(chr(10), 0, place) + 1}: a NUL byte; the file is damaged, or "
            "UTF-16 without its mark: save it as UTF-8"
        )
    return text


def lines(text: str) -> Iterator[tuple[int, str]]:
    """Yield number and content of the lines that are not blank. Only line feeds end a line, as in an editor."""
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            yield number, line


def rows(
    text: str, origin: str, needed: tuple[str, ...], optional: tuple[str, ...] = (), headless: tuple[str, ...] = ()
) -> list[Row]:
    """Return the rows of a CSV text; empty ones are left out.

    needed, optional : columns, whose case and blanks do not matter; needed ones must be present. headless : the columns
        of a file whose first row is data already; empty where such a file is refused.
    Raises DataError with file and line for a row that has not as many cells as the header, a quote that does not close,
    a line break in a cell, and a formula.
    """
    first, _, body = text.partition("\n")
    declared = re.fullmatch(r"sep=(.)", first.strip())  # Excel's own way to name the delimiter
    skipped = 1 if declared else 0
    if declared:
        text = body
    known = {name.lower(): name for name in (*needed, *optional)}
    delimiter = declared[1] if declared else _delimiter(_first(text), needed, headless)
    records = _records(text, origin, delimiter, skipped)
    line, header = next(records, (0, []))
    if not header:
        raise DataError(f"{origin} is empty")
    names = [known.get(name.lower(), name) for name in header]
    rest: Iterator[tuple[int, list[str]]] = records
    if missing := [name for name in needed if name not in names]:
        if not headless or len(missing) < len(needed) or len(header) != len(headless):
            raise DataError(f"{origin} has no column {', '.join(missing)}; it has {_short(', '.join(header))}")
        names, rest = list(headless), _chained((line, header), records)
    while names and not names[-1]:
        names.pop()  # a spreadsheet's empty columns
    if twice := [name for place, name in enumerate(names) if name and name in names[:place]]:
        raise DataError(f"{origin}, line {line}: the column {twice[0]!r} is there twice")
    width, formulas, parsed = len(names), "=" in text or "#" in text, []
    for line, cells in rest:
        if len(cells) > width and not any(cells[width:]):
            cells = cells[:width]
        if len(cells) != width:
            raise DataError(
                f"{origin}, line {line}: {len(cells)} cells, but the header names {width} columns; the "
                f"file is cut or has something appended: {_short(delimiter.join(cells))!r}"
            )
        if formulas and (formula := next((cell for cell in cells if _FORMULA.match(cell)), "")):
            raise DataError(f"{origin}, line {line}: {_short(formula)!r} is a spreadsheet's formula, not a value")
        parsed.append(Row(dict(zip(names, cells, strict=True)), origin, line))
    return parsed


def frame(path: Path, needed: tuple[str, ...] = (), optional: tuple[str, ...] = ()) -> "pd.DataFrame":
    """Return the CSV file ``path`` as a table of text whose index is the line of each row.

    Raises DataError as :func:`rows` does, and for a file that cannot be read.
    """
    import pandas as pd

    with explained(path):
        if not path.is_file():
            raise DataError(f"{path} {'is a folder, not a CSV file' if path.is_dir() else 'does not exist'}")
        text = decoded(path.read_bytes(), str(path))
    parsed = rows(text, str(path), needed, optional)
    if not parsed:
        raise DataError(f"{path} has no rows")
    return pd.DataFrame([dict(row) for row in parsed], index=[row.line for row in parsed], dtype=str)


def read_csv(path: Path, content: bytes | None = None, **options: Any) -> "pd.DataFrame":
    """Read a CSV file by pandas with these options, empty cells as empty texts and names stripped.

    content : of the file, where it has been read.
    Raises FileNotFoundError, and DataError for a file that is no table: with a row longer than its header, a name
    that repeats, another encoding than UTF-8.
    """
    import pandas as pd

    content = read_bytes(path) if content is None else content
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)  # of rows that would be cut
            frame = pd.read_csv(io.BytesIO(content), keep_default_na=False, index_col=False, **options)
    except UnicodeDecodeError:
        raise DataError(f"{path} is no text in UTF-8: save it as CSV UTF-8") from None
    except pd.errors.ParserWarning:
        raise DataError(f"{path} has a row with more cells than its header") from None
    except (ValueError, OverflowError, RecursionError) as error:
        raise DataError(f"{path} is not a CSV file ({printable(str(error))[:200]})") from None
    frame.columns = [printable(str(name)).strip() for name in frame.columns]
    if frame.columns.duplicated().any():
        raise DataError(f"{path} has two columns {frame.columns[frame.columns.duplicated()][0]!r}")
    return frame


def read_array(path: Path) -> "np.ndarray":
    """Map a ``.npy`` file into memory, read-only. Raises FileNotFoundError, and DataError for any other kind of file: a
    pickle and a zip of arrays too."""
    import numpy as np

    if path.exists() and not path.is_file():
        raise DataError(f"{path} is no file")
    try:
        return np.lib.format.open_memmap(path, mode="r")
    except FileNotFoundError:
        raise
    # The header is a Python literal, and numpy passes on all errors of a damaged one.
    except (
        ValueError,
        OSError,
        EOFError,
        SyntaxError,
        TypeError,
        OverflowError,
        RecursionError,
        MemoryError,
        tokenize.TokenError,
    ) as error:
        if isinstance(error, OSError | MemoryError) and refusal(error, path):
            raise  # the file is not to blame
        raise DataError(f"{path} is no array ({printable(str(error))[:200]})") from None


def whole(text: str) -> int | None:
    """Return the whole number in a cell (``3``, ``-1``, and ``3.0`` as pandas writes it), None for anything else."""
    match = re.fullmatch(r"([+-]?[0-9]{1,9})(?:\.0{0,9})?", text.strip())
    return int(match[1]) if match else None


def columns(text: str, headless: tuple[str, ...] = ()) -> list[str]:
    """Return the names in the first line of a CSV, in lower case, by which tables are recognised.

    headless : the columns that a file whose first row is data would have.
    """
    first = _first(text.removeprefix("\ufeff"))
    return [name.strip().strip('"').strip().lower() for name in first.split(_delimiter(first, (), headless))]


def _first(text: str) -> str:
    return next((line for _, line in lines(text)), "").strip()


def _delimiter(first: str, needed: tuple[str, ...], headless: tuple[str, ...]) -> str:
    """The delimiter that gives the expected columns of the first line, else the most frequent one."""
    split = {sign: [cell.strip().strip('"').strip().lower() for cell in first.split(sign)] for sign in DELIMITERS}
    if needed:
        for sign, names in split.items():
            if {name.lower() for name in needed} <= set(names):
                return sign
    for sign, names in split.items():
        if headless and len(names) == len(headless):
            return sign
    return max(DELIMITERS, key=first.count)


def _records(text: str, origin: str, delimiter: str, skipped: int) -> Iterator[tuple[int, list[str]]]:
    """Yield line and stripped cells of each record that is not empty."""
    csv.field_size_limit(_CELL)
    reader = csv.reader(io.StringIO(text), delimiter=delimiter, strict=True, skipinitialspace=True)
    start = 1 + skipped
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise DataError(
                f"{origin}, line {start}: a quote that is not closed, or text after one ({error})"
            ) from None
        if reader.line_num + skipped > start:
            raise DataError(
                f"{origin}, line {start}: a quoted cell runs on to line {reader.line_num + skipped}; a quote is missing"
            )
        line, start = start, start + 1
        cells = [cell.strip() for cell in cells]
        if any(cells):
            yield line, cells


def _chained(first: tuple[int, list[str]], rest: Iterator[tuple[int, list[str]]]) -> Iterator[tuple[int, list[str]]]:
    yield first
    yield from rest


def _short(text: str) -> str:
    return text if len(text) <= _SHOWN * 2 else f"{text[: _SHOWN * 2]}…"
