"""WS-LGAN and its ablations for ``ferbench bench``, and reference training loops.

Networks have random weights, images are random. The reference loops must not change, because stored ratios refer to
them. ``naive`` is the usual loop: a Dataset of pairs rotated by PIL, a DataLoader, the frozen AMG at every step, both
streams one after the other, eager fp32, ``loss.item()`` at every step. ``strong`` adds bf16 autocast, channels last and
torch.compile. Model, losses, optimizer and plan are the same as in ferbench's step, so the losses are equal.
"""

from collections.abc import Callable, Iterable, Iterator
from copy import deepcopy
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from ferbench.methods.wslgan import stages
from ferbench.methods.wslgan.cost import bytes_of
from ferbench.methods.wslgan.deployed import Deployed, deployed, in_fewest_operations
from ferbench.methods.wslgan.lean import map_generator
from ferbench.methods.wslgan.network import WSLGAN, AttentionMapGenerator
from ferbench.methods.wslgan.recipe import LossWeights, WslganRecipe
from ferbench.methods.wslgan.stages import LabelledImages, total_loss
from ferbench.runs.record import Record
from ferbench.runs.store import Store
from ferbench.training import samples
from ferbench.training.augment import ANGLES
from ferbench.training.device import Device
from ferbench.training.loop import engine
from ferbench.training.networks import Deployable
from ferbench.training.plan import Batch, Step, looked_up
from ferbench.training.schedule import Stage


class TimedNetworks:
    """A method's networks with seeded random weights: speed does not depend on what they have learned."""

    def __init__(self, recipe: WslganRecipe, classes: int, seed: int):
        self.recipe = recipe
        torch.manual_seed(seed)
        self.network = WSLGAN(recipe.architecture, classes)
        self.amg = AttentionMapGenerator(recipe.architecture).freeze() if recipe.architecture.needs_attention else None

    def load(self, record: Record, store: Store) -> None:
        """Replace the random weights by those of a finished run of the same architecture.

        Raises what :func:`ferbench.methods.wslgan.deployed.deployed` raises.
        """
        trained = deployed(record, store)
        self.network, self.amg = trained.network, trained.amg

    def part(self, what: str) -> Deployable | None:
        """A module for images uint8 [B,1,48,48]: "inference" is the whole method, "fe" the network with given maps,
        "amg" the attention map generator; None for a part that the method does not have."""
        if what == "amg":
            return None if self.amg is None else _MapsAsLogits(self.amg)
        return self.deployable() if what == "inference" else _GivenMaps(self.network)

    def deployable(self) -> Deployable:
        """The whole method as it is exported."""
        return Deployed(self.network, self.amg)

    def bytes_of(self, module: nn.Module, example: Tensor, width: int, training: bool) -> int:
        """Bytes that a part moves for a batch, ``width`` bytes an element."""
        return bytes_of(module, (example,), width, training)

    def trained(self) -> nn.Module:
        """The part whose FLOPs count as those of a training step."""
        return _GivenMaps(self.network).eval()

    def stepper(
        self, device: Device, images: Tensor, labels: Tensor, steps: list[Step]
    ) -> Callable[[Batch], dict[str, Tensor]]:
        """A function that carries out a training step on a copy of the network. steps : all steps to be timed."""
        recipe, network, amg = self.recipe, deepcopy(self.network), deepcopy(self.amg)
        device.place(network).train()
        stream = device.compiled(network.stream)
        samples = _samples(device, amg, images, steps, recipe.interpretation.border)
        on_device = labels.to(device.name)

        def loss(batch: Batch) -> dict[str, Tensor]:
            return stages.pair_loss(stream, on_device, samples, batch, recipe.losses_of(recipe.finetune), device)

        return engine(network, loss, recipe.finetune, device).step

    def epoch(self, device: Device, images: Tensor, labels: Tensor, batch: int, seed: int, folder: Path) -> None:
        """One epoch as in ``ferbench train``: tables, plan, steps, checkpoint."""
        stage = self.recipe.finetune.model_copy(update={"epochs": 1, "batch": batch, "augment": "sample"})
        interpretation = self.recipe.interpretation.model_copy(update={"batch_of": "pairs"})
        recipe = self.recipe.model_copy(update={"interpretation": interpretation})
        plan = stages.network_plan(labels.numpy(), stage, interpretation, seed)
        stages.train_network(
            self.network,
            LabelledImages(images, labels),
            _samples(device, self.amg, images, plan(0), interpretation.border),
            recipe,
            stage,
            seed,
            device,
            folder / "checkpoint",
            lambda *_: None,
        )

    def baseline(
        self, name: str, images: Tensor, labels: Tensor, steps: list[Step], batch: int, device: str, workers: int
    ) -> Callable[[], object]:
        """A call that carries out a training step of the :class:`ReferenceLoop` ``name``."""
        pairs = PairDataset(images.numpy(), labels.numpy(), steps)
        stage, network, amg = self.recipe.finetune, deepcopy(self.network), deepcopy(self.amg)
        return ReferenceLoop(
            name, network, amg, pairs, batch, self.recipe.losses_of(stage), stage, device, workers
        ).step


def _samples(
    device: Device, amg: AttentionMapGenerator | None, images: Tensor, steps: Iterable[Step], border: str
) -> samples.Samples:
    """The derived samples of ``steps``, computed or looked up according to the device's engine."""
    maps_of = None if amg is None else map_generator(amg, device)
    if not device.looks_up:
        return samples.Computed(images.to(device.name), maps_of, border, device)
    pixels = samples.pixel_table(images, border)
    maps = None
    if maps_of is not None:
        maps = samples.map_table(maps_of, pixels, device, looked_up(steps, len(pixels))).to(device.name)
    return samples.Tables(pixels.to(device.name), maps, device)


class _Part(Deployable):
    def for_inference(self, device: Device) -> nn.Module:
        return in_fewest_operations(self, device)


class _GivenMaps(_Part):
    """The network alone, with given maps: FE, pooling, fusion, classifier."""

    maps: Tensor

    def __init__(self, network: WSLGAN):
        super().__init__()
        self.network = network
        size = network.architecture.map_size
        self.register_buffer("maps", torch.linspace(0, 1, 2 * size * size).view(1, 2, size, size))

    def forward(self, x: Tensor) -> Tensor:
        maps = self.maps.expand(len(x), -1, -1, -1)
        return self.network(x.to(self.maps.dtype) / 255, maps if self.network.architecture.needs_attention else None)


class _MapsAsLogits(_Part):
    """The AMG alone; its flattened maps are compared as if they were logits."""

    def __init__(self, amg: AttentionMapGenerator):
        super().__init__()
        self.amg = amg
        self.register_buffer("white", torch.tensor(255.0))

    white: Tensor

    def forward(self, x: Tensor) -> Tensor:
        return self.amg(x.to(self.white.dtype) / self.white).flatten(1)


class PairDataset(Dataset):
    """The pairs of derived samples of some steps, each computed on access."""

    def __init__(self, images: np.ndarray, labels: np.ndarray, steps: Iterable[Step]):
        self.images = [Image.fromarray(image) for image in images]
        self.labels = labels
        self.pairs = [  # image, derived sample, image, derived sample
            (int(step.images[a]), int(step.derived[a]), int(step.images[b]), int(step.derived[b]))
            for step in steps
            for a, b in zip(step.first, step.second, strict=True)
        ]

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, int, int]:
        first, derived, second, derived2 = self.pairs[index]
        return (
            self._sample(first, derived),
            self._sample(second, derived2),
            int(self.labels[first]),
            int(self.labels[second]),
        )

    def _sample(self, image: int, derived: int) -> Tensor:
        picture = self.images[image]
        if angle := ANGLES[derived % len(ANGLES)]:
            picture = picture.rotate(angle, Image.Resampling.BILINEAR)
        if derived >= len(ANGLES):
            picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        return torch.from_numpy(np.array(picture, dtype=np.float32) / 255).unsqueeze(0)


class ReferenceLoop:
    """A reference loop: :meth:`step` trains on the next pairs of an endless cycle.

    batch : pairs in a step. workers : processes of the DataLoader.
    """

    def __init__(
        self,
        name: str,
        network: WSLGAN,
        amg: AttentionMapGenerator | None,
        data: PairDataset,
        batch: int,
        weights: LossWeights,
        stage: Stage,
        device: str,
        workers: int,
    ):
        self.strong, self.device, self.weights = name == "strong", device, weights
        self.network, self.amg = network.to(device).train(), None if amg is None else amg.to(device).freeze()
        if self.strong:
            self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            if self.amg is not None:
                self.amg.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.optimizer = torch.optim.SGD(
            network.parameters(), stage.lr, stage.momentum, weight_decay=stage.weight_decay
        )
        self.forward = torch.compile(self._forward) if self.strong else self._forward
        self.loader = DataLoader(data, batch, num_workers=workers, persistent_workers=workers > 0, drop_last=True)
        self.batches: Iterator | None = None

    def step(self) -> float:
        """Carry out one step and return its loss."""
        first, second, labels, labels2 = (part.to(self.device) for part in self._next())
        with torch.autocast(self.device, torch.bfloat16, enabled=self.strong):
            logits, vectors = self.forward(first)
            logits2, vectors2 = self.forward(second)
        terms = total_loss((logits.float(), logits2.float()), (labels, labels2), (vectors, vectors2), self.weights)
        self.optimizer.zero_grad()
        terms["total"].backward()
        self.optimizer.step()
        return terms["total"].item()

    def _forward(self, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        maps = None
        if self.strong:
            x = x.contiguous(memory_format=torch.channels_last)
        if self.amg is not None:
            with torch.no_grad():
                maps = self.amg(x)
        return self.network.stream(x, maps)

    def _next(self) -> list[Tensor]:
        if self.batches is None:
            self.batches = iter(self.loader)
        try:
            return next(self.batches)
        except StopIteration:
            self.batches = iter(self.loader)
            return next(self.batches)
