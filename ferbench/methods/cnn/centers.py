"""Losses that draw features to a center of their class: center loss and island loss."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ferbench.methods.cnn.network import Network, Outputs, Truth
from ferbench.methods.cnn.recipe import CenterLoss, IslandLoss, Loss, Shape
from ferbench.training.loop import Terms
from ferbench.training.plan import Batch

_EPSILON = 1e-12  # of the length of a center, so that a cosine with a center at zero is 0


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


def push_loss(centers: Tensor, pairs: str) -> Tensor:
    """Σ_j Σ_{k≠j} (cos(c_j, c_k) + 1) over ordered pairs of centers [K,d], the second term of island loss; "unordered"
    pairs halve it, "mean" divides it by K(K − 1)."""
    count = len(centers)
    unit = nn.functional.normalize(centers, dim=1, eps=_EPSILON)
    apart = 1 - torch.eye(count, dtype=centers.dtype, device=centers.device)
    total = ((unit @ unit.T + 1) * apart).sum()
    return total * {"ordered": 1.0, "unordered": 0.5, "mean": 1 / (count * (count - 1))}[pairs]


def push_step(centers: Tensor) -> Tensor:
    """1/(K−1) Σ_{k≠j} [c_k/(‖c_k‖‖c_j‖) − (c_k·c_j) c_j/(‖c_k‖‖c_j‖³)], [K,d]: what island loss adds to the centers'
    step for λ1 = 1, by our reading of the paper; 1/(2(K−1)) of the gradient of :func:`push_loss`."""
    length = centers.norm(dim=1, keepdim=True).clamp_min(_EPSILON)
    unit = centers / length
    others = unit.sum(dim=0) - unit  # Σ_{k≠j} c_k/‖c_k‖
    along = (others * unit).sum(dim=1, keepdim=True)
    return (others - along * unit) / length / (len(centers) - 1)


class CenterNetwork(Network):
    """Softmax and center loss: L = L_S + λ L_C (Wen, Zhang, Li, Qiao 2016, Eq. 5), c_j ← c_j − α Δc_j after each step.

    centers : float32 [K,d], in the checkpoint and in the run.
    """

    centers: Tensor
    _seen: tuple[Tensor, Tensor]  # features and labels of the step that is under way

    def __init__(self, shape: Shape, loss: Loss | None, classes: int):
        super().__init__(shape, loss, classes)
        assert isinstance(loss, CenterLoss | IslandLoss)
        self.settings: CenterLoss | IslandLoss = loss
        drawn = torch.zeros if loss.start == "zeros" else torch.randn
        self.register_buffer("centers", drawn(classes, self.trunk.feature))

    def loss(self, outputs: Outputs, truth: Truth, batch: Batch) -> Terms:
        softmax = super().loss(outputs, truth, batch)["total"]
        labels = truth.labels[batch.images]
        self._seen = outputs["features"].detach(), labels
        term = center_loss(outputs["features"], labels, self.centers)
        return {"total": softmax + self.settings.weight * term, "softmax": softmax, "center": term}

    def after(self, batch: Batch) -> None:
        self.centers -= self.settings.alpha * center_step(*self._seen, self.centers)


class IslandNetwork(CenterNetwork):
    """IL-CNN: L = L_S + λ (L_C + λ1 · push). The push moves the centers alone; features feel it through L_C."""

    def loss(self, outputs: Outputs, truth: Truth, batch: Batch) -> Terms:
        terms, settings = super().loss(outputs, truth, batch), self.settings
        assert isinstance(settings, IslandLoss)
        push = push_loss(self.centers, settings.pairs)
        return {**terms, "total": terms["total"] + settings.weight * settings.push * push, "push": push}

    def after(self, batch: Batch) -> None:
        assert isinstance(self.settings, IslandLoss)
        pushed = self._push()
        super().after(batch)
        self.centers -= self.settings.alpha * self.settings.push * pushed

    def _push(self) -> Tensor:
        """The step of λ1 = 1."""
        assert isinstance(self.settings, IslandLoss)
        if self.settings.step == "paper":
            return push_step(self.centers)
        with torch.enable_grad():
            centers = self.centers.clone().requires_grad_()
            return torch.autograd.grad(push_loss(centers, self.settings.pairs), centers)[0]
