"""LOMo: Sikka, Sharma, Bartlett, "LOMo: latent ordinal model for facial analysis in videos", CVPR 2016.

The score of a sequence is the mean fit of a few templates, each placed at one frame, plus the weight of their order in
time. Dynamic programming for each order computes the optimal placement.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import permutations
from typing import Any

import numpy as np
from scipy.special import softmax
from sklearn.decomposition import PCA

from ferbench.data.landmarks import normalised, resample
from ferbench.errors import DataError
from ferbench.methods.features import FeatureRecipe, SubEvents
from ferbench.methods.features.descriptor import Descriptor, copied, described, frames_of
from ferbench.methods.features.gradients import histogram
from ferbench.methods.features.recogniser import samples_to_learn
from ferbench.methods.interface import History, SampleSet, TrainingSet, Video, Workspace
from ferbench.seeds import generator


@cache
def orders(templates: int) -> np.ndarray:
    """Return the M! orders [M!,M]: the template that comes first, second, … in time."""
    return np.array(list(permutations(range(templates))))


@dataclass(frozen=True)
class Placement:
    """The placement of M templates by B models.

    values : [B], the scores. order : [B], of the M!. frames : [B,M], of template 0, 1, …
    """

    values: np.ndarray
    order: np.ndarray
    frames: np.ndarray


def place(fits: np.ndarray, costs: np.ndarray, gap: int) -> Placement:
    """Place templates at the frames with the largest sum of their mean fit and of the weight of their order:
    s = max over frames k_1 … k_M of (1/M) Σ_i fits[i, k_i] + costs[order of the k_i].

    For one order, the best sum with the j-th template at frame t is its fit plus the best sum with the template before
    at frame t - gap - 1 or earlier.

    fits : [B,M,T], of each template to each frame. costs : [B,M!], the weight of each order. gap : minimum number of
    frames between two chosen ones. T ≥ M + (M-1)·gap.
    """
    batch, templates, frames = fits.shape
    all_orders = orders(templates)
    in_order = fits[:, all_orders]  # [B,M!,M,T]
    best = in_order[:, :, 0]
    sums = [best]
    for step in range(1, templates):
        before = np.full_like(best, -np.inf)
        before[..., gap + 1 :] = np.maximum.accumulate(best, axis=-1)[..., : frames - gap - 1]
        best = in_order[:, :, step] + before
        sums.append(best)
    values = best.max(axis=-1) / templates + costs
    order = values.argmax(axis=1)
    models = np.arange(batch)
    chosen = np.empty((batch, templates), dtype=np.int64)
    end = np.full(batch, frames)
    for step in reversed(range(templates)):
        allowed = np.where(np.arange(frames) < end[:, None], sums[step][models, order], -np.inf)
        frame = allowed.argmax(axis=1)
        chosen[models, all_orders[order, step]] = frame
        end = frame - gap
    return Placement(values[models, order], order, chosen)


class OrderedTemplates:
    """B models of M templates each: w [B,M,d] and the weight c [B,M!] of each order."""

    def __init__(self, w: np.ndarray, c: np.ndarray, gap: int) -> None:
        self.w, self.c, self.gap = w, c, gap

    def scores(self, x: np.ndarray) -> np.ndarray:
        """Return the scores [N,B] of sequences [N,T,d]."""
        return np.stack([place(self.w @ sequence.T, self.c, self.gap).values for sequence in x])

    def step(self, x: np.ndarray, sign: np.ndarray, penalty: float, rate: float) -> None:
        """One step of stochastic subgradient descent on λ/2 Σ|w_i|² + max(0, 1 - y s(x)) for a sequence x [T,d].

        sign : [B], y of each model, 1 or -1. For models with y s < 1:
        w_i ← (1 - λη) w_i + η y x_{k_i} / M,  c_order ← c_order + η y.
        """
        placed = place(self.w @ x.T, self.c, self.gap)
        wrong = np.flatnonzero(sign * placed.values < 1)
        shift = rate * sign[wrong]
        chosen = x[placed.frames[wrong]]  # [B',M,d]
        self.w[wrong] = (1 - penalty * rate) * self.w[wrong] + shift[:, None, None] * chosen / self.w.shape[1]
        self.c[wrong, placed.order[wrong]] += shift

    def objective(self, x: np.ndarray, signs: np.ndarray, penalty: float) -> np.ndarray:
        """Return λ/2 Σ|w_i|² + the mean hinge loss of each model [B] on sequences [N,T,d] with signs [N,B]."""
        hinge = np.maximum(0.0, 1 - signs * self.scores(x)).mean(axis=0)
        return penalty / 2 * (self.w**2).sum(axis=(1, 2)) + hinge


def learn_templates(
    x: np.ndarray,
    signs: np.ndarray,
    settings: SubEvents,
    rng: np.random.Generator,
    report: Callable[[int], None] = lambda epoch: None,
    ordered: bool = True,
) -> OrderedTemplates:
    """Learn K models from sequences [N,T,d] with signs [N,K] of 1 and -1.

    Each model is trained ``settings.restarts`` times from different small random templates, all in parallel, and the
    result with the lowest objective on the training set is kept. report : gets the number of finished epochs.
    ordered : False keeps the weights of all orders at 0.
    """
    count, kinds = signs.shape
    restarts = settings.restarts
    w = rng.normal(0, 0.1 / np.sqrt(x.shape[2]), (restarts * kinds, settings.templates, x.shape[2]))
    models = OrderedTemplates(w, np.zeros((len(w), settings.orders)), settings.gap)
    repeated = np.tile(signs, restarts)  # model r·K + k is restart r of class k
    for epoch in range(settings.epochs):
        for sample in rng.permutation(count):
            models.step(x[sample], repeated[sample], settings.penalty, settings.rate)
            if not ordered:
                models.c[:] = 0.0
        report(epoch + 1)
    objective = models.objective(x, repeated, settings.penalty).reshape(restarts, kinds)
    best = objective.argmin(axis=0) * kinds + np.arange(kinds)
    return OrderedTemplates(models.w[best], models.c[best], settings.gap)


class FrameHistograms(Descriptor):
    """HOG of each frame, [T,D]."""

    def __init__(self, recipe: SubEvents) -> None:
        self.recipe: SubEvents = recipe

    def describe(self, sample: Video) -> np.ndarray:
        frames = frames_of(sample, self.recipe.frames) / 255.0
        settings = self.recipe.orientations, self.recipe.cell, self.recipe.block
        return np.stack([histogram(frame, *settings).ravel() for frame in frames])


class FrameLandmarks(Descriptor):
    """The landmarks of each frame without the jaw, with normalised position and size along each axis, [T,102]."""

    def __init__(self, recipe: SubEvents) -> None:
        self.recipe: SubEvents = recipe

    def describe(self, sample: Video) -> np.ndarray:
        """Raises DataError if the sequence has no landmarks."""
        if sample.landmarks is None:
            raise DataError(
                "this method reads landmarks and the sequences have none: prepare the set from a source "
                "that comes with them"
            )
        points = normalised(resample(sample.landmarks, self.recipe.frames).astype(np.float64))
        return points.reshape(len(points), -1)


DESCRIPTORS: dict[str, type[FrameHistograms] | type[FrameLandmarks]] = {
    "appearance": FrameHistograms,
    "shape": FrameLandmarks,
}


class FrameSpace:
    """PCA of frames, in units in which their mean squared length is 1."""

    def __init__(self, components: int) -> None:
        self.count = components

    def fit(self, frames: np.ndarray) -> None:
        """Learn from frames [n,D]."""
        pca = PCA(min(self.count, *frames.shape), svd_solver="full").fit(frames)
        self.centre, self.components = pca.mean_, pca.components_
        self.scale = 1 / np.sqrt(max(pca.explained_variance_.sum(), 1e-12))

    def transform(self, frames: np.ndarray) -> np.ndarray:
        return (frames - self.centre) @ self.components.T * self.scale


class LomoRecogniser:
    """One model of ordered templates for each class and description; the scores of descriptions are averaged."""

    def __init__(self, recipe: FeatureRecipe, classes: int) -> None:
        assert isinstance(recipe.descriptor, SubEvents)
        self.recipe, self.settings, self.classes = recipe, recipe.descriptor, classes
        self.spaces = {name: FrameSpace(self.settings.components) for name in self.settings.reads}
        self.models: dict[str, OrderedTemplates] = {}

    def fit(self, train: TrainingSet, work: Workspace) -> History:
        """One row for each description: the accuracy of its models on the training set."""
        samples, settings = samples_to_learn(train, self.recipe, work), self.settings
        signs = np.where(samples.labels[:, None] == np.arange(self.classes), 1.0, -1.0)
        history: History = []
        for number, name in enumerate(settings.reads):

            def report(epoch: int, before: int = number * settings.epochs, name: str = name) -> None:
                work.report(before + epoch, len(settings.reads) * settings.epochs, f"templates of {name}")

            frames = described(DESCRIPTORS[name](settings), samples)
            self.spaces[name].fit(frames.reshape(-1, frames.shape[-1]))
            x = self.spaces[name].transform(frames)
            rng = generator(work.seed(f"templates of {name}"))
            self.models[name] = learn_templates(x, signs, settings, rng, report)
            correct = self.models[name].scores(x).argmax(axis=1) == samples.labels
            history.append({"reads": name, "train_accuracy": float(correct.mean())})
        self.load(self.state())
        work.facts["uncalibrated"] = True
        return history

    def predict(self, samples: SampleSet, work: Workspace) -> np.ndarray:
        work.facts["uncalibrated"] = True
        scores = [
            self.models[name].scores(space.transform(described(DESCRIPTORS[name](self.settings), samples)))
            for name, space in self.spaces.items()
        ]
        return softmax(np.mean(scores, axis=0), axis=1)

    def state(self) -> dict[str, np.ndarray]:
        state: dict[str, np.ndarray] = {}
        for name, space in self.spaces.items():
            state |= {
                f"{name}.centre": space.centre,
                f"{name}.components": space.components,
                f"{name}.scale": np.asarray(space.scale),
                f"{name}.templates": self.models[name].w,
                f"{name}.orders": self.models[name].c,
            }
        return state

    def load(self, state: Mapping[str, Any]) -> None:
        arrays = copied(state)
        for name, space in self.spaces.items():
            space.centre, space.components = arrays[f"{name}.centre"], arrays[f"{name}.components"]
            space.scale = float(arrays[f"{name}.scale"])
            templates, weights = arrays[f"{name}.templates"], arrays[f"{name}.orders"]
            self.models[name] = OrderedTemplates(templates, weights, self.settings.gap)
