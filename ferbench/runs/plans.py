"""The plan of each training command, ``runs/plans/<id>/plan.json``, from which `ferbench status` shows its progress.

Each command has a folder; the process that runs the command holds its lock (:func:`ferbench.files.claim`).
"""

import statistics
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from ferbench.errors import DataError, UsageError
from ferbench.files import canonical_json, claim, explained, is_claimed, seal, sha256_of, write_json
from ferbench.runs.record import Key, Record
from ferbench.runs.store import Store
from ferbench.schema import Schema, read_sealed

COMMANDS = ("train", "ablate", "sweep", "evaluate")  # the commands that have plans: no other is ever run again
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Planned(Schema):
    """One job of a plan. seconds : its estimate, 0 if unknown."""

    key: Key
    title: str
    kind: str
    seconds: Seconds


class Plan(Schema):
    """A command with its jobs. started : seconds since 1970. at_once : how many jobs run at the same time, at most."""

    schema_version: Literal[1] = 1
    command: list[str]  # without "ferbench"
    started: Seconds
    at_once: int = Field(ge=1)
    jobs: list[Planned]
    digest: str = ""  # of this file (files.seal)

    @property
    def id(self) -> str:
        """8 hexadecimal digits: the same command has the same plan."""
        return sha256_of(canonical_json(self.command).encode())[:8]


@dataclass(frozen=True)
class Status:
    """The progress of a plan.

    counts : jobs that are "done", "running", "failed" or "waiting"; those that cannot start since another failed are
    waiting. running : titles. failed : errors by title. seconds_left : None if unknown. alive : whether a process is
    running the command.
    """

    plan: Plan
    counts: dict[str, int]
    running: list[str]
    failed: dict[str, str]
    seconds_left: float | None
    alive: bool


@contextmanager
def under_way(home: Path, plan: Plan) -> Iterator[Path]:
    """Store a plan and hold the lock of its folder for as long as the block lasts. Gives the folder.

    Of two processes with the same command, the first one holds the lock.
    """
    folder = _folder(home, plan.id)
    with claim(folder) as claimed:
        if claimed:
            write_json(folder / "plan.json", seal(plan.model_dump(exclude={"digest"})))
        yield folder


def stored(home: Path) -> list[Plan]:
    """Return all plans, the latest last. Raises DataError for a damaged one."""
    with explained(home):
        paths = sorted((home / "plans").glob("*/plan.json"))
    return sorted((read_sealed(Plan, path, "delete it") for path in paths), key=lambda plan: plan.started)


def status(plan: Plan, store: Store) -> Status:
    """Return the progress of a plan, from the files of its runs."""
    states: dict[str, str] = {}
    records: dict[str, Record] = {}
    for job in plan.jobs:
        if record := store.ended(job.key):
            states[job.key], records[job.key] = "failed" if record.error else "done", record
        else:
            states[job.key] = "running" if is_claimed(store.folder(job.key)) else "waiting"
    counts = Counter(states.values())
    return Status(
        plan,
        {state: counts[state] for state in ("done", "running", "failed", "waiting")},
        [job.title for job in plan.jobs if states[job.key] == "running"],
        {job.title: records[job.key].error for job in plan.jobs if states[job.key] == "failed"},
        _seconds_left(plan, states, records, store),
        is_claimed(_folder(store.home, plan.id)),
    )


def to_retry(plans: Sequence[Plan], store: Store, chosen: str = "") -> list[Plan]:
    """Return the plans with failed jobs that no process is running.

    chosen : how the id of the only plan begins; empty: all plans.
    Raises UsageError if no plan begins so or its command is running, DataError for a plan of another command.
    """
    matches = [status(plan, store) for plan in plans if plan.id.startswith(chosen)]
    if chosen and len(matches) != 1:
        raise UsageError(f"{len(matches)} commands begin with {chosen!r} in {store.home}: see `ferbench status`")
    if chosen and matches[0].alive:
        raise UsageError(f"the command {matches[0].plan.id} is still running: retry it after its end")
    failed = [match.plan for match in matches if not match.alive and match.counts["failed"]]
    for plan in failed:
        if plan.command[:1] not in [[command] for command in COMMANDS]:
            raise DataError(f"the plan {plan.id} in {store.home} is not of a command that trains: it is not run")
    return failed


def _seconds_left(plan: Plan, states: dict[str, str], records: dict[str, Record], store: Store) -> float | None:
    """Return the seconds until all jobs that can run are done; None if unknown.

    The estimate of a job is corrected by what jobs of its kind have taken so far, and replaced by that if it has none.
    The time that a running job has taken is subtracted.
    """
    taken: dict[str, list[float]] = defaultdict(list)
    ratios: dict[str, list[float]] = defaultdict(list)
    for job in plan.jobs:
        if states[job.key] == "done":
            seconds = sum(records[job.key].timings.values())
            taken[job.kind].append(seconds)
            if job.seconds:
                ratios[job.kind].append(seconds / job.seconds)
    left = 0.0
    for job in plan.jobs:
        if states[job.key] in ("done", "failed"):
            continue
        if job.seconds:
            expected = job.seconds * (statistics.median(ratios[job.kind]) if ratios[job.kind] else 1.0)
        elif taken[job.kind]:
            expected = statistics.median(taken[job.kind])
        else:
            return None
        left += max(0.0, expected - (_running_for(store, job.key) if states[job.key] == "running" else 0.0))
    return left / max(plan.at_once, sum(state == "running" for state in states.values()))


def _running_for(store: Store, key: str) -> float:
    """Return the seconds since a running job was begun or resumed; 0 if it has only been claimed."""
    try:
        return max(0.0, time.time() - (store.folder(key) / "identity.json").stat().st_mtime)
    except OSError:
        return 0.0


def _folder(home: Path, identifier: str) -> Path:
    return home / "plans" / identifier


def now() -> float:
    """Return the seconds since 1970."""
    return round(time.time(), 3)
