"""Checkpoints: everything that the rest of a training depends on, in one safetensors file, no pickle."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.torch
import torch
from pydantic import NonNegativeInt
from torch import Tensor, nn

from ferbench.errors import DataError
from ferbench.files import write_bytes
from ferbench.schema import Schema, parse_json, validated
from ferbench.text import printable

_REMEDY = "delete its run folder and train again"


@dataclass
class Progress:
    """How far a training is: epochs done, a row of history for each, and the best epoch's weights if kept."""

    epoch: int = 0
    history: list[dict[str, float]] = field(default_factory=list)
    best_score: float = -1.0
    best: dict[str, Tensor] = field(default_factory=dict)


def save(
    path: Path, module: nn.Module, optimizer: torch.optim.SGD, progress: Progress, averaged: nn.Module | None = None
) -> None:
    """Write the checkpoint atomically: weights, momentum, averaged and best weights, and the history as metadata."""
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    tensors = {f"model/{name}": tensor for name, tensor in module.state_dict().items()}
    for parameter, state in optimizer.state.items():
        if state.get("momentum_buffer") is not None:
            tensors[f"momentum/{names[id(parameter)]}"] = state["momentum_buffer"]
    if averaged is not None:
        tensors |= {f"averaged/{name}": tensor for name, tensor in averaged.state_dict().items()}
    tensors |= {f"best/{name}": tensor for name, tensor in progress.best.items()}
    facts = {"epoch": progress.epoch, "history": progress.history, "best_score": progress.best_score}
    write_bytes(path, pack(tensors, {"progress": json.dumps(facts)}))


def restore(path: Path, module: nn.Module, optimizer: torch.optim.SGD, averaged: nn.Module | None = None) -> Progress:
    """Bring module, optimizer and averaged weights to where the checkpoint was written; else a fresh Progress."""
    if not path.is_file():
        return Progress()
    tensors, metadata = unpack(path)
    facts = _progress(metadata, path)
    part = {
        kind: {name[len(kind) + 1 :]: t for name, t in tensors.items() if name.startswith(kind + "/")}
        for kind in ("model", "momentum", "averaged", "best")
    }
    try:
        module.load_state_dict(part["model"])
        if averaged is not None:
            averaged.load_state_dict(part["averaged"])
    except RuntimeError:
        raise DataError(f"{path} is of another training: delete its run folder and train again") from None
    for name, parameter in module.named_parameters():
        if name in part["momentum"]:
            # The memory order of the parameter, or the optimizer would copy in every step.
            optimizer.state[parameter]["momentum_buffer"] = torch.empty_like(parameter).copy_(part["momentum"][name])
    return Progress(facts.epoch, facts.history, facts.best_score, part["best"])


def epochs_done(path: Path) -> int:
    """Return how many epochs a checkpoint has behind it, without reading its tensors; 0 where there is none, or where
    it holds other unfinished work."""
    if not path.is_file():
        return 0
    with _opened(path) as file:
        metadata = file.metadata() or {}
        return _progress(metadata, path).epoch if "progress" in metadata else 0


class _Facts(Schema):
    """What a checkpoint says of itself."""

    epoch: NonNegativeInt
    history: list[dict[str, float]]
    best_score: float


def _progress(metadata: Mapping[str, str], path: Path) -> _Facts:
    return validated(_Facts, parse_json(metadata.get("progress", ""), path, _REMEDY), path)


def keep(folder: Path, epoch: int, module: nn.Module) -> None:
    """Write the weights after ``epoch`` (from 1) beside those of the others."""
    write_bytes(_epoch(folder, epoch), pack(module.state_dict(), {}))


def kept(folder: Path, epochs: int) -> list[Path]:
    """Return the files of the first ``epochs`` epochs' weights, in order; none where one is missing."""
    files = [_epoch(folder, epoch) for epoch in range(1, epochs + 1)]
    return files if all(file.is_file() for file in files) else []


def _epoch(folder: Path, epoch: int) -> Path:
    return folder / f"{epoch:03d}.safetensors"


def pack(tensors: Mapping[str, Tensor | np.ndarray], metadata: dict[str, str]) -> bytes:
    """Return safetensors bytes; equal content gives equal bytes."""
    plain = {name: torch.as_tensor(tensors[name]).detach().cpu().contiguous() for name in sorted(tensors)}
    return safetensors.torch.save(plain, metadata)


def unpack(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read tensors and metadata; DataError when the file is missing or damaged."""
    with _opened(path) as file:
        return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            yield file
    except (OSError, safetensors.SafetensorError) as error:
        raise DataError(f"{path} cannot be read ({printable(str(error))}): {_REMEDY}") from None
