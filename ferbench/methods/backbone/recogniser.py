"""Trainings of this family, estimates of their duration and size, and networks of finished runs."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ferbench.methods.backbone.augment import changed
from ferbench.methods.backbone.batches import Batches, Speed, ViewBatch
from ferbench.methods.backbone.heads import build
from ferbench.methods.backbone.networks import MEMORY, BackboneNetwork, normalised, pictures
from ferbench.methods.backbone.recipe import BackboneRecipe
from ferbench.methods.backbone.weights import digest, weights_file
from ferbench.methods.interface import History, SampleSet, Task, TrainingSet, Workspace
from ferbench.methods.modules import timm_library
from ferbench.methods.recipes import Method
from ferbench.runs.record import Record
from ferbench.runs.store import WEIGHTS, Store
from ferbench.training.arithmetic import ROWS
from ferbench.training.device import Device
from ferbench.training.loop import Terms
from ferbench.training.networks import (
    FORWARD,
    Deployable,
    check_kept,
    flops,
    load_weights,
    parameter_count,
    seconds_of,
    seeded,
)
from ferbench.training.plan import Batch, passes
from ferbench.training.samples import shared_tensor

_MEASURED_IMAGES = {"cpu": 16, "cuda": 64}  # in the training step that an estimate measures
_MEASURED_CLASSES = 7


class BackboneRecogniser:
    """One training of a network of timm."""

    def __init__(self, method: Method[BackboneRecipe], classes: tuple[str, ...]):
        self.recipe, self.folder, self.classes = method.recipe, method.folder, classes
        self.network: BackboneNetwork | None = None

    def fit(self, train: TrainingSet, work: Workspace) -> History:
        device, recipe = work.device, self.recipe
        weights = weights_file(recipe.network.weights, self.folder) if recipe.network.weights else None
        network = self.network = seeded(work.seed("weights"), lambda: build(recipe, len(self.classes), weights))
        labels = torch.tensor(train.labels)
        network.remember(labels)
        device.place(network)
        labels = labels.to(device.name)
        speed = Speed(device)
        batches = Batches(train.images, train.labels, recipe, work.seed("plan"), speed)
        work.facts |= {"parameters": parameter_count(network), "timm": timm_library().__version__}
        if weights:
            self._name_weights(weights, work)
        outputs_of = device.compiled(network.outputs)

        def loss(batch: Batch) -> Terms:
            assert isinstance(batch, ViewBatch)
            start = speed.now() if speed.measures else 0.0
            x = changed(pictures(batch.pixels, recipe.input), batch.motions, batch.colours, batch.boxes)
            x = normalised(x, recipe.input)
            x = device.images(torch.lerp(x[batch.second], x, batch.share[:, None, None, None]) if mixes else x)
            if speed.measures:
                speed.augmented += speed.now() - start
            network.before_step(batch)
            with device.autocast():
                outputs = outputs_of(x)
            return network.loss({name: one.float() for name, one in outputs.items()}, labels[batch.images], batch)

        def after(batch: Batch) -> None:
            assert isinstance(batch, ViewBatch)
            network.after_step(batch)

        def scores(validation: SampleSet) -> np.ndarray:
            return predict(network, validation.images, device)

        mixes = getattr(recipe.loss, "mixup", 0.0) > 0
        stage = recipe.finetune
        history = work.train("training", network, loss, batches, stage, scores, after, checkpoint="network")
        work.facts |= speed.facts()
        return history

    def predict(self, samples: SampleSet, work: Workspace) -> np.ndarray:
        assert self.network is not None
        work.device.place(self.network)
        return predict(self.network, samples.images, work.device)

    def state(self) -> dict[str, Tensor]:
        assert self.network is not None
        return {name: one for name, one in self.network.state_dict().items() if not name.startswith(MEMORY)}

    def load(self, state: Mapping[str, Tensor]) -> None:
        if self.network is None:
            self.network = seeded(0, lambda: build(self.recipe, len(self.classes)))
        own = {name: one for name, one in self.network.state_dict().items() if name.startswith(MEMORY)}
        self.network.load_state_dict({**{k: v for k, v in state.items() if not k.startswith(MEMORY)}, **own})

    def _name_weights(self, weights: Path, work: Workspace) -> None:
        """Record what the training starts from, and that nothing is known of its pictures."""
        trained_on, sha256 = self.recipe.network.trained_on or "unknown", digest(weights)
        work.facts["weights"] = {"file": weights.name, "sha256": sha256, "trained_on": trained_on}
        work.notes.append(
            f"the weights at the start, SHA-256 {sha256[:12]}, were trained on: {trained_on}; whether pictures of the "
            "test set are among these was not examined"
        )


class BackboneEstimate:
    """Seconds of a task, from one measured training step of each recipe."""

    def __init__(self, device: Device):
        self.device = device
        self.seconds: dict[tuple[str, int], float] = {}  # for one image of a training, by recipe and threads

    def __call__(self, task: Task, threads: int) -> float:
        """Return the seconds that the rest of a task takes with so many threads."""
        recipe: BackboneRecipe = task.method.recipe
        stage, key = recipe.finetune, (f"{recipe.network} {recipe.input} {recipe.loss}", threads)
        if key not in self.seconds:
            count = _MEASURED_IMAGES[self.device.name]
            self.seconds[key] = seconds_of(lambda: self._step(recipe, count), self.device, threads) / count
        seconds = self.seconds[key]
        if task.retested:
            return stage.epochs * task.tested * seconds * FORWARD
        twice = 2 if stage.sam else 1
        return ((1 - task.done) * passes(stage, task.images) * twice + task.tested * FORWARD) * seconds

    def _step(self, recipe: BackboneRecipe, count: int) -> Callable[[], object]:
        """A training step of so many images, without its loss."""
        device, size = self.device, recipe.input.size
        network = seeded(0, lambda: build(recipe, _MEASURED_CLASSES))
        device.place(network)
        network.train()
        pixels = torch.zeros(count, size, size, dtype=torch.uint8, device=device.name)
        x = device.images(normalised(pictures(pixels, recipe.input), recipe.input))
        steps = Batches(pixels.cpu().numpy(), np.zeros(count, dtype=np.int64), recipe, 0, Speed(device))
        batch = next(steps.plan(0)).on(device.name)

        def step() -> None:
            network.before_step(batch)
            with device.autocast():
                outputs = network.outputs(x[: len(batch.images)])
                torch.stack([output.float().sum() for output in outputs.values()]).sum().backward()

        return step


class DeployedBackbone(Deployable):
    """The deployed form of a network of timm, for images of its own size and colour."""

    def __init__(self, network: BackboneNetwork):
        super().__init__()
        self.network = network
        self.shape = (network.recipe.channels, network.recipe.input.size, network.recipe.input.size)
        self.eval().requires_grad_(False)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Images uint8 [N,1,S,S] or [N,3,S,S] → ``(logits [N,K],)`` in the precision of the weights."""
        weight = next(self.network.parameters())
        return (self.network(normalised(images.to(weight.dtype) / 255, self.network.recipe.input)),)

    def for_inference(self, device: Device) -> nn.Module:
        """A copy: timm joins batch normalisation and activation in one layer, which cannot be folded here."""
        return device.in_precision(copy.deepcopy(self))


def deployed(method: Method[BackboneRecipe], record: Record, store: Store) -> DeployedBackbone:
    """Rebuild the network of a finished run as a module.

    Raises UsageError for runs without weights, DataError if weights are missing, damaged or of another shape.
    """
    check_kept(record)
    network = seeded(0, lambda: build(method.recipe, len(record.classes)))
    load_weights(network, store.file(record, WEIGHTS))
    return DeployedBackbone(network)


def describe(recipe: BackboneRecipe, classes: int) -> list[tuple[str, dict[str, Any]]]:
    """The size of the network and the cost of a test image, without memory for its weights."""
    size = recipe.input.size
    with torch.device("meta"):
        network = build(recipe, classes).eval()
        image = torch.zeros(1, recipe.channels, size, size)
        cost = flops(network, (image,))
    sizes = {
        "network parameters": f"{parameter_count(network):,}",
        "network FLOPs per image": f"{cost / 1e9:.3f} G",
        "input": str(recipe.input.view),
        "feature": network.width,
        "classes": classes,
    }
    return [("sizes", sizes)]


def predict(network: BackboneNetwork, images: Any, device: Device) -> np.ndarray:
    """Class probabilities of undistorted images, read batch by batch: uint8 [N,H,W] or [N,H,W,3] → float32 [N,K]."""
    network.eval()
    spec, parts = network.recipe.input, []
    with torch.inference_mode(), device.autocast():
        for rows in np.array_split(
            np.arange(len(images)), np.arange(ROWS[device.name], len(images), ROWS[device.name])
        ):
            pixels = shared_tensor(np.ascontiguousarray(images[rows])).to(device.name)
            logits = network(device.images(normalised(pictures(pixels, spec), spec)))
            parts.append(logits.float().softmax(dim=1).cpu())
    return torch.cat(parts).numpy()
