"""How long the jobs of a plan will take, from one measured step of each kind."""

import time
from collections.abc import Callable, Hashable, Mapping

import torch

from ferbench.execution.jobs import Job
from ferbench.execution.run_job import kept_epochs, share_done, test_images, training_images
from ferbench.execution.sampling import passes, shared
from ferbench.methods.wslgan.attention import AttentionMapGenerator
from ferbench.methods.wslgan.network import WSLGAN
from ferbench.methods.wslgan.settings import Architecture
from ferbench.runs.record import TEACHER, Kind
from ferbench.runs.store import Store
from ferbench.training.augment import DERIVED
from ferbench.training.device import Device

FORWARD = 1 / 3  # of a training pass: the backward pass computes two gradients, each as much work as the forward one
ROWS = {"cpu": 20, "cuda": 128}  # images in the measured step: enough to be a batch and to keep a GPU busy, few
# enough for the largest preset on a CPU


def seconds(
    jobs: list[Job], store: Store, states: Mapping[str, str], device: Device, at_once: Mapping[Kind, int]
) -> dict[str, float]:
    """Return estimated seconds of each job by key: of what is left of one that was begun, 0 for one that is done.

    at_once : jobs of each kind that are made at a time, which share the threads.
    """
    rates: dict[tuple[str, str, int], float] = {}  # seconds for one image, measured when first needed
    tables: set[tuple[Hashable, ...]] = set()  # of maps, as they are made by the first job that needs them
    threads = torch.get_num_threads()
    found = {}
    for job in jobs:
        if states[job.key] == "done":
            found[job.key] = 0.0
            continue
        own = threads // at_once[job.kind]
        architecture = job.request.method.recipe.architecture

        def rate(name: str, architecture: Architecture = architecture, own: int = own) -> float:
            key = name, str(architecture if name == "network" else architecture.generator()), own
            if key not in rates:
                torch.set_num_threads(own)
                rates[key] = _measured(name, architecture, device)
                torch.set_num_threads(threads)
            return rates[key]

        kind = "attention" if job.kind == "attention" else "network"
        left = 1 - share_done(job, store)
        found[job.key] = 0.0
        if job.made_from:
            found[job.key] = job.stage.epochs * test_images(job) * rate(kind) * FORWARD
            if states.get(job.made_from) != "done" or kept_epochs(job, store):
                continue
        found[job.key] += left * _images(job) * rate(kind)
        teachers = [one for kind, one in job.forerunners.items() if kind.startswith(TEACHER)]
        for shape in (one.method.recipe.architecture for one in teachers):
            maps = rate("maps", shape) if shape.needs_attention else 0.0
            found[job.key] += left * training_images(job) * (rate("network", shape) * FORWARD + maps)
        table = _table(job)
        if device.engine == "plain" or table not in tables:
            tables.add(table)
            found[job.key] += left * _maps(job, device) * rate("maps")
    return found


def _images(job: Job) -> int:
    """Image passes of a job's training."""
    return passes(job, training_images(job))


def _maps(job: Job, device: Device) -> int:
    """Attention maps that a job makes, at most: one for each pass, or its share of the folds' table."""
    if "attention" not in job.identity.parents:
        return 0
    if device.engine == "fast" and shared(job, training_images(job)):
        return len(job.faces) * DERIVED // max(1, job.folds)
    return _images(job) if device.engine == "plain" else min(_images(job), len(job.faces) * DERIVED)


def _table(job: Job) -> tuple[Hashable, ...]:
    """What tells the table of maps that a training takes its own from: that of all samples of a set is the same for
    every training that looks into it, another for those alone that look at the same images in the same order."""
    identity = job.identity
    every = identity.data, identity.fold, identity.parents.get("attention")
    return every if shared(job, training_images(job)) else (*every, identity.protocol, identity.seed, job.stage)


def _measured(name: str, architecture: Architecture, device: Device) -> float:
    rows = ROWS[device.name]
    x = device.images(torch.rand(rows, 1, 48, 48, device=device.name))
    call: Callable[[], object]
    if name == "maps":
        amg = AttentionMapGenerator(architecture)
        device.place(amg)
        amg.freeze()
        call = lambda: amg(x)  # noqa: E731
    elif name == "attention":
        part = AttentionMapGenerator(architecture).eyes
        device.place(part)
        call = lambda: part(x).float().sum().backward()  # noqa: E731
    else:
        network = WSLGAN(architecture, 7)
        device.place(network)
        maps = torch.rand(rows, 2, architecture.map_size, architecture.map_size, device=device.name)
        call = lambda: network(x, maps).float().sum().backward()  # noqa: E731
    times = []
    for _ in range(3):
        start = time.perf_counter()
        with device.autocast():
            call()
        if device.name == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return min(times) / rows
