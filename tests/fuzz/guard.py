"""Watches one case: how it ends, how long it takes, and which files and processes it touches."""

import faulthandler
import os
import resource
import signal
import sys
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ferbench.errors import FerbenchError

SECONDS = 10.0  # that a case may take on a busy machine; an honest one takes milliseconds
MEGABYTES = 1500  # by which it may raise the memory of the process
_ROOT = Path(__file__).resolve().parents[2]
_READABLE = tuple(
    {
        *(os.path.realpath(p) for p in (sys.prefix, sys.base_prefix, *sys.path[1:], _ROOT) if p),
        "/usr",
        "/proc",
        "/sys",
        "/lib",
        "/etc/localtime",
        "/etc/mime.types",
        "/etc/ssl",
        "/etc/nsswitch.conf",
        "/dev",
    }
)
_FORBIDDEN = (
    "socket.connect",
    "subprocess.Popen",
    "os.system",
    "os.exec",
    "os.posix_spawn",
    "pickle.find_class",
    "os.fork",
    "webbrowser.open",
)
_CHANGES = (
    "os.remove",
    "os.rename",
    "os.mkdir",
    "os.rmdir",
    "os.symlink",
    "os.link",
    "os.truncate",
    "os.chmod",
    "shutil.rmtree",
    "shutil.move",
)


class Hang(BaseException):
    """The case took too long. No Exception, so that no reader takes it for a bad file."""


class Watch:
    """Runs cases below ``home``; nothing else on the disk may be written, and nothing but code be read."""

    def __init__(self, home: Path):
        self.home = os.path.realpath(home)
        self.on = False
        self.escapes: list[str] = []
        sys.addaudithook(self._heard)

    def run(self, target: Callable[[bytes], Any], content: bytes) -> tuple[str, str]:
        """Return how a case ended ("read", "refused", or "traceback", "hang", "escape", "memory", "wordy") and what
        there is to say of it."""
        self.escapes.clear()
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        old = signal.signal(signal.SIGALRM, _late)
        signal.setitimer(signal.ITIMER_REAL, SECONDS)
        faulthandler.dump_traceback_later(6 * SECONDS, exit=True)  # for what never comes back to Python
        self.on, outcome, told = True, "read", ""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                target(content)
        except FerbenchError as error:
            outcome = "refused"
            if len(str(error)) > 3000:
                outcome, told = "wordy", str(error)[:200]
        except Hang as error:
            outcome, told = "hang", _where(error)
        except Exception as error:
            outcome, told = "traceback", f"{type(error).__name__}: {str(error)[:150]} in {_where(error)}"
        finally:
            self.on = False
            signal.setitimer(signal.ITIMER_REAL, 0)
            faulthandler.cancel_dump_traceback_later()
            signal.signal(signal.SIGALRM, old)
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
        if self.escapes:
            outcome, told = "escape", "; ".join(dict.fromkeys(self.escapes))[:300]
        elif grown > MEGABYTES:
            outcome, told = "memory", f"{grown:.0f} MB"
        return outcome, told

    def _heard(self, event: str, given: tuple[Any, ...]) -> None:
        if not self.on:
            return
        if event == "open":
            path, mode, flags = given
            if isinstance(path, str | bytes):
                writes = bool(isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
                self._touched(os.fsdecode(path), writes or bool(mode and set(str(mode)) & set("wax+")))
        elif event in _CHANGES:
            if event in ("os.remove", "os.rmdir") and given[1] != -1:
                return  # of a whole folder, which shutil.rmtree has named
            for path in given:
                if isinstance(path, str | bytes) and path:
                    self._touched(os.fsdecode(path), True)
        elif event.startswith(_FORBIDDEN):
            self.escapes.append(f"{event} {str(given)[:100]}")

    def _touched(self, path: str, writes: bool) -> None:
        real = os.path.realpath(path)
        if real.startswith(self.home + os.sep) or real in (self.home, os.devnull):
            return
        if writes and not real.endswith((".pyc", "__pycache__")) and "/__pycache__/" not in real:
            self.escapes.append(f"writes {path}")
        elif not writes and not real.startswith(_READABLE):
            self.escapes.append(f"reads {path}")


def _late(*_: Any) -> None:
    raise Hang


def _where(error: BaseException) -> str:
    """The last line of ours that it came from."""
    frames = [one for one in traceback.extract_tb(error.__traceback__) if f"{os.sep}ferbench{os.sep}" in one.filename]
    return f"{frames[-1].filename.rpartition('ferbench/')[2]}:{frames[-1].lineno}" if frames else "the harness"
