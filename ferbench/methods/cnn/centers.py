"""Losses that draw features to a center of their class: center loss and island loss."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ferbench.methods.cnn.network import Network, Outputs, Truth
from ferbench.methods.cnn.recipe import CenterLoss, Loss, Shape
from ferbench.training.loop import Terms
from ferbench.training.plan import Batch


def center_loss(features: Tensor, labels: Tensor, centers: Tensor) -> Tensor:
    """L_C = 1/(2n) Σ_i ‖x_i − c_{y_i}‖² (Wen et al. 2016, Eq. 2, which has the sum over a batch; the mean here).

    features : [n,d]. labels : int64 [n]. centers : [K,d], taken as constants.
    """
    return (features - centers.detach()[labels]).square().sum(dim=1).mean() / 2


def center_step(features: Tensor, labels: Tensor, centers: Tensor) -> Tensor:
    """Δc_j = Σ_i δ(y_i=j)(c_j − x_i) / (1 + Σ_i δ(y_i=j)), [K,d] (Wen et al. 2016, Eq. 4); 0 for an absent class."""
    members = nn.functional.one_hot(labels, len(centers)).to(features.dtype)  # a product: sums in one order on GPUs
    count = members.sum(dim=0).unsqueeze(1)
    return (count * centers - members.T @ features) / (1 + count)


class CenterNetwork(Network):
    """Softmax and center loss: L = L_S + λ L_C (Wen, Zhang, Li, Qiao 2016, Eq. 5), c_j ← c_j − α Δc_j after each step.

    centers : float32 [K,d], zero at first: no class has an advantage.
    """

    centers: Tensor
    _seen: tuple[Tensor, Tensor]  # features and labels of the step that is under way

    def __init__(self, shape: Shape, loss: Loss | None, classes: int):
        super().__init__(shape, loss, classes)
        assert isinstance(loss, CenterLoss)
        self.weight, self.alpha = loss.weight, loss.alpha
        self.register_buffer("centers", torch.zeros(classes, self.trunk.feature))

    def loss(self, outputs: Outputs, truth: Truth, batch: Batch) -> Terms:
        softmax = super().loss(outputs, truth, batch)["total"]
        labels = truth.labels[batch.images]
        self._seen = outputs["features"].detach(), labels
        term = center_loss(outputs["features"], labels, self.centers)
        return {"total": softmax + self.weight * term, "softmax": softmax, "center": term}

    def after(self, batch: Batch) -> None:
        self.centers -= self.alpha * center_step(*self._seen, self.centers)
