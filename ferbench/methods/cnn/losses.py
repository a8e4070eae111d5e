"""The losses of this family as functions, each tested against its formula in float64."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ferbench.training.networks import contrastive_loss

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
