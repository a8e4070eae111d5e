"""Loss terms that several families of methods share."""

import torch
from torch import Tensor

_EPSILON = 1e-12  # added under the root of a squared distance, because the root has no gradient at 0


def contrastive_loss(
    first: Tensor, second: Tensor, same: Tensor, margin: float, epsilon_for_same: bool = False
) -> Tensor:
    """Mean over pairs of ½ D² for two samples of one class and ½ max(0, margin − D)² for two of different classes.

    D is the Euclidean distance (Hadsell, Chopra, LeCun 2006, "Dimensionality reduction by learning an invariant
    mapping", Eq. 4), computed in float32 or, for float64 features, in float64.

    first, second : features [P,F] of both members of each pair. same : [P], whether their classes are equal.
    epsilon_for_same : add the epsilon under the root to the D² of equal classes as well. The value hardly differs;
        methods that were trained this way keep it, so that a repeated training gives the same bytes.
    """
    difference = first - second
    squared = (difference if difference.dtype == torch.float64 else difference.float()).square().sum(dim=1)
    distance = (squared + _EPSILON).sqrt()
    attraction = distance.square() if epsilon_for_same else squared
    return torch.where(same.bool(), attraction, (margin - distance).clamp_min(0).square()).mean() / 2


def contrastive_loss_of_batch(features: Tensor, labels: Tensor, first: Tensor, second: Tensor, margin: float) -> Tensor:
    """:func:`contrastive_loss` of pairs of rows of a batch. features : [B,F]. labels : [B]. first, second : [P]."""
    same = labels[first] == labels[second]
    return contrastive_loss(features[first], features[second], same, margin, epsilon_for_same=True)
