"""2B(N+M)Softmax: a metric branch trained with (N+M) tuplets beside a softmax branch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ferbench.methods.cnn.network import Network, Outputs, Truth, people_of
from ferbench.methods.cnn.recipe import Loss, Shape, TupletLoss
from ferbench.methods.cnn.samplers import tuplet_epoch
from ferbench.methods.interface import TrainingSet
from ferbench.training.loop import Terms
from ferbench.training.plan import Batch, Step
from ferbench.training.schedule import Stage


def tuplet_loss(features: Tensor, labels: Tensor, queries: Tensor, threshold: Tensor, gap: float) -> Tensor:
    """L = 1/N* Σ max(0, D(f_i⁺, c⁺) − T + τ/2) + 1/M* Σ max(0, T + τ/2 − D(f_j⁻, c⁺)), the mean over tuplets.

    D is the squared Euclidean distance, c⁺ the mean of a tuplet's positives, N* and M* count what is not 0 (Liu,
    Vijaya Kumar, You, Jia 2017, by our reading; the query is one of the positives).

    features : [n,d]. labels : int64 [n]. queries : int64 [n], the row of each one's query; rows of the query's class
    are positives, others negatives. threshold : T, a scalar that may learn. gap : τ.
    """
    positive = labels == labels[queries]
    tuplet = (queries[:, None] == torch.arange(len(queries), device=queries.device)).to(features.dtype)  # [n, query]
    of_positives = tuplet * positive[:, None]
    means = of_positives.T @ features / of_positives.sum(dim=0).clamp_min(1)[:, None]
    distances = (features - means[queries]).square().sum(dim=1)
    terms = torch.where(positive, distances - threshold + gap / 2, threshold + gap / 2 - distances).clamp_min(0)
    heard = (terms.detach() > 0).to(features.dtype)
    total = features.new_zeros(())
    for part in (of_positives, tuplet - of_positives):
        total = total + ((part.T @ terms) / (part.T @ heard).clamp_min(1)).sum()
    return total / (queries == torch.arange(len(queries), device=queries.device)).sum()


class TupletNetwork(Network):
    """2B(N+M)Softmax: L = L_S + weight · L_(N+M), on two branches of fully connected layers; that of softmax decides.

    threshold : T, learned along with the weights at ``rate`` of their learning rate. Weight decay draws at it too, at
    the recipes' values 200 times less than a batch of tuplets that all pull one way.
    """

    level = False  # people have more and fewer expressions

    def __init__(self, shape: Shape, loss: Loss | None, classes: int):
        super().__init__(shape, loss, classes)
        assert isinstance(loss, TupletLoss)
        self.settings = loss
        self.metric = nn.Sequential(self.trunk.embedding(), nn.Linear(self.trunk.feature, loss.metric))
        self.threshold = nn.Parameter(torch.tensor(loss.threshold))

    def outputs(self, x: Tensor) -> Outputs:
        vectors = self.trunk(self.normalise(x))
        features = self.embedding(vectors)
        return {"features": features, "logits": self.classifier(features), "metric": self.metric(vectors)}

    def loss(self, outputs: Outputs, truth: Truth, batch: Batch) -> Terms:
        softmax = super().loss(outputs, truth, batch)["total"]
        vectors, settings = nn.functional.normalize(outputs["metric"], dim=1), self.settings
        slow = settings.rate * self.threshold + (1 - settings.rate) * self.threshold.detach()
        term = tuplet_loss(vectors, truth.labels[batch.images], batch.second, slow, settings.gap)
        return {"total": softmax + settings.weight * term, "softmax": softmax, "tuplet": term}

    def plan(self, train: TrainingSet, stage: Stage, seed: int) -> Callable[[int], list[Step]]:
        people, positives = people_of(train), self.settings.positives
        return lambda epoch: tuplet_epoch(train.labels, people, positives, stage.augment, stage.batch, seed, epoch)

    def facts(self, train: TrainingSet, plan: Callable[[int], list[Step]]) -> dict[str, Any]:
        """How many images no tuplet finds negatives for, since their person shows no other expression."""
        people = people_of(train).tolist()
        kinds = Counter(person for person, _ in set(zip(people, train.labels.tolist(), strict=True)))
        return {"without_negatives": sum(kinds[person] == 1 for person in people)}
