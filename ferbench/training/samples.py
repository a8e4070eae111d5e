"""The input of a training step: derived samples with attention maps, computed at every step or looked up in tables.

A frozen AMG in eval mode gives each derived sample the same map in every batch, and derived samples are whole grey
levels, so tables of the 14 derived samples of each image are exact. They pay where a training sees most of them.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from ferbench.files import canonical_json, sha256_of
from ferbench.training.augment import DERIVED, derive, levels
from ferbench.training.checkpoint import remembered
from ferbench.training.device import Device

_DERIVED_AT_ONCE = 128  # derived samples that are computed at a time


class Samples(Protocol):
    """Gives derived samples of a set: image indices and derived numbers [B] → pixels float [B,1,48,48] in
    [0,1], and attention maps [B,2,H,W], or None where the network needs none."""

    def __call__(self, images: Tensor, derived: Tensor) -> tuple[Tensor, Tensor | None]: ...


class Computed:
    """Derived samples and maps computed at every step: the plain way.

    images : uint8 [N,48,48] on the device. amg : frozen; None for stage 1 and GFNet.
    """

    def __init__(self, images: Tensor, amg: Callable[[Tensor], Tensor] | None, border: str, device: Device):
        self.images, self.amg, self.border, self.device = images, amg, border, device

    def __call__(self, images: Tensor, derived: Tensor) -> tuple[Tensor, Tensor | None]:
        x = self.device.images(derive(self.images[images], derived, self.border))
        return x, None if self.amg is None else attention(self.amg, x, self.device)


@dataclass(frozen=True)
class Tables:
    """Derived samples and maps looked up: uint8 [N,14,48,48] and float32 [N,14,2,H,W] (or None) on the device."""

    pixels: Tensor
    maps: Tensor | None
    device: Device

    def __call__(self, images: Tensor, derived: Tensor) -> tuple[Tensor, Tensor | None]:
        x = self.device.images(self.pixels[images, derived].unsqueeze(1).float() / 255)
        return x, None if self.maps is None else self.maps[images, derived]


def shared_tensor(images: np.ndarray) -> Tensor:
    """Return images as a tensor that is only read: it shares their memory, which may be that of a read-only file."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable", UserWarning)
        return torch.from_numpy(images)


Timed = Callable[[str, Callable[[], Tensor]], Tensor]  # carries out some work and records its seconds under a name


@dataclass(frozen=True)
class Shared:
    """Tables of a whole prepared dataset, of which a training gets the rows that it learns from and no others.

    images : uint8 [M,48,48], all of the set; only this class reads them. rows : int64 [N], of the training set.
    home : the folder of tables of maps, each named by the hash of everything that decides its bytes.
    folds : how many folds of the same training are planned together, 1 where there are none.
    """

    images: np.ndarray
    rows: np.ndarray
    home: Path
    folds: int = 1

    def pays(self, seen: int) -> bool:
        """Whether maps of all derived samples of the set are worth computing for trainings that see so many samples:
        if all planned folds together see at least as many as there are."""
        return self.folds * seen >= DERIVED * len(self.images)

    def tables(
        self,
        border: str,
        device: Device,
        timed: Timed,
        amg: Callable[[Tensor], Tensor] | None = None,
        identity: Sequence[Hashable] = (),
        named: Tensor | None = None,
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> Tables:
        """Return the derived samples of the training rows, and their maps where there is an AMG.

        amg : frozen and on the device. identity : of its maps. named : bool [N,14], the derived samples whose maps are
        needed; by default those of all rows of the set. progress : called with the number of maps of a new table that
        are computed, and that of all.
        """
        rows = torch.from_numpy(self.rows)
        pixels = timed("derived samples", lambda: pixel_table(shared_tensor(self.images), border))
        if amg is None:
            return Tables(pixels[rows].to(device.name), None, device)
        wanted = None
        if named is not None:
            wanted = torch.zeros(pixels.shape[:2], dtype=torch.bool)
            wanted[rows] = named
        content = [
            *identity,
            sha256_of(pixels.numpy().tobytes()),
            device.rows,
            device.precision,
            device.name,
            torch.get_num_threads(),
            torch.__version__,
            None if wanted is None else sha256_of(wanted.numpy().tobytes()),
        ]
        path = self.home / f"{sha256_of(canonical_json(content).encode())[:16]}.safetensors"
        stored = remembered(
            path, lambda: {"maps": timed("attention maps", lambda: map_table(amg, pixels, device, wanted, progress))}
        )
        maps = stored["maps"][rows].to(device.name)
        return Tables(pixels[rows].to(device.name), maps, device)


def attention(amg: Callable[[Tensor], Tensor], x: Tensor, device: Device) -> Tensor:
    """Maps of a batch: float [B,1,48,48] in [0,1] → float32 [B,2,H,W], or the shape that ``amg`` returns."""
    with torch.no_grad(), device.autocast():
        return amg(x).float()


def pixel_table(images: Tensor, border: str) -> Tensor:
    """All derived samples: uint8 [N,48,48] on the CPU → uint8 [N,14,48,48] on the CPU.

    Always computed on the CPU, so that the table has the same bytes on every device.
    """
    count = len(images) * DERIVED
    parts = []
    for start in range(0, count, _DERIVED_AT_ONCE):
        rows = torch.arange(start, min(start + _DERIVED_AT_ONCE, count))
        parts.append(levels(images[rows // DERIVED], rows % DERIVED, border))
    return torch.cat(parts).unflatten(0, (len(images), DERIVED))


def map_table(
    amg: Callable[[Tensor], Tensor],
    pixels: Tensor,
    device: Device,
    wanted: Tensor | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Tensor:
    """Maps of derived samples: a :func:`pixel_table` → float32 [N,14,2,H,W] on the CPU.

    Computed and gathered on the device, with one synchronisation at the end.

    wanted : bool [N,14], the samples whose maps are computed; by default all. Other maps are NaN, so that no training
        can use them. progress : called with the number of maps that are computed, and that of all.
    """
    flat = pixels.flatten(0, 1).to(device.name)
    order = torch.arange(len(flat)) if wanted is None else wanted.flatten().nonzero().squeeze(1)
    count = len(order)
    order = torch.cat([order, order[-1:].expand(-count % device.rows)]).to(device.name)  # the last batch is full too
    table = torch.empty(0)
    for number, rows in enumerate(order.split(device.rows)):
        maps = attention(amg, device.images(flat[rows].unsqueeze(1).float() / 255), device)
        if not len(table):
            table = maps.new_full((len(flat), *maps.shape[1:]), torch.nan)
        table[rows] = maps
        progress(min((number + 1) * device.rows, count), count)
    return table.unflatten(0, pixels.shape[:2]).cpu()


def batches(images: Tensor, device: Device, rows: int = 0) -> Iterator[Tensor]:
    """Undistorted images uint8 [N,48,48] as a network takes them, ``rows`` at a time (0: ``device.rows``): float
    [B,1,48,48] in [0,1] on the device."""
    for part in images.split(rows or device.rows):
        yield device.images(part.to(device.name).unsqueeze(1).float() / 255)


def maps_of(amg: Callable[[Tensor], Tensor], images: Tensor, device: Device, rows: int = 0) -> Tensor:
    """Maps of undistorted images: uint8 [N,48,48] → float32 [N,2,H,W] on the device; one branch's [N,H,W].

    rows : see :func:`batches`.
    """
    return torch.cat([attention(amg, x, device) for x in batches(images, device, rows)])


def maps_if_any(amg: Callable[[Tensor], Tensor] | None, images: Tensor, device: Device, rows: int = 0) -> Tensor | None:
    """:func:`maps_of`; None for a network that takes none."""
    return None if amg is None else maps_of(amg, images, device, rows)
