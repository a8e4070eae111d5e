"""The three trainings: stage 1 (a part's attention), pre-training and fine-tuning (stage 2)."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ferbench.methods import Readings, Recipe, Stage
from ferbench.models.attention import PartClassifier
from ferbench.models.losses import total_loss
from ferbench.models.settings import LossWeights
from ferbench.models.wslgan import WSLGAN
from ferbench.training.augment import derive
from ferbench.training.device import Device
from ferbench.training.loop import Report, Terms, fit
from ferbench.training.maps import BATCH, Maps
from ferbench.training.plan import Step, paired_epoch, single_epoch


@dataclass(frozen=True)
class Labelled:
    """Images with their classes: uint8 [N,48,48] and int64 [N]."""

    images: Tensor
    labels: Tensor

    def on(self, device: Device) -> "Labelled":
        return Labelled(self.images.to(device.name), self.labels.to(device.name))


def train_part(
    part: PartClassifier, train: Labelled, validation: Labelled, recipe: Recipe, seed: int,
    device: Device, saved: Path, report: Report,
) -> list[dict[str, float]]:  # fmt: skip
    """Stage 1 for one part: "present" (1) or "absent" (0), cross-entropy. Returns the history."""
    stage, border = recipe.attention, recipe.readings.border
    part.normalise.fit(train.images, recipe.readings.normalise)
    device.place(part)
    train, validation = train.on(device), validation.on(device)

    def loss(step: Step) -> Terms:
        rows = torch.from_numpy(step.images).to(device.name)
        x = _batch(train, step, border, device)
        with device.autocast():
            logits = part(x)
        return {"total": nn.functional.cross_entropy(logits.float(), train.labels[rows])}

    def plan(epoch: int) -> list[Step]:
        return single_epoch(len(train.labels), stage.augment, stage.batch, seed, epoch)

    def validate() -> float:
        return accuracy(predict(part, validation.images, device), validation.labels)

    return fit(part, loss, plan, stage, saved, report, validate)


def train_network(
    network: WSLGAN, train: Labelled, maps: Maps, stage: Stage, losses: LossWeights, readings: Readings, seed: int,
    device: Device, saved: Path, report: Report,
    validation: tuple[Labelled, Tensor | None] | None = None, keep_best: bool = False,
) -> list[dict[str, float]]:  # fmt: skip
    """Stage 2: both siamese streams under the total loss (Eq. 10). Returns the history.

    maps : the attention maps of ``train``. validation : images with labels and their maps, never test data.
    """
    network.normalise.fit(train.images, readings.normalise)
    device.place(network)
    labels = train.labels.numpy()
    train = train.on(device)

    def loss(step: Step) -> Terms:
        return pair_loss(network, train, maps, step, losses, readings.border, device)

    def plan(epoch: int) -> list[Step]:
        return paired_epoch(labels, stage.augment, stage.batch, seed, epoch,
                            readings.batch_of, readings.pairing, readings.streams)  # fmt: skip

    def validate() -> float:
        assert validation is not None
        data, attention = validation
        return accuracy(predict(network, data.images, device, attention), data.labels)

    return fit(network, loss, plan, stage, saved, report, validate if validation else None, keep_best)


def pair_loss(
    network: WSLGAN, train: Labelled, maps: Maps, step: Step, weights: LossWeights, border: str, device: Device
) -> Terms:  # fmt: skip
    """One step of stage 2: the streams through the shared network, then Eq. 10 over the step's pairs."""
    images, derived, first, second = (
        torch.from_numpy(np.ascontiguousarray(part)).to(device.name)
        for part in (step.images, step.derived, step.first, step.second)
    )
    x = _batch(train, step, border, device)
    attention = maps(x, images, derived)
    outputs = []
    with device.autocast():
        for number in range(step.streams):
            part = slice(number * len(x) // step.streams, (number + 1) * len(x) // step.streams)
            outputs.append(network.stream(x[part], attention if attention is None else attention[part]))
    logits = torch.cat([logit for logit, _ in outputs]).float()
    vectors = {name: torch.cat([vector[name] for _, vector in outputs]) for name in outputs[0][1]}
    labels = train.labels[images]
    return total_loss(
        (logits[first], logits[second]),
        (labels[first], labels[second]),
        ({n: v[first] for n, v in vectors.items()}, {n: v[second] for n, v in vectors.items()}),
        weights,
    )


def _batch(train: Labelled, step: Step, border: str, device: Device) -> Tensor:
    images = torch.from_numpy(step.images).to(device.name)
    derived = torch.from_numpy(step.derived).to(device.name)
    return device.images(derive(train.images[images], derived, border))


def predict(network: nn.Module, images: Tensor, device: Device, attention: Tensor | None = None) -> Tensor:
    """Class probabilities of undistorted images, one stream: uint8 [N,48,48] → float32 [N,K] on the CPU.

    attention : maps [N,2,H,W] of the same images where the network takes them.
    """
    network.eval()
    parts = []
    with torch.inference_mode(), device.autocast():
        for start in range(0, len(images), BATCH):
            rows = slice(start, start + BATCH)
            x = device.images(images[rows].to(device.name).unsqueeze(1).float() / 255)
            more = () if isinstance(network, PartClassifier) else (None if attention is None else attention[rows],)
            parts.append(torch.softmax(network(x, *more).float(), dim=1).cpu())
    return torch.cat(parts)


def accuracy(probabilities: Tensor, labels: Tensor) -> float:
    """Share of images whose most probable class is their label."""
    return float((probabilities.argmax(dim=1) == labels.cpu()).double().mean())
