"""How a process of ours ends: soon after it is told to, whatever it is at, and not after the one that needs it."""

import os
import signal
import sys
import time
from threading import Thread
from typing import Any

from ferbench.errors import INTERRUPTED

STOPPED = "ferbench: interrupted; the same command goes on from here"
_GRACE = 4.0  # seconds from a signal to the end; all that is on disk is whole at any moment
_LOOK = 0.5  # seconds between two looks for the parent
_PARENT = "FERBENCH_PARENT"


def heed_signals() -> None:
    """Take SIGTERM, which schedulers and containers send, for Ctrl-C, and end within seconds of either.

    Both raise KeyboardInterrupt, which waits for the operation under way, and which Python drops where it meets a
    destructor. So a thread, told by the signal itself, ends the process where that takes too long.
    """
    signal.signal(signal.SIGTERM, _interrupted)
    told, tells = os.pipe()
    os.set_blocking(tells, False)
    signal.set_wakeup_fd(tells, warn_on_full_buffer=False)
    os.register_at_fork(after_in_child=lambda: signal.set_wakeup_fd(-1))  # signals to a loader's worker are its own
    Thread(target=_end_overdue, args=(told,), daemon=True).start()


def child_environment() -> dict[str, str]:
    """The environment of a process that is to end with this one (:func:`end_with_parent`)."""
    return {**os.environ, _PARENT: str(os.getpid())}


def end_with_parent() -> None:
    """End this process soon after the one that started it with :func:`child_environment` is gone, killed or not."""
    if parent := int(os.environ.pop(_PARENT, "0")):
        Thread(target=_end_orphaned, args=(parent,), daemon=True).start()


def _interrupted(*_: Any) -> None:
    raise KeyboardInterrupt


def _end_overdue(told: int) -> None:
    while os.read(told, 1)[0] not in (signal.SIGINT, signal.SIGTERM):
        pass
    time.sleep(_GRACE)
    print(STOPPED, file=sys.stderr, flush=True)
    os._exit(INTERRUPTED)


def _end_orphaned(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_LOOK)
    os._exit(INTERRUPTED)
