"""Sequences of any length brought to one length."""

from typing import Literal

import numpy as np


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
