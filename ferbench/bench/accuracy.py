"""The accuracy of trained weights in the precision and backend of a timed row.

Data, protocols and stored runs are imported where accuracy is measured: timing needs none of them.
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

PROTOCOL = "fer2013-public"  # its test set is PublicTest, on which no network of the package was trained
TRAINED = "fer2013"  # what the tested weights learned from: the labels that PublicTest has
BATCH = 64


@dataclass(frozen=True)
class Accuracy:
    """Accuracy on ``images`` images of the weights of ``run``."""

    accuracy: float
    images: int
    run: str


@dataclass(frozen=True)
class TestSet:
    """PublicTest: images uint8 [N,48,48] and the names of their classes."""

    images: np.ndarray
    labels: list[str]

    @classmethod
    def of(cls, home: Path | None) -> TestSet:
        """Raises DataError where FER2013 is not prepared, with the command that prepares it."""
        from ferbench.execution import views

        public = views.TestSet.of(PROTOCOL, home)
        return cls(np.array(public.samples().images), list(public.table["label"]))


def shipped_weights(method: str, preset: str) -> Record:
    """Return the shipped pre-training whose weights are tested. Raises UsageError where there is none."""
    from ferbench.protocol import protocol as protocols
    from ferbench.runs.store import shipped_run

    protocol = protocols.load(TRAINED).identifier
    record = shipped_run(kind=PRETRAIN, method=method, preset=preset, protocol=protocol)
    if record is None:
        raise UsageError(f"--accuracy takes trained weights, and none of {method} {preset} come with ferbench")
    return record


def accuracy_cell(cell: Cell) -> Cell:
    """The cell in which trained weights are tested: one for all batch sizes and scenarios of an engine, precision and
    backend."""
    return replace(cell, batch=BATCH, scenario="offline")


def accuracy(cell: Cell, test_set: TestSet) -> Accuracy:
    """Test the shipped weights in the :func:`accuracy_cell` of a cell of inference."""
    record = shipped_weights(cell.method, cell.preset)
    run, correct = runner(accuracy_cell(cell), _trained(cell.method, cell.preset, cell.seed)), 0
    for start in range(0, len(test_set.images), BATCH):
        images, labels = (part[start : start + BATCH] for part in (test_set.images, test_set.labels))
        predicted = run(torch.from_numpy(images).unsqueeze(1).to(cell.device)).argmax(dim=1).tolist()
        correct += sum(record.classes[index] == label for index, label in zip(predicted, labels, strict=True))
    return Accuracy(correct / len(test_set.images), len(test_set.images), record.key)


@lru_cache(maxsize=4)
def _trained(method: str, preset: str, seed: int) -> TimedMethod:
    """The networks with the shipped weights, one for all cells, so that they are exported once."""
    from ferbench.runs.store import shipped_runs

    timed = networks(method, preset, seed)
    timed.load(shipped_weights(method, preset), shipped_runs())
    return timed
