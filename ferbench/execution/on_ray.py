"""Running jobs on the nodes of a Ray cluster. The records are the same as here; all files go through this process.

Prepared datasets and the runs that others start from are put into Ray's object store once, and written once on each
node. A worker makes a run in its own store and returns its files; the record is written here, last. If a worker is
lost, Ray gives its job to another one, which begins anew. The same version of ferbench must be installed on every node,
and so must the modules of the user's own methods.
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
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import ray
import torch

import ferbench
from ferbench.data import faces as prepared_sets
from ferbench.data.faces import Faces
from ferbench.errors import DataError, FerbenchError, UsageError
from ferbench.execution.jobs import Job
from ferbench.execution.local import Outcome, attempt, delete_unfinished_work, raise_if_failed, store_failure
from ferbench.execution.options import Cluster
from ferbench.execution.run_job import run_job
from ferbench.execution.worker import jobs_from_json, jobs_to_json
from ferbench.files import claim, new_folder, write_bytes
from ferbench.runs.store import Store
from ferbench.training.device import Device

_RETRIES = 3  # of a job whose worker or node was lost
_POLL_SECONDS = 1.0  # between two checks for runs of other processes
_CLEANUP_SECONDS = 5.0  # that nodes have at the end
_RECORD = "record.json"
_NOT_RETURNED = (".lock", "checkpoint")  # in a run's folder

Files = dict[str, bytes]  # by path in their folder


@dataclass(frozen=True)
class _Session:
    """What all workers need, sent once. token : names the folders on nodes. jobs : see :func:`jobs_to_json`."""

    token: str
    version: str
    jobs: dict[str, Any]
    device: dict[str, Any]
    threads: int


def execute(jobs: list[Job], store: Store, home: Path, device: Device, cluster: Cluster) -> Iterator[Outcome]:
    """Yield the outcome of every job as it ends; done runs are reused. See :func:`local.execute`.

    home : of the prepared datasets.
    """
    waiting = {job.key: job for job in jobs}
    failed: set[str] = set()
    with _connected(cluster), ExitStack() as stack:
        sender = _Sender(jobs, store, home, device, cluster)
        stack.callback(sender.close)
        while waiting or sender.sent:
            progressed = False
            for key, job in list(waiting.items()):
                if any(need in failed for need in job.needs):
                    del waiting[key]
                    failed.add(key)
                elif sender.full():
                    break
                elif not any(need in waiting or need in sender.sent for need in job.needs):
                    with ExitStack() as lock:
                        if not lock.enter_context(claim(store.folder(key))):
                            continue
                        del waiting[key]
                        progressed = True
                        if store.checked(key) == "done":
                            yield Outcome(job, store.record(key), reused=True)
                        else:
                            sender.send(job, lock.pop_all())
            for outcome in sender.ended(0 if progressed else _POLL_SECONDS):
                if outcome.record.error:
                    failed.add(outcome.job.key)
                yield outcome
    raise_if_failed(jobs, failed)


class _Sender:
    """Sends jobs to workers and receives their runs. The lock of a run is held here while its job is sent."""

    def __init__(self, jobs: list[Job], store: Store, home: Path, device: Device, cluster: Cluster):
        self.store, self.home, self.cluster = store, home, cluster
        self.token = uuid.uuid4().hex[:12]
        session = _Session(self.token, ferbench.__version__, jobs_to_json(jobs), asdict(device), cluster.threads)
        self.session = ray.put(session)
        self.work = ray.remote(_run).options(num_cpus=cluster.threads, num_gpus=cluster.gpus, max_retries=_RETRIES)
        self.sent: dict[str, tuple[Any, Job, ExitStack]] = {}  # by key: Ray's reference, the job, its lock
        self.datasets: dict[str, Any] = {}
        self.runs: dict[str, Any] = {}

    def full(self) -> bool:
        """Return whether as many jobs are sent as the cluster, which may grow and shrink, has room for."""
        total = ray.cluster_resources()
        room = int(total.get("CPU", 0) // self.cluster.threads)
        if self.cluster.gpus:
            room = min(room, int(total.get("GPU", 0) / self.cluster.gpus))
        return len(self.sent) >= max(1, min(room, self.cluster.max_jobs or room))

    def send(self, job: Job, lock: ExitStack) -> None:
        name = job.faces.name
        if name not in self.datasets:
            self.datasets[name] = ray.put(_read_files(self.home / name))
        parents = {key: self.run(key) for key in self.ancestors(job)}
        # Ray resolves arguments, but not what lists and dictionaries hold: a node fetches only what it lacks.
        reference = self.work.remote([self.session], job.key, name, [self.datasets[name]], parents)
        self.sent[job.key] = reference, job, lock

    def ancestors(self, job: Job) -> list[str]:
        """Return the keys of all runs that a job starts from, directly or not, except the shipped ones."""
        keys, waiting = [], list(job.needs)
        while waiting:
            key = waiting.pop()
            if key not in keys and self.store.holder(key) == self.store:
                keys.append(key)
                waiting += self.store.record(key).identity.parents.values()
        return keys

    def run(self, key: str) -> Any:
        if key not in self.runs:
            self.runs[key] = ray.put(_read_files(self.store.folder(key)))
        return self.runs[key]

    def ended(self, timeout: float) -> list[Outcome]:
        """Receive the runs of jobs that have ended. timeout : seconds to wait for the first."""
        if not self.sent:
            return []
        by_reference = {reference: key for key, (reference, _, _) in self.sent.items()}
        ready, _ = ray.wait(list(by_reference), num_returns=1, timeout=timeout)
        return [self.receive(by_reference[reference]) for reference in ready]

    def receive(self, key: str) -> Outcome:
        reference, job, lock = self.sent.pop(key)
        with lock:
            try:
                files: Files = ray.get(reference)
            except ray.exceptions.RayTaskError as error:
                if isinstance(error.cause, FerbenchError):
                    raise error.cause from None
                message = f"on a node of Ray: {error.cause}"
                return Outcome(job, store_failure(job, self.store, message, str(error)), False)
            except ray.exceptions.RayError as error:
                message = f"{type(error).__name__}, {_RETRIES + 1} times: the node or the process of the job was lost"
                return Outcome(job, store_failure(job, self.store, message, str(error)), False)
            folder = self.store.folder(key)
            for path, content in sorted(files.items(), key=lambda item: item[0] == _RECORD):
                write_bytes(folder / path, content)
            record = self.store.record(key)
            if not record.error:
                delete_unfinished_work(job, self.store)
            return Outcome(job, record, reused=False)

    def close(self) -> None:
        """Cancel the jobs that are sent, and delete the files on the nodes."""
        for reference, _, lock in self.sent.values():
            ray.cancel(reference, force=True)
            lock.close()
        self.sent.clear()
        delete = ray.remote(_delete_files)
        strategy = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy
        deletions = [
            delete.options(num_cpus=0, max_retries=0, scheduling_strategy=strategy(node["NodeID"], soft=False)).remote(
                self.token
            )
            for node in ray.nodes()
            if node["Alive"]
        ]
        ray.wait(deletions, num_returns=len(deletions), timeout=_CLEANUP_SECONDS)


@contextmanager
def _connected(cluster: Cluster) -> Iterator[None]:
    """Connect to a cluster, or start one on this machine, for as long as the block lasts.

    Raises UsageError if no cluster answers at its address.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # ferbench sends nothing to anyone
    # Otherwise Ray hides the GPUs from a job that takes no share of one.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.CRITICAL}
    if cluster.address:
        options["address"] = cluster.address
    else:
        options |= {"address": "local", "include_dashboard": False}
        if cluster.max_jobs:
            options["num_cpus"] = cluster.max_jobs * cluster.threads
    main = threading.current_thread() is threading.main_thread()
    on_sigterm = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(**options)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise UsageError(
            f"no Ray cluster answers at {cluster.address or 'this machine'} "
            f"({str(error).splitlines()[0]}): start one with `ray start --head`"
        ) from None
    try:
        if main:
            signal.signal(signal.SIGTERM, on_sigterm)  # Ray has replaced it
        yield
    finally:
        ray.shutdown()


def _run(sessions: list[Any], key: str, dataset: str, datasets: list[Any], parents: dict[str, Any]) -> Files:
    """On a node: run one job and return the files of its run. If the job fails, its record has the error.

    sessions, datasets : one reference each.
    """
    session = _session(sessions[0])
    if session.version != ferbench.__version__:
        raise DataError(
            f"a node of Ray has ferbench {ferbench.__version__}, and this is {session.version}: "
            "install one version everywhere"
        )
    place = _folder(session.token)
    store = Store(place / "runs")
    _write_files(place / "data" / dataset, datasets[0])
    for parent, reference in parents.items():
        _write_files(store.folder(parent), reference)
    torch.set_num_threads(session.threads)
    device = Device.chosen(**session.device)
    (job,) = jobs_from_json(session.jobs, lambda name: _load(name, place / "data"), {key})
    attempt(job, store, lambda job: run_job(job, store, device, lambda done, total, text: None))
    files = _read_files(store.folder(key))
    shutil.rmtree(store.folder(key))
    return files


@cache
def _session(reference: Any) -> _Session:
    return ray.get(reference)


@cache
def _load(name: str, home: Path) -> Faces:
    return prepared_sets.load(name, home)


def _delete_files(token: str) -> None:
    shutil.rmtree(_folder(token), ignore_errors=True)


def _folder(token: str) -> Path:
    """Return the folder of one command on this node."""
    return Path(tempfile.gettempdir()) / f"ferbench-{token}-{ray.get_runtime_context().get_node_id()[:12]}"


def _read_files(folder: Path) -> Files:
    """Return the files of a run or a prepared dataset."""
    paths = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    return {name: path.read_bytes() for name, path in paths.items() if name.split("/")[0] not in _NOT_RETURNED}


def _write_files(folder: Path, reference: Any) -> None:
    """Write the files of a folder unless it exists. The folder appears complete or not at all."""
    if folder.is_dir():
        return
    with new_folder(folder) as temporary:
        for name, content in ray.get(reference).items():
            write_bytes(temporary / name, content)
