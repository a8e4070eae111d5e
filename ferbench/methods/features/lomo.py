"""LOMo as a recogniser: what frames are described by, one model for each class and description, late fusion."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from sklearn.decomposition import PCA

from ferbench.data.landmarks import normalised
from ferbench.data.resample import resample
from ferbench.errors import DataError
from ferbench.methods.features.derived import learned_from
from ferbench.methods.features.descriptor import Descriptor, described, frames_of, taken_up
from ferbench.methods.features.histograms import histogram
from ferbench.methods.features.margins import softmax
from ferbench.methods.features.recipe import Recipe, SubEvents
from ferbench.methods.features.subevents import OrderedTemplates, learned
from ferbench.methods.interface import History, SampleSet, TrainingSet, Video, Workspace
from ferbench.seeds import generator


class Appearance(Descriptor):
    """HOG of each frame, [T,D]."""

    def __init__(self, recipe: SubEvents) -> None:
        self.recipe: SubEvents = recipe

    def one(self, sample: Video) -> np.ndarray:
        frames = frames_of(sample, self.recipe.frames) / 255.0
        settings = self.recipe.orientations, self.recipe.cell, self.recipe.block
        return np.stack([histogram(frame, *settings).ravel() for frame in frames])


class Shape(Descriptor):
    """Each frame's landmarks, without the jaw, free of place and of size along each axis, [T,102]."""

    def __init__(self, recipe: SubEvents) -> None:
        self.recipe: SubEvents = recipe

    def one(self, sample: Video) -> np.ndarray:
        """Raises DataError where the sequence has no landmarks."""
        if sample.landmarks is None:
            raise DataError(
                "this method reads landmarks and the sequences have none: prepare the set from a source "
                "that comes with them"
            )
        points = normalised(resample(sample.landmarks, self.recipe.frames).astype(np.float64))
        return points.reshape(len(points), -1)


DESCRIPTIONS: dict[str, type[Appearance] | type[Shape]] = {"appearance": Appearance, "shape": Shape}


class FrameSpace:
    """PCA of frames, in units in which they are 1 long in the mean square."""

    def __init__(self, components: int) -> None:
        self.count = components

    def fit(self, frames: np.ndarray) -> None:
        """Learn from frames [n,D]."""
        pca = PCA(min(self.count, *frames.shape), svd_solver="full").fit(frames)
        self.centre, self.components = pca.mean_, pca.components_
        self.scale = 1 / np.sqrt(max(pca.explained_variance_.sum(), 1e-12))

    def transform(self, frames: np.ndarray) -> np.ndarray:
        return (frames - self.centre) @ self.components.T * self.scale


class SubEventModel:
    """One ordered set of templates for each class; of several descriptions, the mean of their scores."""

    def __init__(self, recipe: Recipe, classes: int) -> None:
        assert isinstance(recipe.descriptor, SubEvents)
        self.recipe, self.settings, self.classes = recipe, recipe.descriptor, classes
        self.spaces = {name: FrameSpace(self.settings.components) for name in self.settings.reads}
        self.models: dict[str, OrderedTemplates] = {}

    def fit(self, train: TrainingSet, work: Workspace) -> History:
        """One row for each description: the accuracy of its models on what they were trained on."""
        samples, settings = learned_from(train, self.recipe, work), self.settings
        signs = np.where(samples.labels[:, None] == np.arange(self.classes), 1.0, -1.0)
        history: History = []
        for number, name in enumerate(settings.reads):

            def report(epoch: int, before: int = number * settings.epochs, name: str = name) -> None:
                work.report(before + epoch, len(settings.reads) * settings.epochs, f"templates of {name}")

            frames = described(DESCRIPTIONS[name](settings), samples)
            self.spaces[name].fit(frames.reshape(-1, frames.shape[-1]))
            x = self.spaces[name].transform(frames)
            self.models[name] = learned(
                x,
                signs,
                settings.templates,
                settings.gap,
                settings.penalty,
                settings.rate,
                settings.epochs,
                settings.restarts,
                generator(work.seed(f"templates of {name}")),
                report,
            )
            right = self.models[name].scores(x).argmax(axis=1) == samples.labels
            history.append({"reads": name, "train_accuracy": float(right.mean())})
        self.load(self.state())
        work.facts["uncalibrated"] = True
        return history

    def predict(self, samples: SampleSet, work: Workspace) -> np.ndarray:
        work.facts["uncalibrated"] = True
        scores = [
            self.models[name].scores(space.transform(described(DESCRIPTIONS[name](self.settings), samples)))
            for name, space in self.spaces.items()
        ]
        return softmax(np.mean(scores, axis=0))

    def state(self) -> dict[str, np.ndarray]:
        found: dict[str, np.ndarray] = {}
        for name, space in self.spaces.items():
            found |= {
                f"{name}.centre": space.centre,
                f"{name}.components": space.components,
                f"{name}.scale": np.asarray(space.scale),
                f"{name}.templates": self.models[name].w,
                f"{name}.orders": self.models[name].c,
            }
        return found

    def load(self, state: Mapping[str, Any]) -> None:
        got = taken_up(state)
        for name, space in self.spaces.items():
            space.centre, space.components = got[f"{name}.centre"], got[f"{name}.components"]
            space.scale = float(got[f"{name}.scale"])
            self.models[name] = OrderedTemplates(got[f"{name}.templates"], got[f"{name}.orders"], self.settings.gap)
