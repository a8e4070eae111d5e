"""How long a training will take: a small one of noise, made twice, and what follows from its size."""

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from ferbench.methods.features.recipe import Recipe, Training
from ferbench.methods.interface import Recogniser, Task, TrainingSet, Video, Workspace
from ferbench.runs.store import Store
from ferbench.training.augment import DERIVED
from ferbench.training.device import Device

UNUSED = Path()  # a folder: nothing of this family is stored before it is done
PEOPLE, CLASSES, FRAMES = 4, 7, 12  # of the small training


def estimator(made: Callable[[Recipe, int], Recogniser]) -> Callable[[Task, int], float]:
    """Return what says how many seconds a task takes. That learning takes time in proportion to the samples is a guess;
    descriptions are counted once for all folds of a set. More threads help little and are not counted."""
    rates: dict[str, tuple[float, float]] = {}

    def seconds(task: Task, threads: int) -> float:
        recipe = task.method.recipe
        key = recipe.model_dump_json()
        if key not in rates:
            rates[key] = _measured(recipe, made, task)
        describing, learning = rates[key]
        learned = task.images * (DERIVED if recipe.training.augment == "expand" else 1)
        return (learned + task.tested) * describing / max(1, task.folds) + learned * learning

    return seconds


def _measured(recipe: Recipe, made: Callable[[Recipe, int], Recogniser], task: Task) -> tuple[float, float]:
    """Seconds for describing one sample and for learning from it."""
    plain = recipe.model_copy(update={"training": Training(augment="none")})
    train, taken = _noise(), []
    for _ in range(2):
        work = Workspace(task.identity, Store(UNUSED), UNUSED, Device(), lambda use: 0)
        began = time.perf_counter()
        made(plain, CLASSES).fit(train, work)
        taken.append(time.perf_counter() - began)
    # The second time every description is known.
    return max(0.0, taken[0] - taken[1]) / len(train), taken[1] / len(train)


def _noise() -> TrainingSet:
    """Sequences that nobody has described yet."""
    rng = np.random.default_rng(time.perf_counter_ns())
    count = PEOPLE * CLASSES
    frames = rng.integers(0, 256, (count, FRAMES, 48, 48), dtype=np.uint8)
    landmarks = rng.normal(24, 8, (count, FRAMES, 68, 2)).astype(np.float32)
    people = np.array([f"P{number // CLASSES}" for number in range(count)])
    return TrainingSet(
        images=frames[:, -1],
        videos=[Video(*one) for one in zip(frames, landmarks, strict=True)],
        classes=tuple("ABCDEFG"),
        labels=np.arange(count) % CLASSES,
        subjects=people,
        sequences=people,
    )
