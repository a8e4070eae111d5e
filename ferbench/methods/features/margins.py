"""Linear support vector machines whose penalty is chosen on held-out subjects, and what is made of their margins."""

import warnings
from collections.abc import Mapping

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.kernel_approximation import AdditiveChi2Sampler
from sklearn.svm import LinearSVC

from ferbench.methods.features.recipe import Classifier

ITERATIONS = 20_000  # at most; scikit-learn's own 1,000 do not reach its tolerance with large C


def softmax(scores: np.ndarray) -> np.ndarray:
    """Return scores [N,K] as rows that sum to 1; -inf becomes 0. Margins are no log-odds: these are uncalibrated."""
    shares = np.exp(scores - scores.max(axis=1, keepdims=True))
    return shares / shares.sum(axis=1, keepdims=True)


def compact(x: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """Return samples [N,D] in coordinates [N,N] of what they span, and its orthonormal basis [N,D], where D > N; else
    the samples and None.

    The weights of a linear machine are a sum of samples, and lengths are the same in these coordinates, so its
    solution is too. liblinear takes time in proportion to N·D for each of many steps; this is a thirtieth of it for
    300 samples of 9,000 numbers.
    """
    if x.shape[1] <= len(x):
        return x, None
    q, r = np.linalg.qr(x.T)
    return np.ascontiguousarray(r.T), q.T


class Margins:
    """One linear SVM for each of K classes, against the rest.

    A class without samples to learn from has the margin -inf, which is to say the probability 0.
    """

    def __init__(self, recipe: Classifier, classes: int) -> None:
        self.recipe, self.classes = recipe, classes
        self.converged = True

    def fit(self, x: np.ndarray, labels: np.ndarray, c: float, seed: int) -> "Margins":
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
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always", ConvergenceWarning)
            given, basis = compact((x - self.mean) / self.deviation)
            machine.fit(given, labels)
        self.converged = not said
        two = len(present) == 2  # scikit-learn has one machine for two classes: the second's against the first's
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
