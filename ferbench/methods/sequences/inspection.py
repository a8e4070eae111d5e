"""Sizes of networks for sequences, and how long their trainings take."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ferbench.data.landmarks import COUNT
from ferbench.methods.interface import Task
from ferbench.methods.recipes import Method
from ferbench.methods.sequences.inputs import GEOMETRY
from ferbench.methods.sequences.recipe import Part, Recipe
from ferbench.methods.sequences.recogniser import build
from ferbench.training.cost import flops, seconds_of
from ferbench.training.device import Device
from ferbench.training.plan import passes

_ROWS = 16  # sequences of the measured step


def example(part: Part, recipe: Recipe, count: int) -> Tensor:
    """An input of a part for so many sequences."""
    network = recipe.network
    if part in ("dtgn", "phrnn"):
        return torch.rand(count, network.steps, len(GEOMETRY) if part == "dtgn" else COUNT, 2)
    return torch.rand(count, 48, 48) if part == "mscnn" else torch.rand(count, network.frames, 48, 48)


def describe(method: Method, classes: int) -> list[tuple[str, dict[str, Any]]]:
    """Parameters and FLOPs of one sequence, part by part."""
    sizes: dict[str, Any] = {}
    for part in method.recipe.network.parts:
        module = build(part, method.recipe, classes).eval()
        sizes[f"{part} parameters"] = f"{sum(p.numel() for p in module.parameters()):,}"
        sizes[f"{part} FLOPs per sequence"] = f"{flops(module, (example(part, method.recipe, 2),)) / 2e9:.4f} G"
    return [("sizes", sizes)]


class Estimate:
    """Seconds of a task, from one measured step of each part."""

    def __init__(self, device: Device):
        self.device = device
        self.rates: dict[tuple[str, str, int], float] = {}

    def __call__(self, task: Task, threads: int) -> float:
        recipe: Recipe = task.method.recipe
        looks = passes(recipe.finetune, task.images)
        return (1 - task.done) * looks * sum(self._rate(part, recipe, threads) for part in recipe.network.parts)

    def _rate(self, part: Part, recipe: Recipe, threads: int) -> float:
        key = part, str(recipe.network), threads
        if key not in self.rates:
            self.rates[key] = seconds_of(partial(_step, part, recipe, self.device), self.device, threads) / _ROWS
        return self.rates[key]


def _step(part: Part, recipe: Recipe, device: Device) -> Callable[[], object]:
    """A training step of a part, its loss left out."""
    module, x = build(part, recipe, 7).to(device.name), example(part, recipe, _ROWS).to(device.name)

    def step() -> None:
        with device.autocast():
            module(x)[0].float().sum().backward()

    return step
