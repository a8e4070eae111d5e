"""The errors a user can meet, each with the exit code that the command line ends with.

    FerbenchError
    ├── CheckFailed      1    a check says no: a regression, an audit that found a leak
    ├── UsageError       2    the command was asked for something that cannot be
    ├── DataError        3    data missing or malformed
    └── JobFailed        4    a training job failed; the others are finished and kept

The message is one line that says what is wrong and what to do about it. Ctrl-C and SIGTERM exit with 130.
"""


class FerbenchError(Exception):
    """Base of every error that is reported as one line instead of a traceback."""

    exit_code = 1


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
