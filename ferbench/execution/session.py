"""What ``ferbench train``, ``ablate`` and ``sweep`` do: requests become a plan with an estimate, and then runs.

torch is loaded only for methods that compute with it, and by a run.
"""

import heapq
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from ferbench.data import faces as prepared_sets
from ferbench.data import synthetic
from ferbench.environment import cores
from ferbench.errors import UsageError, refusal
from ferbench.execution.jobs import Job, JobGraph, check_parents, kept_epochs, plan, share_done
from ferbench.execution.local import (
    Outcome,
    execute,
    max_parallel,
    processes_that_fit,
    worker_processes,
    worker_threads,
)
from ferbench.execution.options import Cluster, Compute
from ferbench.execution.requests import Request, parents_of
from ferbench.files import data_home, runs_home
from ferbench.methods.interface import FOLD, PRETRAIN, EstimatesDuration, Family, Task
from ferbench.protocol import protocol as protocols
from ferbench.protocol.protocol import Protocol
from ferbench.runs.plans import Plan, Planned, now, under_way
from ferbench.runs.record import Record
from ferbench.runs.store import Store, shipped_run
from ferbench.training.device import Device
from ferbench.training.schedule import Progress


@dataclass(frozen=True)
class Schedule:
    """Where jobs run, and how many at the same time.

    parallel : the number of jobs of each kind that run at the same time. threads : CPU threads of each job, from the
    first kind on of which several run at the same time. cluster : runs the jobs if they do not run here.
    """

    device: Device
    parallel: Mapping[str, int]
    threads: int = 1
    cluster: Cluster | None = None


@dataclass(frozen=True)
class Session:
    """Planned trainings: their jobs, what is done already, where the rest runs and how long it takes.

    home : the data home. states : by key, "absent", "partial", "failed", "damaged" or "done". seconds : by key, the
    estimate; 0 for a job that is done. cold_start : by key, the part of that before a training's first step.
    """

    graph: JobGraph
    store: Store
    home: Path
    schedule: Schedule
    states: Mapping[str, str]
    seconds: Mapping[str, float]
    cold_start: Mapping[str, float] = field(default_factory=dict)

    @property
    def jobs(self) -> list[Job]:
        """All jobs in their order."""
        return self.graph.jobs

    @property
    def protocol(self) -> Protocol:
        """The protocol of the first training."""
        return self.graph.requests[0].protocol

    @property
    def protocols(self) -> list[Protocol]:
        """The protocols of all trainings, each once."""
        return list({request.protocol.identifier: request.protocol for request in self.graph.requests}.values())

    @property
    def experiments(self) -> list[str]:
        """The experiments whose folds are planned."""
        return list(dict.fromkeys(job.identity.experiment for job in self.jobs if job.kind == FOLD))

    @property
    def methods(self) -> list[str]:
        """The methods, as printed in tables."""
        return list(dict.fromkeys(request.method.title for request in self.graph.requests))

    def title(self, job: Job) -> str:
        """Return a short description that distinguishes a job from the others of the session."""
        return self._titles[job.key]

    @cached_property
    def _titles(self) -> dict[str, str]:
        methods: dict[str, set[str]] = defaultdict(set)
        for job in self.jobs:
            methods[job.kind].add(job.identity.method)
        requests = self.graph.requests
        presets = {request.method.preset for request in requests}
        seeds = {request.seed for request in requests}
        common = set.intersection(*(set(request.overrides) for request in requests))
        titles = {}
        for job in self.jobs:
            names = [job.method.title] if len(methods[job.kind]) > 1 else []
            names += [f"preset {job.identity.preset}"] if {job.identity.preset} != presets else []
            names += [f"seed {job.identity.seed}"] if len(seeds) > 1 else []
            names += [override for override in job.request.overrides if override not in common]
            titles[job.key] = ", ".join([*names, job.title])
        return titles

    def check_trials(self, trials: Sequence[str]) -> None:
        """Raise UsageError for a change of the recipe (``--trial``) that leaves all folds as they are without it."""
        planned = {job.request.overrides[-1:] for job in self.jobs if job.kind == FOLD}
        if unchanged := [trial for trial in trials if (trial,) not in planned]:
            raise UsageError(f"--trial {unchanged[0]} changes nothing of these trainings")

    def shipped_alternatives(self) -> list[Record]:
        """Return the shipped pre-trained networks that ``--pretrained`` could use instead of training one."""
        presets = {request.method.preset for request in self.graph.requests}
        to_train = [job.identity for job in self.jobs if job.kind == PRETRAIN and self.states[job.key] != "done"]
        records = [
            shipped_run(kind=PRETRAIN, method=run.method, preset=run.preset, protocol=run.protocol, recipe=run.recipe)
            for run in to_train
            if run.preset in presets
        ]
        return list({record.key: record for record in records if record is not None}.values())

    def durations(self) -> dict[str, float]:
        """Return the seconds that each job adds to the whole, by key.

        Jobs of a kind run several at a time, each in the first process that is free: three jobs in two processes take
        as long as four.
        """
        durations = {}
        for kind, count in self.schedule.parallel.items():
            estimates = [self.seconds[job.key] for job in self.jobs if job.kind == kind]
            busy_until = [0.0] * count
            for seconds in estimates:
                heapq.heapreplace(busy_until, busy_until[0] + seconds)
            scale = max(busy_until) / total if (total := sum(estimates)) else 0.0
            durations.update({job.key: self.seconds[job.key] * scale for job in self.jobs if job.kind == kind})
        return durations

    def run(
        self, command: list[str], progress: Callable[[Job], Progress], done: Callable[[Outcome], None] = lambda _: None
    ) -> None:
        """Run all jobs, while the plan is stored under the command for ``ferbench status`` and ``retry``.

        command : the words of the command line after ``ferbench``. progress : returns the progress callback of a job.
        done : called with each outcome. Raises JobFailed at the end if any job failed.
        """
        jobs = [
            Planned(key=job.key, title=self.title(job), kind=job.kind, seconds=round(self.seconds[job.key], 3))
            for job in self.jobs
        ]
        at_once = max(self.schedule.parallel.values(), default=1)
        with under_way(self.store.home, Plan(command=command, started=now(), at_once=at_once, jobs=jobs)) as folder:
            if self.schedule.cluster is None:
                self.run_here(folder, progress, done)
                return
            from ferbench.execution import on_ray

            for outcome in on_ray.execute(
                self.jobs, self.store, self.home, self.schedule.device, self.schedule.cluster
            ):
                done(outcome)

    def run_here(self, folder: Path, progress: Callable[[Job], Progress], done: Callable[[Outcome], None]) -> None:
        """Run all jobs on this machine, those of a kind in parallel from the first kind on that has several.

        folder : of the stored plan.
        """
        import torch

        from ferbench.execution.run_job import run_job
        from ferbench.execution.worker import write_plan

        schedule, device = self.schedule, self.schedule.device
        first = next((n for n, job in enumerate(self.jobs) if schedule.parallel[job.kind] > 1), len(self.jobs))
        parallel = {job.key for job in self.jobs[first:]}
        to_run = [job for job in self.jobs if self.states.get(job.key) != "done"]
        workers = min(max(schedule.parallel.values()), sum(job.key in parallel for job in to_run)) - 1

        def in_thread(progress: Progress) -> None:
            for _ in execute(self.jobs, self.store, lambda job: run_job(job, self.store, device, progress)):
                pass

        with ExitStack() as stack:
            started = False
            stack.callback(torch.set_num_threads, torch.get_num_threads())

            def run(job: Job) -> Record:
                nonlocal started
                if not started and job.key in parallel:
                    started = True
                    if device.name == "cuda":
                        stack.enter_context(worker_threads(workers, device.name, in_thread))
                    else:
                        torch.set_num_threads(schedule.threads)
                        if workers > 0:
                            file = folder / "jobs.json"
                            write_plan(file, to_run, self.store, self.home, device, schedule.threads)
                            stack.enter_context(worker_processes(workers, file))
                return run_job(job, self.store, device, progress(job))

            for outcome in execute(self.jobs, self.store, run):
                done(outcome)


def prepare(
    requests: Sequence[Request],
    compute: Compute,
    runs: Path | None = None,
    home: Path | None = None,
    drawing: Callable[[str], Progress] = lambda name: lambda done, total, text: None,
) -> Session:
    """Return a planned session for some requests. Synthetic datasets that they need are prepared.

    runs, home : the runs home and the data home. drawing : returns a progress callback for the synthetic dataset of
    that name. Raises UsageError for options that do not fit, DataError for a dataset that is not prepared.
    """
    cluster, home, parents = compute.cluster(), data_home(home), parents_of(requests)
    targets = dict.fromkeys(request.protocol.dataset for request in requests)
    sources = (protocols.load_any(parent.protocol).dataset for parent in parents)
    for name in dict.fromkeys([*targets, *sources]):
        synthetic.ensure(name, home, drawing(name))
    store = Store(runs_home(runs))
    for name in targets:
        prepared_sets.load_card(name, home)  # refused before torch is loaded, and so are parents
    check_parents(requests, home, store)
    methods = [*(request.method for request in requests), *(parent.method for parent in parents)]
    uses_torch = any(method.family.torch for method in methods) or compute != Compute(jobs=compute.jobs)
    device, threads = _device(compute, cluster is None) if uses_torch else (Device(), cores())
    requests = [replace(request, precision=device.precision, engine=device.engine) for request in requests]
    graph = plan(requests, home, store)
    states = {job.key: store.checked(job.key) for job in graph.jobs}
    if cluster is not None:
        schedule = Schedule(device, {job.kind: max(1, cluster.max_jobs) for job in graph.jobs}, cluster=cluster)
        return Session(graph, store, home, schedule, states, dict.fromkeys(states, 0.0))  # its machines are not timed
    # Counted over all jobs, done or not: the number of threads of a job decides the last bits of its result, and a
    # command that is repeated has to end with the same ones.
    total = Counter(job.kind for job in graph.jobs)
    processes = max_parallel(compute.jobs, max(total.values(), default=0), threads, device.name)
    threads_per_job = max(1, threads // processes)
    parallel = {kind: max(1, min(processes, count)) for kind, count in total.items()}
    kinds = {job.key: job.kind for job in graph.jobs}
    if any(kinds.get(key) == job.kind for job in graph.jobs if job.kind != FOLD for key in job.needs):
        # A job that starts from another of its kind would wait for it, and then have only a share of the threads.
        parallel = {kind: count if kind == FOLD else 1 for kind, count in parallel.items()}
    threads_of_kind = {kind: threads // count for kind, count in parallel.items()}
    seconds, cold_start = estimated(graph.jobs, store, states, device, threads_of_kind)
    if compute.jobs == "auto" and device.name == "cpu":
        # The measured steps took about as much memory as a job takes, and each other process needs the same.
        processes = min(processes, 1 + processes_that_fit())
        parallel = {kind: min(count, processes) for kind, count in parallel.items()}
    return Session(graph, store, home, Schedule(device, parallel, threads_per_job), states, seconds, cold_start)


def _device(compute: Compute, here: bool) -> tuple[Device, int]:
    """Return the device that torch computes on, and the number of its CPU threads."""
    import torch

    device = Device.chosen(compute.device, compute.precision, compute.engine, here)
    if compute.threads:
        torch.set_num_threads(compute.threads)
    return device, torch.get_num_threads()


def estimated(
    jobs: Sequence[Job], store: Store, states: Mapping[str, str], device: Device, threads: Mapping[str, int]
) -> tuple[dict[str, float], dict[str, float]]:
    """Return the estimated seconds of what is left of each job, by key; 0 for a job that is done, or if unknown.

    Beside them the part of these seconds before the first step of a training. threads : of a job of each kind.
    """
    estimators: dict[Family, Callable[[Task, int], float] | None] = {}
    seconds: dict[str, float] = {}
    for job in jobs:
        family, done = job.request.family, states[job.key] == "done"
        if family not in estimators:
            estimators[family] = family.estimate(device) if isinstance(family, EstimatesDuration) else None
        estimate, total = estimators[family], 0.0
        if not done and estimate is not None:
            try:
                if job.epochs_run:
                    total += estimate(_task(job, store, retested=True), threads[job.kind])
                if not job.epochs_run or (states.get(job.epochs_run) == "done" and not kept_epochs(job, store)):
                    total += estimate(_task(job, store), threads[job.kind])
            except (MemoryError, RuntimeError) as error:  # a job that does not fit fails alone, when it runs
                if not refusal(error):
                    raise
        seconds[job.key] = total
    starts = [getattr(estimate, "cold_start", {}) for estimate in estimators.values()]
    return seconds, {key: start for by_key in starts for key, start in by_key.items()}


def _task(job: Job, store: Store, retested: bool = False) -> Task:
    return Task(
        job.identity,
        job.method,
        job.request.protocol,
        job.faces,
        job.training_images,
        job.folds,
        share_done(job, store),
        job.test_images,
        retested,
    )
