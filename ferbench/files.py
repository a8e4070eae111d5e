"""Files that are either whole or absent: written beside their place, flushed, then renamed.

Also the two folders a user can move: the data home and the runs home.
"""

import errno
import fcntl
import hashlib
import json
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ferbench.errors import DataError, UsageError, refusal

MOST = 256 << 20  # bytes of a record or table; the largest honest one, of 200,000 predictions, has 0.03 GB

_PACKAGE = Path(__file__).resolve().parent
# The only way to read the mask is to set it. Temporary files are private; what they become is what open() would make.
_MASK = os.umask(0o077)
os.umask(_MASK)


def data_home(chosen: Path | None = None) -> Path:
    """Return where prepared datasets live: the option, else ``FERBENCH_DATA``, else the platform's folder."""
    if chosen is not None:
        return chosen
    if variable := os.environ.get("FERBENCH_DATA"):
        return Path(variable)
    from platformdirs import user_data_path

    return user_data_path("ferbench")


def runs_home(chosen: Path | None = None) -> Path:
    """Return where runs live: the option, else ``FERBENCH_RUNS``, else ``./runs``."""
    return chosen or Path(os.environ.get("FERBENCH_RUNS", "runs"))


def shipped(room: str) -> Path:
    """Return the folder of a data room (``protocols``, ``baselines``), in a wheel or in a checkout."""
    inside = _PACKAGE / "_data" / room
    return inside if inside.is_dir() else _PACKAGE.parent / room


def check_place(path: Path, option: str, folder: bool = False) -> None:
    """Raise UsageError where a folder stands in the place of a file, or a file in that of a folder or above either.

    path : of a file, or of a ``folder``; it need not exist. option : how the user named it.
    """
    if not folder and path.is_dir():
        raise UsageError(f"{option} {path}: this is a folder; give a file")
    start = path.absolute() if folder else path.absolute().parent
    above = next(one for one in (start, *start.parents) if one.exists())
    if not above.is_dir():
        raise UsageError(f"{option} {path}: {above} is a file, not a folder")


def read_bytes(path: Path, most: int = MOST) -> bytes:
    """Read a file whole. Raises FileNotFoundError, and DataError for what is no file, cannot be read or has more than
    ``most`` bytes: a pipe would be waited for without end, and memory is finite."""
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            raise DataError(f"{path} is no file")
        if found.st_size > most:
            raise DataError(
                f"{path} has {found.st_size / 1e6:,.0f} MB, and no such file has more than {most / 1e6:,.0f}"
            )
        return path.read_bytes()
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:  # ValueError: of a name that no file can have
        raise DataError(f"{path} cannot be read ({getattr(error, 'strerror', None) or error})") from None


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file atomically, making its folder. Raises DataError when the disk says no."""
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
                os.fchmod(file.fileno(), 0o666 & ~_MASK)
            os.replace(temporary, path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise


def write_text(path: Path, content: str) -> None:
    """Write UTF-8 text atomically (see :func:`write_bytes`)."""
    write_bytes(path, content.encode())


def write_json(path: Path, content: Any) -> None:
    """Write indented JSON atomically; NaN and infinities are refused, so any reader can read it."""
    write_text(path, json.dumps(content, indent=2, allow_nan=False, ensure_ascii=False) + "\n")


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Give a temporary folder that becomes ``path`` when the block ends well, replacing an old one.

    Whatever ends the block early (an error, Ctrl-C, a full disk) removes the temporary folder and
    leaves ``path`` as it was.
    """
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
        try:
            yield temporary
            temporary.chmod(0o777 & ~_MASK)
            _put_in_place(temporary, path)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise


def _put_in_place(folder: Path, path: Path) -> None:
    """Give a folder its name. Another process may do the same meanwhile: the last one stays."""
    while True:
        try:
            os.replace(folder, path)
            return
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
        old = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
        with suppress(FileNotFoundError):
            os.replace(path, old)
        shutil.rmtree(old)


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """Hold the file ``path`` against all other processes, which wait their turn. Let go by dying, too."""
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn what an operating system refuses (full disk, no permission) into one line about ``path``."""
    try:
        yield
    except OSError as error:
        if line := refusal(error, path):
            raise DataError(line) from error
        raise


def sha256_of(content: bytes) -> str:
    """Return the hexadecimal SHA-256 of bytes."""
    return hashlib.sha256(content).hexdigest()


def sha256_of_file(path: Path) -> str:
    """Return the hexadecimal SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def seal(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return a JSON document with the SHA-256 of all that it says in its field ``digest``."""
    content = json.loads(json.dumps(content, allow_nan=False))  # as it will be read
    return {**content, "digest": _digest(content)}


def is_intact(content: Any) -> bool:
    """Whether a JSON document says what it was sealed with. One without a seal, of before there were any, passes."""
    told = content.get("digest") if isinstance(content, dict) else None
    return not told or told == _digest(content)


def _digest(content: Mapping[str, Any]) -> str:
    return sha256_of(canonical_json({key: value for key, value in content.items() if key != "digest"}).encode())


def canonical_json(content: Any) -> str:
    """Return the one text of a JSON value (sorted keys, no blanks), fit for hashing."""
    return json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
