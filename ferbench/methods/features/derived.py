"""The 14 derived samples of each training sample, whole sequences with their landmarks among them."""

import math
from dataclasses import replace

import numpy as np
import torch

from ferbench.data.landmarks import mirrored
from ferbench.methods.features.recipe import Recipe
from ferbench.methods.interface import AttributeSet, TrainingSide, Video, Workspace
from ferbench.training.augment import ANGLES, DERIVED, derive

SIDE = 48  # pixels of a crop
CENTRE = (SIDE - 1) / 2  # about which it is turned


def learned_from(train: TrainingSide | AttributeSet, recipe: Recipe, work: Workspace) -> TrainingSide:
    """Return what a training learns from: its side, or the derived samples of it where the recipe says so."""
    assert isinstance(train, TrainingSide)
    if work.validation is not None and work.keep_best:
        work.notes.append("no epoch was chosen, since none is kept: the samples held out for that are not used")
    return derived(train) if recipe.training.augment == "expand" else train


def derived(side: TrainingSide) -> TrainingSide:
    """Return a side 14 times as long: first the samples themselves, then the second derived sample of each, and so on.

    Every frame of a sequence is turned and mirrored alike, and its landmarks with it.
    """
    return replace(
        side,
        images=np.concatenate([_images(side.images, which) for which in range(DERIVED)]),
        videos=tuple(_video(video, which) for which in range(DERIVED) for video in side.videos),
        labels=np.tile(side.labels, DERIVED), subjects=np.tile(side.subjects, DERIVED),
        sequences=np.tile(side.sequences, DERIVED), shared=None,
    )  # fmt: skip


def turned(landmarks: np.ndarray, which: int) -> np.ndarray:
    """Return landmarks [T,68,2] of the derived sample ``which``: x and y as its frames show them."""
    angle = math.radians(ANGLES[which % len(ANGLES)])
    # Counter-clockwise as one looks at it, with y pointing down.
    matrix = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    found = (landmarks - CENTRE) @ matrix.T + CENTRE
    return (mirrored(found, SIDE) if which >= len(ANGLES) else found).astype(landmarks.dtype)


def _images(images: np.ndarray, which: int) -> np.ndarray:
    numbers = torch.full((len(images),), which, dtype=torch.int64)
    made = derive(torch.from_numpy(np.ascontiguousarray(images)), numbers)
    return (made[:, 0] * 255).round().to(torch.uint8).numpy()


def _video(video: Video, which: int) -> Video:
    points = video.landmarks if video.landmarks is None else turned(video.landmarks, which)
    return Video(_images(video.frames, which), points)
