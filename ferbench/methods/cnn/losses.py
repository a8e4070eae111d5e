"""The losses of this family as functions, each tested against its formula in float64."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ferbench.training.networks import contrastive_loss


def identity_loss(first: Tensor, second: Tensor, same: Tensor, margin: float) -> Tensor:
    """IACNN: ℓ = z D² + (1 − z) max(0, m − D)², D = ‖f_a/‖f_a‖ − f_b/‖f_b‖‖₂, the mean over pairs (Meng et al. 2017:
    twice the loss of Hadsell et al. 2006; unit vectors are our interpretation).

    first, second : [P,d]. same : bool [P], z.
    """
    unit = nn.functional.normalize
    return 2 * contrastive_loss(unit(first, dim=1), unit(second, dim=1), same, margin)


def tuplet_loss(features: Tensor, labels: Tensor, queries: Tensor, threshold: Tensor, gap: float) -> Tensor:
    """L = 1/N* Σ max(0, D(f_i⁺, c⁺) − T + τ/2) + 1/M* Σ max(0, T + τ/2 − D(f_j⁻, c⁺)), the mean over tuplets.

    D is the squared Euclidean distance, c⁺ the mean of a tuplet's positives; N* and M* count the terms that are not 0
    (Liu, Vijaya Kumar, You, Jia 2017, by our interpretation; the query is one of the positives).

    features : [n,d]. labels : int64 [n]. queries : int64 [n], the row of each row's query; rows of the query's class
    are positives, others negatives. threshold : T, a scalar. gap : τ.
    """
    positive = labels == labels[queries]
    rows = torch.arange(len(queries), device=queries.device)
    tuplet = (queries[:, None] == rows).to(features.dtype)  # [n, query]
    of_positives = tuplet * positive[:, None]
    means = of_positives.T @ features / of_positives.sum(dim=0).clamp_min(1)[:, None]
    distances = (features - means[queries]).square().sum(dim=1)
    terms = torch.where(positive, distances - threshold + gap / 2, threshold + gap / 2 - distances).clamp_min(0)
    active = (terms.detach() > 0).to(features.dtype)
    total = features.new_zeros(())
    for members in (of_positives, tuplet - of_positives):
        total = total + ((members.T @ terms) / (members.T @ active).clamp_min(1)).sum()
    return total / (queries == rows).sum()


def regression_loss(maps: Tensor, target: Tensor) -> Tensor:
    """‖g(I) − G(I)‖², the mean over images, channels and cells (Ding, Zhou, Chellappa 2017, by our interpretation).

    maps : [B,C,H,W] of the network that learns, with as many channels as the teacher. target : the maps of the teacher,
    constants.
    """
    return (maps - target.detach()).square().mean()


def attribute_loss(logits: Tensor, values: Tensor) -> Tensor:
    """Cross-entropy of one of C people [N], or the mean binary cross-entropy of C attributes [N,C] of 0 and 1."""
    if values.ndim == 1:
        return nn.functional.cross_entropy(logits, values)
    return nn.functional.binary_cross_entropy_with_logits(logits, values)


def leaf_log_probabilities(root: Tensor, inner: Tensor) -> Tensor:
    """log P(leaf|x) = Σ log p(a|x) along the path to the leaf of a tree of attributes.

    root : log p(gender|x) [B,2]. inner : log p(cluster|gender,x) [B,2,2]. Returns [B,4], leaf 2 · gender + cluster.
    """
    return (root[:, :, None] + inner).flatten(1)


def class_log_probabilities(leaves: Tensor, logits: Tensor) -> Tensor:
    """log p(y|x) = log Σ_leaf P(leaf|x) softmax(logits of the leaf)_y.

    leaves : log P(leaf|x) [B,L]. logits : [B,L,K]. Returns [B,K].
    """
    return torch.logsumexp(leaves[:, :, None] + logits.log_softmax(dim=2), dim=1)


def tree_loss(leaves: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
    """Σ_leaf P(leaf|x) · CE_leaf, the mean over the batch, shapes as in :func:`class_log_probabilities`."""
    of_label = logits.log_softmax(dim=2).gather(2, labels[:, None, None].expand(-1, logits.shape[1], 1)).squeeze(2)
    return -(leaves.exp() * of_label).sum(dim=1).mean()


def soft_center_loss(features: Tensor, shares: Tensor, centers: Tensor) -> Tensor:
    """½ Σ_n Σ_a p(a|x) ‖f_n − c_{n,a}‖², the mean over the batch; p and c are constants (our interpretation of the PAT
    loss of Cai et al. 2018).

    features : [B,N,D], of N nodes. shares : [B,N,A], p(a|x) at each node. centers : [N,A,D].
    """
    distances = (features[:, :, None] - centers.detach()).square().sum(dim=3)
    return (shares.detach() * distances).sum(dim=(1, 2)).mean() / 2


def soft_center_step(features: Tensor, shares: Tensor, centers: Tensor) -> Tensor:
    """Δc_{n,a} = Σ_i p(a|x_i)(c_{n,a} − f_{n,i}) / (1 + Σ_i p(a|x_i)): the step of center loss (Wen et al. 2016, Eq. 4)
    for memberships between 0 and 1. Shapes as in :func:`soft_center_loss`."""
    count = shares.sum(dim=0).unsqueeze(2)
    return (count * centers - torch.einsum("bna,bnd->nad", shares, features)) / (1 + count)
