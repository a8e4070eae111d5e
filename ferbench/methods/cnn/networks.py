"""The networks of this family: a trunk, a feature and a classifier, with a subclass for each loss."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ferbench.methods.cnn.losses import identity_loss, tuplet_loss
from ferbench.methods.cnn.recipe import (
    CenterLoss,
    CnnStage,
    IdentityLoss,
    IslandLoss,
    LocalityLoss,
    Loss,
    Shape,
    TupletLoss,
)
from ferbench.methods.cnn.samplers import grouped_epoch, pair_epoch, tuplet_epoch
from ferbench.methods.cnn.trunks import trunk
from ferbench.methods.interface import TrainingSet, Workspace
from ferbench.training.feature_losses import center_loss, center_step, locality_loss, push_loss, push_step
from ferbench.training.loop import Terms
from ferbench.training.networks import Normalise
from ferbench.training.plan import Batch, EpochPlan, single_epoch
from ferbench.training.samples import Samples
from ferbench.training.schedule import Stage

Outputs = dict[str, Tensor]  # float32 [B,…] by name: "features", "logits", and further inputs of the loss


@dataclass(frozen=True)
class TrainingLabels:
    """Classes and numbers of the people of the training images, int64 [N] each, on the device."""

    classes: Tensor
    people: Tensor

    @classmethod
    def of(cls, train: TrainingSet, device: str) -> TrainingLabels:
        return cls(torch.tensor(train.labels).to(device), torch.tensor(people_of(train)).to(device))


def people_of(train: TrainingSet) -> np.ndarray:
    """The number of each image's person, int64 [N]; each image without a subject counts as another person."""
    names, people = np.unique(train.subjects, return_inverse=True)
    unnamed = np.flatnonzero(train.subjects == "")
    people[unnamed] = len(names) + np.arange(len(unnamed))
    return people.astype(np.int64)


class CnnNetwork(nn.Module):
    """Trunk, feature and classifier, trained by softmax. Subclasses implement other losses.

    A subclass adds layers after those of this class, so that all networks of one seed start from the same weights.
    State without gradients lies in buffers, which are stored in the checkpoint and in the run.

    loss : the recipe's table; None in a pre-training.
    """

    equal_steps = True  # whether all steps have the same number of rows, which captured CUDA graphs need

    def __init__(self, shape: Shape, loss: Loss | None, classes: int):
        super().__init__()
        self.normalise = Normalise()
        self.trunk = trunk(shape)
        self.embedding = self.trunk.embedding()
        self.classifier = nn.Linear(self.trunk.feature, classes)

    def outputs(self, x: Tensor) -> Outputs:
        """Images float [B,1,48,48] in [0,1] → what :meth:`loss` needs."""
        features = self.embedding(self.trunk(self.normalise(x)))
        return {"features": features, "logits": self.classifier(features)}

    def forward(self, x: Tensor) -> Tensor:
        """Images float [B,1,48,48] in [0,1] → logits [B,K]."""
        return self.outputs(x)["logits"]

    def before_training(self, train: TrainingSet, samples: Samples, stage: CnnStage, work: Workspace) -> None:
        """Called before the training, on the device, with the initial weights."""

    def loss(self, outputs: Outputs, labels: TrainingLabels, batch: Batch) -> Terms:
        """The losses of a step by name, "total" among them: means over the batch."""
        return {"total": nn.functional.cross_entropy(outputs["logits"], labels.classes[batch.images])}

    def after_step(self, batch: Batch) -> None:
        """Update buffers in place after the optimizer's step on ``batch``."""

    def plan(self, train: TrainingSet, stage: Stage, seed: int) -> EpochPlan:
        """The steps of each epoch, with approximately the number of rows that ``stage.augment`` implies."""
        return lambda epoch: single_epoch(len(train), stage.augment, stage.batch, seed, epoch)

    def facts(self, train: TrainingSet, plan: EpochPlan) -> dict[str, Any]:
        """Facts for the record of a run."""
        return {}


class CenterNetwork(CnnNetwork):
    """Softmax and center loss: L = L_S + λ L_C (Wen, Zhang, Li, Qiao 2016, Eq. 5), c_j ← c_j − α Δc_j after each step.

    centers : float32 [K,d], a buffer.
    """

    centers: Tensor
    _last: tuple[Tensor, Tensor]  # features and classes of the current step

    def __init__(self, shape: Shape, loss: Loss | None, classes: int):
        super().__init__(shape, loss, classes)
        assert isinstance(loss, CenterLoss | IslandLoss)
        self.settings: CenterLoss | IslandLoss = loss
        initial = torch.zeros if loss.start == "zeros" else torch.randn
        self.register_buffer("centers", initial(classes, self.trunk.feature))

    def loss(self, outputs: Outputs, labels: TrainingLabels, batch: Batch) -> Terms:
        softmax = super().loss(outputs, labels, batch)["total"]
        classes = labels.classes[batch.images]
        self._last = outputs["features"].detach(), classes
        term = center_loss(outputs["features"], classes, self.centers)
        return {"total": softmax + self.settings.weight * term, "softmax": softmax, "center": term}

    def after_step(self, batch: Batch) -> None:
        self.centers -= self.settings.alpha * center_step(*self._last, self.centers)


class IslandNetwork(CenterNetwork):
    """IL-CNN (Cai et al. 2018): L = L_S + λ (L_C + λ1 · push). The push moves the centers, and thereby changes L_C, but
    has no gradient for the features."""

    settings: IslandLoss

    def loss(self, outputs: Outputs, labels: TrainingLabels, batch: Batch) -> Terms:
        terms, settings = super().loss(outputs, labels, batch), self.settings
        push = push_loss(self.centers, settings.pairs)
        return {**terms, "total": terms["total"] + settings.weight * settings.push * push, "push": push}

    def after_step(self, batch: Batch) -> None:
        push = self._push_step()
        super().after_step(batch)
        self.centers -= self.settings.alpha * self.settings.push * push

    def _push_step(self) -> Tensor:
        """The step of the push for λ1 = 1, from the centers before the step of center loss."""
        if self.settings.step == "paper":
            return push_step(self.centers)
        with torch.enable_grad():
            centers = self.centers.clone().requires_grad_()
            return torch.autograd.grad(push_loss(centers, self.settings.pairs), centers)[0]


class LocalityNetwork(CnnNetwork):
    """DLP-CNN (Li, Deng, Du 2017): L = L_S + λ L_LP."""

    def __init__(self, shape: Shape, loss: Loss | None, classes: int):
        super().__init__(shape, loss, classes)
        assert isinstance(loss, LocalityLoss)
        self.settings = loss

    def loss(self, outputs: Outputs, labels: TrainingLabels, batch: Batch) -> Terms:
        softmax = super().loss(outputs, labels, batch)["total"]
        term = locality_loss(outputs["features"], labels.classes[batch.images], self.settings.neighbours)
        return {"total": softmax + self.settings.weight * term, "softmax": softmax, "locality": term}

    def plan(self, train: TrainingSet, stage: Stage, seed: int) -> EpochPlan:
        if self.settings.batches == "shuffled":
            return super().plan(train, stage, seed)
        members = self.settings.neighbours + 1
        return lambda epoch: grouped_epoch(train.labels, stage.augment, stage.batch, members, seed, epoch)

    def facts(self, train: TrainingSet, plan: EpochPlan) -> dict[str, Any]:
        """The mean number of neighbours in the first epoch, which the composition of the batches limits."""
        neighbours = []
        for step in plan(0):
            labels = train.labels[step.images]
            neighbours.append(np.minimum(np.bincount(labels)[labels] - 1, self.settings.neighbours))
        return {"neighbours": round(float(np.concatenate(neighbours).mean()), 2)}


class IdentityNetwork(CnnNetwork):
    """IACNN (Meng et al. 2017): an expression branch and an identity branch on one trunk, trained with pairs of images,
    L = λ1 L_softmax(a) + λ2 L_softmax(b) + λ3 ℓ_expression + λ4 ℓ_identity + λ5 L_softmax(both branches).

    ``embedding`` and ``classifier`` are the expression branch. A test image is classified by ``joint``, from the
    features of both branches.
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

    def loss(self, outputs: Outputs, labels: TrainingLabels, batch: Batch) -> Terms:
        classes, people = labels.classes[batch.images], labels.people[batch.images]
        first, second, settings = batch.first, batch.second, self.settings

        def pair_loss(features: Tensor, names: Tensor) -> Tensor:
            return identity_loss(features[first], features[second], names[first] == names[second], settings.margin)

        cross_entropy, logits = nn.functional.cross_entropy, outputs["expression"]
        terms = {
            "softmax": cross_entropy(logits[first], classes[first]) + cross_entropy(logits[second], classes[second]),
            "expression": pair_loss(outputs["features"], classes),
            "identity": pair_loss(outputs["identity"], people),
            "joint": cross_entropy(outputs["logits"], classes),
        }
        total = sum((getattr(settings, name) * term for name, term in terms.items()), torch.zeros_like(terms["joint"]))
        return {"total": total, **terms}

    def plan(self, train: TrainingSet, stage: Stage, seed: int) -> EpochPlan:
        people = people_of(train)
        return lambda epoch: pair_epoch(train.labels, people, stage.augment, stage.batch, seed, epoch)

    def facts(self, train: TrainingSet, plan: EpochPlan) -> dict[str, Any]:
        """Number of pairs of each kind in the first epoch; not every image can form a pair of each kind."""
        counts, people = Counter[str](), people_of(train)
        for step in plan(0):
            first, second = step.images[step.first], step.images[step.second]
            same_expression = train.labels[first] == train.labels[second]
            same_person = people[first] == people[second]
            for expression, person in zip(same_expression, same_person, strict=True):
                names = ["same" if same else "other" for same in (expression, person)]
                counts[f"{names[0]} expression, {names[1]} person"] += 1
        return {"pairs": dict(sorted(counts.items()))}


class TupletNetwork(CnnNetwork):
    """2B(N+M)Softmax (Liu et al. 2017): L = L_S + weight · L_(N+M), with a softmax branch, which classifies test
    images, and a metric branch.

    threshold : T, a parameter that learns at ``rate`` times the learning rate. Weight decay acts on it too; with the
        recipes' values it is 200 times weaker than a batch in which all tuplets change T in the same direction.
    """

    equal_steps = False  # the number of expressions differs between people

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

    def loss(self, outputs: Outputs, labels: TrainingLabels, batch: Batch) -> Terms:
        softmax = super().loss(outputs, labels, batch)["total"]
        vectors, settings = nn.functional.normalize(outputs["metric"], dim=1), self.settings
        slowed = settings.rate * self.threshold + (1 - settings.rate) * self.threshold.detach()
        term = tuplet_loss(vectors, labels.classes[batch.images], batch.second, slowed, settings.gap)
        return {"total": softmax + settings.weight * term, "softmax": softmax, "tuplet": term}

    def plan(self, train: TrainingSet, stage: Stage, seed: int) -> EpochPlan:
        people, positives = people_of(train), self.settings.positives
        return lambda epoch: tuplet_epoch(train.labels, people, positives, stage.augment, stage.batch, seed, epoch)

    def facts(self, train: TrainingSet, plan: EpochPlan) -> dict[str, Any]:
        """Number of images without negatives, because their person shows no other expression."""
        people = people_of(train).tolist()
        expressions = Counter(person for person, _ in set(zip(people, train.labels.tolist(), strict=True)))
        return {"without_negatives": sum(expressions[person] == 1 for person in people)}
