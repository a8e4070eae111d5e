"""Files that are either complete or absent: written to a temporary file, flushed, then renamed. Locks on folders.

Also the two folders whose place a user can choose: the data home and the runs home.
"""

import errno
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

from filelock import FileLock, Timeout

from ferbench.errors import DataError, UsageError, refusal

MAX_BYTES = 256 << 20  # of a record or table; 200,000 predictions take 0.03 GB

_LOCK = ".lock"  # in a claimed folder
_PACKAGE = Path(__file__).resolve().parent
# The mask can only be read by setting it. Temporary files are private; the final ones have the mode of open().
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


def cache_home() -> Path:
    """Return where files live that are computed again when they are lost. The temporary folder is none: all users can
    write to it, and a restart empties it."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ferbench"


def runs_home(chosen: Path | None = None) -> Path:
    """Return where runs live: the option, else ``FERBENCH_RUNS``, else ``./runs``."""
    return chosen or Path(os.environ.get("FERBENCH_RUNS", "runs"))


def shipped(room: str) -> Path:
    """Return the folder of a data room (``protocols``, ``baselines``), in a wheel or in a checkout."""
    inside = _PACKAGE / "_data" / room
    return inside if inside.is_dir() else _PACKAGE.parent / room


def check_place(path: Path, option: str, folder: bool = False) -> None:
    """Raise UsageError if a folder has the path of a file, or a file the path of a folder or of a parent of either.

    path : of a file, or of a ``folder``; it need not exist. option : how the user named it.
    """
    if not folder and path.is_dir():
        raise UsageError(f"{option} {path}: this is a folder; give a file")
    start = path.absolute() if folder else path.absolute().parent
    existing = next(parent for parent in (start, *start.parents) if parent.exists())
    if not existing.is_dir():
        raise UsageError(f"{option} {path}: {existing} is a file, not a folder")


def read_bytes(path: Path, limit: int = MAX_BYTES) -> bytes:
    """Return the content of a regular file of at most ``limit`` bytes, since a pipe may never end and memory is finite.

    Raises FileNotFoundError, and DataError for any other kind of file and for one that cannot be read.
    """
    try:
        facts = path.stat()
        if not stat.S_ISREG(facts.st_mode):
            raise DataError(f"{path} is no file")
        if facts.st_size > limit:
            raise DataError(
                f"{path} has {facts.st_size / 1e6:,.0f} MB, and no such file has more than {limit / 1e6:,.0f}"
            )
        return path.read_bytes()
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have
        raise DataError(f"{path} cannot be read ({getattr(error, 'strerror', None) or error})") from None


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file atomically, and make its folder. Raises DataError if the disk is full or access is denied."""
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
    """Write indented JSON atomically. NaN and infinities are refused, since not every reader accepts them."""
    write_text(path, json.dumps(content, indent=2, allow_nan=False, ensure_ascii=False) + "\n")


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Give a temporary folder that becomes ``path`` at the end of the block and replaces an old one.

    If the block ends early (an error, Ctrl-C, a full disk), the temporary folder is removed and ``path`` stays.
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
    """Rename a folder. If another process does the same at that time, the last one stays."""
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
def exclusive(path: Path) -> Iterator[None]:
    """Hold the lock file ``path``; wait while another process holds it. The lock ends with the process."""
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path):
            yield


@contextmanager
def claim(folder: Path) -> Iterator[bool]:
    """Hold the lock of a folder, or give False if another process holds it. The lock ends with the process."""
    lock = FileLock(folder / _LOCK, timeout=0)
    with explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with suppress(Timeout):
            lock.acquire()
    try:
        yield lock.is_locked
    finally:
        lock.release()


def is_claimed(folder: Path) -> bool:
    """Return whether a process holds the lock of a folder (see :func:`claim`). Creates no file."""
    if not (folder / _LOCK).is_file():
        return False
    try:
        with FileLock(folder / _LOCK, timeout=0):
            return False
    except Timeout:
        return True
    except OSError:  # a store of another user, who alone may lock it
        return False


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn an error of the operating system (full disk, no permission) into a DataError of one line about ``path``."""
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
    """Return a JSON document with the SHA-256 of its content in the field ``digest``."""
    content = json.loads(json.dumps(content, allow_nan=False))  # the values that a reader gets
    return {**content, "digest": _digest(content)}


def is_intact(content: Any) -> bool:
    """Return whether a JSON document has its digest. Older documents have none and are not verified."""
    digest = content.get("digest") if isinstance(content, dict) else None
    return not digest or digest == _digest(content)


def _digest(content: Mapping[str, Any]) -> str:
    return sha256_of(canonical_json({key: value for key, value in content.items() if key != "digest"}).encode())


def canonical_json(content: Any) -> str:
    """Return the canonical text of a JSON value (sorted keys, no blanks), for hashing."""
    return json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
