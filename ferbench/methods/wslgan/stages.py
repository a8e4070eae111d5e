"""The three trainings: stage 1 (a part's attention), pre-training and fine-tuning (stage 2)."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ferbench.methods.wslgan.losses import total_loss
from ferbench.methods.wslgan.network import PARTS, WSLGAN, PartClassifier
from ferbench.methods.wslgan.recipe import Interpretation, LossWeights, PairStage, PartStage, Recipe
from ferbench.training.augment import erase, jitter, rearrange
from ferbench.training.device import Device
from ferbench.training.loop import Terms, fit
from ferbench.training.networks import on_images
from ferbench.training.plan import Batch, Step, paired_epoch, single_epoch
from ferbench.training.samples import Computed, Samples
from ferbench.training.schedule import Progress

View = tuple[Tensor, Tensor | None]  # undistorted images uint8 [N,48,48] and their maps [N,2,H,W], if any
Stream = Callable[[Tensor, Tensor | None], tuple[Tensor, dict[str, Tensor]]]  # what WSLGAN.stream is


@dataclass(frozen=True)
class LabelledImages:
    """Images with their classes: uint8 [N,48,48] and int64 [N]."""

    images: Tensor
    labels: Tensor

    def on(self, device: Device) -> "LabelledImages":
        return LabelledImages(self.images.to(device.name), self.labels.to(device.name))


@dataclass(frozen=True)
class Teacher:
    """Class probabilities [N,K] that other networks give for the training images, and their share in the classifier's
    target."""

    probabilities: Tensor
    share: float

    def on(self, device: Device) -> "Teacher":
        return Teacher(self.probabilities.to(device.name), self.share)


def train_part(
    part: PartClassifier,
    train: LabelledImages,
    validation: LabelledImages,
    recipe: Recipe,
    seed: int,
    device: Device,
    saved: Path,
    progress: Progress,
) -> list[dict[str, float]]:
    """Stage 1 for one part: "present" (1) or "absent" (0), cross-entropy. Returns the history."""
    stage = recipe.attention
    part.normalise.fit(train.images, recipe.interpretation.normalise)
    # From zero, both rows stay opposite, since a step adds to one what it subtracts from the other. The common part of
    # random rows would stay in the attention maps without saying anything about the class.
    nn.init.zeros_(part.output.weight)
    nn.init.zeros_(part.output.bias)
    device.place(part)
    train, validation = train.on(device), validation.on(device)
    samples, call = Computed(train.images, None, recipe.interpretation.border, device), device.compiled(part)

    def loss(batch: Batch) -> Terms:
        return part_loss(call, train.labels, samples, batch, stage, device)

    def plan(epoch: int) -> list[Step]:
        return single_epoch(len(train.labels), stage.augment, stage.batch, seed, epoch, stage.shuffle)

    def validate() -> float:
        return accuracy(predict(part, validation.images, device), validation.labels)

    return fit(part, loss, plan, stage, device, saved, progress, validate)


def branches_at_once(recipe: Recipe, device: Device, threads: int) -> int:
    """How many branches of the AMG are trained at a time: both, where each uses a part of the threads."""
    both = device.name == "cpu" and 0 < recipe.threads <= threads // len(PARTS)
    return len(PARTS) if both else 1


def part_loss(
    part: Callable[[Tensor], Tensor], labels: Tensor, samples: Samples, batch: Batch, stage: PartStage, device: Device
) -> Terms:
    """One step of stage 1. part : images → logits. labels : of the training images [N], on the device."""
    x, _ = samples(batch.images, batch.derived)
    if stage.shuffle:
        x = device.images(rearrange(x, batch.tiles, batch.offsets))
    with device.autocast():
        logits = part(x)
    return {"total": nn.functional.cross_entropy(logits.float(), labels[batch.images])}


def train_network(
    network: WSLGAN,
    train: LabelledImages,
    samples: Samples,
    recipe: Recipe,
    stage: PairStage,
    seed: int,
    device: Device,
    saved: Path,
    progress: Progress,
    *,
    validation: tuple[Tensor, list[View]] | None = None,
    keep_best: bool = False,
    epochs: Path | None = None,
    teacher: Teacher | None = None,
) -> list[dict[str, float]]:
    """Stage 2: both siamese streams under the total loss (Eq. 10). Returns the history.

    samples : the derived samples of ``train`` with their maps. stage : of the recipe. validation : labels [N], and the
        views of the images that a test would predict; never test data. saved, keep_best, epochs : see
        :func:`ferbench.training.loop.fit`. teacher : of ``train``.
    """
    interpretation, losses = recipe.interpretation, recipe.losses_of(stage)
    network.normalise.fit(train.images, interpretation.normalise)
    device.place(network)
    labels = train.labels.to(device.name)
    teacher, stream = teacher and teacher.on(device), device.compiled(network.stream)

    def loss(batch: Batch) -> Terms:
        return pair_loss(
            stream, labels, samples, batch, losses, device, stage.smoothing, teacher, interpretation.border
        )

    def validate() -> float:
        assert validation is not None
        return accuracy(predict_views(network, validation[1], device), validation[0])

    plan = network_plan(train.labels.numpy(), stage, interpretation, seed)
    return fit(network, loss, plan, stage, device, saved, progress, validate if validation else None, keep_best, epochs)


def network_plan(
    labels: np.ndarray, stage: PairStage, interpretation: Interpretation, seed: int
) -> Callable[[int], list[Step]]:
    """The plans of stage 2 by epoch (from 0), for training images with these labels [N]."""
    return lambda epoch: paired_epoch(
        labels,
        stage.augment,
        stage.batch,
        seed,
        epoch,
        interpretation.batch_of,
        interpretation.pairing,
        interpretation.streams,
        stage.erase,
        stage.jitter,
    )


def pair_loss(
    stream: Stream,
    labels: Tensor,
    samples: Samples,
    batch: Batch,
    weights: LossWeights,
    device: Device,
    smoothing: float = 0.0,
    teacher: Teacher | None = None,
    border: str = "edge",
) -> Terms:
    """One step of stage 2: the streams through the shared network, then Eq. 10 over the step's pairs.

    stream : the network's ``stream``, compiled or not. labels, teacher : of the training images [N], on the device.
    border : see :func:`ferbench.training.augment.jitter`.
    """
    x, attention = samples(batch.images, batch.derived)
    if batch.moves.numel():
        x, attention = jitter(x, attention, batch.moves, border)
        x = device.images(x)
    if batch.boxes.numel():
        x = device.images(erase(x, batch.boxes))
    size, outputs = len(x) // batch.streams, []
    with device.autocast():
        for start in range(0, len(x), size):
            part = slice(start, start + size)
            outputs.append(stream(x[part], attention if attention is None else attention[part]))
    logits = torch.cat([logit for logit, _ in outputs]).float()
    vectors = {name: torch.cat([vector[name] for _, vector in outputs]) for name in outputs[0][1]}
    truth, first, second = labels[batch.images], batch.first, batch.second
    targets = None if teacher is None else teacher.probabilities[batch.images]
    return total_loss(
        (logits[first], logits[second]),
        (truth[first], truth[second]),
        ({n: v[first] for n, v in vectors.items()}, {n: v[second] for n, v in vectors.items()}),
        weights,
        smoothing,
        None if targets is None else (targets[first], targets[second]),
        teacher.share if teacher else 0.0,
    )


def predict(
    network: nn.Module, images: Tensor, device: Device, attention: Tensor | None = None, rows: int = 0
) -> Tensor:
    """Class probabilities of undistorted images, one stream: uint8 [N,48,48] → float32 [N,K] on the CPU.

    attention : maps [N,2,H,W] of the same images where the network takes them. rows : see
        :func:`ferbench.training.networks.in_batches`.
    """
    network.eval()
    inputs = () if isinstance(network, PartClassifier) else (None,)

    def probabilities(x: Tensor, *maps: Tensor) -> Tensor:
        return torch.softmax(network(x, *(maps or inputs)).float(), dim=1)

    return on_images(probabilities, device, images, *(() if attention is None else (attention,)), rows=rows)


def predict_views(network: nn.Module, views: list[View], device: Device, rows: int = 0) -> Tensor:
    """Class probabilities [N,K] of images, the mean over all views of them. rows : see :func:`predict`."""
    return torch.stack([predict(network, images, device, attention, rows) for images, attention in views]).mean(dim=0)


def accuracy(probabilities: Tensor, labels: Tensor) -> float:
    """Share of images whose most probable class is their label."""
    return float((probabilities.argmax(dim=1) == labels.cpu()).double().mean())
