"""Sizes of the networks, and how long their trainings take."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from ferbench.methods.cnn.methods import build
from ferbench.methods.cnn.recipe import Recipe
from ferbench.methods.cnn.recogniser import parameters
from ferbench.methods.cnn.schedule import asked_shape, stage_of
from ferbench.methods.interface import FOLD, Task
from ferbench.training.cost import FORWARD, flops, seconds_of
from ferbench.training.device import Device
from ferbench.training.networks import seeded
from ferbench.training.plan import passes

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
            count = ROWS[self.device.name]
            step = partial(_step, recipe, kind, self.device, count)
            self.rates[key] = seconds_of(step, self.device, threads) / count
        rate = self.rates[key]
        if task.retested:
            return stage.epochs * task.tested * rate * FORWARD
        return ((1 - task.done) * passes(stage, task.images) + task.tested * FORWARD) * rate


def describe(recipe: Recipe, classes: int) -> list[tuple[str, dict[str, Any]]]:
    """What is learned in training, and what a test image costs."""
    network = seeded(0, lambda: build(recipe, FOLD, classes)).eval()
    cost = flops(network, (torch.zeros(1, 1, 48, 48),))
    return [
        (
            "sizes",
            {
                "network parameters": f"{parameters(network):,}",
                "network FLOPs per image": f"{cost / 1e9:.3f} G",
                "feature": network.trunk.feature,
                "classes": classes,
            },
        )
    ]


def _step(recipe: Recipe, kind: str, device: Device, count: int) -> Callable[[], object]:
    """A training step of so many images, its loss left out."""
    network = seeded(0, lambda: build(recipe, kind, _CLASSES))
    device.place(network)
    x = device.images(torch.rand(count, 1, 48, 48, device=device.name))

    def step() -> None:
        with device.autocast():
            network.outputs(x)["logits"].float().sum().backward()

    return step
