"""WS-LGAN and its ablations as ``ferbench bench`` times them: with random weights, on random images."""

from collections.abc import Callable, Iterable
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ferbench.methods.recipes import Method
from ferbench.methods.wslgan import cost, stages
from ferbench.methods.wslgan.attention import AttentionMapGenerator
from ferbench.methods.wslgan.deployed import Deployed
from ferbench.methods.wslgan.folded import folded
from ferbench.methods.wslgan.lean import lean, maker_of_maps
from ferbench.methods.wslgan.network import WSLGAN
from ferbench.methods.wslgan.peers import Loop, Pairs
from ferbench.methods.wslgan.recipe import Recipe
from ferbench.methods.wslgan.stages import Labelled
from ferbench.training import samples
from ferbench.training.deployable import Deployable
from ferbench.training.device import Device
from ferbench.training.engine import engine
from ferbench.training.plan import Batch, Step, looked_up

if TYPE_CHECKING:
    from ferbench.runs.record import Record
    from ferbench.runs.store import Store


class Timed:
    """A method's networks with seeded random weights: speed does not depend on what they have learned."""

    def __init__(self, method: Method, classes: int, seed: int):
        self.recipe: Recipe = method.recipe
        architecture = self.recipe.architecture
        torch.manual_seed(seed)
        self.network = WSLGAN(architecture, classes)
        self.amg = AttentionMapGenerator(architecture).freeze() if architecture.needs_attention else None

    def load(self, record: "Record", store: "Store") -> None:
        """Take the weights of a finished run of the same architecture instead of random ones.

        Raises what :func:`ferbench.methods.wslgan.trained.deployed` raises.
        """
        from ferbench.methods.wslgan.trained import deployed

        found = deployed(record, store)
        self.network, self.amg = found.network, found.amg

    def part(self, what: str) -> nn.Module | None:
        """What takes images uint8 [B,1,48,48]: "inference" is the whole method, "fe" the network with maps that are
        given, "amg" the generator of maps; None for what the method does not have."""
        if what == "amg":
            return None if self.amg is None else _Generator(self.amg)
        return self.deployable() if what == "inference" else _Extractor(self.network)

    def quick(self, what: str, device: Device) -> nn.Module | None:
        """The part on a device, in the form of fewest operations and bytes there."""
        module = self.part(what)
        if module is None:
            return None
        module = deepcopy(module).eval().requires_grad_(False)
        if device.precision == "bf16":
            return lean(module, torch.bfloat16).to(device.name)
        return device.place(folded(module))

    def deployable(self) -> Deployable:
        """The whole method as it is exported."""
        return Deployed(self.network, self.amg)

    def bytes_of(self, module: nn.Module, example: Tensor, width: int, training: bool) -> int:
        """Bytes that a part moves for a batch, ``width`` bytes an element."""
        return cost.bytes_of(module, (example,), width, training)

    def trained(self) -> nn.Module:
        """The part whose arithmetic a training step is counted by."""
        return _Extractor(self.network).eval()

    def stepper(
        self, device: Device, images: Tensor, labels: Tensor, steps: list[Step]
    ) -> Callable[[Batch], dict[str, Tensor]]:
        """What carries out a training step on a copy of the network; ``steps`` are all that will come."""
        recipe, network, amg = self.recipe, deepcopy(self.network), deepcopy(self.amg)
        device.place(network).train()
        stream = device.compiled(network.stream)
        source = _samples(device, amg, images, steps, recipe.readings.border)
        there = labels.to(device.name)

        def loss(batch: Batch) -> dict[str, Tensor]:
            return stages.pair_loss(stream, there, source, batch, recipe.losses_of(recipe.finetune), device)

        return engine(network, loss, recipe.finetune, device).step

    def epoch(self, device: Device, images: Tensor, labels: Tensor, batch: int, seed: int, folder: Path) -> None:
        """One epoch as ``ferbench train`` does it: tables, plan, steps, checkpoint."""
        recipe, train = self.recipe, Labelled(images, labels)
        stage = recipe.finetune.model_copy(update={"epochs": 1, "batch": batch, "augment": "sample"})
        readings = recipe.readings.model_copy(update={"batch_of": "pairs"})
        plan = stages.network_plan(labels.numpy(), stage, readings, seed)
        source = _samples(device, self.amg, images, plan(0), readings.border)
        stages.train_network(
            self.network,
            train,
            source,
            stage,
            recipe.losses_of(stage),
            readings,
            seed,
            device,
            folder / "checkpoint",
            lambda *_: None,
        )

    def peer(
        self, name: str, images: Tensor, labels: Tensor, steps: list[Step], batch: int, device: str, workers: int
    ) -> Callable[[], object]:
        """A call that does the work of a training step in a peer's way (``peers``)."""
        pairs = [
            (int(s.images[a]), int(s.derived[a]), int(s.images[b]), int(s.derived[b]))
            for s in steps
            for a, b in zip(s.first, s.second, strict=True)
        ]
        stage = self.recipe.finetune
        return Loop(
            name,
            deepcopy(self.network),
            deepcopy(self.amg),
            Pairs(images.numpy(), labels.numpy(), pairs),
            batch,
            self.recipe.losses_of(stage),
            stage.lr,
            stage.momentum,
            stage.weight_decay,
            device,
            workers,
        ).step


def _samples(
    device: Device, amg: AttentionMapGenerator | None, images: Tensor, steps: Iterable[Step], border: str
) -> samples.Samples:
    """What ``steps`` look up, in the way of the device's engine."""
    maker = None if amg is None else maker_of_maps(amg, device)
    if not device.looks_up:
        return samples.Computed(images.to(device.name), maker, border, device)
    pixels = samples.pixel_table(images, border)
    maps = None
    if maker is not None:
        maps = samples.map_table(maker, pixels, device, looked_up(steps, len(pixels))).to(device.name)
    return samples.Tables(pixels.to(device.name), maps, device)


class _Extractor(nn.Module):
    """The network alone, with maps that are given: FE, pooling, fusion, classifier."""

    maps: Tensor

    def __init__(self, network: WSLGAN):
        super().__init__()
        self.network = network
        size = network.architecture.map_size
        self.register_buffer("maps", torch.linspace(0, 1, 2 * size * size).view(1, 2, size, size))

    def forward(self, x: Tensor) -> Tensor:
        maps = self.maps.expand(len(x), -1, -1, -1)
        return self.network(x.to(self.maps.dtype) / 255, maps if self.network.architecture.needs_attention else None)


class _Generator(nn.Module):
    """The AMG alone; its maps, flattened, take the place of logits in the gate."""

    def __init__(self, amg: AttentionMapGenerator):
        super().__init__()
        self.amg = amg
        self.register_buffer("white", torch.tensor(255.0))

    white: Tensor

    def forward(self, x: Tensor) -> Tensor:
        return self.amg(x.to(self.white.dtype) / self.white).flatten(1)
