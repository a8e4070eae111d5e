"""Training steps of stage 1 (attention of a part) and stage 2 (pre-training and fine-tuning), and the loss of Eq.
10."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ferbench.methods.wslgan.network import PARTS, WSLGAN, PartClassifier
from ferbench.methods.wslgan.recipe import Interpretation, LossWeights, PairStage, PartStage, WslganRecipe
from ferbench.training.augment import erase, jitter, rearrange
from ferbench.training.device import Device
from ferbench.training.loop import Terms, fit
from ferbench.training.networks import contrastive_loss, on_images
from ferbench.training.plan import Batch, EpochPlan, Step, paired_epoch, single_epoch
from ferbench.training.samples import Computed, Samples
from ferbench.training.schedule import Progress

View = tuple[Tensor, Tensor | None]  # undistorted images uint8 [N,48,48], and their maps [N,2,H,W] or None
Stream = Callable[[Tensor, Tensor | None], tuple[Tensor, dict[str, Tensor]]]  # the signature of WSLGAN.stream


@dataclass(frozen=True)
class LabelledImages:
    """Images with their classes: uint8 [N,48,48] and int64 [N]."""

    images: Tensor
    labels: Tensor

    def on(self, device: Device) -> "LabelledImages":
        return LabelledImages(self.images.to(device.name), self.labels.to(device.name))


@dataclass(frozen=True)
class Teacher:
    """Class probabilities [N,K] of the training images by other networks, and their share in the classifier's
    target."""

    probabilities: Tensor
    share: float

    def on(self, device: Device) -> "Teacher":
        return Teacher(self.probabilities.to(device.name), self.share)


def train_part(
    part: PartClassifier,
    train: LabelledImages,
    validation: LabelledImages,
    recipe: WslganRecipe,
    seed: int,
    device: Device,
    saved: Path,
    progress: Progress,
) -> list[dict[str, float]]:
    """Stage 1 for one part: "present" (1) or "absent" (0), cross-entropy. Returns the history."""
    stage = recipe.attention
    part.normalise.fit(train.images, recipe.interpretation.normalise)
    # Rows that start at zero stay opposite, since each step adds to one row what it subtracts from the other. The
    # common part of random rows would stay in the attention maps without any relation to the class.
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


def branches_at_once(recipe: WslganRecipe, device: Device, threads: int) -> int:
    """Number of branches of the AMG that are trained in parallel: both, if there are enough threads."""
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
    recipe: WslganRecipe,
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
        views of the images; never test data. saved, keep_best, epochs : see :func:`ferbench.training.loop.fit`.
        teacher : its predictions of ``train``.
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


def network_plan(labels: np.ndarray, stage: PairStage, interpretation: Interpretation, seed: int) -> EpochPlan:
    """The plan of stage 2 for training images with labels [N]."""
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
    teacher : class probabilities of other networks for both streams' images, [P,K] each, which have the share
    ``distil`` in the target of the classifier, the labels the rest (Hinton et al. 2015, section 2, at temperature 1).
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
