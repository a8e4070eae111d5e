"""Networks of timm with a classifier, and those whose losses need no further layers: center, island, locality."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ferbench.data.views import InputSpec
from ferbench.errors import DataError, UsageError
from ferbench.methods.backbone.augment import grey
from ferbench.methods.backbone.batches import ViewBatch
from ferbench.methods.backbone.losses import mixed_cross_entropy
from ferbench.methods.backbone.recipe import (
    BackboneRecipe,
    BackboneStage,
    CenterLoss,
    IslandLoss,
    LocalityLoss,
    SoftmaxLoss,
)
from ferbench.methods.modules import timm_library
from ferbench.text import printable
from ferbench.training.checkpoint import unpack
from ferbench.training.feature_losses import center_loss, center_step, locality_loss, push_loss, push_step
from ferbench.training.loop import Terms

Outputs = dict[str, Tensor]  # float32 [B,…] by name: inputs of the loss
MEMORY = "memory."  # how names of buffers begin that only the training needs


def create(recipe: BackboneRecipe, weights: Path | None) -> nn.Module:
    """Build the network of a recipe without its classifier, with random weights or those of a file.

    Raises UsageError for a network that timm does not have or that does not take images of this size, DataError for
    weights of another network.
    """
    timm, name, size = timm_library(), recipe.network.model, recipe.input.size
    if not timm.is_model(name):
        raise UsageError(f"{name!r} is no network of timm: `timm.list_models()` lists them")
    arguments: dict[str, Any] = {"num_classes": 0, "in_chans": recipe.channels}
    if getattr(timm.get_pretrained_cfg(name), "fixed_input_size", False):
        arguments["img_size"] = size
    # With a file and `pretrained`, timm drops the classifier and adapts the first layer and positions, and opens no
    # connection: the overlay takes the place of its own source.
    source = {"pretrained": True, "pretrained_cfg_overlay": {"file": str(weights)}} if weights else {}
    try:
        network = timm.create_model(name, **arguments, **source)
        # timm itself leaves random what a file lacks, and says so in its log alone.
        missing = sorted(network.state_dict().keys() - unpack(weights)[0].keys()) if weights else []
    except Exception as error:  # of timm, torch and safetensors, without a common base
        reason = printable(str(error))[:200]
        if weights:
            raise DataError(f"{weights} does not hold weights of {name}: {reason}") from None
        raise UsageError(f"{name} cannot be built for images of {size} pixels: {reason}") from None
    if missing:
        raise DataError(
            f"{weights} does not hold weights of {name}: it lacks {len(missing)} tensors, {missing[0]} first"
        )
    return network


def pictures(pixels: Tensor, spec: InputSpec) -> Tensor:
    """Pixels as a network sees them before normalisation: float [B,C,S,S] in [0,1].

    pixels : uint8 [B,H,W] or [B,H,W,3]. Grey levels are repeated for a network that sees colours, colours are mixed for
    one that sees grey levels, and other sizes are resized bilinearly, with antialiasing.
    """
    x = (pixels.permute(0, 3, 1, 2) if pixels.ndim == 4 else pixels.unsqueeze(1)).float() / 255
    if x.shape[2:] != (spec.size, spec.size):
        x = nn.functional.interpolate(x, (spec.size, spec.size), mode="bilinear", antialias=True)
    return x.expand(-1, 3, -1, -1) if spec.colour == "rgb" else grey(x)


def normalised(x: Tensor, spec: InputSpec) -> Tensor:
    """(x − mean) / std for each channel of x, [B,C,S,S] in [0,1]. Of three values a grey image has the mean."""
    mean, std = (x.new_tensor(values) for values in (spec.mean, spec.std))
    if spec.colour == "grey":
        mean, std = mean.mean().view(1), std.mean().view(1)
    return (x - mean[:, None, None]) / std[:, None, None]


class BackboneNetwork(nn.Module):
    """A network of timm and a linear classifier, trained by softmax. Subclasses implement other losses.

    memory : buffers of the training alone, such as centers; they are in checkpoints, not in finished runs.
    """

    captured = False  # batches carry numbers of the host, which a captured graph would keep
    from_maps = False  # whether the classifier stands on the maps of the network, not on timm's features
    backbone: Any
    memory: Any

    def __init__(self, recipe: BackboneRecipe, classes: int, weights: Path | None = None):
        super().__init__()
        self.recipe, self.classes = recipe, classes
        self.backbone = create(recipe, weights)
        self.channels: int = self.backbone.num_features  # of the maps
        pooled = getattr(self.backbone, "head_hidden_size", None) or self.channels
        self.width = self.channels if self.from_maps else pooled  # of the features
        self.classifier = nn.Linear(self.width, classes)
        self.memory = nn.Module()

    def maps(self, x: Tensor) -> Tensor:
        """Normalised images [B,C,S,S] → the last maps [B,channels,H,W]; of a transformer, its tokens of patches."""
        found = self.backbone.forward_features(x)
        if found.ndim == 3:
            tokens = found[:, getattr(self.backbone, "num_prefix_tokens", 0) :]
            side = round(tokens.shape[1] ** 0.5)
            return tokens.transpose(1, 2).unflatten(2, (side, side))
        return found.permute(0, 3, 1, 2) if getattr(self.backbone, "output_fmt", "NCHW") == "NHWC" else found

    def features(self, x: Tensor) -> Tensor:
        """Normalised images [B,C,S,S] → features [B,width]."""
        if self.from_maps:
            return self.maps(x).mean(dim=(2, 3))
        return self.backbone.forward_head(self.backbone.forward_features(x), pre_logits=True)

    def outputs(self, x: Tensor) -> Outputs:
        """Normalised images [B,C,S,S] → what :meth:`loss` needs."""
        features = self.features(x)
        return {"features": features, "logits": self.classifier(features)}

    def forward(self, x: Tensor) -> Tensor:
        """Normalised images [B,C,S,S] → logits [B,K]."""
        return self.classifier(self.features(x))

    def remember(self, labels: Tensor) -> None:
        """Register the buffers of :attr:`memory` for a training set with these labels, int64 [N]."""

    def before_step(self, batch: ViewBatch) -> None:
        """Draw what :meth:`outputs` needs of random numbers, by ``batch.seed``."""

    def loss(self, outputs: Outputs, labels: Tensor, batch: ViewBatch) -> Terms:
        """The losses of a step by name, "total" among them: means over the batch. labels : int64 [B]."""
        settings = self.recipe.loss
        smoothing = settings.smoothing if isinstance(settings, SoftmaxLoss) else 0.0
        return {"total": mixed_cross_entropy(outputs["logits"], labels, batch.second, batch.share, smoothing)}

    def after_step(self, batch: ViewBatch) -> None:
        """Update buffers in place after the optimizer's step on ``batch``."""

    def parameter_groups(self, stage: BackboneStage) -> list[dict[str, Any]]:
        """See :class:`ferbench.training.loop.HasParameterGroups`: one group for each layer of the network, and one for
        what stands behind it."""
        layers: dict[str, int] = {}
        if stage.layer_decay < 1:
            if not hasattr(self.backbone, "group_matcher"):
                raise UsageError(f"finetune.layer_decay: the layers of {self.recipe.loss.kind} have no single order")
            matcher = self.backbone.group_matcher(coarse=False)
            layers = timm_library().models.group_parameters(self.backbone, matcher, reverse=True)
        last = max(layers.values(), default=0) + 1
        groups: dict[float, list[nn.Parameter]] = {}
        for name, parameter in self.named_parameters():
            inside = name.removeprefix("backbone.")
            layer = layers.get(inside, last)
            scale = stage.layer_decay ** (last - layer) * (1.0 if inside != name else stage.head_rate)
            groups.setdefault(scale, []).append(parameter)
        return [{"params": parameters, "scale": scale} for scale, parameters in groups.items()]


class CenterNetwork(BackboneNetwork):
    """Softmax and center loss or island loss; c_j ← c_j − α Δc_j after each step (Wen et al. 2016, Cai et al. 2018)."""

    _last: tuple[Tensor, Tensor]  # features and classes of the current step

    def remember(self, labels: Tensor) -> None:
        self.memory.register_buffer("centers", torch.zeros(self.classes, self.width))

    def loss(self, outputs: Outputs, labels: Tensor, batch: ViewBatch) -> Terms:
        settings, centers = self.recipe.loss, self.memory.centers
        assert isinstance(settings, CenterLoss | IslandLoss)
        softmax = super().loss(outputs, labels, batch)["total"]
        self._last = outputs["features"].detach(), labels
        term = center_loss(outputs["features"], labels, centers)
        terms = {"total": softmax + settings.weight * term, "softmax": softmax, "center": term}
        return terms | {"push": push_loss(centers, "ordered")} if isinstance(settings, IslandLoss) else terms

    def after_step(self, batch: ViewBatch) -> None:
        settings, centers = self.recipe.loss, self.memory.centers
        assert isinstance(settings, CenterLoss | IslandLoss)
        step = center_step(*self._last, centers)
        if isinstance(settings, IslandLoss):
            step = step + settings.push * push_step(centers)
        centers -= settings.alpha * step


class LocalityNetwork(BackboneNetwork):
    """Softmax and locality preserving loss (Li, Deng, Du 2017)."""

    def loss(self, outputs: Outputs, labels: Tensor, batch: ViewBatch) -> Terms:
        settings = self.recipe.loss
        assert isinstance(settings, LocalityLoss)
        softmax = super().loss(outputs, labels, batch)["total"]
        term = locality_loss(outputs["features"], labels, settings.neighbours)
        return {"total": softmax + settings.weight * term, "softmax": softmax, "locality": term}
