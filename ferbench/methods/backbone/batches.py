"""The batches of a training: the plan of an epoch by NumPy, and pixels that a thread fetches ahead.

The plan depends on the seed and the number of the epoch alone, and batches come in its order, so that neither the
thread nor an interruption changes any bytes.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, fields
from itertools import islice
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from ferbench.methods.backbone.augment import drawn
from ferbench.methods.backbone.recipe import BackboneRecipe, SoftmaxLoss
from ferbench.seeds import derive_seed, generator
from ferbench.training.device import Device
from ferbench.training.plan import Batch, Step, steps
from ferbench.training.samples import shared_tensor

_NONE = np.empty(0, dtype=np.int64)
_AHEAD = 2  # batches that are fetched during a step


@dataclass(frozen=True)
class ViewBatch(Batch):
    """A batch with its pixels, on a device.

    pixels : uint8 [R,S,S] or [R,S,S,3]. motions, colours : see :func:`ferbench.methods.backbone.augment.drawn`.
    share : float32 [R], of each image in its mixture with the row ``second``. epoch : from 0. last : whether it is the
    last one of its epoch. seed : for random numbers of the network.
    """

    pixels: Tensor
    motions: Tensor
    colours: Tensor
    share: Tensor
    epoch: int
    last: bool
    seed: int


@dataclass(frozen=True)
class ViewStep(Step):
    """A step whose batch is a :class:`ViewBatch`, whose fields it has as arrays."""

    TENSORS: ClassVar = ("pixels", "motions", "colours", "share")

    pixels: np.ndarray = field(default_factory=lambda: _NONE)
    motions: np.ndarray = field(default_factory=lambda: _NONE)
    colours: np.ndarray = field(default_factory=lambda: _NONE)
    share: np.ndarray = field(default_factory=lambda: _NONE)
    epoch: int = 0
    last: bool = False
    seed: int = 0

    def on(self, device: str) -> ViewBatch:
        batch = super().on(device)
        tensors = {name: shared_tensor(getattr(self, name)) for name in self.TENSORS}
        if device == "cuda":
            tensors = {name: tensor.pin_memory() for name, tensor in tensors.items()}
        content: dict[str, Any] = {one.name: getattr(batch, one.name) for one in fields(batch)}
        content |= {name: tensor.to(device, non_blocking=True) for name, tensor in tensors.items()}
        return ViewBatch(**content, epoch=self.epoch, last=self.last, seed=self.seed)


class Speed:
    """Images a second of the loader (fetching and augmenting) and of the network (all else), in the last epoch, when
    all that is compiled or chosen at first use is ready."""

    def __init__(self, device: Device):
        self.device, self.measures = device, False
        self.images, self.fetched, self.augmented, self.steps = 0, 0.0, 0.0, 0.0

    def now(self) -> float:
        """The time in seconds, after all that the device was given to do."""
        if self.device.name == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    def facts(self) -> dict[str, Any]:
        """For the record of the run; empty where no epoch was trained."""
        if not self.images:
            return {}
        seconds = {"loader": self.fetched + self.augmented, "network": self.steps - self.augmented}
        return {"images_per_second": {name: round(self.images / max(one, 1e-9), 1) for name, one in seconds.items()}}


class Batches:
    """The batches of a training set.

    images : as in :class:`ferbench.methods.interface.SampleSet`, of any size; what decodes pictures itself takes the
    threads for that. labels : int64 [N].
    """

    def __init__(self, images: Any, labels: np.ndarray, recipe: BackboneRecipe, seed: int, speed: Speed):
        self.images, self.labels, self.recipe, self.seed, self.speed = images, labels, recipe, seed, speed

    def __call__(self, epoch: int) -> Epoch:
        return Epoch(self, epoch)

    @property
    def count(self) -> int:
        """The number of batches in an epoch."""
        return steps(len(self.labels), "none", self.recipe.finetune.batch)

    def rows(self, rng: np.random.Generator) -> np.ndarray:
        """The images of an epoch in their order, int64 [N]."""
        count, sampling = len(self.labels), self.recipe.finetune.sampling
        if sampling == "shuffled":
            return rng.permutation(count)
        frequency = np.bincount(self.labels)[self.labels].astype(float)
        chance = 1 / (frequency if sampling == "balanced" else np.sqrt(frequency))
        return rng.choice(count, count, p=chance / chance.sum())

    def plan(self, epoch: int) -> Iterator[ViewStep]:
        """The steps of an epoch, without pixels."""
        recipe, rng = self.recipe, generator(self.seed, "epoch", epoch)
        size, mixup = recipe.finetune.batch, recipe.loss.mixup if isinstance(recipe.loss, SoftmaxLoss) else 0.0
        images = self.rows(rng)
        for number in range(self.count):
            rows = images[number * size : (number + 1) * size]
            changes = drawn(len(rows), recipe.augment, recipe.input.size, rng)
            second = rng.permutation(len(rows))
            share = np.full(len(rows), rng.beta(mixup, mixup) if mixup else 1.0, dtype=np.float32)
            seed, last = derive_seed(self.seed, "step", epoch, number), number == self.count - 1
            yield ViewStep(
                rows, np.zeros_like(rows), 1, _NONE, second, share=share, epoch=epoch, last=last, seed=seed, **changes
            )

    def fetched(self, step: ViewStep) -> tuple[ViewStep, float]:
        """A step with its pixels, and the seconds that they took."""
        start = time.perf_counter()
        pixels = np.ascontiguousarray(self.images[step.images])
        whole = ViewStep(**{one.name: getattr(step, one.name) for one in fields(step)} | {"pixels": pixels})
        return whole, time.perf_counter() - start


class Epoch:
    """The steps of one epoch (:class:`ferbench.training.plan.Steps`), whose pixels are fetched while it is iterated."""

    def __init__(self, batches: Batches, number: int):
        self.batches, self.number = batches, number

    def __len__(self) -> int:
        return self.batches.count

    def __iter__(self) -> Iterator[Step]:
        batches, speed = self.batches, self.batches.speed
        speed.measures = self.number == batches.recipe.finetune.epochs - 1
        plan, waiting = batches.plan(self.number), deque[Future[tuple[ViewStep, float]]]()
        pool = ThreadPoolExecutor(1)
        try:
            waiting.extend(pool.submit(batches.fetched, step) for step in islice(plan, _AHEAD))
            while waiting:
                step, seconds = waiting.popleft().result()
                waiting.extend(pool.submit(batches.fetched, later) for later in islice(plan, 1))
                if not speed.measures:
                    yield step
                    continue
                start = speed.now()
                yield step
                speed.images += len(step.images)
                speed.fetched += seconds
                speed.steps += speed.now() - start
        finally:
            pool.shutdown(cancel_futures=True)
