"""Networks whose losses need layers behind a network of timm: SCN, RUL, EAC, DAN and Ada-DF."""

from __future__ import annotations

import copy
from pathlib import Path

import torch
from torch import Tensor, nn

from ferbench.errors import UsageError
from ferbench.methods.backbone.batches import ViewBatch
from ferbench.methods.backbone.losses import (
    add_up_loss,
    affinity_loss,
    branch_weights,
    class_maps,
    consistency_loss,
    divergence,
    first_distributions,
    fused_distribution,
    mixed_by_uncertainty,
    partition_loss,
    rank_regularisation,
    relabelled,
)
from ferbench.methods.backbone.networks import BackboneNetwork, CenterNetwork, LocalityNetwork, Outputs
from ferbench.methods.backbone.recipe import AdaDfLoss, BackboneRecipe, DanLoss, EacLoss, RulLoss, ScnLoss
from ferbench.training.loop import Terms


class ScnNetwork(BackboneNetwork):
    """SCN (Wang et al. 2020): an importance weight of each image, sigmoid of a linear layer, multiplies its logits, in
    tests too. Images whose label a prediction outweighs are relabelled: ``memory.labels`` int64 [N]."""

    _last: tuple[Tensor, Tensor]  # logits and labels of the current step

    def __init__(self, recipe: BackboneRecipe, classes: int, weights: Path | None = None):
        super().__init__(recipe, classes, weights)
        self.importance = nn.Linear(self.width, 1)

    def outputs(self, x: Tensor) -> Outputs:
        features = self.features(x)
        weights = torch.sigmoid(self.importance(features))
        return {"weights": weights.squeeze(1), "logits": weights * self.classifier(features)}

    def forward(self, x: Tensor) -> Tensor:
        return self.outputs(x)["logits"]

    def remember(self, labels: Tensor) -> None:
        self.memory.register_buffer("labels", labels.clone())

    def loss(self, outputs: Outputs, labels: Tensor, batch: ViewBatch) -> Terms:
        settings, labels = self.recipe.loss, self.memory.labels[batch.images]
        assert isinstance(settings, ScnLoss)
        softmax = super().loss(outputs, labels, batch)["total"]
        rank = rank_regularisation(outputs["weights"], settings.ratio, settings.margin)
        self._last = outputs["logits"].detach(), labels
        return {"total": softmax + rank, "softmax": softmax, "rank": rank}

    def after_step(self, batch: ViewBatch) -> None:
        settings = self.recipe.loss
        assert isinstance(settings, ScnLoss)
        if batch.epoch + 1 >= settings.relabel_epoch:
            self.memory.labels[batch.images] = relabelled(*self._last, settings.relabel_margin)


class RulNetwork(BackboneNetwork):
    """RUL (Zhang, Wang, Deng 2021): a feature μ and an uncertainty of each image, of which the features of pairs are
    mixed in training; tests take μ."""

    from_maps = True
    _kept: Tensor  # the factors of dropout of both branches, [2,B,C,H,W]

    def __init__(self, recipe: BackboneRecipe, classes: int, weights: Path | None = None):
        super().__init__(recipe, classes, weights)
        settings = recipe.loss
        assert isinstance(settings, RulLoss)
        self.dropout = settings.dropout
        with torch.no_grad():
            self.grid = (
                self.eval().maps(torch.zeros(1, recipe.channels, recipe.input.size, recipe.input.size)).shape[1:]
            )
        self.train()
        self.norms = nn.ModuleList(nn.BatchNorm2d(self.channels, eps=2e-5, affine=False) for _ in range(2))
        length = self.grid.numel()
        self.branches = nn.ModuleList(
            nn.Sequential(nn.Flatten(), nn.Linear(length, settings.feature), nn.BatchNorm1d(settings.feature, eps=2e-5))
            for _ in range(2)
        )
        self.classifier = nn.Linear(settings.feature, classes)

    def before_step(self, batch: ViewBatch) -> None:
        shape = (2, len(batch.images), *self.grid)
        generator = torch.Generator().manual_seed(batch.seed)
        kept = (torch.rand(shape, generator=generator) >= self.dropout).float() / (1 - self.dropout)
        self._kept = kept.to(batch.images.device, non_blocking=True)

    def branch(self, number: int, maps: Tensor) -> Tensor:
        """The feature (0) or the logarithm of the uncertainty (1) of maps, [B,F]."""
        normed = self.norms[number](maps)
        return self.branches[number](normed * self._kept[number] if self.training else normed)

    def outputs(self, x: Tensor) -> Outputs:
        maps = self.maps(x)
        return {"feature": self.branch(0, maps), "log_uncertainty": self.branch(1, maps)}

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.branch(0, self.maps(x)))

    def loss(self, outputs: Outputs, labels: Tensor, batch: ViewBatch) -> Terms:
        uncertainty = outputs["log_uncertainty"].exp().mean(dim=1)
        mixed = mixed_by_uncertainty(outputs["feature"], uncertainty, batch.second)
        return {"total": add_up_loss(self.classifier(mixed), labels, batch.second)}


class EacNetwork(BackboneNetwork):
    """EAC (Zhang, Wang, Ling, Deng 2022): class activation maps of an erased image and of its mirror image are to be
    mirror images; only the image itself is classified."""

    from_maps = True

    def outputs(self, x: Tensor) -> Outputs:
        maps = self.maps(x)
        logits = self.classifier(maps.mean(dim=(2, 3)))
        return {"logits": logits, "maps": maps, "mirrored": self.maps(x.flip(3))}

    def loss(self, outputs: Outputs, labels: Tensor, batch: ViewBatch) -> Terms:
        settings, weights = self.recipe.loss, self.classifier.weight
        assert isinstance(settings, EacLoss)
        softmax = super().loss(outputs, labels, batch)["total"]
        term = consistency_loss(class_maps(outputs["maps"], weights), class_maps(outputs["mirrored"], weights))
        return {"total": softmax + settings.weight * term, "softmax": softmax, "consistency": term}


class CrossAttention(nn.Module):
    """One head of DAN: spatial attention from convolutions of three shapes, then channel attention. Maps [B,C,H,W] →
    [B,C]. Widths are those of the original for C = 512: 256 channels between the convolutions, 32 units."""

    def __init__(self, channels: int):
        super().__init__()
        half, units = max(1, channels // 2), max(1, channels // 16)

        def convolution(before: int, after: int, shape: tuple[int, int]) -> nn.Sequential:
            padding = shape[0] // 2, shape[1] // 2
            return nn.Sequential(nn.Conv2d(before, after, shape, padding=padding), nn.BatchNorm2d(after))

        self.narrow = convolution(channels, half, (1, 1))
        self.spatial = nn.ModuleList(convolution(half, channels, shape) for shape in ((3, 3), (1, 3), (3, 1)))
        self.channel = nn.Sequential(
            nn.Linear(channels, units), nn.BatchNorm1d(units), nn.ReLU(), nn.Linear(units, channels), nn.Sigmoid()
        )
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out")
            elif isinstance(layer, nn.Linear):
                nn.init.normal_(layer.weight, std=0.001)
            if isinstance(layer, nn.Conv2d | nn.Linear) and layer.bias is not None:
                nn.init.zeros_(layer.bias)

    def forward(self, maps: Tensor) -> Tensor:
        narrow = self.narrow(maps)
        attention = torch.stack([one(narrow) for one in self.spatial]).sum(dim=0).relu().sum(dim=1, keepdim=True)
        attended = (maps * attention).mean(dim=(2, 3))
        return attended * self.channel(attended)


class DanNetwork(BackboneNetwork):
    """DAN (Wen, Lin, Wang, Xu 2021): several cross attention heads on the maps, whose features are compared with each
    other by a softmax over heads and added up. ``centers`` [K,C] of the affinity loss learn by its gradient."""

    from_maps = True

    def __init__(self, recipe: BackboneRecipe, classes: int, weights: Path | None = None):
        super().__init__(recipe, classes, weights)
        settings = recipe.loss
        assert isinstance(settings, DanLoss)
        self.heads = nn.ModuleList(CrossAttention(self.channels) for _ in range(settings.heads))
        self.norm = nn.BatchNorm1d(classes)
        self.centers = nn.Parameter(torch.randn(classes, self.channels))

    def outputs(self, x: Tensor) -> Outputs:
        maps = self.maps(x)
        heads = torch.stack([head(maps) for head in self.heads], dim=1).log_softmax(dim=1)
        logits = self.norm(self.classifier(heads.sum(dim=1)))
        return {"logits": logits, "features": maps.mean(dim=(2, 3)), "heads": heads}

    def forward(self, x: Tensor) -> Tensor:
        return self.outputs(x)["logits"]

    def loss(self, outputs: Outputs, labels: Tensor, batch: ViewBatch) -> Terms:
        settings = self.recipe.loss
        assert isinstance(settings, DanLoss)
        softmax = super().loss(outputs, labels, batch)["total"]
        affinity = affinity_loss(outputs["features"], labels, self.centers)
        partition = partition_loss(outputs["heads"])
        total = softmax + settings.affinity * affinity + settings.partition * partition
        return {"total": total, "softmax": softmax, "affinity": affinity, "partition": partition}


_SHARED = ("conv1", "bn1", "act1", "maxpool", "layer1")  # layers of timm's ResNets before the branches
_BRANCH = ("layer2", "layer3", "layer4")


class AdaDfNetwork(BackboneNetwork):
    """Ada-DF (Liu, Xu, Wan, Kui 2023): an auxiliary branch learns the labels, a target branch the distributions that
    are fused from its predictions and the mean predictions of each class. Tests take the target branch.

    Both branches begin as copies of the second to fourth stage of a ResNet. memory.distributions : [K,K], of the epoch
    before; memory.sums [K,K] and memory.counts [K] add up those of the current one.
    """

    from_maps = True
    _last: tuple[Tensor, Tensor]  # logits of the auxiliary branch and labels of the current step

    def __init__(self, recipe: BackboneRecipe, classes: int, weights: Path | None = None):
        super().__init__(recipe, classes, weights)
        if not all(hasattr(self.backbone, name) for name in (*_SHARED, *_BRANCH)):
            raise UsageError(f"Ada-DF branches after the first stage of a ResNet, which {recipe.network.model} is not")
        branch = nn.Sequential(*(getattr(self.backbone, name) for name in _BRANCH))
        self.backbone = nn.Sequential(*(getattr(self.backbone, name) for name in _SHARED))
        self.branches = nn.ModuleList([branch, copy.deepcopy(branch)])
        self.classifiers = nn.ModuleList([self.classifier, copy.deepcopy(self.classifier)])
        del self.classifier
        self.importance = nn.ModuleList(nn.Linear(self.width, 1) for _ in range(2))

    def branch(self, number: int, shared: Tensor) -> tuple[Tensor, Tensor]:
        """The logits [B,K] and attention weights [B,1] of the auxiliary (0) or target branch (1)."""
        features = self.branches[number](shared).mean(dim=(2, 3))
        weights = torch.sigmoid(self.importance[number](features))
        return weights * self.classifiers[number](features), weights

    def outputs(self, x: Tensor) -> Outputs:
        shared = self.backbone(x)
        (auxiliary, first), (logits, second) = self.branch(0, shared), self.branch(1, shared)
        return {"auxiliary": auxiliary, "logits": logits, "weights": (first + second).squeeze(1) / 2}

    def forward(self, x: Tensor) -> Tensor:
        return self.branch(1, self.backbone(x))[0]

    def remember(self, labels: Tensor) -> None:
        settings, classes = self.recipe.loss, self.classes
        assert isinstance(settings, AdaDfLoss)
        self.memory.register_buffer("distributions", first_distributions(classes, settings.threshold))
        self.memory.register_buffer("sums", torch.zeros(classes, classes))
        self.memory.register_buffer("counts", torch.zeros(classes))

    def loss(self, outputs: Outputs, labels: Tensor, batch: ViewBatch) -> Terms:
        settings, auxiliary = self.recipe.loss, outputs["auxiliary"]
        assert isinstance(settings, AdaDfLoss)
        self._last = auxiliary.detach(), labels
        softmax = nn.functional.cross_entropy(auxiliary, labels)
        rank = rank_regularisation(outputs["weights"], settings.ratio, settings.margin)
        classes = self.memory.distributions[labels]
        target = fused_distribution(auxiliary, classes, outputs["weights"], settings.low, settings.high)
        term = divergence(outputs["logits"], target)
        of_target, of_auxiliary = branch_weights(batch.epoch + 1, settings.turn)
        total = of_auxiliary * softmax + of_target * term + rank
        return {"total": total, "softmax": softmax, "divergence": term, "rank": rank}

    def after_step(self, batch: ViewBatch) -> None:
        memory, (logits, labels) = self.memory, self._last
        members = nn.functional.one_hot(labels, self.classes).float()
        memory.sums += members.T @ logits.softmax(dim=1)
        memory.counts += members.sum(dim=0)
        if batch.last:
            seen = memory.counts[:, None] > 0  # a class that was not seen keeps its distribution
            means = memory.sums / memory.counts.clamp_min(1)[:, None]
            memory.distributions.copy_(torch.where(seen, means, memory.distributions))
            memory.sums.zero_()
            memory.counts.zero_()


NETWORKS: dict[str, type[BackboneNetwork]] = {  # by the recipe's loss.kind
    "softmax": BackboneNetwork,
    "center": CenterNetwork,
    "island": CenterNetwork,
    "locality": LocalityNetwork,
    "scn": ScnNetwork,
    "rul": RulNetwork,
    "eac": EacNetwork,
    "dan": DanNetwork,
    "ada-df": AdaDfNetwork,
}


def build(recipe: BackboneRecipe, classes: int, weights: Path | None = None) -> BackboneNetwork:
    """Build the untrained network of a method. Raises what :func:`ferbench.methods.backbone.networks.create` raises."""
    return NETWORKS[recipe.loss.kind](recipe, classes, weights)
