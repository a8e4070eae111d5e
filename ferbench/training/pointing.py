"""The pointing game (Zhang et al. 2018, "Top-down neural attention by excitation backprop"): whether the maximum of an
attention map lies on its part of the face. Faces are aligned, so that their parts lie on the template."""

import torch
from torch import Tensor, nn

from ferbench.data.align import SIZE, TEMPLATE

_EYES = (0.5, 0.6, 0.4)  # beside the outer eyes, above (the brows belong to Table 1's attributes), below
_MOUTH = (0.7, 0.45, 0.45)  # to each side of the mouth's centre, above, below; all in distances between the eyes


def region(part: str) -> tuple[float, float, float, float]:
    """Return left, top, right, bottom of "eyes" or "mouth" on the template, in pixel-centre coordinates."""
    left, right, mouth = TEMPLATE
    distance = float(right[0] - left[0])
    beside, above, below = (distance * share for share in (_EYES if part == "eyes" else _MOUTH))
    if part == "eyes":
        y = float(left[1] + right[1]) / 2
        return float(left[0]) - beside, y - above, float(right[0]) + beside, y + below
    return float(mouth[0]) - beside, float(mouth[1]) - above, float(mouth[0]) + beside, float(mouth[1]) + below


def on_part(maps: Tensor, part: str) -> Tensor:
    """Whether the maximum of each map [N,H,W] of an aligned face lies in the part's region: bool [N].

    Maps are enlarged to 48×48 bilinearly, as in figures; of several maxima the first one counts.
    """
    large = nn.functional.interpolate(maps.unsqueeze(1), size=(SIZE, SIZE), mode="bilinear", align_corners=False)
    place = large.flatten(1).argmax(dim=1)
    left, top, right, bottom = region(part)
    x, y = place % SIZE, torch.div(place, SIZE, rounding_mode="floor")
    return (x >= left) & (x <= right) & (y >= top) & (y <= bottom)


def chance(part: str) -> float:
    """The share of the image that the region covers, which is the expected score of random maxima."""
    left, top, right, bottom = region(part)
    inside = [sum(low <= place <= high for place in range(SIZE)) for low, high in ((left, right), (top, bottom))]
    return inside[0] * inside[1] / SIZE**2
