"""Attention maps for training: from the frozen AMG at every step, or from a table made once.

A frozen AMG in eval mode gives each derived sample one map whatever batch it is in, so a table of
the 14 derived samples of each image is exact. It pays where a training sees most of them.
"""

from typing import Protocol

import torch
from torch import Tensor

from ferbench.models.attention import AttentionMapGenerator
from ferbench.training.augment import DERIVED, derive
from ferbench.training.device import Device

BATCH = 128  # one size for every table and every prediction: kernels are chosen by size, so bits could differ


class Maps(Protocol):
    """Gives the attention maps [B,2,H,W] of a batch, or None to a method without local features."""

    def __call__(self, x: Tensor, images: Tensor, derived: Tensor) -> Tensor | None: ...


def without(x: Tensor, images: Tensor, derived: Tensor) -> None:
    """No maps: GFNet."""


class Generated:
    """Maps computed from the batch itself."""

    def __init__(self, amg: AttentionMapGenerator, device: Device):
        self.amg, self.device = amg, device

    def __call__(self, x: Tensor, images: Tensor, derived: Tensor) -> Tensor:
        with torch.no_grad(), self.device.autocast():
            return self.amg(x).float()


class Table:
    """Maps looked up: float32 [N,14,2,H,W] for the images of a set in their order."""

    def __init__(self, table: Tensor):
        self.table = table

    def __call__(self, x: Tensor, images: Tensor, derived: Tensor) -> Tensor:
        return self.table[images, derived]


def table(amg: AttentionMapGenerator, images: Tensor, border: str, device: Device, tick=lambda n: None) -> Tensor:
    """Compute the maps of all derived samples: uint8 [N,48,48] → float32 [N,14,2,H,W].

    tick : called with the number of maps made since the last call.
    """
    count = len(images) * DERIVED
    generated = Generated(amg, device)
    parts = []
    for start in range(0, count, BATCH):
        rows = torch.arange(start, start + BATCH, device=images.device).clamp_max(count - 1)
        derived = rows % DERIVED
        x = device.images(derive(images[rows // DERIVED], derived, border))
        parts.append(generated(x, rows, derived)[: count - start])
        tick(len(parts[-1]))
    return torch.cat(parts).unflatten(0, (len(images), DERIVED))


def of_images(amg: AttentionMapGenerator, images: Tensor, device: Device) -> Tensor:
    """Maps of undistorted images: uint8 [N,48,48] → float32 [N,2,H,W]."""
    generated = Generated(amg, device)
    none = torch.empty(0)
    parts = [
        generated(
            device.images(images[start : start + BATCH].to(device.name).unsqueeze(1).float() / 255),
            none,
            none,
        )
        for start in range(0, len(images), BATCH)
    ]
    return torch.cat(parts)
