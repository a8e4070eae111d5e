"""The contrastive losses (Eq. 3 and 4) and the total loss (Eq. 10)."""

import torch
from torch import Tensor, nn

from ferbench.methods.wslgan.recipe import LossWeights

_ROOT = 1e-12  # keeps the gradient of a square root finite where two vectors are equal


def contrastive_loss(first: Tensor, second: Tensor, same: Tensor, margin: float) -> Tensor:
    """Mean contrastive loss over pairs, Eq. 3 (eyes, mouth) and Eq. 4 (global), after Hadsell et al. 2006.

    first, second : feature vectors [P,D]. same : [P], θ_ij = 1 where the labels agree.
    ½·d² for a pair of one class and ½·max(0, margin − d)² for another, d the Euclidean distance.
    Distances are taken in 32 bits or more, whatever the features are in.
    """
    difference = (first - second).float() if first.dtype != torch.float64 else first - second
    squared = difference.square().sum(dim=1)
    different = (margin - (squared + _ROOT).sqrt()).clamp_min(0).square()
    return 0.5 * torch.where(same.bool(), squared, different).mean()


def total_loss(
    logits: tuple[Tensor, Tensor],
    labels: tuple[Tensor, Tensor],
    embeddings: tuple[dict[str, Tensor], dict[str, Tensor]],
    weights: LossWeights,
    smoothing: float = 0.0,
    teacher: tuple[Tensor, Tensor] | None = None,
    distil: float = 0.0,
) -> dict[str, Tensor]:
    """Eq. 10 for a batch of pairs: L = λ1·L_C^e + λ2·L_C^m + λ3·L_C^g + λ4·L_S^1 + λ5·L_S^2.

    logits : of both streams, [P,K] each. labels : [P] each. embeddings : of both streams, from
    "eyes", "mouth", "global" (those that the method has) to [P,D]. smoothing : of the labels, 0 in the paper.
    teacher : class probabilities of other networks for both streams' images, [P,K] each, which the classifier is to
    give to the share ``distil`` (Hinton et al. 2015, section 2, at temperature 1), and the labels to the rest.
    Returns the scalar terms by name and their weighted sum as "total".
    """
    same = labels[0] == labels[1]
    terms = {}
    for stream, (logit, label) in enumerate(zip(logits, labels, strict=True)):
        term = nn.functional.cross_entropy(logit, label, label_smoothing=smoothing)
        if teacher is not None:
            term = (1 - distil) * term + distil * nn.functional.cross_entropy(logit, teacher[stream])
        terms[f"stream{stream + 1}"] = term
    factors = {
        "stream1": weights.classification,
        "stream2": weights.classification,
        "eyes": weights.contrastive * weights.eyes,
        "mouth": weights.contrastive * weights.mouth,
        "global": weights.contrastive * weights.whole,
    }
    for name, first in embeddings[0].items():
        terms[name] = contrastive_loss(first, embeddings[1][name], same, weights.margin)
    return {**terms, "total": torch.stack([factors[name] * term for name, term in terms.items()]).sum()}
