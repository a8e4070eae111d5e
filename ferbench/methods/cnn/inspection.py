"""Sizes of the networks, and how long their trainings take."""

from __future__ import annotations

import time
from typing import Any

import torch

from ferbench.methods.cnn.methods import build
from ferbench.methods.cnn.network import Network
from ferbench.methods.cnn.recipe import Recipe
from ferbench.methods.cnn.recogniser import parameters
from ferbench.methods.cnn.schedule import asked_shape, stage_of
from ferbench.methods.interface import FOLD, Task
from ferbench.training.augment import DERIVED
from ferbench.training.cost import flops
from ferbench.training.device import Device
from ferbench.training.weights import seeded

FORWARD = 1 / 3  # of a training pass: the backward pass computes two gradients, each as much work as the forward one
ROWS = {"cpu": 16, "cuda": 128}  # images in the measured step
_CLASSES = 7


class Estimate:
    """Seconds of tasks, from one measured step of each network."""

    def __init__(self, device: Device):
        self.device = device
        self.rates: dict[tuple[str, int], float] = {}  # seconds for one image of a training, by network and threads

    def __call__(self, task: Task, threads: int) -> float:
        """Return the seconds of what is left of a task that has so many threads to itself."""
        recipe, kind = task.method.recipe, task.identity.kind
        stage = stage_of(kind, recipe, task.protocol)
        key = str(asked_shape(recipe) if kind == recipe.asks else recipe.network), threads
        if key not in self.rates:
            before = torch.get_num_threads()
            torch.set_num_threads(threads)
            self.rates[key] = _measured(seeded(0, lambda: build(recipe, kind, _CLASSES)), self.device)
            torch.set_num_threads(before)
        rate = self.rates[key]
        if task.retested:
            return stage.epochs * task.tested * rate * FORWARD
        looks = stage.epochs * task.images * (DERIVED if stage.augment == "expand" else 1)
        return ((1 - task.done) * looks + task.tested * FORWARD) * rate


def describe(recipe: Recipe, classes: int) -> list[tuple[str, dict[str, Any]]]:
    """What is learned in training, and what a test image costs."""
    network = seeded(0, lambda: build(recipe, FOLD, classes)).eval()
    cost = flops(network, (torch.zeros(1, 1, 48, 48),))
    return [(
        "sizes",
        {
            "network parameters": f"{parameters(network):,}", "network FLOPs per image": f"{cost / 1e9:.3f} G",
            "feature": network.trunk.feature, "classes": classes,
        },
    )]  # fmt: skip


def _measured(network: Network, device: Device) -> float:
    """Seconds for one image of a training step, the best of three steps."""
    device.place(network)
    x = device.images(torch.rand(ROWS[device.name], 1, 48, 48, device=device.name))
    times = []
    for _ in range(3):
        start = time.perf_counter()
        with device.autocast():
            network.outputs(x)["logits"].float().sum().backward()
        if device.name == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return min(times) / len(x)
