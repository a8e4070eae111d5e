"""The losses of this family as functions, each tested against its formula in float64."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

_EPSILON = 1e-12  # smallest divisor, for batches in which all values are equal


def mixed_cross_entropy(logits: Tensor, labels: Tensor, second: Tensor, share: Tensor, smoothing: float) -> Tensor:
    """1/B Σ_i [λ_i CE(z_i, y_i) + (1 − λ_i) CE(z_i, y_second(i))]: cross-entropy of images that are mixed with others
    (mixup: Zhang, Cisse, Dauphin, Lopez-Paz 2018), each with label smoothing (Szegedy et al. 2016, section 7).

    logits : [B,K]. labels : int64 [B]. second : int64 [B], rows that are mixed in. share : λ, [B].
    """
    own = nn.functional.cross_entropy(logits, labels, reduction="none", label_smoothing=smoothing)
    other = nn.functional.cross_entropy(logits, labels[second], reduction="none", label_smoothing=smoothing)
    return (share * own + (1 - share) * other).mean()


def rank_regularisation(weights: Tensor, ratio: float, margin: float) -> Tensor:
    """max(0, δ1 − (α_H − α_L)), where α_H is the mean of the ⌊ratio · B⌋ largest of B importance weights, at least one,
    and α_L that of the rest (SCN: Wang et al. 2020, Eq. 3 and 4).

    weights : [B]. Returns 0 for a batch of one image.
    """
    high = max(1, int(len(weights) * ratio))
    ordered = weights.sort(descending=True).values
    if high == len(ordered):
        return weights.new_zeros(())
    return (margin - (ordered[:high].mean() - ordered[high:].mean())).clamp_min(0)


def relabelled(logits: Tensor, labels: Tensor, margin: float) -> Tensor:
    """The most probable class where its probability exceeds that of the label by more than δ2, else the label (SCN:
    Wang et al. 2020, Eq. 5).

    logits : [B,K]. labels : int64 [B]. Returns int64 [B].
    """
    probabilities = logits.softmax(dim=1)
    most, predicted = probabilities.max(dim=1)
    given = probabilities.gather(1, labels[:, None]).squeeze(1)
    return torch.where(most - given > margin, predicted, labels)


def mixed_by_uncertainty(features: Tensor, uncertainty: Tensor, second: Tensor) -> Tensor:
    """(u_i μ_i + u_j μ_j) / (u_i + u_j), j = second(i): of two images the more uncertain one has the larger share, so
    that a model that finds both in the mixture has to find out which one is uncertain (RUL: Zhang, Wang, Deng 2021).

    features : μ, [B,F]. uncertainty : u > 0, [B]. second : int64 [B]. Returns [B,F].
    """
    share = (uncertainty / (uncertainty + uncertainty[second]))[:, None]
    return share * features + (1 - share) * features[second]


def add_up_loss(logits: Tensor, labels: Tensor, second: Tensor) -> Tensor:
    """½ CE(z, y) + ½ CE(z, y_second), the means over a batch of mixtures (RUL: Zhang, Wang, Deng 2021).

    logits : [B,K]. labels, second : int64 [B].
    """
    cross_entropy = nn.functional.cross_entropy
    return (cross_entropy(logits, labels) + cross_entropy(logits, labels[second])) / 2


def class_maps(maps: Tensor, weights: Tensor) -> Tensor:
    """M_k(y,x) = Σ_c w_kc F_c(y,x), the class activation maps (Zhou et al. 2016); w are constants.

    maps : F, [B,C,H,W]. weights : w, [K,C]. Returns [B,K,H,W].
    """
    return torch.einsum("bchw,kc->bkhw", maps, weights.detach())


def consistency_loss(maps: Tensor, mirrored: Tensor) -> Tensor:
    """The mean of (M(I) − flip(M(flip(I))))² over images, classes and cells (EAC: Zhang, Wang, Ling, Deng 2022).

    maps : M(I), [B,K,H,W]. mirrored : M(flip(I)), of the mirror images.
    """
    return (maps - mirrored.flip(3)).square().mean()


def affinity_loss(features: Tensor, labels: Tensor, centers: Tensor) -> Tensor:
    """1/B Σ_i ‖x_i − c_{y_i}‖² / Σ_d var_j(c_jd), with the unbiased variance over classes; the centers learn by its
    gradient (DAN: Wen, Lin, Wang, Xu 2021, as its authors' code computes it).

    features : [B,d]. labels : int64 [B]. centers : [K,d].
    """
    squared = (features - centers[labels]).square().sum(dim=1).mean()
    return squared / centers.var(dim=0).sum().clamp_min(_EPSILON)


def partition_loss(heads: Tensor) -> Tensor:
    """log(1 + H / σ²), σ² being the mean over images and channels of the unbiased variance over H heads (DAN: Wen, Lin,
    Wang, Xu 2021, as its authors' code computes it).

    heads : [B,H,d].
    """
    variance = heads.var(dim=1).mean().clamp_min(_EPSILON)
    return torch.log(1 + heads.shape[1] / variance)


def fused_distribution(auxiliary: Tensor, classes: Tensor, weights: Tensor, low: float, high: float) -> Tensor:
    """(1 − w) softmax(z) + w d, with the attention weights w of a batch scaled to the range from ``low`` to ``high``
    (Ada-DF: Liu, Xu, Wan, Kui 2023, adaptive distribution fusion).

    auxiliary : z, logits of the auxiliary branch [B,K]. classes : d, the distribution of each image's class [B,K].
    weights : [B]. Returns [B,K].
    """
    span = (weights.max() - weights.min()).clamp_min(_EPSILON)
    share = ((weights - weights.min()) / span * (high - low) + low)[:, None]
    return (1 - share) * auxiliary.softmax(dim=1) + share * classes


def divergence(logits: Tensor, target: Tensor) -> Tensor:
    """1/B Σ_i KL(t_i ‖ softmax(z_i)).

    logits : z, [B,K]. target : t, [B,K], distributions.
    """
    return nn.functional.kl_div(logits.log_softmax(dim=1), target, reduction="batchmean")


def branch_weights(epoch: int, turn: int) -> tuple[float, float]:
    """The weights α1 of the divergence and α2 of the cross-entropy in an epoch e from 1: exp(−(1 − e/β)²) and 1 until
    epoch β, then 1 and exp(−(1 − β/e)²) (Ada-DF: Liu, Xu, Wan, Kui 2023, dynamic weights)."""
    if epoch <= turn:
        return math.exp(-((1 - epoch / turn) ** 2)), 1.0
    return 1.0, math.exp(-((1 - turn / epoch) ** 2))


def first_distributions(classes: int, threshold: float) -> Tensor:
    """``threshold`` for the class itself and equal parts of the rest for the others, [K,K] (Ada-DF)."""
    rest = (1 - threshold) / max(1, classes - 1)
    return torch.full((classes, classes), rest) + torch.eye(classes) * (threshold - rest)
