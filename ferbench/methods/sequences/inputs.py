"""What the networks read of sequences: frames and tracks, brought to one length, with their 14 derived samples."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ferbench.data.faces import SIZE
from ferbench.data.landmarks import COUNT, WITHOUT_CORNERS, mirrored, normalised
from ferbench.data.resample import resample
from ferbench.methods.interface import Video
from ferbench.training.augment import ANGLES, DERIVED, derive


def frames_of(videos: Sequence[Video], count: int) -> Tensor:
    """Frames uint8 [N,T,48,48]; of one frame the last of each sequence."""
    return torch.from_numpy(np.stack([resample(video.frames, count) for video in videos]))


def derived_frames(frames: Tensor, which: Tensor) -> Tensor:
    """Derived samples of frames uint8 [B,T,48,48], all of a sequence alike: float [B,T,48,48] in [0,1]."""
    count = frames.shape[1]
    return derive(frames.flatten(0, 1), which.repeat_interleave(count)).view(-1, *frames.shape[1:])


def tracks_of(videos: Sequence[Video], steps: int, every: bool) -> Tensor:
    """Normalised tracks of all derived samples: float32 [N,14,T,P,2], of undistorted sequences alone [N,1,T,P,2].

    P is 68 with the jaw, whose points a network may leave out. every : all 14.
    """
    found = []
    for video in videos:
        assert video.landmarks is not None
        track = resample(video.landmarks.astype(np.float64), steps)
        turned = [turn(track, which) for which in range(DERIVED if every else 1)]
        found.append(np.stack([normalised(one, tuple(range(COUNT))) for one in turned]))
    return torch.from_numpy(np.stack(found).astype(np.float32))


def turn(track: np.ndarray, which: int) -> np.ndarray:
    """Landmarks [T,68,2] as they lie in a derived sample of their frames (``training.augment.derive``)."""
    angle, centre = math.radians(ANGLES[which % len(ANGLES)]), (SIZE - 1) / 2
    # A picture turned counter-clockwise, y down: a point goes from (x, y) to (x cos + y sin, y cos - x sin).
    rotation = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    moved = (track - centre) @ rotation + centre
    return mirrored(moved, SIZE) if which >= len(ANGLES) else moved


GEOMETRY = list(WITHOUT_CORNERS)  # the 49 points of DTGN
