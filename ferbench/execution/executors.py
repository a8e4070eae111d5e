"""Running jobs here, one after the other. Several processes with the same command share the work."""

import shutil
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from ferbench.environment import describe
from ferbench.errors import FerbenchError, JobFailed, one_line, refusal
from ferbench.execution.jobs import Job
from ferbench.files import claim, write_text
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
    raised at the end. What another process has made meanwhile comes after each job that is made here; what it is
    still making is waited for, after all others are done.
    """
    waiting = {job.key: job for job in jobs}
    failed: set[str] = set()
    while waiting:
        progressed = False
        for key, job in list(waiting.items()):
            if any(need in failed for need in job.needs):
                del waiting[key]
                failed.add(key)
                continue
            if any(need in waiting for need in job.needs):
                continue
            with claim(store.folder(key)) as mine:
                if not mine:
                    continue
                del waiting[key]
                progressed = True
                reused = store.checked(key) == "done"
                record = store.record(key) if reused else attempt(job, store, make)
            if record.error:
                failed.add(key)
            yield Outcome(job, record, reused)
            if not reused:
                break  # and look again from the first on what others have made in this time
        if waiting and not progressed:
            time.sleep(1)
    end(jobs, failed)


def end(jobs: list[Job], failed: set[str]) -> None:
    """Raise JobFailed where any of some jobs failed, or could not start since another did."""
    if failed:
        raise JobFailed(
            f"{len(failed)} of {len(jobs)} jobs failed or could not start: `ferbench runs` shows why; "
            "the others are finished and kept, the same command tries these again, or `ferbench "
            "retry`"
        )


def attempt(job: Job, store: Store, make: Make) -> Record:
    """Make a run. One that fails is a record too, with its error; what is no longer needed is deleted.

    Raises FerbenchError as it comes: it tells of the whole, not of this job.
    """
    try:
        record = make(job)
    except FerbenchError:
        raise
    except Exception as error:
        return fail(job, store, refusal(error) or one_line(error), traceback.format_exc())
    tidy(job, store)
    return record


def tidy(job: Job, store: Store) -> None:
    """Delete what a job that is done needed on its way."""
    spent = [store.folder(job.key) / "checkpoint"]
    if job.made_from:
        spent += [store.folder(key) / EPOCHS for key in (job.key, job.made_from)]
    for folder in spent:
        shutil.rmtree(folder, ignore_errors=True)


def fail(job: Job, store: Store, error: str, told: str = "") -> Record:
    """Store that a job failed, in one line, and with the traceback where there is one."""
    record = Record(
        key=job.key,
        experiment=job.identity.experiment,
        identity=job.identity,
        dataset=job.faces.name,
        classes=[],
        environment=describe(),
        facts={"command": job.request.command},
        timings={},
        error=error.splitlines()[0],
    )
    if told:
        write_text(store.folder(job.key) / "traceback.txt", told)
    store.finish(record)
    return record
