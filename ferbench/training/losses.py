"""Terms of a loss that families share."""

import torch
from torch import Tensor

_FEW = 1e-12  # under the root of a distance, whose gradient at 0 would be none


def contrastive(features: Tensor, labels: Tensor, first: Tensor, second: Tensor, margin: float) -> Tensor:
    """½ D² for pairs of one class, ½ max(0, m − D)² for others, their mean; D is the Euclidean distance (Hadsell et al.
    2006, "Dimensionality reduction by learning an invariant mapping", Eq. 4).

    features : [B,F] of a batch. labels : [B]. first, second : [P], places in it of both members of each pair.
    """
    distance = ((features[first] - features[second]).square().sum(dim=1) + _FEW).sqrt()
    same = labels[first] == labels[second]
    return torch.where(same, distance.square(), (margin - distance).clamp_min(0).square()).mean() / 2
