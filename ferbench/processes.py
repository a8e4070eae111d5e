"""How a process ends: within seconds of a signal, whatever it is doing, and soon after its parent process."""

import os
import signal
import sys
import time
from contextlib import suppress
from threading import Thread
from typing import Any

from ferbench.errors import INTERRUPTED

STOPPED = "ferbench: interrupted; the same command goes on from here"
_GRACE = 3.5  # seconds from a signal to the end; files on disk are complete at any moment
_POLL_SECONDS = 0.5  # between two checks for the parent
_PARENT = "FERBENCH_PARENT"


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
