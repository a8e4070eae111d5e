"""Running jobs on the nodes of a Ray cluster. Same records as here; all files go through this process.

Prepared sets and the runs that others start from are put into Ray's object store once and written out once a node.
A worker makes a run in a store of its own and hands back its files; the record is written here, last. Of a worker that
is lost, Ray gives the job to another, which begins anew. ferbench must be installed on every node, in one version, and
so must be whatever a method of the user's own is made of.
"""

import logging
import os
import shutil
import signal
import tempfile
import threading
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import ray
import torch

import ferbench
from ferbench.data import faces as prepared_sets
from ferbench.data.faces import Faces
from ferbench.errors import DataError, FerbenchError, UsageError
from ferbench.execution.cluster import Cluster
from ferbench.execution.executors import Outcome, attempt, end, fail, tidy
from ferbench.execution.jobs import Job
from ferbench.execution.run_job import run_job
from ferbench.files import claim, new_folder, write_bytes
from ferbench.runs.store import Store
from ferbench.training.device import Device

_RETRIES = 3  # of a job whose worker or node was lost
_LOOK = 1.0  # seconds between looks at what other processes have made
_LEAVE = 5.0  # seconds that nodes have to tidy up at the end
_RECORD = "record.json"
_HERE = (".lock", "checkpoint")  # of a run's folder: no part of what it gives

Files = dict[str, bytes]  # by path in their folder


@dataclass(frozen=True)
class _Lot:
    """All that workers are told once. jobs : by key, without their faces. token : of the folders on nodes."""

    token: str
    version: str
    jobs: dict[str, Job]
    device: Device
    threads: int


def execute(jobs: list[Job], store: Store, home: Path, device: Device, cluster: Cluster) -> Iterator[Outcome]:
    """Yield the outcome of every job as it ends; done runs are reused. See :func:`executors.execute`.

    home : of the prepared datasets.
    """
    waiting = {job.key: job for job in jobs}
    failed: set[str] = set()
    with _connected(cluster), ExitStack() as stack:
        sender = _Sender(jobs, store, home, device, cluster)
        stack.callback(sender.leave)
        while waiting or sender.flying:
            progressed = False
            for key, job in list(waiting.items()):
                if any(need in failed for need in job.needs):
                    del waiting[key]
                    failed.add(key)
                elif sender.full():
                    break
                elif not any(need in waiting or need in sender.flying for need in job.needs):
                    with ExitStack() as own:
                        if not own.enter_context(claim(store.folder(key))):
                            continue
                        del waiting[key]
                        progressed = True
                        if store.checked(key) == "done":
                            yield Outcome(job, store.record(key), reused=True)
                        else:
                            sender.send(job, own.pop_all())
            for outcome in sender.ended(0 if progressed else _LOOK):
                if outcome.record.error:
                    failed.add(outcome.job.key)
                yield outcome
    end(jobs, failed)


class _Sender:
    """Sends jobs to workers, each claimed here for as long as it is away, and takes in what they made."""

    def __init__(self, jobs: list[Job], store: Store, home: Path, device: Device, cluster: Cluster):
        self.store, self.home, self.cluster = store, home, cluster
        lot = _Lot(
            uuid.uuid4().hex[:12],
            ferbench.__version__,
            {job.key: replace(job, faces=_Absent()) for job in jobs},  # type: ignore[arg-type]
            device,
            cluster.threads,
        )
        self.token, self.lot = lot.token, ray.put(lot)
        self.work = ray.remote(_make).options(num_cpus=cluster.threads, num_gpus=cluster.gpus, max_retries=_RETRIES)
        self.flying: dict[str, tuple[Any, Job, ExitStack]] = {}  # by key: Ray's reference, the job, its claim
        self.sets: dict[str, Any] = {}
        self.runs: dict[str, Any] = {}

    def full(self) -> bool:
        """Whether as many jobs are away as the cluster, which grows and shrinks, has room for."""
        total = ray.cluster_resources()
        room = int(total.get("CPU", 0) // self.cluster.threads)
        if self.cluster.gpus:
            room = min(room, int(total.get("GPU", 0) / self.cluster.gpus))
        return len(self.flying) >= max(1, min(room, self.cluster.most or room))

    def send(self, job: Job, claimed: ExitStack) -> None:
        name = job.faces.name
        if name not in self.sets:
            self.sets[name] = ray.put(_packed(self.home / name))
        parents = {key: self.run(key) for key in self.before(job)}
        # References in a list or a dictionary are handed on as they are, so that a node gets only what it lacks.
        reference = self.work.remote([self.lot], job.key, name, [self.sets[name]], parents)
        self.flying[job.key] = reference, job, claimed

    def before(self, job: Job) -> list[str]:
        """Keys of all runs that a job starts from, and those from theirs, but for the ones that every node has."""
        found, looking = [], list(job.needs)
        while looking:
            key = looking.pop()
            if key not in found and self.store.holder(key) == self.store:
                found.append(key)
                looking += self.store.record(key).identity.parents.values()
        return found

    def run(self, key: str) -> Any:
        if key not in self.runs:
            self.runs[key] = ray.put(_packed(self.store.folder(key)))
        return self.runs[key]

    def ended(self, patience: float) -> list[Outcome]:
        """Take in what has ended, waiting so many seconds for the first."""
        if not self.flying:
            return []
        by_reference = {reference: key for key, (reference, _, _) in self.flying.items()}
        ready, _ = ray.wait(list(by_reference), num_returns=1, timeout=patience)
        return [self.taken(by_reference[reference]) for reference in ready]

    def taken(self, key: str) -> Outcome:
        reference, job, claimed = self.flying.pop(key)
        with claimed:
            try:
                files: Files = ray.get(reference)
            except ray.exceptions.RayTaskError as error:
                if isinstance(error.cause, FerbenchError):
                    raise error.cause from None
                return Outcome(job, fail(job, self.store, f"on a node of Ray: {error.cause}", str(error)), False)
            except ray.exceptions.RayError as error:
                said = f"{type(error).__name__}, {_RETRIES + 1} times: the node or the process that made it was lost"
                return Outcome(job, fail(job, self.store, said, str(error)), False)
            folder = self.store.folder(key)
            for path, content in sorted(files.items(), key=lambda item: item[0] == _RECORD):
                write_bytes(folder / path, content)
            record = self.store.record(key)
            if not record.error:
                tidy(job, self.store)
            return Outcome(job, record, reused=False)

    def leave(self) -> None:
        """End what is under way, and delete what was written on the nodes."""
        for reference, _, claimed in self.flying.values():
            ray.cancel(reference, force=True)
            claimed.close()
        self.flying.clear()
        clear = ray.remote(_clear)
        strategy = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy
        told = [
            clear.options(num_cpus=0, max_retries=0, scheduling_strategy=strategy(node["NodeID"], soft=False)).remote(
                self.token
            )
            for node in ray.nodes()
            if node["Alive"]
        ]
        ray.wait(told, num_returns=len(told), timeout=_LEAVE)


@contextmanager
def _connected(cluster: Cluster) -> Iterator[None]:
    """A connection to a cluster, or one of this machine for as long as the block lasts.

    Raises UsageError where there is no cluster at its address.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # ferbench sends nothing to anyone
    # Of a job that asks for no share of a GPU, Ray would otherwise hide the GPUs.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.CRITICAL}
    if cluster.address:
        options["address"] = cluster.address
    else:
        options |= {"address": "local", "include_dashboard": False}
        if cluster.most:
            options["num_cpus"] = cluster.most * cluster.threads
    main = threading.current_thread() is threading.main_thread()
    terminated = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(**options)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise UsageError(
            f"no Ray cluster answers at {cluster.address or 'this machine'} "
            f"({str(error).splitlines()[0]}): start one with `ray start --head`"
        ) from None
    try:
        if main:
            signal.signal(signal.SIGTERM, terminated)  # Ray has taken it
        yield
    finally:
        ray.shutdown()


class _Absent:
    """Stands for a prepared dataset on its way to a node."""


def _make(lots: list[Any], key: str, name: str, sets: list[Any], parents: dict[str, Any]) -> Files:
    """On a node: make one run and return its files. An error of the job is in its record."""
    lot = _lot(lots[0])
    if lot.version != ferbench.__version__:
        raise DataError(
            f"a node of Ray has ferbench {ferbench.__version__}, and this is {lot.version}: "
            "install one version everywhere"
        )
    place = _place(lot.token)
    store = Store(place / "runs")
    _unpacked(place / "data" / name, sets[0])
    for parent, reference in parents.items():
        _unpacked(store.folder(parent), reference)
    torch.set_num_threads(lot.threads)
    device = Device.chosen(lot.device.name, lot.device.precision, lot.device.engine)
    job = replace(lot.jobs[key], faces=_loaded(name, place / "data"))
    attempt(job, store, lambda one: run_job(one, store, device, lambda done, total, text: None))
    files = _packed(store.folder(key))
    shutil.rmtree(store.folder(key))
    return files


@cache
def _lot(reference: Any) -> _Lot:
    return ray.get(reference)


@cache
def _loaded(name: str, home: Path) -> Faces:
    return prepared_sets.load(name, home)


def _clear(token: str) -> None:
    shutil.rmtree(_place(token), ignore_errors=True)


def _place(token: str) -> Path:
    """The folder of one command on this node."""
    return Path(tempfile.gettempdir()) / f"ferbench-{token}-{ray.get_runtime_context().get_node_id()[:12]}"


def _packed(folder: Path) -> Files:
    """The files of a run or a prepared dataset."""
    found = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    return {name: path.read_bytes() for name, path in found.items() if name.split("/")[0] not in _HERE}


def _unpacked(folder: Path, reference: Any) -> None:
    """Write files out, unless they are there. A folder is there whole or not at all."""
    if folder.is_dir():
        return
    with new_folder(folder) as new:
        for name, content in ray.get(reference).items():
            write_bytes(new / name, content)
