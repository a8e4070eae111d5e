"""Who is at work on a folder of the store: one process at a time, told by a lock that ends with the process."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ferbench.files import explained

_LOCK = ".lock"


@contextmanager
def claim(folder: Path) -> Iterator[bool]:
    """Hold a folder against other processes; False where another holds it. Dies with the process."""
    with explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
        opened = (folder / _LOCK).open("w")
    with opened as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True


def held(folder: Path) -> bool:
    """Say whether a process is at work on a folder. Changes nothing."""
    try:
        lock = (folder / _LOCK).open()
    except OSError:
        return False
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False
