"""Whether a faster way of inference still recognises: trained weights in the way that a row was timed."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from ferbench.bench.workloads import Cell, networks, runner
from ferbench.data import faces as prepared_sets
from ferbench.errors import UsageError
from ferbench.files import data_home
from ferbench.methods.interface import PRETRAIN
from ferbench.protocol import protocol as protocols
from ferbench.protocol import splits
from ferbench.runs.record import Record
from ferbench.runs.store import shipped_run, shipped_runs

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
    def of(cls, home: Path | None) -> "Ground":
        """Raises DataError where FER2013 is not prepared, with the command that prepares it."""
        protocol = protocols.load(PROTOCOL)
        faces = prepared_sets.load(protocol.dataset, data_home(home))
        rows = np.sort(np.concatenate([fold.test for fold in splits.make(protocol, faces).folds]))
        return cls(np.array(faces.images[rows]), list(faces.samples["label"].iloc[rows]))


def weights(method: str, preset: str) -> Record:
    """Return the pre-training of the package whose weights are tested. Raises UsageError where there is none."""
    record = shipped_run(kind=PRETRAIN, method=method, preset=preset)
    if record is None:
        raise UsageError(f"--accuracy takes trained weights, and none of {method} {preset} come with ferbench")
    return record


def way(cell: Cell) -> Cell:
    """The cell in which trained weights are tested: the same for all sizes of batch and scenarios of a way."""
    return replace(cell, batch=BATCH, scenario="offline")


def tested(cell: Cell, ground: Ground) -> Tested:
    """Test the package's trained weights in the :func:`way` of a cell of inference."""
    record, timed = weights(cell.method, cell.preset), networks(cell.method, cell.preset, cell.seed)
    timed.load(record, shipped_runs())
    run, right = runner(way(cell), timed), 0
    for start in range(0, len(ground.images), BATCH):
        images, labels = (part[start : start + BATCH] for part in (ground.images, ground.labels))
        found = run(torch.from_numpy(images).unsqueeze(1).to(cell.device)).argmax(dim=1).tolist()
        right += sum(record.classes[place] == name for place, name in zip(found, labels, strict=True))
    return Tested(right / len(ground.images), len(ground.images), record.key)
