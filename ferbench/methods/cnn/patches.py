"""Square patches of face images, in rows over the whole image, and turned images."""

import math

import torch
from torch import Tensor, nn


def patches(x: Tensor, side: int, stride: int) -> Tensor:
    """Cut images [B,1,H,W] into patches [B,P,side,side], row by row from the upper left corner."""
    columns = nn.functional.unfold(x, side, stride=stride)  # [B, side², P]
    return columns.transpose(1, 2).unflatten(2, (side, side))


def assembled(cut: Tensor, size: int, stride: int) -> Tensor:
    """Put patches [B,P,side,side] back into images [B,1,size,size]; where they overlap, their mean counts."""
    side = cut.shape[-1]
    columns = cut.flatten(2).transpose(1, 2)
    total = nn.functional.fold(columns, size, side, stride=stride)
    return total / nn.functional.fold(torch.ones_like(columns), size, side, stride=stride)


def turned(x: Tensor, degrees: float) -> Tensor:
    """Turn images [B,1,H,W] counter-clockwise about their centre, bilinear; the nearest pixel fills what comes free."""
    angle = math.radians(degrees)
    matrix = x.new_tensor([[math.cos(angle), -math.sin(angle), 0], [math.sin(angle), math.cos(angle), 0]])
    grid = nn.functional.affine_grid(matrix.expand(len(x), 2, 3), list(x.shape), align_corners=False)
    return nn.functional.grid_sample(x, grid, mode="bilinear", padding_mode="border", align_corners=False)
