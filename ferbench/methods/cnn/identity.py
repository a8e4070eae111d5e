"""IACNN: an expression branch and an identity branch on one trunk, trained with pairs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ferbench.methods.cnn.network import Network, Outputs, Truth, people_of
from ferbench.methods.cnn.recipe import IdentityLoss, Loss, Shape
from ferbench.methods.cnn.samplers import pair_epoch
from ferbench.methods.interface import TrainingSet
from ferbench.training.loop import Terms
from ferbench.training.plan import Batch, Step
from ferbench.training.schedule import Stage

_EPSILON = 1e-12  # of a squared distance, whose root has no gradient at 0


def contrastive_loss(first: Tensor, second: Tensor, alike: Tensor, margin: float) -> Tensor:
    """ℓ = z D² + (1 − z) max(0, m − D)², D = ‖f_a/‖f_a‖ − f_b/‖f_b‖‖₂, mean over the pairs (Hadsell, Chopra, LeCun
    2006, Eq. 4, twice as large; unit vectors are our reading).

    first, second : [P,d]. alike : bool [P], z.
    """
    apart = nn.functional.normalize(first, dim=1) - nn.functional.normalize(second, dim=1)
    squared = apart.square().sum(dim=1)
    hinge = (margin - squared.clamp_min(_EPSILON).sqrt()).clamp_min(0).square()
    return torch.where(alike, squared, hinge).mean()


class IdentityNetwork(Network):
    """IACNN: L = λ1 L_softmax(a) + λ2 L_softmax(b) + λ3 ℓ_expression + λ4 ℓ_identity + λ5 L_softmax(both branches).

    ``embedding`` and ``classifier`` are the expression branch; the classifier of both branches' features decides,
    on one image alone.
    """

    def __init__(self, shape: Shape, loss: Loss | None, classes: int):
        super().__init__(shape, loss, classes)
        assert isinstance(loss, IdentityLoss)
        self.settings = loss
        self.identity = self.trunk.embedding()
        self.joint = nn.Linear(2 * self.trunk.feature, classes)

    def outputs(self, x: Tensor) -> Outputs:
        vectors = self.trunk(self.normalise(x))
        expression, identity = self.embedding(vectors), self.identity(vectors)
        return {
            "features": expression,
            "identity": identity,
            "expression": self.classifier(expression),
            "logits": self.joint(torch.cat([expression, identity], dim=1)),
        }

    def loss(self, outputs: Outputs, truth: Truth, batch: Batch) -> Terms:
        labels, people = truth.labels[batch.images], truth.people[batch.images]
        first, second, settings = batch.first, batch.second, self.settings

        def compared(features: Tensor, of: Tensor) -> Tensor:
            return contrastive_loss(features[first], features[second], of[first] == of[second], settings.margin)

        cross_entropy, own = nn.functional.cross_entropy, outputs["expression"]
        terms = {
            "softmax": cross_entropy(own[first], labels[first]) + cross_entropy(own[second], labels[second]),
            "expression": compared(outputs["features"], labels),
            "identity": compared(outputs["identity"], people),
            "joint": cross_entropy(outputs["logits"], labels),
        }
        total = sum((getattr(settings, name) * term for name, term in terms.items()), torch.zeros_like(terms["joint"]))
        return {"total": total, **terms}

    def plan(self, train: TrainingSet, stage: Stage, seed: int) -> Callable[[int], list[Step]]:
        people = people_of(train)
        return lambda epoch: pair_epoch(train.labels, people, stage.augment, stage.batch, seed, epoch)

    def facts(self, train: TrainingSet, plan: Callable[[int], list[Step]]) -> dict[str, Any]:
        """How the pairs of the first epoch divide, where not all images have partners of every kind."""
        found, people = Counter[str](), people_of(train)
        for step in plan(0):
            first, second = step.images[step.first], step.images[step.second]
            expression = train.labels[first] == train.labels[second]
            person = people[first] == people[second]
            for one, other in zip(expression, person, strict=True):
                found[f"{'same' if one else 'other'} expression, {'same' if other else 'other'} person"] += 1
        return {"pairs": dict(sorted(found.items()))}
