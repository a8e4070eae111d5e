"""Checkpoints: everything that the rest of a training depends on, in one safetensors file, without pickle.

The format detects a truncated file but no flipped bit, so files of unfinished work contain a checksum.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
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
from ferbench.files import canonical_json, write_bytes
from ferbench.schema import Schema, parse_json, validated
from ferbench.text import printable

_SEAL = "sealed"
_KINDS = {"momentum_buffer": "momentum"}  # names in files for states of optimizers that have another name in torch
_REMEDY = "delete its run folder and train again"


@dataclass
class TrainingState:
    """Progress of a training: finished epochs, a row of history for each, and the weights of the best epoch if kept."""

    epoch: int = 0
    history: list[dict[str, float]] = field(default_factory=list)
    best_score: float = -1.0
    best: dict[str, Tensor] = field(default_factory=dict)


def save(
    path: Path,
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    state: TrainingState,
    averaged: nn.Module | None = None,
) -> None:
    """Write the checkpoint atomically: weights, the optimizer's state, averaged and best weights, and the history as
    metadata."""
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    tensors = {f"model/{name}": tensor for name, tensor in module.state_dict().items()}
    for parameter, values in optimizer.state.items():
        for key, value in values.items():
            if value is not None:
                tensors[f"{_KINDS.get(key, key)}/{names[id(parameter)]}"] = value
    if averaged is not None:
        tensors |= {f"averaged/{name}": tensor for name, tensor in averaged.state_dict().items()}
    tensors |= {f"best/{name}": tensor for name, tensor in state.best.items()}
    facts = {"epoch": state.epoch, "history": state.history, "best_score": state.best_score}
    write_bytes(path, sealed(tensors, {"progress": json.dumps(facts)}))


def restore(
    path: Path, module: nn.Module, optimizer: torch.optim.Optimizer, averaged: nn.Module | None = None
) -> TrainingState:
    """Restore module, optimizer and averaged weights from a checkpoint; a new TrainingState where there is none."""
    if not path.is_file():
        return TrainingState()
    tensors, metadata = unsealed(path)
    facts = _progress(metadata, path)
    parts: dict[str, dict[str, Tensor]] = {"model": {}, "averaged": {}, "best": {}}
    for path_in_file, tensor in tensors.items():
        kind, _, name = path_in_file.partition("/")
        parts.setdefault(kind, {})[name] = tensor
    model, average, best = (parts.pop(kind) for kind in ("model", "averaged", "best"))
    try:
        module.load_state_dict(model)
        if averaged is not None:
            averaged.load_state_dict(average)
    except RuntimeError:
        raise DataError(f"{path} is of another training: {_REMEDY}") from None
    keys = {kind: key for key, kind in _KINDS.items()}
    for name, parameter in module.named_parameters():
        for kind, values in parts.items():
            if name in values:
                value = values[name].to(parameter.device)
                if value.shape == parameter.shape:
                    # The memory order of the parameter, or the optimizer would copy in every step.
                    value = torch.empty_like(parameter).copy_(value)
                optimizer.state[parameter][keys.get(kind, kind)] = value
    return TrainingState(facts.epoch, facts.history, facts.best_score, best)


def epochs_done(path: Path) -> int:
    """Return the number of finished epochs of a checkpoint, without reading its tensors; 0 if it is missing, holds
    other unfinished work, or cannot be read."""
    if not path.is_file():
        return 0
    try:
        with _opened(path) as file:
            _, metadata = _seal(file.metadata() or {}, path)
            return _progress(metadata, path).epoch if "progress" in metadata else 0
    except DataError:
        return 0


class _Sealed(Schema):
    """A seal: the digest, and the metadata that it covers."""

    both: tuple[str, dict[str, str]]


class _Facts(Schema):
    """The metadata of a checkpoint."""

    epoch: NonNegativeInt
    history: list[dict[str, int | float]]  # integers stay integers, so that equal content gives equal bytes
    best_score: float


def _progress(metadata: Mapping[str, str], path: Path) -> _Facts:
    return validated(_Facts, parse_json(metadata.get("progress", ""), path), path)


def sift(folder: Path) -> list[str]:
    """Delete damaged files of unfinished work in a folder. Returns a sentence for each."""
    notes = []
    for path in sorted(folder.rglob("*.safetensors")):
        try:
            unsealed(path)
        except DataError:
            path.unlink(missing_ok=True)
            notes.append(f"{path} was damaged and is deleted; its content is computed again")
    return notes


def keep(folder: Path, epoch: int, module: nn.Module) -> None:
    """Write the weights after ``epoch``, counted from 1."""
    write_bytes(_epoch(folder, epoch), sealed(module.state_dict()))


def kept(folder: Path, epochs: int) -> list[Path]:
    """Return the files of the weights of the first ``epochs`` epochs, in order; an empty list if one is missing."""
    files = [_epoch(folder, epoch) for epoch in range(1, epochs + 1)]
    return files if all(file.is_file() for file in files) else []


def _epoch(folder: Path, epoch: int) -> Path:
    return folder / f"{epoch:03d}.safetensors"


def pack(tensors: Mapping[str, Tensor | np.ndarray], metadata: dict[str, str]) -> bytes:
    """Return safetensors bytes; equal content gives equal bytes."""
    plain = {name: torch.as_tensor(tensors[name]).detach().cpu().contiguous() for name in sorted(tensors)}
    return safetensors.torch.save(plain, metadata)


def sealed(tensors: Mapping[str, Tensor | np.ndarray], metadata: Mapping[str, str] | None = None) -> bytes:
    """:func:`pack` with a SHA-256 of all tensors and metadata among the metadata."""
    plain = dict(metadata or {})
    # One entry, since the format does not define the order of several, and equal content must give equal bytes.
    return pack(tensors, {_SEAL: json.dumps([_digest(tensors, plain), plain])})


def unsealed(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read tensors and metadata; DataError if the file is missing or its checksum is wrong.

    Older files have no checksum and are not verified.
    """
    tensors, metadata = unpack(path)
    digest, metadata = _seal(metadata, path)
    if not (digest == _digest(tensors, metadata) if digest else not metadata.keys() - {"progress"}):
        raise DataError(f"{path} is damaged (it is not what was written): delete it")
    return tensors, metadata


def _seal(metadata: dict[str, str], path: Path) -> tuple[str, dict[str, str]]:
    """The digest of a file, empty where it has no seal, and its other metadata; DataError for another kind of seal."""
    if _SEAL not in metadata:
        return "", metadata
    seal = validated(_Sealed, {"both": parse_json(metadata[_SEAL], path)}, path)
    return seal.both


def remembered(path: Path, compute: Callable[[], Mapping[str, Tensor]]) -> Mapping[str, Tensor]:
    """Return tensors from a file; compute and store them if it is missing or damaged."""
    if path.is_file():
        with suppress(DataError):
            return unsealed(path)[0]
    tensors = compute()
    write_bytes(path, sealed(tensors))
    return tensors


def _digest(tensors: Mapping[str, Tensor | np.ndarray], metadata: Mapping[str, str]) -> str:
    digest = hashlib.sha256(canonical_json(metadata).encode())
    for name in sorted(tensors):
        plain = torch.as_tensor(tensors[name]).detach().cpu().contiguous()
        digest.update(f"{name} {plain.dtype} {tuple(plain.shape)} ".encode())
        digest.update(plain.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


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
