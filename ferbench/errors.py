"""The errors a user can meet, each with the exit code that the command line ends with.

    FerbenchError
    ├── CheckFailed      1    a check says no: a regression, an audit that found a leak
    ├── UsageError       2    the command was asked for something that cannot be
    ├── DataError        3    data missing or malformed
    └── JobFailed        4    a training job failed; the others are finished and kept

The message is one line that says what is wrong and what to do about it. Ctrl-C and SIGTERM exit with 130. Any other
exception is unexpected, a fault of ferbench or of a user's module: its traceback is shown, and the exit code is 70
(EX_SOFTWARE of ``sysexits.h``).
"""

import errno
from pathlib import Path

from ferbench.text import printable

_LONGEST = 2000  # characters of a message: more is a file that is quoted as a whole


class FerbenchError(Exception):
    """Base of every error that is reported as one line instead of a traceback.

    Its message may quote a file of anybody: control sequences and line breaks go, and of a long one the middle.
    """

    exit_code = 1

    def __str__(self) -> str:
        text = printable(super().__str__())
        return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 200]} … {text[-200:]}"


class CheckFailed(FerbenchError):
    """A check (audit, regression) ran to its end and its answer is no."""

    exit_code = 1


class UsageError(FerbenchError):
    """The options contradict each other or name something that does not exist."""

    exit_code = 2


class DataError(FerbenchError):
    """A dataset, run or file is missing, malformed or not what it claims to be."""

    exit_code = 3


class JobFailed(FerbenchError):
    """A job ended in an error; the others were finished and kept."""

    exit_code = 4


INTERRUPTED = 130
FAULT = 70  # not 1, which means that a check says no

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # the disk, a quota, the size that a file may have
_REFUSED = (errno.EACCES, errno.EPERM, errno.EROFS)
_NAME = (errno.ENAMETOOLONG, errno.ELOOP)
_KIND = (errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.ENOTEMPTY)
_OPEN = (errno.EMFILE, errno.ENFILE)
_ALLOCATION = ("can't allocate memory", "not enough memory", "out of memory", "bad_alloc", "cannot allocate memory")


def refusal(error: BaseException, place: Path | str = "") -> str:
    """Say in one line what a machine has too little of, or does not allow, and what to do; empty for other errors.

    place : what was being written, where the error does not name it.
    """
    number = getattr(error, "errno", None)
    named = getattr(error, "filename2", None) or getattr(error, "filename", None)  # the first is where it was to go
    place = named or place or "a file"
    if number in _FULL:
        return (
            f"the disk is full while writing {place}; free some space or choose another folder (--data-home, "
            "--runs); nothing was left behind"
        )
    if number in _REFUSED:
        return f"no permission for {place}; choose another folder or change its permissions"
    if number in _KIND:
        return f"{place}: a folder is where a file belongs, or a file where a folder belongs; give another path"
    if number in _NAME:
        return f"{place}: no file can have this name or path; give another one"
    if number in _OPEN:
        return f"too many files are open ({place}): raise the limit, as by `ulimit -n 1024`"
    said = one_line(error)
    if isinstance(error, MemoryError) or number == errno.ENOMEM or any(part in said.lower() for part in _ALLOCATION):
        return f"out of memory ({said}): take fewer jobs at a time (--jobs 1) or a smaller preset"
    return ""


def one_line(error: BaseException) -> str:
    """An error's kind and the first line of what it says."""
    return f"{type(error).__name__}: {error}".strip().splitlines()[0].removesuffix(":")
