"""How long the jobs of a plan will take, as far as their families can estimate it."""

from collections.abc import Callable, Mapping

import torch

from ferbench.errors import refusal
from ferbench.execution.jobs import Job
from ferbench.execution.run_job import kept_epochs, share_done, test_images, training_images
from ferbench.methods.interface import EstimatesDuration, Family, Task
from ferbench.runs.store import Store
from ferbench.training.device import Device


def seconds(
    jobs: list[Job], store: Store, states: Mapping[str, str], device: Device, parallel: Mapping[str, int]
) -> dict[str, float]:
    """Return the estimated seconds of what is left of each job, by key; 0 for a job that is done, or if unknown.

    parallel : the number of jobs of each kind that run at the same time and share the threads.
    """
    estimators: dict[Family, Callable[[Task, int], float] | None] = {}
    all_threads = torch.get_num_threads()
    estimates = {}
    for job in jobs:
        family = job.request.family
        if family not in estimators:
            estimators[family] = family.estimate(device) if isinstance(family, EstimatesDuration) else None
        estimate, threads, total = estimators[family], all_threads // parallel[job.kind], 0.0
        if states[job.key] != "done" and estimate is not None:
            try:
                if job.epochs_run:
                    total += estimate(_task(job, store, retested=True), threads)
                if not job.epochs_run or not (states.get(job.epochs_run) != "done" or kept_epochs(job, store)):
                    total += estimate(_task(job, store), threads)
            except (MemoryError, RuntimeError) as error:  # a job that does not fit fails alone, when it runs
                if not refusal(error):
                    raise
        estimates[job.key] = total
    return estimates


def _task(job: Job, store: Store, retested: bool = False) -> Task:
    return Task(
        job.identity,
        job.method,
        job.request.protocol,
        job.faces,
        training_images(job),
        job.folds,
        share_done(job, store),
        test_images(job),
        retested,
    )
