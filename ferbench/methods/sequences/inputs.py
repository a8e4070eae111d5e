"""What the networks read of sequences: frames and tracks, brought to one length, with their 14 derived samples."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ferbench.data.landmarks import COUNT, WITHOUT_CORNERS, normalised
from ferbench.data.resample import resample
from ferbench.methods.interface import Video
from ferbench.training.augment import DERIVED, derive, turned


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
        samples = [turned(track, which) for which in range(DERIVED if every else 1)]
        found.append(np.stack([normalised(one, tuple(range(COUNT))) for one in samples]))
    return torch.from_numpy(np.stack(found).astype(np.float32))


GEOMETRY = list(WITHOUT_CORNERS)  # the 49 points of DTGN
