"""Trainings of a descriptor with linear support vector machines, and the largest class as the simplest baseline."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.special import softmax
from sklearn.exceptions import ConvergenceWarning
from sklearn.kernel_approximation import AdditiveChi2Sampler
from sklearn.svm import LinearSVC

from ferbench.methods.features import Classifier, FeatureRecipe, Training
from ferbench.methods.features.descriptor import Descriptor, copied, described
from ferbench.methods.interface import History, Recogniser, SampleSet, Task, TrainingSet, Video, Workspace
from ferbench.protocol.stratified import grouped_folds
from ferbench.runs.store import Store
from ferbench.training.augment import DERIVED, levels, turned
from ferbench.training.device import Device

ITERATIONS = 20_000  # maximum; with large C the 1,000 of scikit-learn do not reach its tolerance
_PEOPLE, _CLASSES, _FRAMES = 4, 7, 12  # of the small training that an estimate measures


class LargestClassRecogniser:
    """Predicts the share of each class in the training set for every sample, and thereby always the largest class; of
    several equally large classes the first one."""

    def __init__(self, classes: int) -> None:
        self.shares = np.zeros(classes)

    def fit(self, train: TrainingSet, work: Workspace) -> History:
        self.shares = np.bincount(train.labels, minlength=len(self.shares)) / len(train)
        return [{"samples": len(train), "largest": float(self.shares.max())}]

    def predict(self, samples: SampleSet, work: Workspace) -> np.ndarray:
        return np.tile(self.shares, (len(samples), 1))

    def state(self) -> dict[str, np.ndarray]:
        return {"shares": self.shares}

    def load(self, state: Mapping[str, Any]) -> None:
        self.shares = np.asarray(state["shares"])


class DescriptorRecogniser:
    """A descriptor and a linear classifier of its features; both are fitted to the training set."""

    def __init__(self, recipe: FeatureRecipe, build: Callable[[], Descriptor], classes: int) -> None:
        assert recipe.classifier is not None
        self.recipe, self.settings, self.build, self.classes = recipe, recipe.classifier, build, classes
        self.descriptor = build()
        self.margins = LinearMargins(self.settings, classes)

    def fit(self, train: TrainingSet, work: Workspace) -> History:
        """One row for each penalty that was compared: its accuracy on held-out subjects of the training set."""
        samples = samples_to_learn(train, self.recipe, work)
        descriptions = work.timed("description", lambda: described(self.descriptor, samples, work.report))
        self.descriptor.fit(descriptions, samples.labels, work.seed)
        features = self.descriptor.transform(descriptions)
        history = self._compared_penalties(descriptions, features, samples, work)
        best = max(history, key=lambda row: (row.get("inner_accuracy", 0.0), -row["c"]))["c"]
        self.margins.fit(features, samples.labels, best, work.seed("margins"))
        if not self.margins.converged:
            work.notes.append("the support vector machine stopped at its largest number of steps")
        self.load(self.state())
        work.facts |= {"uncalibrated": True, "features": features.shape[1], "c": best}
        return history

    def predict(self, samples: SampleSet, work: Workspace) -> np.ndarray:
        work.facts["uncalibrated"] = True
        features = self.descriptor.transform(described(self.descriptor, samples, work.report))
        return softmax(self.margins.decide(features), axis=1)  # margins are not log-odds, so these are uncalibrated

    def state(self) -> dict[str, np.ndarray]:
        parts = {"descriptor": self.descriptor.state(), "classifier": self.margins.state()}
        return {f"{part}.{name}": array for part, arrays in parts.items() for name, array in arrays.items()}

    def load(self, state: Mapping[str, Any]) -> None:
        arrays = copied(state)
        for part in (self.descriptor, self.margins):
            prefix = "descriptor." if part is self.descriptor else "classifier."
            part.load({name.removeprefix(prefix): a for name, a in arrays.items() if name.startswith(prefix)})

    def _compared_penalties(
        self, descriptions: np.ndarray, features: np.ndarray, samples: TrainingSet, work: Workspace
    ) -> History:
        """One row for each penalty. A descriptor that uses labels is fitted again without the held-out subjects.
        Derived samples, which follow the undistorted ones, are never held out."""
        count = len(samples) // (DERIVED if self.recipe.training.augment == "expand" else 1)
        penalties = sorted(self.settings.c)
        if len(penalties) == 1:
            return [{"c": penalties[0]}]
        folds = grouped_folds(samples.labels[:count], samples.subjects[:count], self.settings.inner, work.seed("inner"))
        if not folds:
            middle = penalties[len(penalties) // 2]
            work.notes.append(f"too few samples to hold some out: the penalty {middle} was not compared with others")
            return [{"c": middle}]
        correct, total = np.zeros(len(penalties), dtype=int), 0
        for number, (learned, held_out) in enumerate(folds):
            rows = np.concatenate([learned + offset for offset in range(0, len(samples), count)])
            x, validation = features[rows], features[held_out]
            if self.descriptor.labelled:
                descriptor = self.build()
                descriptor.fit(descriptions[rows], samples.labels[rows], work.seed)
                x, validation = descriptor.transform(descriptions[rows]), descriptor.transform(descriptions[held_out])
            for place, penalty in enumerate(penalties):
                margins = LinearMargins(self.settings, self.classes)
                margins.fit(x, samples.labels[rows], penalty, work.seed("margins"))
                predicted = margins.decide(validation).argmax(axis=1)
                correct[place] += int((predicted == samples.labels[held_out]).sum())
            total += len(held_out)
            work.report(number + 1, len(folds), "choosing the penalty on held-out subjects")
        return [{"c": c, "inner_accuracy": int(n) / total} for c, n in zip(penalties, correct, strict=True)]


class LinearMargins:
    """One linear support vector machine for each of K classes, against the rest.

    A class without training samples has the margin -inf, so its probability is 0.
    """

    def __init__(self, recipe: Classifier, classes: int) -> None:
        self.recipe, self.classes = recipe, classes
        self.converged = True

    def fit(self, x: np.ndarray, labels: np.ndarray, c: float, seed: int) -> LinearMargins:
        """Learn from features [N,D] and labels [N] with the penalty ``c``."""
        x = self._mapped(x)
        standard = self.recipe.scale == "standard"
        self.mean = x.mean(axis=0) if standard else np.zeros(x.shape[1])
        deviation = x.std(axis=0) if standard else np.ones(x.shape[1])
        self.deviation = np.where(deviation > 1e-12, deviation, 1.0)
        self.weights = np.zeros((self.classes, x.shape[1]))
        self.bias = np.full(self.classes, -np.inf)
        present = np.unique(labels)
        if len(present) == 1:
            self.bias[present] = 0.0
            return self
        machine = LinearSVC(C=c, random_state=seed % 2**32, max_iter=ITERATIONS, dual="auto")
        with warnings.catch_warnings(record=True) as raised:
            warnings.simplefilter("always", ConvergenceWarning)
            coordinates, basis = compact((x - self.mean) / self.deviation)
            machine.fit(coordinates, labels)
        self.converged = not raised
        two = len(present) == 2  # then scikit-learn has one machine, of the second class against the first
        weights = machine.coef_ if basis is None else machine.coef_ @ basis
        self.weights[present] = np.concatenate([-weights, weights]) if two else weights
        self.bias[present] = np.concatenate([-machine.intercept_, machine.intercept_]) if two else machine.intercept_
        return self

    def decide(self, x: np.ndarray) -> np.ndarray:
        """Return margins [N,K] of features [N,D]."""
        return ((self._mapped(x) - self.mean) / self.deviation) @ self.weights.T + self.bias

    def state(self) -> dict[str, np.ndarray]:
        return {"mean": self.mean, "deviation": self.deviation, "weights": self.weights, "bias": self.bias}

    def load(self, state: Mapping[str, np.ndarray]) -> None:
        self.mean, self.deviation = state["mean"], state["deviation"]
        self.weights, self.bias = state["weights"], state["bias"]

    def _mapped(self, x: np.ndarray) -> np.ndarray:
        if self.recipe.kernel == "linear":
            return x
        return AdditiveChi2Sampler(sample_steps=2).fit_transform(x)


def compact(x: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """Return samples [N,D] as coordinates [N,N] in the space that they span, and its orthonormal basis [N,D], where
    D > N; otherwise the samples and None.

    The weights of a linear machine are a linear combination of the samples, and these coordinates preserve lengths, so
    the solution is the same. liblinear's time is proportional to N·D in each of many steps; for 300 samples of 9,000
    features this takes a thirtieth of the time.
    """
    if x.shape[1] <= len(x):
        return x, None
    q, r = np.linalg.qr(x.T)
    return np.ascontiguousarray(r.T), q.T


def samples_to_learn(train: TrainingSet, recipe: FeatureRecipe, work: Workspace) -> TrainingSet:
    """Return the training set, or its derived samples if the recipe expands it."""
    if work.validation is not None and work.keep_best:
        work.notes.append("no epoch was chosen, since none is kept: the samples held out for that are not used")
    return derived(train) if recipe.training.augment == "expand" else train


def derived(train: TrainingSet) -> TrainingSet:
    """Return all 14 derived samples of a training set: first the undistorted samples, then derived sample 1 of each,
    and so on. All frames of a sequence and its landmarks are rotated and mirrored in the same way."""
    return replace(
        train,
        images=np.concatenate([_derived_images(train.images, which) for which in range(DERIVED)]),
        videos=tuple(_derived_video(video, which) for which in range(DERIVED) for video in train.videos),
        labels=np.tile(train.labels, DERIVED),
        subjects=np.tile(train.subjects, DERIVED),
        sequences=np.tile(train.sequences, DERIVED),
        shared=None,
    )


def _derived_images(images: np.ndarray, which: int) -> np.ndarray:
    numbers = torch.full((len(images),), which, dtype=torch.int64)
    return levels(torch.from_numpy(np.ascontiguousarray(images)), numbers).numpy()


def _derived_video(video: Video, which: int) -> Video:
    landmarks = None if video.landmarks is None else turned(video.landmarks, which)
    return Video(_derived_images(video.frames, which), landmarks)


class FeatureEstimate:
    """Seconds of a task, from two small trainings on noise. Assumptions: learning takes time in proportion to the
    number of samples, and further threads do not help. All folds of a dataset share the descriptions."""

    def __init__(self, build: Callable[[FeatureRecipe, int], Recogniser]) -> None:
        self.build = build
        self.seconds: dict[str, tuple[float, float]] = {}  # to describe one sample and to learn from it, by recipe

    def __call__(self, task: Task, threads: int) -> float:
        recipe = task.method.recipe
        key = recipe.model_dump_json()
        if key not in self.seconds:
            self.seconds[key] = self._measured(recipe, task)
        describing, learning = self.seconds[key]
        learned = task.images * (DERIVED if recipe.training.augment == "expand" else 1)
        return (learned + task.tested) * describing / max(1, task.folds) + learned * learning

    def _measured(self, recipe: FeatureRecipe, task: Task) -> tuple[float, float]:
        undistorted = recipe.model_copy(update={"training": Training(augment="none")})
        train, folder, seconds = _noise(), Path(), []  # nothing is stored in the folder
        for _ in range(2):
            work = Workspace(task.identity, Store(folder), folder, Device(), lambda use: 0)
            start = time.perf_counter()
            self.build(undistorted, _CLASSES).fit(train, work)
            seconds.append(time.perf_counter() - start)
        # The second training finds its descriptions in the cache.
        return max(0.0, seconds[0] - seconds[1]) / len(train), seconds[1] / len(train)


def _noise() -> TrainingSet:
    """Random sequences, which are not in the cache of descriptions."""
    rng = np.random.default_rng(time.perf_counter_ns())
    count = _PEOPLE * _CLASSES
    frames = rng.integers(0, 256, (count, _FRAMES, 48, 48), dtype=np.uint8)
    landmarks = rng.normal(24, 8, (count, _FRAMES, 68, 2)).astype(np.float32)
    people = np.array([f"P{number // _CLASSES}" for number in range(count)])
    return TrainingSet(
        images=frames[:, -1],
        videos=[Video(*sequence) for sequence in zip(frames, landmarks, strict=True)],
        classes=tuple("ABCDEFG"),
        labels=np.arange(count) % _CLASSES,
        subjects=people,
        sequences=people,
    )
