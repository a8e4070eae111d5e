"""Running jobs on this machine: one after the other, in worker processes, or in threads that share a GPU.

Processes and threads share the work through the store, where each claims the run that it makes.
"""

import resource
import shutil
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Thread

from ferbench.environment import describe, memory_available
from ferbench.errors import FerbenchError, JobFailed, one_line, refusal
from ferbench.execution.jobs import Job, unfinished
from ferbench.execution.options import parse_jobs
from ferbench.files import claim, write_text
from ferbench.processes import child_environment
from ferbench.runs.record import Record
from ferbench.runs.store import Store
from ferbench.training.schedule import Progress

_IDLE_WAIT = 30  # seconds that workers have to end by themselves when no work is left, and
_TERMINATION_WAIT = 2  # seconds after SIGTERM, before they are killed

RunJob = Callable[[Job], Record]


@dataclass(frozen=True)
class Outcome:
    """The record of a job that has ended, and whether it was there already."""

    job: Job
    record: Record
    reused: bool


def execute(jobs: list[Job], store: Store, run: RunJob) -> Iterator[Outcome]:
    """Yield the outcome of every job, parents before children; finished runs are reused.

    A job that fails is recorded, and the others go on, except those that start from it; JobFailed is raised at the
    end. Runs that other processes have finished are reported after each job that ran here; runs that they have not
    finished are waited for at the end.
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
            with claim(store.folder(key)) as claimed:
                if not claimed:
                    continue
                del waiting[key]
                progressed = True
                reused = store.checked(key) == "done"
                record = store.record(key) if reused else attempt(job, store, run)
            if record.error:
                failed.add(key)
            yield Outcome(job, record, reused)
            if not reused:
                break  # start again from the first job, to report what others have finished meanwhile
        if waiting and not progressed:
            time.sleep(1)
    raise_if_failed(jobs, failed)


def raise_if_failed(jobs: list[Job], failed: set[str]) -> None:
    """Raise JobFailed if any of the jobs failed, or could not start because another did."""
    if failed:
        raise JobFailed(
            f"{len(failed)} of {len(jobs)} jobs failed or could not start: `ferbench runs` shows why; "
            "the others are finished and kept, the same command tries these again, or `ferbench "
            "retry`"
        )


def attempt(job: Job, store: Store, run: RunJob) -> Record:
    """Run a job and return its record, which has the error if the job failed; delete what is no longer needed.

    A FerbenchError is raised: it concerns the whole command, not only this job.
    """
    try:
        record = run(job)
    except FerbenchError as error:
        # What is in the way inside of the run's folder concerns this job alone.
        if not isinstance(error.__context__, IsADirectoryError | NotADirectoryError | FileExistsError):
            raise
        return store_failure(job, store, one_line(error), traceback.format_exc())
    except Exception as error:
        return store_failure(job, store, refusal(error) or one_line(error), traceback.format_exc())
    delete_unfinished_work(job, store)
    return record


def delete_unfinished_work(job: Job, store: Store) -> None:
    """Delete the checkpoints of a job that is done, and the epochs that a best-test run has tested."""
    for folder in unfinished(job, store):
        shutil.rmtree(folder, ignore_errors=True)


def store_failure(job: Job, store: Store, error: str, details: str = "") -> Record:
    """Store that a job failed: the first line of the error in the record, a traceback beside it."""
    record = Record.of(
        job.identity,
        dataset=job.faces.name,
        classes=[],
        environment=describe(),
        facts={"command": job.request.command},
        timings={},
        error=error.splitlines()[0],
    )
    if details:
        write_text(store.folder(job.key) / "traceback.txt", details)
    store.finish(record)
    return record


def max_parallel(jobs: str, folds: int, threads: int, device: str) -> int:
    """Return how many folds are trained at the same time: a number, or "auto": on a CPU one for each thread.

    Small networks gain little from a second thread and much from a second process.
    Raises UsageError for anything else.
    """
    if jobs == "auto":
        return max(1, min(folds, threads)) if device == "cpu" else 1
    return min(parse_jobs(jobs), max(1, min(folds, threads) if device == "cpu" else folds))


def processes_that_fit() -> int:
    """Return how many more processes of this one's peak size fit into memory.

    There is no limit where the system does not say how much memory is available (all but Linux).
    """
    available = memory_available()
    if available is None:
        return sys.maxsize
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return available // peak


@contextmanager
def worker_processes(count: int, plan: Path) -> Iterator[None]:
    """Run ``count`` worker processes (:mod:`ferbench.execution.worker`) on a plan for as long as the block lasts.

    If one dies, the others take over its fold. None outlives the block, nor this process.
    """
    command = [sys.executable, "-m", "ferbench.execution.worker", str(plan)]
    streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    processes = [
        subprocess.Popen(command, env=child_environment(), **streams)  # type: ignore[call-overload]
        for _ in range(count)
    ]
    try:
        yield
        for process in processes:
            with suppress(subprocess.TimeoutExpired):
                process.wait(_IDLE_WAIT)
    finally:
        for process in processes:
            process.terminate()
        end = time.monotonic() + _TERMINATION_WAIT
        for process in processes:
            try:
                process.wait(max(0.0, end - time.monotonic()))
            except subprocess.TimeoutExpired:  # in the middle of a long operation; its files on disk are complete
                process.kill()
                process.wait()


@contextmanager
def worker_threads(count: int, device: str, work: Callable[[Progress], None]) -> Iterator[None]:
    """Run ``work`` in ``count`` threads for as long as the block lasts, on CUDA each on a stream of its own.

    The kernels of several trainings then run at once; they are the same kernels as in sequence.
    work : called with a progress callback that it must call at every step, where a thread is stopped.
    """
    import torch

    from ferbench.training.loop import Dismissed

    stopped, torch_threads = Event(), torch.get_num_threads()

    def progress(done: int, total: int, text: str) -> None:
        if stopped.is_set():
            raise Dismissed

    def run() -> None:
        torch.set_num_threads(torch_threads)  # OpenMP keeps this number for each thread
        stream = torch.cuda.stream(torch.cuda.Stream()) if device == "cuda" else nullcontext()
        with suppress(Dismissed, FerbenchError), stream:  # the main thread meets the same errors and reports them
            work(progress)

    threads = [Thread(target=run, name="worker", daemon=True) for _ in range(count)]
    for thread in threads:
        thread.start()
    try:
        yield
        for thread in threads:
            thread.join(_IDLE_WAIT)
    finally:
        stopped.set()
        for thread in threads:
            thread.join()
