"""What ``ferbench train`` and ``ablate`` do: options become requests, one plan with an estimate, and runs."""

import heapq
import shlex
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import torch

from ferbench.data import synthetic
from ferbench.errors import UsageError
from ferbench.execution import estimate
from ferbench.execution.cluster import LOCAL, Cluster
from ferbench.execution.executors import Outcome, execute
from ferbench.execution.jobs import Job, Request, plan
from ferbench.execution.run_job import run_job
from ferbench.execution.workers import is_worker, memory_allows, side_by_side, worker_processes, worker_threads
from ferbench.files import data_home, runs_home
from ferbench.methods import recipes
from ferbench.methods.interface import FOLD, PRETRAIN
from ferbench.protocol import protocol as protocols
from ferbench.protocol.protocol import Protocol
from ferbench.runs.plans import Plan, Planned, now
from ferbench.runs.record import BEST_TEST, Record
from ferbench.runs.store import Store, shipped_run
from ferbench.training.device import Device
from ferbench.training.loop import Progress

SELECTIONS = ("last", "best-val")


@dataclass(frozen=True)
class TrainOptions:
    """The options of ``ferbench train``, as given."""

    method: str
    dataset: str
    preset: str | None = None
    recipe: str = recipes.PAPER
    folds: str = ""
    rule: str | None = None
    folds_file: Path | None = None
    seed: int = 0
    epochs: int | None = None
    selection: str = "last"
    device: str = "auto"
    precision: str = "auto"
    engine: str = "auto"
    threads: int | None = None
    pretrain: bool = True
    amg: str = ""
    pretrained: str = ""
    overrides: tuple[str, ...] = ()
    jobs: str = "auto"
    executor: str = LOCAL
    address: str = ""
    gpus_per_job: float = 0.0
    leakage: bool = False  # of `ferbench ablate --leakage`: the four ways of testing one training

    def command(self) -> str:
        """The command line that makes these runs, folds left out."""
        return shlex.join(["ferbench", *replace(self, folds="").words("train", self.method)])

    def words(self, *verb: str) -> list[str]:
        """A verb with what it is for, then these options, those left out that are the default, and those that say where
        and how it is made."""
        words = [*verb, "--dataset", self.dataset]
        default = TrainOptions(self.method, self.dataset)
        for name in (
            "preset",
            "recipe",
            "folds",
            "rule",
            "folds_file",
            "seed",
            "epochs",
            "selection",
            "precision",
            "engine",
            "amg",
            "pretrained",
        ):
            value = getattr(self, name)
            if value != getattr(default, name):
                words += [f"--{name.replace('_', '-')}", str(value)]
        words += [] if self.pretrain else ["--no-pretrain"]
        for override in self.overrides:
            words += ["--set", override]
        return words


@dataclass(frozen=True)
class _Told:
    """What need not be said of a job, since all have it: methods by kind, presets, seeds, changes of the recipe."""

    methods: dict[str, set[str]]
    presets: set[str]
    seeds: set[int]
    changes: set[str]


@dataclass(frozen=True)
class Session:
    """Requests, planned: their jobs in order, what is done already, where the rest is made and how long it takes."""

    requests: list[Request]
    jobs: list[Job]
    given: list[Record]  # finished runs that take the place of jobs: named ones, and those of the package
    store: Store
    home: Path  # of prepared datasets
    device: Device
    states: Mapping[str, str]  # key → absent, partial, failed, done
    seconds: dict[str, float]  # key → estimate; 0 for a job that is done
    at_once: Mapping[str, int]  # jobs of a kind made at a time
    worker: list[str]  # the command line of another process that shares the work
    cluster: Cluster | None = None  # where jobs are made, if not here
    threads: int = 1  # of the CPU that each job has from the first kind on of which several are made at a time

    @property
    def protocol(self) -> Protocol:
        """The protocol, of the first where there are several."""
        return self.requests[0].protocol

    @property
    def protocols(self) -> list[Protocol]:
        return list({request.protocol.identifier: request.protocol for request in self.requests}.values())

    def plan(self, command: list[str]) -> Plan:
        """What the store keeps of it while ``command`` carries it out."""
        jobs = [
            Planned(key=job.key, title=self.title(job), kind=job.kind, seconds=round(self.seconds[job.key], 3))
            for job in self.jobs
        ]
        return Plan(command=command, started=now(), at_once=max(self.at_once.values(), default=1), jobs=jobs)

    @property
    def experiments(self) -> list[str]:
        """The experiments whose folds are planned."""
        return list(dict.fromkeys(job.identity.experiment for job in self.jobs if job.kind == FOLD))

    def title(self, job: Job) -> str:
        """What a person calls a job among the others."""
        told = self._told
        names = [job.request.method.title] if len(told.methods[job.kind]) > 1 else []
        names += [f"preset {job.identity.preset}"] if {job.identity.preset} != told.presets else []
        names += [f"seed {job.identity.seed}"] if len(told.seeds) > 1 else []
        names += [change for change in job.request.changed if change not in told.changes]
        return f"{', '.join(names)}, {job.title}" if names else job.title

    @cached_property
    def _told(self) -> "_Told":
        methods: dict[str, set[str]] = {}
        for job in self.jobs:
            methods.setdefault(job.kind, set()).add(job.identity.method)
        changes = set.intersection(*(set(request.changed) for request in self.requests))
        presets = {request.method.preset for request in self.requests}
        return _Told(methods, presets, {request.seed for request in self.requests}, changes)

    @property
    def methods(self) -> list[str]:
        """The methods, as printed in tables."""
        return list(dict.fromkeys(request.method.title for request in self.requests))

    def spared(self) -> list[Record]:
        """The pre-trained networks of the package that ``--pretrained`` could put in the place of one to be trained."""
        presets = {request.method.preset for request in self.requests}
        to_make = [job.identity for job in self.jobs if job.kind == PRETRAIN and self.states[job.key] != "done"]
        found = [
            shipped_run(kind=PRETRAIN, method=one.method, preset=one.preset, protocol=one.protocol, recipe=one.recipe)
            for one in to_make
            if one.preset in presets
        ]
        return list({record.key: record for record in found if record is not None}.values())

    def shares(self) -> dict[str, float]:
        """The seconds of the whole that each job stands for, by key: those of a kind are made so many at a time, each
        by the first that is free, so that three on two processes take as long as four."""
        found = {}
        for kind, count in self.at_once.items():
            own = [self.seconds[job.key] for job in self.jobs if job.kind == kind]
            free = [0.0] * count
            for seconds in own:
                heapq.heapreplace(free, free[0] + seconds)
            scale = max(free) / total if (total := sum(own)) else 0.0
            found.update({job.key: self.seconds[job.key] * scale for job in self.jobs if job.kind == kind})
        return found


def prepare_training(
    trainings: Sequence[TrainOptions],
    words: list[str],
    runs: Path | None,
    home: Path | None,
    drawing: Callable[[str], Progress],
) -> Session:
    """Resolve options to a planned session; drawn sets are drawn on the way.

    trainings : one or more; where and how they are made is what the first says.
    words : the command line that makes them all, for other processes that share the work.
    drawing : gives a progress report for the set of that name.
    Raises UsageError for options that do not fit, DataError for a set that is not prepared.
    """
    options = trainings[0]
    if unknown := {one.selection for one in trainings} - set(SELECTIONS):
        raise UsageError(f"unknown selection {unknown.pop()!r}: it is {' or '.join(SELECTIONS)}")
    cluster = Cluster.chosen(options.executor, options.address, options.jobs, options.threads, options.gpus_per_job)
    device = Device.chosen(options.device, options.precision, options.engine, here=cluster is None)
    if options.threads:
        torch.set_num_threads(options.threads)
    home = data_home(home)
    rules = {name: protocols.load(name) for name in dict.fromkeys(one.dataset for one in trainings)}
    requests = [request for one in trainings for request in _requests(one, rules[one.dataset], device)]
    for name in _datasets(requests):
        synthetic.ensure(name, home, drawing(name))
    store = Store(runs_home(runs))
    planned = plan(requests, home, store)
    jobs = planned.jobs
    states = {job.key: store.checked(job.key) for job in jobs}
    if cluster is not None:
        at_once = {job.kind: max(1, cluster.most) for job in jobs}
        seconds = dict.fromkeys(states, 0.0)  # its machines are others
        return Session(requests, jobs, planned.given, store, home, device, states, seconds, at_once, [], cluster)
    # Counted over all jobs, done or not: how many threads one gets decides its last bits, and a command that is given
    # again has to end with the same ones.
    total = Counter(job.kind for job in jobs)
    threads = torch.get_num_threads()
    processes = side_by_side(options.jobs, max(total.values(), default=0), threads, device.name)
    share = max(1, threads // processes)
    at_once = {kind: max(1, min(processes, count)) for kind, count in total.items()}
    kinds = {job.key: job.kind for job in jobs}
    if any(kinds.get(key) == job.kind for job in jobs if job.kind != FOLD for key in job.needs):
        # One that starts from another of its kind would wait, then be made by a share of the threads.
        at_once = {kind: count if kind == FOLD else 1 for kind, count in at_once.items()}
    if is_worker():
        seconds = dict.fromkeys(states, 0.0)
    else:
        seconds = estimate.seconds(jobs, store, states, device, at_once)
    if options.jobs == "auto" and device.name == "cpu":
        # The measured steps have taken what a job takes, or near it; other processes will need as much each.
        processes = min(processes, 1 + memory_allows())
        at_once = {kind: min(count, processes) for kind, count in at_once.items()}
    worker = [
        *words,
        "--device",
        device.name,
        "--threads",
        str(share),
        "--jobs",
        "1",
        "--runs",
        str(store.home),
        "--data-home",
        str(home),
    ]
    return Session(requests, jobs, planned.given, store, home, device, states, seconds, at_once, worker, None, share)


def train_all(session: Session, report: Callable[[Job], Progress], done: Callable[[Outcome], None]) -> None:
    """Run a session's jobs, those of a kind side by side from the first kind on that has several.

    Raises JobFailed at the end if any failed.
    """
    if session.cluster is not None:
        from ferbench.execution import on_ray

        for outcome in on_ray.execute(session.jobs, session.store, session.home, session.device, session.cluster):
            done(outcome)
        return
    first = next((n for n, job in enumerate(session.jobs) if session.at_once[job.kind] > 1), len(session.jobs))
    beside = [job.key for job in session.jobs[first:]]  # all that is made once several are made at a time
    others = min(max(session.at_once.values()), sum(session.states.get(key) != "done" for key in beside)) - 1

    def share(quiet: Progress) -> None:
        for _ in execute(session.jobs, session.store, lambda job: run_job(job, session.store, session.device, quiet)):
            pass

    with ExitStack() as stack:
        alone = True
        stack.callback(torch.set_num_threads, torch.get_num_threads())

        def make(job: Job):
            nonlocal alone
            if alone and job.key in beside:
                alone = False
                if session.device.name == "cuda":
                    stack.enter_context(worker_threads(others, session.device.name, share))
                else:
                    torch.set_num_threads(session.threads)
                    stack.enter_context(worker_processes(others, session.worker))
            return run_job(job, session.store, session.device, report(job))

        for outcome in execute(session.jobs, session.store, make):
            done(outcome)


def _requests(options: TrainOptions, protocol: Protocol, device: Device) -> list[Request]:
    """One request for a training; for data leakage its last epoch and its best test epoch, by subject and by image."""
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
        folds=_folds(options.folds),
        rule=options.rule,
        folds_file=options.folds_file,
        pretrain=options.pretrain,
        command=options.command(),
        given={role: key for role, key in (("attention", options.amg), (PRETRAIN, options.pretrained)) if key},
        changed=options.overrides,
    )


def _datasets(requests: Sequence[Request]) -> list[str]:
    """The prepared datasets that some requests need: the target, and those of all that comes before."""
    sets = [request.protocol.dataset for request in requests]
    waiting = [(FOLD, request.method, request.protocol) for request in requests]
    while waiting:
        kind, method, protocol = waiting.pop()
        for parent in method.family.parents(kind, method, protocol):
            if parent.protocol:
                sets.append(protocols.load_any(parent.protocol).dataset)
                waiting.append((parent.kind, parent.method, protocol))
    return list(dict.fromkeys(sets))


def _folds(text: str) -> tuple[str, ...]:
    """``03``, ``1,4``, ``01-05`` or ``official`` → names of folds, two digits each."""
    names: list[str] = []
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        first, dash, last = part.partition("-")
        if first.isdigit() and (last.isdigit() or not dash):
            names += [f"{number:02d}" for number in range(int(first), int(last or first) + 1)]
        elif dash:
            raise UsageError(f"--folds takes numbers such as 03, 01,04 or 01-05, not {text!r}")
        else:
            names.append(part)
    return tuple(dict.fromkeys(names))
