"""The 14 derived samples of an image (section IV-B): seven angles, then each flipped.

"Firstly, each preprocessed training image is rotated at angles of {−15°, −10°, −5°, 5°, 10°, 15°}.
Secondly, they are flipped horizontally. Finally, there are 14 derived samples in one image."
Derived sample 0 is the image itself, 7 its mirror image.
"""

import math

import numpy as np
import torch
from torch import Tensor

from ferbench.data.faces import SIZE
from ferbench.data.landmarks import mirrored

ANGLES = (0, -15, -10, -5, 5, 10, 15)  # degrees, counter-clockwise positive
DERIVED = 2 * len(ANGLES)
TILE, TILES = 16, 3  # pixels of a tile's side, tiles in a row: about the size of an eye or a mouth
# Random erasing by the values of Zhong et al. 2020 and torchvision: range of the share of the image's area, and
ERASED = 0.02, 0.33
SLENDER = 0.3  # smallest ratio of the sides of the rectangle

_PADDING = {"edge": "border", "zero": "zeros"}


def derive(images: Tensor, which: Tensor, border: str = "edge") -> Tensor:
    """Return derived samples: uint8 [B,48,48] and their numbers int64 [B] in 0..13 → float [B,1,48,48] in [0,1].

    Rotation is about the image's centre, bilinear; uncovered pixels take the value of the nearest pixel ("edge") or
    black ("zero"). Values are rounded to whole grey levels, so a derived sample is an 8-bit image too.
    """
    pixels = images.unsqueeze(1).float()
    turns = which % len(ANGLES)
    if bool((turns != 0).any()):
        angles = torch.tensor(ANGLES, dtype=torch.float64).mul(math.pi / 180)[turns.cpu()]
        cosine, sine, zero = angles.cos(), angles.sin(), torch.zeros_like(angles)
        # affine_grid maps output to input coordinates, with y down: this is a counter-clockwise rotation.
        matrix = torch.stack([cosine, -sine, zero, sine, cosine, zero], dim=1).view(-1, 2, 3)
        grid = torch.nn.functional.affine_grid(
            matrix.float().to(pixels.device), list(pixels.shape), align_corners=False
        )
        turned = torch.nn.functional.grid_sample(
            pixels, grid, mode="bilinear", padding_mode=_PADDING[border], align_corners=False
        )
        pixels = torch.where((turns == 0)[:, None, None, None], pixels, turned)
    flipped = (which >= len(ANGLES))[:, None, None, None]
    pixels = torch.where(flipped, pixels.flip(3), pixels)
    return pixels.round() / 255


def levels(images: Tensor, which: Tensor, border: str = "edge") -> Tensor:
    """Return the result of :func:`derive` as 8-bit images: uint8 [B,48,48]."""
    return (derive(images, which, border) * 255).round().to(torch.uint8).squeeze(1)


def turned(landmarks: np.ndarray, which: int) -> np.ndarray:
    """Return landmarks [T,68,2], x and y in pixels, transformed as in the derived sample ``which`` of their frames."""
    angle, centre = math.radians(ANGLES[which % len(ANGLES)]), (SIZE - 1) / 2
    # A counter-clockwise rotation with y down moves a point from (x, y) to (x cos + y sin, y cos - x sin).
    rotation = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    rotated = (landmarks - centre) @ rotation + centre
    return (mirrored(rotated, SIZE) if which >= len(ANGLES) else rotated).astype(landmarks.dtype)


def jitter(x: Tensor, maps: Tensor | None, moves: Tensor, border: str) -> tuple[Tensor, Tensor | None]:
    """Return zoomed and shifted images, and their attention maps with the same motion (scale jittering: Simonyan &
    Zisserman 2015, section 3.1; here with translation).

    x : [B,1,48,48]. maps : [B,2,H,W] or None. moves : [B,3] float: side of the visible square, and offset of its centre
    to the right and down, in sides of the image; (1, 0, 0) is the unchanged image. border : value outside of the
    image, as in :func:`derive`.
    """
    side, right, down = moves.float().unbind(1)
    none = torch.zeros_like(side)
    # The grid's coordinates run from -1 to 1, so a side is 2.
    matrix = torch.stack([side, none, 2 * right, none, side, 2 * down], dim=1).view(-1, 2, 3)

    def moved(images: Tensor) -> Tensor:
        grid = torch.nn.functional.affine_grid(matrix, list(images.shape), align_corners=False)
        return torch.nn.functional.grid_sample(
            images, grid, mode="bilinear", padding_mode=_PADDING[border], align_corners=False
        )

    return moved(x), None if maps is None else moved(maps)


def rearrange(x: Tensor, tiles: Tensor, offsets: Tensor) -> Tensor:
    """Return images whose tiles have changed places (the region confusion of Chen et al. 2019, "Destruction and
    construction learning for fine-grained image recognition", section 3.1, without its bound on distance).

    x : [B,1,48,48]. tiles : [B,9], the source of the tile at each place, row by row. offsets : [B,2], cyclic shift of
    the grid of tiles down and right, in pixels. A classifier of such images cannot learn the layout of a face, so its
    evidence for a part comes from the part itself.
    """
    place = torch.arange(TILE * TILES, device=x.device)
    rows, columns = place[:, None].expand(-1, len(place)), place[None].expand(len(place), -1)
    source = tiles[:, rows // TILE * TILES + columns // TILE]  # [B,48,48]
    down = (source // TILES * TILE + rows % TILE + offsets[:, :1, None]) % len(place)
    right = (source % TILES * TILE + columns % TILE + offsets[:, 1:, None]) % len(place)
    return x.flatten(1).gather(1, (down * len(place) + right).flatten(1)).view_as(x)


def erase(x: Tensor, boxes: Tensor) -> Tensor:
    """Return images in which a rectangle is filled with the image's mean of each channel (random erasing; Zhong et
    al. 2020, Algorithm 1, which fills it with noise).

    x : [B,C,S,S]. boxes : [B,4], top, left, bottom, right; rows and columns from bottom and right are outside.
    """
    place = torch.arange(x.shape[-1], device=x.device)
    top, left, bottom, right = boxes.T[:, :, None]  # [B,1] each
    down, across = (place >= top) & (place < bottom), (place >= left) & (place < right)  # [B,48]
    inside = down[:, None, :, None] & across[:, None, None, :]
    return torch.where(inside, x.mean(dim=(2, 3), keepdim=True), x)
