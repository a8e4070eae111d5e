"""How a process ends: within seconds of a signal, whatever it is doing, and soon after its parent process. And how
work is shared among several."""

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import suppress
from itertools import cycle
from multiprocessing.connection import Connection
from threading import Thread
from typing import Any, TypeVar

from ferbench.errors import INTERRUPTED, JobFailed

STOPPED = "ferbench: interrupted; the same command goes on from here"
_GRACE = 3.5  # seconds from a signal to the end; files on disk are complete at any moment
_POLL_SECONDS = 0.5  # between two checks for the parent
_PARENT = "FERBENCH_PARENT"
_CHUNK = 16  # items whose results are sent at once; those of prepared images then fit into the buffer of a pipe
Item = TypeVar("Item")
Result = TypeVar("Result")


def heed_signals() -> None:
    """Treat SIGTERM, which schedulers and containers send, as Ctrl-C, and end within seconds of either.

    Both raise KeyboardInterrupt, which waits for the current operation, and which Python drops inside a destructor. So
    a thread, woken by the signal itself, ends the process if that takes too long.
    """
    signal.signal(signal.SIGTERM, _interrupted)
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    os.register_at_fork(after_in_child=lambda: signal.set_wakeup_fd(-1))  # signals to a forked process end only that
    Thread(target=_end_overdue, args=(reading,), daemon=True).start()


def leave(code: int) -> None:
    """End this process at once, after writing out what it has printed. Files on disk are complete."""
    with suppress(OSError, ValueError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


def child_environment() -> dict[str, str]:
    """Return the environment for a child process that ends with this one (see :func:`end_with_parent`)."""
    return {**os.environ, _PARENT: str(os.getpid())}


def end_with_parent() -> None:
    """End this process soon after the end of its parent, which started it with :func:`child_environment`."""
    if parent := int(os.environ.pop(_PARENT, "0")):
        Thread(target=_end_orphaned, args=(parent,), daemon=True).start()


def map_in_order(function: Callable[[Item], Result], items: Sequence[Item], processes: int) -> Generator[Result]:
    """Yield ``function(item)`` for each item, in order, computed by so many child processes.

    The children are forked, so that neither the function nor the items need be pickled; where the system cannot fork
    safely, and for one process, everything is computed here. Child number i computes every i-th chunk and waits while
    its pipe is full, so few results are held at a time. When the generator is closed, the children are ended.
    Raises what the function raises, and JobFailed where a child is killed.
    """
    if processes < 2 or sys.platform != "linux":
        yield from map(function, items)
        return
    context = multiprocessing.get_context("fork")
    children, pipes = [], []
    try:
        for number in range(processes):
            pipe, end = context.Pipe(duplex=False)
            starts = range(number * _CHUNK, len(items), processes * _CHUNK)
            pipes.append(pipe)
            child = context.Process(target=_compute, args=(function, items, starts, end, pipes), daemon=True)
            child.start()
            end.close()  # the child's copy is the only one, so that the pipe breaks when the child ends
            children.append(child)
        for _, pipe in zip(range(0, len(items), _CHUNK), cycle(pipes), strict=False):
            try:
                results = pipe.recv()
            except EOFError:
                raise JobFailed(
                    "a child process was killed, as the system does when memory runs out; nothing was left behind"
                ) from None
            if isinstance(results, BaseException):
                raise results
            yield from results
    finally:
        for child in children:
            child.kill()
            child.join()
        for pipe in pipes:
            pipe.close()


def _compute(
    function: Callable[[Any], Any], items: Sequence[Any], starts: range, pipe: Connection, inherited: list[Connection]
) -> None:
    """Send the results of the chunks that begin at ``starts``, or the error that ends the work.

    inherited : ends of pipes that only the parent reads. They are closed here, so that the pipe breaks with the parent.
    """
    for end in inherited:
        end.close()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes of a terminal; the parent ends this one
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    for start in starts:
        results: Any
        try:
            results = [function(item) for item in items[start : start + _CHUNK]]
        except BaseException as error:
            results = error
        try:
            pipe.send(results)
        except BrokenPipeError:  # the parent has ended
            return


def _interrupted(*_: Any) -> None:
    raise KeyboardInterrupt


def _end_overdue(signals: int) -> None:
    while os.read(signals, 1)[0] not in (signal.SIGINT, signal.SIGTERM):
        pass
    time.sleep(_GRACE)
    print(STOPPED, file=sys.stderr)
    leave(INTERRUPTED)


def _end_orphaned(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_POLL_SECONDS)
    os._exit(INTERRUPTED)
