"""What a command set out to make, ``runs/plans/<id>/plan.json``: by it `ferbench status` tells how far it is.

A folder for each command; the process that carries it out holds the folder (:func:`ferbench.files.claim`).
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

VERBS = ("train", "ablate", "sweep", "evaluate")  # that make plans: nothing else of a plan's file is ever carried out


Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Planned(Schema):
    """One job of a plan. seconds : its estimate, 0 where nothing could be told."""

    key: Key
    title: str
    kind: str
    seconds: Seconds


class Plan(Schema):
    """A command with its jobs. started : seconds since 1970. at_once : jobs that are made at a time, at most."""

    schema_version: Literal[1] = 1
    command: list[str]  # without "ferbench"
    started: Seconds
    at_once: int = Field(ge=1)
    jobs: list[Planned]
    digest: str = ""  # of this file (files.seal); empty in one of before

    @property
    def id(self) -> str:
        """8 hexadecimal digits: the same command has the same plan."""
        return sha256_of(canonical_json(self.command).encode())[:8]


@dataclass(frozen=True)
class Standing:
    """How far a plan is.

    counts : jobs that are done, running, failed or waiting; those that cannot start since another failed are waiting.
    running : titles. seconds_left : None where nothing tells. alive : whether a process is carrying it out.
    """

    plan: Plan
    counts: dict[str, int]
    running: list[str]
    failed: dict[str, str]  # title → error
    seconds_left: float | None
    alive: bool


@contextmanager
def under_way(home: Path, plan: Plan) -> Iterator[None]:
    """Store a plan, and hold it for as long as the block lasts. Of two processes with one command the first holds."""
    folder = _folder(home, plan.id)
    with claim(folder) as mine:
        if mine:
            write_json(folder / "plan.json", seal(plan.model_dump(exclude={"digest"})))
        yield


def stored(home: Path) -> list[Plan]:
    """Read all plans, the latest last. Raises DataError for a damaged one."""
    with explained(home):
        paths = sorted((home / "plans").glob("*/plan.json"))
    return sorted((read_sealed(Plan, path, "delete it") for path in paths), key=lambda plan: plan.started)


def standing(plan: Plan, store: Store) -> Standing:
    """Say how far a plan is, from the files of its runs."""
    states: dict[str, str] = {}
    records: dict[str, Record] = {}
    for job in plan.jobs:
        if record := store.ended(job.key):
            states[job.key], records[job.key] = "failed" if record.error else "done", record
        else:
            states[job.key] = "running" if is_claimed(store.folder(job.key)) else "waiting"
    counts = Counter(states.values())
    return Standing(
        plan,
        {state: counts[state] for state in ("done", "running", "failed", "waiting")},
        [job.title for job in plan.jobs if states[job.key] == "running"],
        {job.title: records[job.key].error for job in plan.jobs if states[job.key] == "failed"},
        _left(plan, states, records, store),
        is_claimed(_folder(store.home, plan.id)),
    )


def to_retry(plans: Sequence[Plan], store: Store, chosen: str = "") -> list[Plan]:
    """The plans with failed jobs that no process is at work on, or the one whose id begins with ``chosen``.

    Raises UsageError where none begins so or it is being carried out, DataError for a plan of another verb.
    """
    found = [standing(plan, store) for plan in plans if plan.id.startswith(chosen)]
    if chosen and len(found) != 1:
        raise UsageError(f"{len(found)} commands begin with {chosen!r} in {store.home}: see `ferbench status`")
    if chosen and found[0].alive:
        raise UsageError(f"the command {found[0].plan.id} is under way: it tries nothing again before its end")
    again = [one.plan for one in found if not one.alive and one.counts["failed"]]
    for plan in again:
        if plan.command[:1] not in [[verb] for verb in VERBS]:
            raise DataError(f"the plan {plan.id} in {store.home} is of no verb that trains: it is not carried out")
    return again


def _left(plan: Plan, states: dict[str, str], records: dict[str, Record], store: Store) -> float | None:
    """Seconds until all that can be made is made: estimates, corrected by what jobs of the kind have taken so far;
    where there are none, what those took. What a running job has taken already is behind it."""
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
        left += max(0.0, expected - (_since(store, job.key) if states[job.key] == "running" else 0.0))
    return left / max(plan.at_once, sum(state == "running" for state in states.values()))


def _since(store: Store, key: str) -> float:
    """Seconds since a running job was begun or taken up again; 0 where it has only been claimed."""
    try:
        return max(0.0, time.time() - (store.folder(key) / "identity.json").stat().st_mtime)
    except OSError:
        return 0.0


def _folder(home: Path, identifier: str) -> Path:
    return home / "plans" / identifier


def now() -> float:
    """Seconds since 1970."""
    return round(time.time(), 3)
