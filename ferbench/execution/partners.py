"""Folds trained side by side: the same command again in other processes, which share the work by the store."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from ferbench.errors import UsageError

_PATIENCE = 30  # seconds that a partner without work left has to end


def side_by_side(wanted: str, folds: int, threads: int, device: str) -> int:
    """Return how many folds are trained at a time: a number, or "auto": on a CPU one for each thread.

    Small networks gain little from a second thread and all from a second process.
    Raises UsageError for anything else.
    """
    if wanted == "auto":
        return max(1, min(folds, threads)) if device == "cpu" else 1
    if not wanted.isdigit() or int(wanted) < 1:
        raise UsageError(f"--parallel-folds takes a number from 1, or auto, not {wanted!r}")
    return min(int(wanted), max(1, min(folds, threads) if device == "cpu" else folds))


@contextmanager
def partners(count: int, words: list[str]) -> Iterator[None]:
    """Keep ``count`` more processes of ``ferbench`` with these words at work for as long as the block lasts.

    One that dies leaves its fold to the others. None outlives the block.
    """
    command = [sys.executable, "-m", "ferbench", *words]
    quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    processes = [subprocess.Popen(command, env={**os.environ}, **quiet) for _ in range(count)]  # type: ignore[call-overload]
    try:
        yield
        for process in processes:
            with suppress(subprocess.TimeoutExpired):
                process.wait(_PATIENCE)
    finally:
        for process in processes:
            process.terminate()
            process.wait()
