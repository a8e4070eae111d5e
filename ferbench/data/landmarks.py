"""The 68 facial landmarks that CK+ comes with, in the order of Multi-PIE (Gross et al. 2010): which point is what, and
how tracks of them are made comparable: in place, size and length."""

from typing import Literal

import numpy as np

COUNT = 68
JAW, BROWS, NOSE, EYES, LIPS = (
    tuple(range(first, after)) for first, after in ((0, 17), (17, 27), (27, 36), (36, 48), (48, 68))
)
PARTS = {"brows": BROWS, "eyes": EYES, "nose": NOSE, "mouth": LIPS}  # the 51 points without the jaw
INNER = tuple(range(17, COUNT))  # those 51
WITHOUT_CORNERS = tuple(point for point in INNER if point not in (60, 64))  # 49: without the inner corners of the mouth
NOSE_TIP = 30
_LEFT_EYE, _RIGHT_EYE, _MOUTH_CORNERS = slice(36, 42), slice(42, 48), [48, 54]
FIVE = ("left eye", "right eye", "nose", "left corner of the mouth", "right corner")  # as the picture shows them
_FLAT = 1e-6  # pixels; a spread below it is no face

# Where each point lies in a mirror image: the point of the other half of the face.
MIRROR = np.array(
    [
        *range(16, -1, -1),
        *range(26, 16, -1),
        27,
        28,
        29,
        30,
        *range(35, 30, -1),
        45,
        44,
        43,
        42,
        47,
        46,
        39,
        38,
        37,
        36,
        41,
        40,
        *range(54, 47, -1),
        *range(59, 54, -1),
        *range(64, 59, -1),
        67,
        66,
        65,
    ]
)


def anchors(points: np.ndarray) -> np.ndarray:
    """Return the centres of the image-left eye, the image-right eye and the mouth's corners [3,2] of points [68,2], or
    of :func:`five` points [5,2]."""
    if len(points) == len(FIVE):
        return np.stack([points[0], points[1], points[3:].mean(axis=0)])
    return np.stack(
        [points[_LEFT_EYE].mean(axis=0), points[_RIGHT_EYE].mean(axis=0), points[_MOUTH_CORNERS].mean(axis=0)]
    )


def five(points: np.ndarray) -> np.ndarray:
    """Return the points named by :data:`FIVE` [5,2] of points [68,2], [5,2], or of :func:`anchors` [3,2], which know no
    nose (NaN) and of the mouth only the centre, for both corners."""
    if len(points) == COUNT:
        eyes = anchors(points)[:2]
        return np.stack([*eyes, points[NOSE_TIP], *points[_MOUTH_CORNERS]])
    if len(points) == len(FIVE):
        return points
    return np.stack([points[0], points[1], np.full(2, np.nan), points[2], points[2]])


def mirrored(points: np.ndarray, width: int) -> np.ndarray:
    """Return points [...,68,2] of an image ``width`` pixels wide as they lie in its mirror image."""
    turned = points[..., MIRROR, :].copy()
    turned[..., 0] = width - 1 - turned[..., 0]
    return turned


def normalised(points: np.ndarray, chosen: tuple[int, ...] = INNER) -> np.ndarray:
    """Return (x - x_nose) / sd(x), and y likewise, for each frame apart: points [T,68,2] → [T,P,2] of those chosen.

    The tip of the nose is the origin; the deviation is that of the chosen points' coordinates in the frame, so that
    neither place nor size of the face counts (as in Jung et al. 2015, section 3.2).
    """
    origin = points[:, NOSE_TIP : NOSE_TIP + 1]
    centred = points[:, list(chosen)] - origin
    return centred / np.maximum(centred.std(axis=1, keepdims=True), _FLAT)


def resample(track: np.ndarray, count: int, blend: Literal["nearest", "linear"] = "nearest") -> np.ndarray:
    """Return ``count`` frames of a track [n,...] at places j (n - 1) / (count - 1), first and last among them.

    "nearest" takes the frame at the rounded place, so that a short sequence repeats frames; "linear" mixes both
    neighbours by their distance, in float64. One frame is the last of the track.
    """
    if count == 1:
        return track[-1:]
    places = np.arange(count) * (len(track) - 1) / (count - 1)
    if blend == "nearest":
        return track[np.floor(places + 0.5).astype(np.int64)]
    below = np.floor(places).astype(np.int64)
    above = np.minimum(below + 1, len(track) - 1)
    share = (places - below).reshape(-1, *(1,) * (track.ndim - 1))
    return (1 - share) * track[below] + share * track[above]
