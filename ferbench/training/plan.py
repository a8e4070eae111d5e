"""The index plan of an epoch: which derived samples, in which steps, in which pairs.

It depends on the seed alone and is computed by NumPy, so it is the same on every device and after an interruption.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import ClassVar, Protocol

import numpy as np
import torch
from torch import Tensor

from ferbench.data.faces import SIZE
from ferbench.seeds import generator
from ferbench.training.augment import DERIVED, ERASED, SLENDER, TILE, TILES
from ferbench.training.schedule import Stage

_NONE = np.empty(0, dtype=np.int64)


@dataclass(frozen=True)
class Step:
    """One step of an epoch.

    images, derived : [R] the rows of the batch: image index and number of its derived sample.
    streams : number of equal parts of the rows that pass through the network separately (2: siamese streams).
    first, second : [P] positions in the batch of both members of each pair; empty without pairs.
    tiles, offsets : [R,9] and [R,2] for :func:`ferbench.training.augment.rearrange`; empty where no image's
        tiles are shuffled.
    boxes : [R,4] for :func:`ferbench.training.augment.erase`; empty where nothing is erased.
    moves : float32 [R,3] for :func:`ferbench.training.augment.jitter`; empty where nothing is moved.
    """

    images: np.ndarray
    derived: np.ndarray
    streams: int
    first: np.ndarray
    second: np.ndarray
    tiles: np.ndarray = field(default_factory=lambda: _NONE)
    offsets: np.ndarray = field(default_factory=lambda: _NONE)
    boxes: np.ndarray = field(default_factory=lambda: _NONE)
    moves: np.ndarray = field(default_factory=lambda: _NONE)

    def on(self, device: str) -> "Batch":
        """The step as index tensors on a device.

        A copy to a GPU is asynchronous from pinned memory only.
        """
        tensors = {name: torch.from_numpy(np.ascontiguousarray(getattr(self, name))) for name in Batch.INDICES}
        if device == "cuda":
            tensors = {name: tensor.pin_memory() for name, tensor in tensors.items()}
        return Batch(streams=self.streams, **{name: t.to(device, non_blocking=True) for name, t in tensors.items()})


@dataclass(frozen=True)
class Batch:
    """A :class:`Step` on a device: int64 tensors, but for ``moves``."""

    INDICES: ClassVar = ("images", "derived", "first", "second", "tiles", "offsets", "boxes", "moves")

    images: Tensor
    derived: Tensor
    streams: int
    first: Tensor
    second: Tensor
    tiles: Tensor
    offsets: Tensor
    boxes: Tensor
    moves: Tensor

    def clone(self) -> "Batch":
        """A copy of all tensors."""
        return Batch(streams=self.streams, **{name: getattr(self, name).clone() for name in self.INDICES})


class Steps(Protocol):
    """The steps of an epoch in their order: a list, or what prepares each one when it is asked for."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Step]: ...


EpochPlan = Callable[[int], Steps]  # the steps of each epoch by its number from 0


def rows(count: int, augment: str, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return image indices and derived numbers of one epoch, shuffled.

    "expand": all 14 derived samples of each of ``count`` images, as in the paper (section IV-B); "sample": one random
    derived sample of each image; "none": each image without distortion.
    """
    if augment == "expand":
        order = rng.permutation(count * DERIVED)
        return order // DERIVED, order % DERIVED
    images = rng.permutation(count)
    derived = rng.integers(0, DERIVED, count) if augment == "sample" else np.zeros(count, dtype=np.int64)
    return images, derived


def steps(count: int, augment: str, batch: int) -> int:
    """Return the number of steps in an epoch. An incomplete last batch is dropped, unless it is the only one."""
    total = count * (DERIVED if augment == "expand" else 1)
    return max(1, total // batch)


def passes(stage: Stage, images: int) -> int:
    """Return the number of samples that a training on ``images`` images processes in all its epochs."""
    return stage.epochs * images * (DERIVED if stage.augment == "expand" else 1)


def single_epoch(count: int, augment: str, batch: int, seed: int, epoch: int, shuffle: float = 0.0) -> list[Step]:
    """Plan an epoch without pairs (stage 1). shuffle : the share of images whose tiles change places."""
    rng = generator(seed, "epoch", epoch)
    images, derived = rows(count, augment, rng)
    tiles, offsets = _rearranged(len(images), shuffle, rng) if shuffle else (_NONE, _NONE)
    return [
        Step(images[part], derived[part], 1, _NONE, _NONE, tiles[part], offsets[part])
        for part in _parts(len(images), batch, steps(count, augment, batch))
    ]


def paired_epoch(
    labels: np.ndarray,
    augment: str,
    batch: int,
    seed: int,
    epoch: int,
    batch_of: str = "pairs",
    pairing: str = "permutation",
    streams: str = "split",
    erase: float = 0.0,
    jitter: float = 0.0,
) -> list[Step]:
    """Plan an epoch of pairs (stage 2).

    labels : [N], used by "balanced" pairing only.
    batch_of : "pairs": a step has ``batch`` pairs, its first ``batch`` rows are stream 1 and the next are
        stream 2; "images": a step has ``batch`` rows, and stream 2 is the same rows in another order.
    pairing : "permutation": random pairs; "balanced": half of the pairs have equal classes, as far as the batch
        allows; "all": every two rows of the step are a pair.
    streams : "split": with "pairs", batch normalisation takes its statistics over each stream separately.
    erase : the share of rows in which a rectangle is erased.
    jitter : the largest zoom and shift of a row, in sides of the image.
    """
    rng = generator(seed, "epoch", epoch)
    images, derived = rows(len(labels), augment, rng)
    boxes = drawn_boxes(len(images), erase, rng) if erase else _NONE
    moves = _moves(len(images), jitter, rng) if jitter else _NONE
    size = 2 * batch if batch_of == "pairs" else batch
    plan = []
    for part in _parts(len(images), size, steps(len(labels), augment, size)):
        count = (part.stop - part.start) // 2 * 2 if batch_of == "pairs" else part.stop - part.start
        part = slice(part.start, part.start + count)
        first, second = _pairs(labels[images[part]], count, batch_of, pairing, rng)
        streams_of_step = 2 if batch_of == "pairs" and streams == "split" else 1
        plan.append(
            Step(images[part], derived[part], streams_of_step, first, second, boxes=boxes[part], moves=moves[part])
        )
    return plan


def looked_up(steps: Iterable[Step], count: int) -> Tensor:
    """Return bool [count,14]: which derived samples of ``count`` images these steps name."""
    named = np.zeros((count, DERIVED), dtype=bool)
    for step in steps:
        named[step.images, step.derived] = True
    return torch.from_numpy(named)


def _parts(total: int, size: int, count: int) -> list[slice]:
    return [slice(i * size, min((i + 1) * size, total)) for i in range(count)]


def _rearranged(count: int, share: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """The source of each tile [N,9] and the shift of the grid of tiles [N,2] for each image; a random ``share`` of the
    images is rearranged, the others keep their tiles."""
    tiles, offsets = np.tile(np.arange(TILES**2), (count, 1)), np.zeros((count, 2), dtype=np.int64)
    chosen = rng.random(count) < share
    tiles[chosen] = rng.permuted(tiles[chosen], axis=1)
    offsets[chosen] = rng.integers(0, TILE, (int(chosen.sum()), 2))
    return tiles, offsets


def drawn_boxes(
    count: int, share: float, rng: np.random.Generator, size: int = SIZE, largest: float = ERASED[1]
) -> np.ndarray:
    """Rectangles [N,4] of random area, shape and place within the image, empty for all but a random ``share``, for
    :func:`ferbench.training.augment.erase`. size : of an image's side. largest : share of the area."""
    area = size**2 * rng.uniform(ERASED[0], largest, count)
    ratio = np.exp(rng.uniform(np.log(SLENDER), -np.log(SLENDER), count))
    sides = np.stack([np.sqrt(area * ratio), np.sqrt(area / ratio)], axis=1).round().clip(1, size).astype(np.int64)
    corner = rng.integers(0, size - sides + 1)
    return np.hstack([corner, corner + sides * (rng.random(count) < share)[:, None]])


def _moves(count: int, most: float, rng: np.random.Generator) -> np.ndarray:
    """The random zoom and shift of each image [N,3], float32."""
    return (np.array([1, 0, 0]) + rng.uniform(-most, most, (count, 3))).astype(np.float32)


def _pairs(
    labels: np.ndarray, count: int, batch_of: str, pairing: str, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Positions of both members of each pair among ``count`` rows."""
    if pairing == "all":
        return np.triu_indices(count, k=1)
    half = count // 2 if batch_of == "pairs" else count
    first = np.arange(half)
    pool = np.arange(half, count) if batch_of == "pairs" else first
    if pairing == "permutation":
        return first, pool if batch_of == "pairs" else rng.permutation(pool)
    second = np.empty(half, dtype=np.int64)
    for position, same_class in enumerate(rng.random(half) < 0.5):
        candidates = (labels[pool] == labels[position]) == same_class
        candidates &= pool != position
        second[position] = rng.choice(pool[candidates] if candidates.any() else pool)
    return first, second
