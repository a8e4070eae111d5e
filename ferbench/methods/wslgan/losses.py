"""The total loss (Eq. 10); its contrastive terms (Eq. 3 and 4) are those of Hadsell et al. 2006."""

import torch
from torch import Tensor, nn

from ferbench.methods.wslgan.recipe import LossWeights
from ferbench.training.losses import contrastive_loss


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
