"""How long the jobs of a plan will take, as far as their families can tell."""

from collections.abc import Callable, Mapping

import torch

from ferbench.errors import refusal
from ferbench.execution.jobs import Job
from ferbench.execution.run_job import kept_epochs, share_done, test_images, training_images
from ferbench.methods.interface import EstimatesDuration, Family, Task
from ferbench.runs.store import Store
from ferbench.training.device import Device


def seconds(
    jobs: list[Job], store: Store, states: Mapping[str, str], device: Device, at_once: Mapping[str, int]
) -> dict[str, float]:
    """Return estimated seconds of each job by key: of what is left of one that was begun, 0 for one that is done or
    of which nothing can be told.

    at_once : jobs of each kind that are made at a time, which share the threads.
    """
    estimates: dict[Family, Callable[[Task, int], float] | None] = {}
    threads = torch.get_num_threads()
    found = {}
    for job in jobs:
        family = job.request.family
        if family not in estimates:
            estimates[family] = family.estimate(device) if isinstance(family, EstimatesDuration) else None
        estimate, own, total = estimates[family], threads // at_once[job.kind], 0.0
        if states[job.key] != "done" and estimate is not None:
            try:
                if job.made_from:
                    total += estimate(_task(job, store, retested=True), own)
                if not job.made_from or not (states.get(job.made_from) != "done" or kept_epochs(job, store)):
                    total += estimate(_task(job, store), own)
            except (MemoryError, RuntimeError) as error:  # what does not fit is for its job to fail by, not for all
                if not refusal(error):
                    raise
        found[job.key] = total
    return found


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
