"""A worker process, which shares the jobs of a session with the process that started it. It does not plan them again.

``python -m ferbench.execution.worker FILE`` reads the jobs from a JSON file in the store and trains each job that no
other process has claimed. All results go through the store.
"""

import json
import sys
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import TypeAdapter

from ferbench.data import faces as prepared_sets
from ferbench.data.faces import Faces
from ferbench.errors import INTERRUPTED, FerbenchError
from ferbench.execution.jobs import Job
from ferbench.execution.local import execute
from ferbench.execution.requests import Request
from ferbench.execution.run_job import run_job
from ferbench.files import write_json
from ferbench.processes import end_with_parent, heed_signals, leave
from ferbench.protocol.protocol import AttributeProtocol, Protocol
from ferbench.protocol.splits import Split, Splits
from ferbench.runs.record import Identity
from ferbench.runs.store import Store
from ferbench.training.device import Device

_REQUEST: TypeAdapter[Request] = TypeAdapter(Request)
_SOURCE: TypeAdapter[Protocol | AttributeProtocol] = TypeAdapter(Protocol | AttributeProtocol)


def jobs_to_json(jobs: Sequence[Job]) -> dict[str, Any]:
    """Return jobs as a JSON document. Requests and folds that jobs share stand in it once; datasets are only named."""
    requests = {str(id(job.request)): job.request for job in jobs}
    splits = {str(id(job.splits)): job.splits for job in jobs if job.splits}
    return {
        "requests": {
            name: _REQUEST.dump_python(request, mode="json", by_alias=True) for name, request in requests.items()
        },
        "splits": {name: _splits_to_json(folds) for name, folds in splits.items()},
        "jobs": [
            {
                "identity": job.identity.model_dump(mode="json"),
                "request": str(id(job.request)),
                "dataset": job.faces.name,
                "source": job.source.model_dump(mode="json"),
                "splits": str(id(job.splits)) if job.splits else None,
            }
            for job in jobs
        ],
    }


def jobs_from_json(document: dict[str, Any], load: Callable[[str], Faces], keys: Collection[str] = ()) -> list[Job]:
    """Return the jobs of a document, or only those with the given keys. load : returns a prepared dataset by name."""
    requests = {name: _REQUEST.validate_python(content) for name, content in document["requests"].items()}
    splits = {name: _splits_from_json(content) for name, content in document["splits"].items()}
    identities = [Identity.model_validate(job["identity"]) for job in document["jobs"]]
    return [
        Job(
            identity,
            requests[job["request"]],
            load(job["dataset"]),
            _SOURCE.validate_python(job["source"]),
            splits.get(job["splits"]),
        )
        for identity, job in zip(identities, document["jobs"], strict=True)
        if not keys or identity.key in keys
    ]


def _splits_to_json(splits: Splits) -> dict[str, Any]:
    folds = [{"fold": s.fold, "train": s.train.tolist(), "test": s.test.tolist()} for s in splits.folds]
    return {**asdict(splits), "folds": folds}


def _splits_from_json(content: dict[str, Any]) -> Splits:
    folds = tuple(
        Split(split["fold"], np.array(split["train"], dtype=np.int64), np.array(split["test"], dtype=np.int64))
        for split in content["folds"]
    )
    tuples = {name: tuple(value) for name, value in content.items() if isinstance(value, list)}
    return Splits(**{**content, **tuples, "folds": folds})


def write_plan(path: Path, jobs: Sequence[Job], store: Store, home: Path, device: Device, threads: int) -> Path:
    """Write what a worker needs to a file and return its path. home : of the prepared datasets."""
    places = {"runs": str(store.home), "data": str(home)}
    write_json(path, {**places, "device": asdict(device), "threads": threads, "plan": jobs_to_json(jobs)})
    return path


def main(path: str) -> None:
    """Train the jobs of a plan. What fails is in the store, and the process that started this one reports it."""
    heed_signals()
    end_with_parent()
    content = json.loads(Path(path).read_text(encoding="utf-8"))
    store, home = Store(Path(content["runs"])), Path(content["data"])
    device = Device.chosen(**content["device"])
    torch.set_num_threads(content["threads"])
    jobs = jobs_from_json(content["plan"], cache(lambda name: prepared_sets.load(name, home)))
    try:
        with suppress(FerbenchError):
            for _ in execute(jobs, store, lambda job: run_job(job, store, device, lambda done, total, text: None)):
                pass
    except KeyboardInterrupt:
        leave(INTERRUPTED)


if __name__ == "__main__":
    main(sys.argv[1])
