"""Folds trained side by side, which share the work by the store: on a CPU the same command again in other
processes, on a GPU other threads of this one, since processes would take turns on it."""

import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from threading import Event, Thread

import torch

from ferbench.environment import memory_available
from ferbench.errors import FerbenchError, UsageError
from ferbench.processes import child_environment
from ferbench.training.loop import Dismissed, Progress

_PATIENCE = 30  # seconds that a worker process without work left has to end, and
_GRACE = 2  # those that all have which are told to
_MARK = "FERBENCH_WORKER"  # in the environment of a worker process, which neither plans aloud nor starts others


def side_by_side(wanted: str, folds: int, threads: int, device: str) -> int:
    """Return how many folds are trained at a time: a number, or "auto": on a CPU one for each thread.

    Small networks gain little from a second thread and all from a second process.
    Raises UsageError for anything else.
    """
    if wanted == "auto":
        return max(1, min(folds, threads)) if device == "cpu" else 1
    if not wanted.isdigit() or int(wanted) < 1:
        raise UsageError(f"--jobs takes a number from 1, or auto, not {wanted!r}")
    return min(int(wanted), max(1, min(folds, threads) if device == "cpu" else folds))


def is_worker() -> bool:
    """Say whether this process was started to share the work of another."""
    return _MARK in os.environ


def memory_allows() -> int:
    """Return how many more processes such as this one, at its largest, the memory has room for.

    Where the system does not say how much is available (it is read on Linux), nothing stands against many.
    """
    available = memory_available()
    if available is None:
        return sys.maxsize
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return available // peak


@contextmanager
def worker_processes(count: int, words: list[str]) -> Iterator[None]:
    """Keep ``count`` more processes of ``ferbench`` with these words at work for as long as the block lasts.

    One that dies leaves its fold to the others. None outlives the block, nor this process.
    """
    command = [sys.executable, "-m", "ferbench", *words]
    quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    own = {**child_environment(), _MARK: "1"}
    processes = [subprocess.Popen(command, env=own, **quiet) for _ in range(count)]  # type: ignore[call-overload]
    try:
        yield
        for process in processes:
            with suppress(subprocess.TimeoutExpired):
                process.wait(_PATIENCE)
    finally:
        for process in processes:
            process.terminate()
        end = time.monotonic() + _GRACE
        for process in processes:
            try:
                process.wait(max(0.0, end - time.monotonic()))
            except subprocess.TimeoutExpired:  # deep in an operation; what it has on disk is whole
                process.kill()
                process.wait()


@contextmanager
def worker_threads(count: int, device: str, work: Callable[[Progress], None]) -> Iterator[None]:
    """Keep ``count`` threads at ``work`` for as long as the block lasts, on CUDA each on a stream of its own, so that
    the kernels of several trainings run at once; they are the same kernels as one after the other.

    work : called with a progress report that it has to call at every step, by which a thread is dismissed.
    """
    dismissed, own = Event(), torch.get_num_threads()

    def report(done: int, total: int, text: str) -> None:
        if dismissed.is_set():
            raise Dismissed

    def run() -> None:
        torch.set_num_threads(own)  # OpenMP keeps the number for each thread apart
        stream = torch.cuda.stream(torch.cuda.Stream()) if device == "cuda" else nullcontext()
        with suppress(Dismissed, FerbenchError), stream:  # the block's own work meets the same errors and tells them
            work(report)

    threads = [Thread(target=run, name="worker", daemon=True) for _ in range(count)]
    for thread in threads:
        thread.start()
    try:
        yield
        for thread in threads:
            thread.join(_PATIENCE)
    finally:
        dismissed.set()
        for thread in threads:
            thread.join()
