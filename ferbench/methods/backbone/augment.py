"""Random changes of training images: parameters are drawn by NumPy with the plan of an epoch, and applied by torch."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ferbench.methods.backbone.recipe import Augment
from ferbench.training.augment import erase
from ferbench.training.plan import drawn_boxes

_RATIO = np.log(4 / 3)  # of the sides of a crop, from 3/4 to 4/3: the values of Szegedy et al. 2015 and torchvision
LUMA = 0.299, 0.587, 0.114  # of red, green and blue in a grey level (ITU-R BT.601)


def drawn(count: int, settings: Augment, size: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Draw the changes of ``count`` images of ``size`` pixels a side.

    Returns "motions" float32 [N,2,3] (from coordinates of the result to those of the image, both from −1 to 1),
    "colours" float32 [N,3] (factors of brightness, contrast and saturation) and "boxes" int64 [N,4] for
    :func:`ferbench.training.augment.erase`. What is off is empty.
    """
    flips, area, ratio = rng.random(count), rng.uniform(settings.crop, 1, count), rng.uniform(-1, 1, count)
    places, shifts, turns = rng.uniform(-1, 1, (count, 2)), rng.uniform(-1, 1, (count, 2)), rng.uniform(-1, 1, count)
    factors, moved = rng.uniform(-1, 1, (count, 3)), rng.random(count) < settings.moved
    strengths = np.array([settings.brightness, settings.contrast, settings.saturation])
    none = np.empty(0, dtype=np.float32)
    motions, colours, boxes = none, none, np.empty(0, dtype=np.int64)
    if settings.flip or settings.crop < 1 or settings.shift or settings.rotate:
        stretch = np.exp(ratio * _RATIO / 2) if settings.crop < 1 else np.ones(count)
        sides = np.minimum(np.sqrt(area)[:, None] * np.stack([stretch, 1 / stretch], axis=1), 1)
        sides = np.where(moved[:, None], sides, 1)
        angle = np.radians(settings.rotate) * turns * moved
        rotation = np.stack([np.cos(angle), -np.sin(angle), np.sin(angle), np.cos(angle)], axis=1).reshape(-1, 2, 2)
        mirror = np.stack([np.where(flips < settings.flip, -1, 1), np.ones(count)], axis=1)
        centre = (1 - sides) * places + 2 * settings.shift * shifts * moved[:, None]
        motions = np.concatenate([rotation * (sides * mirror)[:, None], centre[:, :, None]], axis=2).astype(np.float32)
    if strengths.any():
        colours = (1 + strengths * factors).astype(np.float32)
    if settings.erase:
        boxes = drawn_boxes(count, settings.erase, rng, size, settings.erased)
    return {"motions": motions, "colours": colours, "boxes": boxes}


def changed(x: Tensor, motions: Tensor, colours: Tensor, boxes: Tensor) -> Tensor:
    """Return changed images, in [0,1] as they are. x : float [B,C,S,S]. The others are those of :func:`drawn`."""
    if motions.numel():
        grid = torch.nn.functional.affine_grid(motions, list(x.shape), align_corners=False)
        x = torch.nn.functional.grid_sample(x, grid, mode="bilinear", padding_mode="border", align_corners=False)
    if colours.numel():
        brightness, contrast, saturation = colours.T[:, :, None, None, None]  # [B,1,1,1] each
        x = (x * brightness).clamp(0, 1)
        mean = grey(x).mean(dim=(2, 3), keepdim=True)
        x = (mean + contrast * (x - mean)).clamp(0, 1)
        level = grey(x)
        x = (level + saturation * (x - level)).clamp(0, 1)
    return erase(x, boxes) if boxes.numel() else x


def grey(x: Tensor) -> Tensor:
    """The grey levels [B,1,S,S] of images [B,C,S,S] with one or three channels."""
    return x if x.shape[1] == 1 else (x * x.new_tensor(LUMA)[:, None, None]).sum(dim=1, keepdim=True)
