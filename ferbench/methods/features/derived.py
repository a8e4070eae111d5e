"""The 14 derived samples of each training sample, whole sequences with their landmarks among them."""

from dataclasses import replace

import numpy as np
import torch

from ferbench.methods.features.recipe import Recipe
from ferbench.methods.interface import TrainingSet, Video, Workspace
from ferbench.training.augment import DERIVED, levels, turned


def learned_from(train: TrainingSet, recipe: Recipe, work: Workspace) -> TrainingSet:
    """Return what a training learns from: its training set, or the derived samples of it where the recipe says so."""
    if work.validation is not None and work.keep_best:
        work.notes.append("no epoch was chosen, since none is kept: the samples held out for that are not used")
    return derived(train) if recipe.training.augment == "expand" else train


def derived(train: TrainingSet) -> TrainingSet:
    """Return a training set 14 times as long: first the samples themselves, then the second derived sample of each,
    and so on.

    Every frame of a sequence is turned and mirrored alike, and its landmarks with it.
    """
    return replace(
        train,
        images=np.concatenate([_images(train.images, which) for which in range(DERIVED)]),
        videos=tuple(_video(video, which) for which in range(DERIVED) for video in train.videos),
        labels=np.tile(train.labels, DERIVED),
        subjects=np.tile(train.subjects, DERIVED),
        sequences=np.tile(train.sequences, DERIVED),
        shared=None,
    )


def _images(images: np.ndarray, which: int) -> np.ndarray:
    numbers = torch.full((len(images),), which, dtype=torch.int64)
    return levels(torch.from_numpy(np.ascontiguousarray(images)), numbers).numpy()


def _video(video: Video, which: int) -> Video:
    points = video.landmarks if video.landmarks is None else turned(video.landmarks, which)
    return Video(_images(video.frames, which), points)
