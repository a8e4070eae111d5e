"""STM-ExpLet: Liu, Shan, Wang, Chen, "Learning expressionlets on spatio-temporal manifold for dynamic facial
expression recognition", CVPR 2014.

The universal manifold model is a mixture of Gaussians over the local features of all training sequences. The
expressionlet of a mode is the covariance of the features of a sequence that are nearest to the mode.
"""

import warnings
from collections.abc import Mapping

import numpy as np
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture

from ferbench.methods.features import Expressionlets
from ferbench.methods.features.descriptor import Descriptor, Seed, frames_of
from ferbench.methods.features.gradients import histogram
from ferbench.methods.interface import Video
from ferbench.seeds import generator

PLACES = 3  # x, y, t: the last columns of the description of a cuboid


def cuboids(video: np.ndarray, recipe: Expressionlets) -> np.ndarray:
    """Return the descriptions [cuboids, 4·orientations + 3] of a video [T,48,48]: the mean HOG of 2 by 2 cells over the
    frames of the cuboid, then x, y, t of its centre as shares of the video, from -0.5 to 0.5."""
    frames = [histogram(frame / 255.0, recipe.orientations, recipe.cell, 2, "L2") for frame in video]
    depth = min(recipe.depth, len(frames))
    stacked = np.stack(frames)  # [T,rows,columns,2,2,orientations]
    stacked = stacked.reshape(*stacked.shape[:3], -1)
    descriptions = []
    for start in range(0, len(frames) - depth + 1, recipe.step):
        means = stacked[start : start + depth].mean(axis=0)
        row, column = np.meshgrid(*(np.arange(1, count + 1) for count in means.shape[:2]), indexing="ij")
        x, y = (place * recipe.cell / side - 0.5 for place, side in zip((column, row), video.shape[:0:-1], strict=True))
        t = np.full_like(x, (start + depth / 2) / len(frames) - 0.5)
        descriptions.append(
            np.concatenate([means, np.stack([x, y, t], axis=-1)], axis=-1).reshape(-1, means.shape[-1] + 3)
        )
    return np.concatenate(descriptions)


class Modes:
    """A mixture of K Gaussians with diagonal covariances over features [n,d], and its expressionlets."""

    def __init__(self, weights: np.ndarray, means: np.ndarray, variances: np.ndarray) -> None:
        self.weights, self.means, self.variances = weights, means, variances

    @classmethod
    def fitted(cls, features: np.ndarray, count: int, kind: str, seed: int) -> "Modes":
        """Fit by expectation-maximisation, initialised by k-means. The number of modes is at most that of features."""
        mixture = GaussianMixture(
            min(count, len(features)), covariance_type=kind, reg_covar=1e-4, random_state=seed % 2**32
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # changes after 100 steps are negligible
            mixture.fit(features)
        variances = mixture.covariances_ if kind == "diag" else mixture.covariances_[:, None]
        return cls(mixture.weights_, mixture.means_, variances * np.ones_like(mixture.means_))

    def log_densities(self, features: np.ndarray) -> np.ndarray:
        """Return log(weight·density) [n,K] of features [n,d]."""
        scaled = self.means / self.variances
        distance = features**2 @ (1 / self.variances).T - 2 * features @ scaled.T + (self.means * scaled).sum(axis=1)
        return np.log(self.weights) - 0.5 * (np.log(2 * np.pi * self.variances).sum(axis=1) + distance)

    def nearest(self, features: np.ndarray, kept: int) -> np.ndarray:
        """Return for each mode the rows [K,kept] of the features with the highest posterior probability, ties in favour
        of the higher density."""
        joint = self.log_densities(features)
        top = joint.max(axis=1, keepdims=True)
        posterior = joint - (top + np.log(np.exp(joint - top).sum(axis=1, keepdims=True)))
        ranked = np.lexsort((-joint.T, -posterior.T), axis=-1)
        return ranked[:, : min(kept, len(features))]

    def expressionlets(self, features: np.ndarray, kept: int, ridge: float) -> np.ndarray:
        """Return for each mode the covariance [K,d,d] of the ``kept`` features nearest to it. The divisor is their
        number, so that the covariance does not change if all frames of a sequence are repeated."""
        chosen = features[self.nearest(features, kept)]
        centred = chosen - chosen.mean(axis=1, keepdims=True)
        return ridged(np.swapaxes(centred, 1, 2) @ centred / chosen.shape[1], ridge)


class ModePooling(Descriptor):
    """Logarithms of all expressionlets, with a discriminant analysis for each mode."""

    def __init__(self, recipe: Expressionlets) -> None:
        self.recipe: Expressionlets = recipe
        self.labelled = recipe.discriminant

    def describe(self, sample: Video) -> np.ndarray:
        return cuboids(frames_of(sample, self.recipe.frames), self.recipe)

    def fit(self, raw: np.ndarray, labels: np.ndarray, seed: Seed) -> None:
        """Learn PCA and modes from the cuboids [N,n,D] of all samples, then the embedding of each mode."""
        sample = raw.reshape(-1, raw.shape[-1])
        sample = sample[generator(seed("cuboids")).permutation(len(sample))[: self.recipe.fitted_on]]
        count = min(self.recipe.components, *sample[:, :-PLACES].shape)
        pca = PCA(count, svd_solver="full").fit(sample[:, :-PLACES])
        self.centre, self.components = pca.mean_, pca.components_
        self.scale = 1 / np.sqrt(max(pca.explained_variance_[0], 1e-12))
        spread = sample[:, -PLACES:].std(axis=0)
        self.place_scale = self.recipe.place / np.where(spread > 1e-12, spread, 1.0)
        self.modes = Modes.fitted(self._features(sample), self.recipe.modes, self.recipe.covariance, seed("mixture"))
        if self.recipe.discriminant:
            pooled = self._pooled(raw)
            self.embedding = np.stack([_discriminant(pooled[:, mode], labels) for mode in range(pooled.shape[1])])

    def transform(self, raw: np.ndarray) -> np.ndarray:
        pooled = self._pooled(raw)
        if self.recipe.discriminant:
            pooled = np.einsum("nkd,kdm->nkm", pooled, self.embedding)
        return pooled.reshape(len(raw), -1)

    def state(self) -> dict[str, np.ndarray]:
        learned = {
            "centre": self.centre,
            "components": self.components,
            "scale": np.asarray(self.scale),
            "place_scale": self.place_scale,
            "weights": self.modes.weights,
            "means": self.modes.means,
            "variances": self.modes.variances,
        }
        return learned | ({"embedding": self.embedding} if self.recipe.discriminant else {})

    def load(self, state: Mapping[str, np.ndarray]) -> None:
        self.centre, self.components, self.scale = state["centre"], state["components"], float(state["scale"])
        self.place_scale = state["place_scale"]
        self.modes = Modes(state["weights"], state["means"], state["variances"])
        if self.recipe.discriminant:
            self.embedding = state["embedding"]

    def _features(self, raw: np.ndarray) -> np.ndarray:
        """PCA of the appearance in units of the deviation of its first component, and the weighted place."""
        appearance = (raw[..., :-PLACES] - self.centre) @ self.components.T * self.scale
        return np.concatenate([appearance, raw[..., -PLACES:] * self.place_scale], axis=-1)

    def _pooled(self, raw: np.ndarray) -> np.ndarray:
        """Logarithms of expressionlets as vectors [N,K,d(d+1)/2] from cuboids [N,n,D]."""
        kept, ridge = self.recipe.kept, self.recipe.ridge
        return np.stack(
            [vec(log(self.modes.expressionlets(features, kept, ridge))) for features in map(self._features, raw)]
        )


def _discriminant(x: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return the directions [D,K-1] of linear discriminant analysis with the shrinkage of Ledoit and Wolf on x [N,D] of
    K classes; one direction of zeros where there is one class."""
    count = len(np.unique(labels)) - 1
    if not count:
        return np.zeros((x.shape[1], 1))
    analysis = LinearDiscriminantAnalysis(solver="eigen", shrinkage="auto").fit(x, labels)
    return analysis.scalings_[:, : min(count, x.shape[1])]


def ridged(matrices: np.ndarray, share: float) -> np.ndarray:
    """Return covariances [...,d,d] with ``share`` of their mean variance tr/d added to the diagonal, and 1e-12, so that
    all are positive definite."""
    size = matrices.shape[-1]
    mean = np.trace(matrices, axis1=-2, axis2=-1) / size
    return matrices + (share * mean + 1e-12)[..., None, None] * np.eye(size)


def log(matrices: np.ndarray) -> np.ndarray:
    """Return the matrix logarithm of symmetric positive definite matrices [...,d,d]."""
    values, vectors = np.linalg.eigh(matrices)
    return (vectors * np.log(values)[..., None, :]) @ np.swapaxes(vectors, -1, -2)


def vec(matrices: np.ndarray) -> np.ndarray:
    """Return the upper triangles of symmetric matrices [...,d,d] as vectors [...,d(d+1)/2].

    Off-diagonal elements are multiplied by the root of 2, so that <vec X, vec Y> = tr(X Y) (log-Euclidean metric:
    Arsigny, Fillard, Pennec, Ayache 2006; pyriemann has the affine-invariant one).
    """
    rows, columns = np.triu_indices(matrices.shape[-1])
    return matrices[..., rows, columns] * np.where(rows == columns, 1.0, np.sqrt(2.0))
