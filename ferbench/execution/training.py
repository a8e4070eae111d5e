"""What ``ferbench train``, ``ablate`` and ``sweep`` do: options become requests, a plan with an estimate, and runs."""

import heapq
import shlex
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Protocol as Interface

import torch

from ferbench.data import synthetic
from ferbench.errors import UsageError
from ferbench.execution import estimate
from ferbench.execution.jobs import Job, JobGraph, Request, plan
from ferbench.execution.local import (
    Outcome,
    execute,
    max_parallel,
    processes_that_fit,
    worker_processes,
    worker_threads,
)
from ferbench.execution.options import Cluster, TrainOptions, parse_folds
from ferbench.execution.run_job import run_job
from ferbench.execution.worker import write_plan
from ferbench.files import data_home, runs_home
from ferbench.methods import recipes
from ferbench.methods.interface import FOLD, PRETRAIN
from ferbench.protocol import protocol as protocols
from ferbench.protocol.protocol import Protocol
from ferbench.runs.plans import Plan, Planned, now, under_way
from ferbench.runs.record import BEST_TEST, Record
from ferbench.runs.store import Store, shipped_run
from ferbench.training.device import Device
from ferbench.training.schedule import Progress

SELECTIONS = ("last", "best-val")


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
    estimate; 0 for a job that is done.
    """

    graph: JobGraph
    store: Store
    home: Path
    schedule: Schedule
    states: Mapping[str, str]
    seconds: Mapping[str, float]

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

    def shipped_alternatives(self) -> list[Record]:
        """Return the shipped pre-trained networks that ``--pretrained`` could use instead of training one."""
        presets = {request.method.preset for request in self.graph.requests}
        to_train = [job.identity for job in self.jobs if job.kind == PRETRAIN and self.states[job.key] != "done"]
        records = [
            shipped_run(kind=PRETRAIN, method=one.method, preset=one.preset, protocol=one.protocol, recipe=one.recipe)
            for one in to_train
            if one.preset in presets
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
                self._run_here(folder, progress, done)
                return
            from ferbench.execution import on_ray

            for outcome in on_ray.execute(
                self.jobs, self.store, self.home, self.schedule.device, self.schedule.cluster
            ):
                done(outcome)

    def _run_here(self, folder: Path, progress: Callable[[Job], Progress], done: Callable[[Outcome], None]) -> None:
        """Run all jobs on this machine, those of a kind in parallel from the first kind on that has several.

        folder : of the stored plan.
        """
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


class Display(Interface):
    """What shows a training: its plan, the progress of drawing a dataset and of each job, and how a job has ended."""

    def drawing(self, name: str) -> Progress: ...

    def plan(self, session: Session, dry_run: bool) -> None: ...

    def job(self, job: Job) -> Progress: ...

    def outcome(self, outcome: Outcome) -> None: ...


def train(
    trainings: Sequence[TrainOptions],
    display: Display,
    command: list[str],
    runs: Path | None = None,
    home: Path | None = None,
    dry_run: bool = False,
) -> None:
    """Plan trainings (see :func:`prepare_training`), show the plan, and run it unless ``dry_run``.

    command : the words of the command line after ``ferbench``. Raises JobFailed at the end if any job failed.
    """
    session = prepare_training(trainings, runs, home, display.drawing)
    display.plan(session, dry_run)
    if not dry_run:
        session.run(command, display.job, display.outcome)


def prepare_training(
    trainings: Sequence[TrainOptions],
    runs: Path | None = None,
    home: Path | None = None,
    drawing: Callable[[str], Progress] = lambda name: lambda done, total, text: None,
) -> Session:
    """Return a planned session for one or more trainings. Synthetic datasets that they need are prepared.

    trainings : all run where the first one says (:class:`~ferbench.execution.options.Compute`). runs, home : the runs
    home and the data home. drawing : returns a progress callback for the synthetic dataset of that name.
    Raises UsageError for options that do not fit, DataError for a dataset that is not prepared.
    """
    compute = trainings[0].compute
    if unknown := {training.selection for training in trainings} - set(SELECTIONS):
        raise UsageError(f"unknown selection {unknown.pop()!r}: it is {' or '.join(SELECTIONS)}")
    cluster = compute.cluster()
    device = Device.chosen(compute.device, compute.precision, compute.engine, here=cluster is None)
    if compute.threads:
        torch.set_num_threads(compute.threads)
    home = data_home(home)
    rules = {name: protocols.load(name) for name in dict.fromkeys(training.dataset for training in trainings)}
    requests = [request for one in trainings for request in _requests(one, rules[one.dataset], device)]
    for name in _datasets(requests):
        synthetic.ensure(name, home, drawing(name))
    store = Store(runs_home(runs))
    graph = plan(requests, home, store)
    states = {job.key: store.checked(job.key) for job in graph.jobs}
    if cluster is not None:
        schedule = Schedule(device, {job.kind: max(1, cluster.max_jobs) for job in graph.jobs}, cluster=cluster)
        return Session(graph, store, home, schedule, states, dict.fromkeys(states, 0.0))  # its machines are not timed
    # Counted over all jobs, done or not: the number of threads of a job decides the last bits of its result, and a
    # command that is repeated has to end with the same ones.
    total = Counter(job.kind for job in graph.jobs)
    threads = torch.get_num_threads()
    processes = max_parallel(compute.jobs, max(total.values(), default=0), threads, device.name)
    threads_per_job = max(1, threads // processes)
    parallel = {kind: max(1, min(processes, count)) for kind, count in total.items()}
    kinds = {job.key: job.kind for job in graph.jobs}
    if any(kinds.get(key) == job.kind for job in graph.jobs if job.kind != FOLD for key in job.needs):
        # A job that starts from another of its kind would wait for it, and then have only a share of the threads.
        parallel = {kind: count if kind == FOLD else 1 for kind, count in parallel.items()}
    seconds = estimate.seconds(graph.jobs, store, states, device, parallel)
    if compute.jobs == "auto" and device.name == "cpu":
        # The measured steps took about as much memory as a job takes, and each other process needs the same.
        processes = min(processes, 1 + processes_that_fit())
        parallel = {kind: min(count, processes) for kind, count in parallel.items()}
    return Session(graph, store, home, Schedule(device, parallel, threads_per_job), states, seconds)


def _requests(options: TrainOptions, protocol: Protocol, device: Device) -> list[Request]:
    """Return one request for a training; to measure leakage, its last and its best test epoch, by subject and image."""
    unbiased = _request(options, protocol, device)
    if not options.leakage:
        return [unbiased]
    if options.selection != "last" or options.folds or options.rule:
        raise UsageError(
            "--leakage takes the protocol's own folds, all of them, and the last epoch: "
            "leave out --folds, --rule and --selection"
        )
    words = replace(options, seed=0).words("ablate", "--leakage", "--seeds", str(options.seed + 1))
    leaking = replace(unbiased, command=shlex.join(["ferbench", *words]))
    by_image = replace(leaking, image_folds=True)
    return [
        replace(unbiased, keep_epochs=True),
        replace(leaking, selection=BEST_TEST),
        replace(by_image, keep_epochs=True),
        replace(by_image, selection=BEST_TEST),
    ]


def _request(options: TrainOptions, protocol: Protocol, device: Device) -> Request:
    overrides = options.overrides
    if options.epochs is not None:
        last = "finetune" if protocol.pretrain else PRETRAIN
        overrides = (*overrides, f"{last}.epochs={options.epochs}")
    if options.recipe != recipes.PAPER and not protocol.pretrain:
        raise UsageError(
            f"--recipe {options.recipe} changes fine-tuning alone, and {protocol.name} has none: it is "
            f"trained from random weights, as in pre-training"
        )
    preset = options.preset or (protocol.preset if protocol.preset in recipes.presets(options.method) else "")
    return Request(
        method=recipes.resolve(options.method, preset, protocol.name, overrides, options.recipe),
        protocol=protocol,
        seed=options.seed,
        selection=options.selection,
        precision=device.precision,
        engine=device.engine,
        folds=parse_folds(options.folds),
        rule=options.rule,
        folds_file=options.folds_file,
        pretrain=options.pretrain,
        parent_runs={role: key for role, key in (("attention", options.amg), (PRETRAIN, options.pretrained)) if key},
        command=options.command(),
        overrides=options.overrides,
        changes=options.changes,
    )


def _datasets(requests: Sequence[Request]) -> list[str]:
    """Return the names of the prepared datasets that some requests need: the targets, and those of all parents."""
    names = [request.protocol.dataset for request in requests]
    waiting = [(FOLD, request.method, request.protocol) for request in requests]
    while waiting:
        kind, method, protocol = waiting.pop()
        for parent in method.family.parents(kind, method, protocol):
            if parent.protocol:
                names.append(protocols.load_any(parent.protocol).dataset)
                waiting.append((parent.kind, parent.method, protocol))
    return list(dict.fromkeys(names))
