"""A workspace and sets of drawn numbers for tests of recognisers, without a store of real runs."""

from pathlib import Path

import numpy as np
import pytest

from ferbench.methods.interface import SampleSet, TrainingSet, Video, Workspace
from ferbench.runs.record import Identity
from ferbench.runs.store import Store
from ferbench.seeds import derive_seed
from ferbench.training.checkpoint import pack
from ferbench.training.device import Device

CLASSES = ("anger", "happiness", "surprise")


def workspace(home: Path, device: Device | None = None, seed: int = 0, **more) -> Workspace:
    """A workspace of a fold that has no parents, in a store at ``home``. Made again, it goes on where the first one was."""
    identity = Identity(
        kind="fold",
        method="tried",
        preset="tiny",
        recipe={},
        protocol="synth@1",
        data="0" * 64,
        fold="01",
        seed=seed,
        precision="fp32",
        code=1,
    )
    store = Store(home)
    return Workspace(
        identity,
        store,
        store.begin(identity),
        device or Device(),
        lambda use: derive_seed(seed, "fold", "01", use),
        **more,
    )


class _KilledError(Exception):
    pass


def check_resumption(fitted, method, folder: Path) -> None:
    """Assert that a training which is killed in its second half and made again ends as one in a piece.

    fitted : trains a method in a workspace and returns the recogniser.
    """

    def killed(done: int, total: int, text: str) -> None:
        if done > total // 2:
            raise _KilledError

    whole = fitted(method, workspace(folder / "whole")).state()
    with pytest.raises(_KilledError):
        fitted(method, workspace(folder / "killed", report=killed))
    work = workspace(folder / "killed")
    assert work.checkpoint("network").is_file()
    assert pack(fitted(method, work).state(), {}) == pack(whole, {})


def training_set(count: int = 24, frames: int = 0, landmarks: bool = False, seed: int = 0) -> TrainingSet:
    """A training set that can be learned: each class has a bright square of its own, which grows over the frames.

    frames : of each video, none without. Subjects P0, P1, … have one sample of each class.
    """
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % len(CLASSES)
    videos = [_video(label, max(frames, 1), landmarks, rng) for label in labels]
    people = np.array([f"P{number // len(CLASSES)}" for number in range(count)])
    return TrainingSet(
        images=np.stack([video.frames[-1] for video in videos]),
        videos=videos if frames else (),
        classes=CLASSES,
        labels=labels.astype(np.int64),
        subjects=people,
        sequences=np.array([f"{person}_{label}" for person, label in zip(people, labels, strict=True)]),
    )


def other_set(count: int = 12, frames: int = 0, landmarks: bool = False) -> tuple[SampleSet, np.ndarray]:
    """Other samples of the same kind, with their labels."""
    drawn = training_set(count, frames, landmarks, seed=1)
    return SampleSet(images=drawn.images, videos=drawn.videos), drawn.labels


def _video(label: int, count: int, landmarks: bool, rng: np.random.Generator) -> Video:
    pictures = rng.integers(60, 120, (count, 48, 48)).astype(np.uint8)
    points = np.tile(rng.normal(24, 8, (1, 68, 2)), (count, 1, 1))
    for place in range(count):
        side = 4 + 8 * (place + 1) // count
        row, column = 4 + 14 * int(label), 18
        pictures[place, row : row + side, column : column + side] = 230
        points[place, label * 20 : label * 20 + 20, 1] += 6 * (place + 1) / count
    return Video(pictures, points.astype(np.float32) if landmarks else None)
