"""The network that all methods of this family start from, which learns by softmax alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ferbench.methods.cnn.recipe import Loss, NetworkStage, Shape
from ferbench.methods.cnn.trunks import trunk
from ferbench.methods.interface import TrainingSet, Workspace
from ferbench.training.loop import Terms
from ferbench.training.networks import Normalise
from ferbench.training.plan import Batch, Step, single_epoch
from ferbench.training.samples import Samples
from ferbench.training.schedule import Stage

Outputs = dict[str, Tensor]  # float32 [B,…] by name: "features", "logits" and what a method adds


@dataclass(frozen=True)
class Truth:
    """What is known of the training images, int64 [N] each, on the device: classes, and people by number."""

    labels: Tensor
    people: Tensor

    @classmethod
    def of(cls, train: TrainingSet, device: str) -> Truth:
        return cls(torch.tensor(train.labels).to(device), torch.tensor(people_of(train)).to(device))


def people_of(train: TrainingSet) -> np.ndarray:
    """The number of each image's person, int64 [N]; an image without a name is a person of its own."""
    names, people = np.unique(train.subjects, return_inverse=True)
    alone = np.flatnonzero(train.subjects == "")
    people[alone] = len(names) + np.arange(len(alone))
    return people.astype(np.int64)


class Network(nn.Module):
    """Trunk, feature, classifier. A method with another loss is a subclass: it overrides what differs.

    Parts of a subclass are built after those of this class, so that networks of one seed start from the same weights
    whatever their loss. What it keeps beside weights lies in buffers: these are in the checkpoint and in the run.

    loss : the recipe's table, None in pre-training.
    """

    level = True  # all steps of a training have the same number of rows, as captured CUDA graphs need it

    def __init__(self, shape: Shape, loss: Loss | None, classes: int):
        super().__init__()
        self.normalise = Normalise()
        self.trunk = trunk(shape)
        self.embedding = self.trunk.embedding()
        self.classifier = nn.Linear(self.trunk.feature, classes)

    def outputs(self, x: Tensor) -> Outputs:
        """Images float [B,1,48,48] in [0,1] → what :meth:`loss` takes."""
        features = self.embedding(self.trunk(self.normalise(x)))
        return {"features": features, "logits": self.classifier(features)}

    def forward(self, x: Tensor) -> Tensor:
        """Images float [B,1,48,48] in [0,1] → logits [B,K] of a test image."""
        return self.outputs(x)["logits"]

    def begin(self, train: TrainingSet, samples: Samples, stage: NetworkStage, work: Workspace) -> None:
        """What comes before the training by labels, on the device, from the weights that this starts from."""

    def loss(self, outputs: Outputs, truth: Truth, batch: Batch) -> Terms:
        """The losses of a step by name, "total" among them: means over the batch."""
        return {"total": nn.functional.cross_entropy(outputs["logits"], truth.labels[batch.images])}

    def after(self, batch: Batch) -> None:
        """Change buffers in place by the method's own rule, after the optimizer's step on ``batch``."""

    def plan(self, train: TrainingSet, stage: Stage, seed: int) -> Callable[[int], list[Step]]:
        """The steps of each epoch by its number from 0, about as many rows as the stage's ``augment`` says."""
        return lambda epoch: single_epoch(len(train), stage.augment, stage.batch, seed, epoch)

    def facts(self, train: TrainingSet, plan: Callable[[int], list[Step]]) -> dict[str, Any]:
        """What a run's record tells beside sizes."""
        return {}
