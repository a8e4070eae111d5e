"""Tables and arrays on disk: read as what they are to be, or refused in one line. Nothing in them is ever run."""

import io
import tokenize
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ferbench.errors import DataError, refusal
from ferbench.files import read_bytes
from ferbench.text import printable

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd


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
    # Its header is a Python literal, and numpy lets through what Python says of a bad one.
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
