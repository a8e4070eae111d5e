"""Running jobs here, one after the other. Several processes with the same command share the work."""

import fcntl
import shutil
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ferbench.environment import describe
from ferbench.errors import FerbenchError, JobFailed, one_line, refusal
from ferbench.execution.jobs import Job
from ferbench.files import explained, write_text
from ferbench.runs.record import Record
from ferbench.runs.store import EPOCHS, Store

Make = Callable[[Job], Record]


@dataclass(frozen=True)
class Outcome:
    """What became of a job: its record, and whether it was reused."""

    job: Job
    record: Record
    reused: bool


def execute(jobs: list[Job], store: Store, make: Make) -> Iterator[Outcome]:
    """Yield the outcome of every job, parents before children; done runs are reused.

    A job that fails is recorded and the others go on, save those that start from it; JobFailed is
    raised at the end. A job that another process is making is waited for, after all others are done.
    """
    waiting = list(jobs)
    failed: list[str] = []
    while waiting:
        progressed = False
        for job in list(waiting):
            if any(key in failed for key in job.needs):
                waiting.remove(job)
                failed.append(job.key)
                continue
            if any(other.key in job.needs for other in waiting):
                continue
            with _claim(store.folder(job.key)) as mine:
                if not mine:
                    continue
                waiting.remove(job)
                progressed = True
                reused = store.checked(job.key) == "done"
                record = store.record(job.key) if reused else _make(job, store, make)
            if record.error:
                failed.append(job.key)
            yield Outcome(job, record, reused)
        if waiting and not progressed:
            time.sleep(1)
    if failed:
        raise JobFailed(f"{len(failed)} of {len(jobs)} jobs failed or could not start: `ferbench runs` shows why; "
                        "the others are finished and kept, the same command tries these again")  # fmt: skip


def _make(job: Job, store: Store, make: Make) -> Record:
    try:
        record = make(job)
    except FerbenchError:
        raise
    except Exception as error:
        record = Record(
            key=job.key, experiment=job.identity.experiment, identity=job.identity, dataset=job.faces.name,
            classes=[], environment=describe(), facts={"command": job.request.command}, timings={},
            error=refusal(error) or one_line(error),
        )  # fmt: skip
        write_text(store.folder(job.key) / "traceback.txt", traceback.format_exc())
        store.finish(record)
        return record
    spent = [store.folder(job.key) / "checkpoint"]
    if job.made_from:
        spent += [store.folder(key) / EPOCHS for key in (job.key, job.made_from)]
    for folder in spent:
        shutil.rmtree(folder, ignore_errors=True)
    return record


@contextmanager
def _claim(folder: Path) -> Iterator[bool]:
    """Hold a run's folder against other processes; False where another holds it. Dies with the process."""
    with explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
        opened = (folder / ".lock").open("w")
    with opened as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True
