"""Losses of features that several families have: center loss, what island loss adds to it, locality preserving loss.
Each is tested against its formula in float64."""

from __future__ import annotations

import torch
from torch import Tensor, nn

_EPSILON = 1e-12  # added to the length of a center, so that a cosine with a center at zero is 0


def center_loss(features: Tensor, labels: Tensor, centers: Tensor) -> Tensor:
    """L_C = 1/(2n) Σ_i ‖x_i − c_{y_i}‖² (Wen et al. 2016, Eq. 2, which takes the sum over a batch; here the mean).

    features : [n,d]. labels : int64 [n]. centers : [K,d], constants.
    """
    return (features - centers.detach()[labels]).square().sum(dim=1).mean() / 2


def center_step(features: Tensor, labels: Tensor, centers: Tensor) -> Tensor:
    """Δc_j = Σ_i δ(y_i=j)(c_j − x_i) / (1 + Σ_i δ(y_i=j)), [K,d] (Wen et al. 2016, Eq. 4); 0 for an absent class."""
    # A product of matrices adds up in the same order on every run, which scattered additions on GPUs do not.
    members = nn.functional.one_hot(labels, len(centers)).to(features.dtype)
    count = members.sum(dim=0).unsqueeze(1)
    return (count * centers - members.T @ features) / (1 + count)


def push_loss(centers: Tensor, pairs: str) -> Tensor:
    """Σ_j Σ_{k≠j} (cos(c_j, c_k) + 1) over ordered pairs of centers [K,d], the second term of island loss (Cai et al.
    2018). ``pairs``: "unordered" halves the sum, "mean" divides it by K(K − 1)."""
    count = len(centers)
    unit = nn.functional.normalize(centers, dim=1, eps=_EPSILON)
    other = 1 - torch.eye(count, dtype=centers.dtype, device=centers.device)
    total = ((unit @ unit.T + 1) * other).sum()
    return total * {"ordered": 1.0, "unordered": 0.5, "mean": 1 / (count * (count - 1))}[pairs]


def push_step(centers: Tensor) -> Tensor:
    """1/(K−1) Σ_{k≠j} [c_k/(‖c_k‖‖c_j‖) − (c_k·c_j) c_j/(‖c_k‖‖c_j‖³)], [K,d]: what island loss adds to the step of
    the centers for λ1 = 1, by our interpretation; it is 1/(2(K−1)) of the gradient of :func:`push_loss`."""
    length = centers.norm(dim=1, keepdim=True).clamp_min(_EPSILON)
    unit = centers / length
    others = unit.sum(dim=0) - unit  # Σ_{k≠j} c_k/‖c_k‖
    along = (others * unit).sum(dim=1, keepdim=True)
    return (others - along * unit) / length / (len(centers) - 1)


def locality_loss(features: Tensor, labels: Tensor, neighbours: int) -> Tensor:
    """L_LP = 1/(2n) Σ_i ‖x_i − 1/k_i Σ_{x ∈ N(x_i)} x‖², N(x_i) being the k_i = min(k, n_class − 1) nearest features of
    the same class in the batch (Li, Deng, Du 2017). An image without such neighbours adds nothing. The mean over the
    batch and constant neighbours are our interpretation.

    features : [n,d]. labels : int64 [n].
    """
    constant = features.detach()
    same_class = (labels[:, None] == labels[None]) & ~torch.eye(len(labels), dtype=torch.bool, device=labels.device)
    distances = torch.cdist(constant, constant).masked_fill(~same_class, torch.inf)
    rank = distances.argsort(dim=1, stable=True).argsort(dim=1)
    near = (same_class & (rank < neighbours)).to(features.dtype)
    count = near.sum(dim=1, keepdim=True)
    mean = near @ constant / count.clamp_min(1)
    return ((features - mean) * (count > 0)).square().sum(dim=1).mean() / 2
