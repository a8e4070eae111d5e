"""Locality-preserving loss: features near those of the same class that lie nearest."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ferbench.methods.cnn.network import Network, Outputs, Truth
from ferbench.methods.cnn.recipe import LocalityLoss, Loss, Shape
from ferbench.methods.cnn.samplers import grouped_epoch
from ferbench.methods.interface import TrainingSet
from ferbench.training.loop import Terms
from ferbench.training.plan import Batch, Step
from ferbench.training.schedule import Stage


def locality_loss(features: Tensor, labels: Tensor, neighbours: int) -> Tensor:
    """L_LP = 1/(2n) Σ_i ‖x_i − 1/k_i Σ_{x ∈ N(x_i)} x‖², N(x_i) the k_i = min(k, n_class − 1) nearest features of the
    batch that have the class of x_i; no term where there are none (Li, Deng, Du 2017; the mean over the batch and
    neighbours as constants are our reading).

    features : [n,d]. labels : int64 [n].
    """
    constant = features.detach()
    alike = (labels[:, None] == labels[None]) & ~torch.eye(len(labels), dtype=torch.bool, device=labels.device)
    distances = torch.cdist(constant, constant).masked_fill(~alike, torch.inf)
    rank = distances.argsort(dim=1, stable=True).argsort(dim=1)
    near = (alike & (rank < neighbours)).to(features.dtype)
    count = near.sum(dim=1, keepdim=True)
    mean = near @ constant / count.clamp_min(1)
    return ((features - mean) * (count > 0)).square().sum(dim=1).mean() / 2


class LocalityNetwork(Network):
    """DLP-CNN: L = L_S + λ L_LP."""

    def __init__(self, shape: Shape, loss: Loss | None, classes: int):
        super().__init__(shape, loss, classes)
        assert isinstance(loss, LocalityLoss)
        self.settings = loss

    def loss(self, outputs: Outputs, truth: Truth, batch: Batch) -> Terms:
        softmax = super().loss(outputs, truth, batch)["total"]
        term = locality_loss(outputs["features"], truth.labels[batch.images], self.settings.neighbours)
        return {"total": softmax + self.settings.weight * term, "softmax": softmax, "locality": term}

    def plan(self, train: TrainingSet, stage: Stage, seed: int) -> Callable[[int], list[Step]]:
        if self.settings.batches == "shuffled":
            return super().plan(train, stage, seed)
        members = self.settings.neighbours + 1
        return lambda epoch: grouped_epoch(train.labels, stage.augment, stage.batch, members, seed, epoch)

    def facts(self, train: TrainingSet, plan: Callable[[int], list[Step]]) -> dict[str, Any]:
        """The mean of k_i over the first epoch, which batches bound."""
        found = []
        for step in plan(0):
            labels = train.labels[step.images]
            found.append(np.minimum(np.bincount(labels)[labels] - 1, self.settings.neighbours))
        return {"neighbours": round(float(np.concatenate(found).mean()), 2)}
