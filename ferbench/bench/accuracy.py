"""Whether a faster way of inference still recognises: trained weights in the way that a row was timed.

Data, protocols and stored runs are imported where accuracy is asked for: timing needs none of them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from ferbench.bench.workloads import Cell, networks, runner
from ferbench.errors import UsageError
from ferbench.methods.interface import PRETRAIN, TimedMethod

if TYPE_CHECKING:
    from ferbench.runs.record import Record

PROTOCOL = "fer2013-public"  # its test set is PublicTest, which no network of the package has been trained on
BATCH = 64


@dataclass(frozen=True)
class Tested:
    """Accuracy on ``images`` images of the weights of ``run``."""

    accuracy: float
    images: int
    run: str


@dataclass(frozen=True)
class Ground:
    """PublicTest: images uint8 [N,48,48] and the names of their classes."""

    images: np.ndarray
    labels: list[str]

    @classmethod
    def of(cls, home: Path | None) -> Ground:
        """Raises DataError where FER2013 is not prepared, with the command that prepares it."""
        from ferbench import evaluate

        found = evaluate.Ground.of(PROTOCOL, home)
        return cls(np.array(found.faces.images[found.rows]), list(found.faces.samples["label"].iloc[found.rows]))


def weights(method: str, preset: str) -> Record:
    """Return the pre-training of the package whose weights are tested. Raises UsageError where there is none."""
    from ferbench.runs.store import shipped_run

    record = shipped_run(kind=PRETRAIN, method=method, preset=preset)
    if record is None:
        raise UsageError(f"--accuracy takes trained weights, and none of {method} {preset} come with ferbench")
    return record


def way(cell: Cell) -> Cell:
    """The cell in which trained weights are tested: the same for all sizes of batch and scenarios of a way."""
    return replace(cell, batch=BATCH, scenario="offline")


def tested(cell: Cell, ground: Ground) -> Tested:
    """Test the package's trained weights in the :func:`way` of a cell of inference."""
    record = weights(cell.method, cell.preset)
    run, right = runner(way(cell), _trained(cell.method, cell.preset, cell.seed)), 0
    for start in range(0, len(ground.images), BATCH):
        images, labels = (part[start : start + BATCH] for part in (ground.images, ground.labels))
        found = run(torch.from_numpy(images).unsqueeze(1).to(cell.device)).argmax(dim=1).tolist()
        right += sum(record.classes[place] == name for place, name in zip(found, labels, strict=True))
    return Tested(right / len(ground.images), len(ground.images), record.key)


@lru_cache(maxsize=4)
def _trained(method: str, preset: str, seed: int) -> TimedMethod:
    """The networks with the package's weights, one for all ways: what is made of them is exported once."""
    from ferbench.runs.store import shipped_runs

    timed = networks(method, preset, seed)
    timed.load(weights(method, preset), shipped_runs())
    return timed
