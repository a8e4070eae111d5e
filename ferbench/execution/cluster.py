"""Where jobs are made, as asked for on the command line: here, or by the nodes of a Ray cluster. Loads no Ray."""

from dataclasses import dataclass
from importlib.util import find_spec
from typing import Self

from ferbench.errors import UsageError

LOCAL, RAY = EXECUTORS = ("local", "ray")


@dataclass(frozen=True)
class Cluster:
    """A Ray cluster, and what of it each job takes.

    address : as Ray has it; empty: a cluster of this machine alone, for as long as the command lasts. most : jobs at a
    time, 0: as many as there is room for. threads : CPU threads of a job. gpus : of a job, may be a fraction.
    """

    address: str
    most: int
    threads: int
    gpus: float

    @classmethod
    def chosen(cls, executor: str, address: str, jobs: str, threads: int | None, gpus: float) -> Self | None:
        """Resolve the options; None where jobs are made here.

        Raises UsageError for options that do not go together, and where Ray is not installed.
        """
        if executor not in EXECUTORS:
            raise UsageError(f"unknown executor {executor!r}: it is {' or '.join(EXECUTORS)}")
        if executor == LOCAL:
            if address or gpus:
                raise UsageError("--address and --gpus-per-job take --executor ray")
            return None
        if find_spec("ray") is None:
            raise UsageError("--executor ray needs Ray: `pip install 'ferbench[ray]'`, here and on every node")
        if jobs != "auto" and (not jobs.isdigit() or int(jobs) < 1):
            raise UsageError(f"--jobs takes a number from 1, or auto, not {jobs!r}")
        return cls(address, 0 if jobs == "auto" else int(jobs), threads or 1, gpus)
