"""Boosted deep belief networks: pre-training of a network on each patch, selection of patches by boosting, and joint
training of the selected networks. A strong classifier for each class against the rest."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.special import expit, softmax
from sklearn.neural_network import BernoulliRBM
from torch import Tensor

from ferbench.methods.boosting import Belief, Boosting, BoostingRecipe, Patches, Tuning
from ferbench.methods.interface import History, SampleSet, TrainingSet, Workspace

Layers = list[tuple[np.ndarray, np.ndarray]]  # weights [P,in,out] and biases [P,out] of P patches, from the bottom up
_LARGEST_EDGE = 1 - 1e-6  # of r in boosting; a vote for r = 1 would be infinite
_CONSTANT = 0.05  # range of an activation; units of sound machines on CK+ have 0.15 or more, of collapsed ones 0.02
_COLLAPSED = 0.2  # share of such units that is worth a note
_BIAS_RIDGE = 1e-9  # of a top unit, only so that the matrix can be inverted


def patches_of(images: np.ndarray, shape: Patches) -> np.ndarray:
    """Return the patches of images uint8 [N,48,48], row by row: float64 [P,N,side²]. The grey levels of each patch are
    stretched to [0,1], the range of the binary units of a Boltzmann machine."""
    windows = np.lib.stride_tricks.sliding_window_view(images, (shape.side, shape.side), axis=(1, 2))
    windows = windows[:, :: shape.stride, :: shape.stride]
    levels = windows.reshape(len(images), -1, shape.side**2).transpose(1, 0, 2).astype(np.float64)
    low, high = levels.min(axis=2, keepdims=True), levels.max(axis=2, keepdims=True)
    return (levels - low) / np.maximum(high - low, 1)


def boltzmann_machine(values: np.ndarray, hidden: int, settings: Belief, seed: int) -> BernoulliRBM:
    """Train a restricted Boltzmann machine on values [N,D] in [0,1] by persistent contrastive divergence (Tieleman
    2008), as implemented by scikit-learn.

    The first samples fill the last batch. scikit-learn divides the sums over the samples of a batch and over all of its
    Markov chains by the number of samples, so in a batch of one or two samples the chains outweigh these, and the
    machine forgets what it has learned.
    """
    batches = -(-len(values) // settings.batch)
    values = np.resize(values, (batches * settings.batch, values.shape[1]))
    machine = BernoulliRBM(
        hidden, learning_rate=settings.lr, batch_size=settings.batch, n_iter=settings.epochs, random_state=seed % 2**32
    )
    return machine.fit(values)


def pretrained(
    patches: np.ndarray, settings: Belief, seed: Callable[[str], int], report: Callable[[int], None]
) -> Layers:
    """Train a belief network on each patch, float64 [P,N,D]. report : gets the number of finished networks."""
    networks: list[Layers] = []
    for place, values in enumerate(patches):
        layers = []
        for level, hidden in enumerate(settings.hidden):
            machine = boltzmann_machine(values, hidden, settings, seed(f"machine {place} {level}"))
            weights, biases = machine.components_.T.copy(), machine.intercept_hidden_.copy()
            layers.append((weights, biases))
            values = expit(values @ weights + biases)
        networks.append(layers)
        report(place + 1)
    return [
        (np.stack([weights for weights, _ in level]), np.stack([biases for _, biases in level]))
        for level in zip(*networks, strict=True)
    ]


def top_units(patches: np.ndarray, layers: Layers) -> np.ndarray:
    """The activations of the top layer of each belief network: float64 [P,N,D] → [P,N,H]."""
    for weights, biases in layers:
        patches = expit(patches @ weights + biases[:, None])
    return patches


def constant_units(patches: np.ndarray, layers: Layers) -> float:
    """The share of hidden units in all layers whose activations for all samples [P,N,D] are in a range below 0.05."""
    ranges = [np.ptp(top_units(patches, layers[: level + 1]), axis=1).ravel() for level in range(len(layers))]
    return float((np.concatenate(ranges) < _CONSTANT).mean())


@dataclass(frozen=True)
class Chosen:
    """The Q patches that boosting chose for one class, in the order of choice.

    patches : int64 [Q], each at most once. tops : float64 [Q,H+1], weights and bias of their weak classifiers.
    votes : float64 [Q], α. errors, losses : float64 [Q], the share of misclassified training samples and the mean of
    exp(−y F) after each round.
    """

    patches: np.ndarray
    tops: np.ndarray
    votes: np.ndarray
    errors: np.ndarray
    losses: np.ndarray


def weak_classifiers(units: np.ndarray, tops: np.ndarray) -> np.ndarray:
    """h = 2 σ(w·v + b) − 1, in [−1,1]: units [P,N,H], tops [P,H+1] → [P,N]."""
    return np.tanh(((units @ tops[:, :-1, None])[:, :, 0] + tops[:, -1:]) / 2)


def fit_tops(units: np.ndarray, signs: np.ndarray, weights: np.ndarray, ridge: float, steps: int) -> np.ndarray:
    """Fit the weak classifier of every patch to weighted samples by Newton's method, minimising
    Σ_i D_i log(1 + exp(−y_i z_i)) + ridge/2 ‖w‖².

    units : [P,N,H]. signs : y, −1 or 1 [N]. weights : D, of sum 1 [N]. Returns [P,H+1], the bias last.
    """
    inputs = np.concatenate([units, np.ones((*units.shape[:2], 1))], axis=2)
    penalty = np.full(inputs.shape[2], ridge)
    penalty[-1] = _BIAS_RIDGE
    tops = np.zeros((len(units), inputs.shape[2]))
    for _ in range(steps):
        probability = expit((inputs @ tops[:, :, None])[:, :, 0])  # [P,N]
        gradient = inputs.transpose(0, 2, 1) @ (weights * (probability - (signs > 0)))[:, :, None]
        curvature = (inputs * (weights * probability * (1 - probability))[:, :, None]).transpose(0, 2, 1) @ inputs
        gradient = gradient[:, :, 0] + penalty * tops
        tops -= np.linalg.solve(curvature + np.diag(penalty), gradient[:, :, None])[:, :, 0]
    return tops


def choose(units: np.ndarray, signs: np.ndarray, settings: Boosting) -> Chosen:
    """Choose patches by AdaBoost with weak classifiers in [−1,1] (Schapire & Singer 1999, section 3.1): in each round
    the one with the largest r = Σ D_i y_i h_i, with α = ½ ln((1 + r)/(1 − r)), and D_i ← D_i exp(−α y_i h_i)/Z. A patch
    is chosen at most once.

    units : [P,N,H]. signs : −1 or 1 [N].
    """
    count = len(signs)
    weights, score = np.full(count, 1 / count), np.zeros(count)
    patches: list[int] = []
    tops: list[np.ndarray] = []
    rounds: list[tuple[float, float, float]] = []  # vote, error, loss
    for _ in range(min(settings.rounds, len(units))):
        remaining = np.setdiff1d(np.arange(len(units)), patches)
        candidates = fit_tops(units[remaining], signs, weights, settings.ridge, settings.newton)
        outputs = weak_classifiers(units[remaining], candidates)
        edges = outputs @ (weights * signs)
        best = int(edges.argmax())
        edge = min(float(edges[best]), _LARGEST_EDGE)
        if edge <= 0:
            break
        vote = float(np.log((1 + edge) / (1 - edge)) / 2)
        score = score + vote * outputs[best]
        weights = weights * np.exp(-vote * signs * outputs[best])
        weights = weights / weights.sum()
        patches.append(int(remaining[best]))
        tops.append(candidates[best])
        rounds.append((vote, float((signs * score <= 0).mean()), float(np.exp(-signs * score).mean())))
    votes, errors, losses = np.array(rounds).reshape(len(rounds), 3).T
    return Chosen(
        np.array(patches, dtype=np.int64), np.array(tops).reshape(len(tops), units.shape[2] + 1), votes, errors, losses
    )


def strong_classifier(patches: Tensor, layers: list[tuple[Tensor, ...]], tops: Tensor, votes: Tensor) -> Tensor:
    """F(x) = Σ_q α_q (2 σ(w_q·v_q + b_q) − 1): patches [Q,N,D], layers of Q networks, tops [Q,H+1], votes [Q] → [N]."""
    units = patches
    for weights, biases in layers:
        units = torch.sigmoid(torch.baddbmm(biases[:, None], units, weights))
    outputs = torch.tanh(torch.baddbmm(tops[:, None, -1:], units, tops[:, :-1, None])[:, :, 0] / 2)
    return votes @ outputs


def tune(
    patches: np.ndarray, layers: Layers, tops: np.ndarray, votes: np.ndarray, signs: np.ndarray, settings: Tuning
) -> tuple[Layers, np.ndarray, list[float]]:
    """Train chosen networks together by gradient descent on mean exp(−y F(x)) over all samples, with constant votes.

    patches : float64 [Q,N,D]. signs : −1 or 1 [N]. Returns layers, tops, and the loss before each step.
    """
    inputs, alpha = torch.from_numpy(np.ascontiguousarray(patches)), torch.from_numpy(votes)
    y = torch.from_numpy(signs.astype(np.float64))
    trained = [tuple(torch.tensor(array, requires_grad=True) for array in layer) for layer in layers]
    top = torch.tensor(tops, requires_grad=True)
    optimizer = torch.optim.Adam([*(array for layer in trained for array in layer), top], lr=settings.lr)
    losses = []
    for _ in range(settings.steps):
        loss = torch.exp(-y * strong_classifier(inputs, trained, top, alpha)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    result = [(weights.detach().numpy(), biases.detach().numpy()) for weights, biases in trained]
    return result, top.detach().numpy(), losses


@dataclass(frozen=True)
class StrongClassifier:
    """F of one class: its patches int64 [Q], their layers, top units float [Q,H+1] and votes α [Q]."""

    patches: np.ndarray
    layers: Layers
    tops: np.ndarray
    votes: np.ndarray

    def score(self, patches: np.ndarray) -> np.ndarray:
        """F(x)/Σα [N], in [−1,1], of all patches of samples [P,N,D]; 0 where boosting chose no patch."""
        if not len(self.votes):
            return np.zeros(patches.shape[1])
        outputs = weak_classifiers(top_units(patches[self.patches], self.layers), self.tops)
        return self.votes @ outputs / self.votes.sum()


class BoostingRecogniser:
    """BDBN. An interrupted training starts again and ends with the same bytes."""

    def __init__(self, recipe: BoostingRecipe, classes: tuple[str, ...]):
        self.recipe, self.classes = recipe, classes
        self.classifiers: list[StrongClassifier] = []

    def fit(self, train: TrainingSet, work: Workspace) -> History:
        """One row for each chosen patch."""
        patches = patches_of(train.images, self.recipe.patches)
        total = len(patches) + len(self.classes)

        def report(done: int, text: str = "") -> None:
            work.report(done, total, text)

        start = work.timed("belief networks", lambda: pretrained(patches, self.recipe.belief, work.seed, report))
        constant = constant_units(patches, start)
        if constant > _COLLAPSED:
            work.notes.append(
                f"{constant:.0%} of the hidden units have nearly the same activation for all training images: the "
                "machines have learned too little or collapsed"
            )

        def boosted() -> History:
            history: History = []
            for number, label in enumerate(self.classes):
                classifier, rows = self._boosted(patches, start, np.where(train.labels == number, 1.0, -1.0))
                self.classifiers.append(classifier)
                history += [{"class": label, **row} for row in rows]
                report(len(patches) + number + 1, f"{label}: {len(classifier.patches)} patches")
            return history

        self.classifiers = []
        history = work.timed("boosting", boosted)
        self.load(self.state())
        chosen = {
            label: classifier.patches.tolist() for label, classifier in zip(self.classes, self.classifiers, strict=True)
        }
        work.facts |= {"uncalibrated": True, "patches": chosen, "constant_units": constant}
        return history

    def predict(self, samples: SampleSet, work: Workspace) -> np.ndarray:
        work.facts["uncalibrated"] = True
        patches = patches_of(samples.images, self.recipe.patches)
        return softmax(np.stack([classifier.score(patches) for classifier in self.classifiers], axis=1), axis=1)

    def state(self) -> dict[str, np.ndarray]:
        """All arrays in float32. A training ends by loading them, so that a stored run gives the same predictions."""
        state: dict[str, np.ndarray] = {}
        for number, classifier in enumerate(self.classifiers):
            arrays = {"patches": classifier.patches, "tops": classifier.tops, "votes": classifier.votes}
            for level, (weights, biases) in enumerate(classifier.layers):
                arrays |= {f"weights{level}": weights, f"biases{level}": biases}
            for name, array in arrays.items():
                dtype = np.int64 if name == "patches" else np.float32
                state[f"{number}.{name}"] = np.ascontiguousarray(array, dtype=dtype)
        return state

    def load(self, state: Mapping[str, Any]) -> None:
        def array(number: int, name: str) -> np.ndarray:
            values = np.asarray(state[f"{number}.{name}"])
            return values if name == "patches" else values.astype(np.float64)

        levels = range(len(self.recipe.belief.hidden))
        self.classifiers = [
            StrongClassifier(
                array(number, "patches"),
                [(array(number, f"weights{level}"), array(number, f"biases{level}")) for level in levels],
                array(number, "tops"),
                array(number, "votes"),
            )
            for number in range(len(self.classes))
        ]

    def _boosted(self, patches: np.ndarray, start: Layers, signs: np.ndarray) -> tuple[StrongClassifier, History]:
        """Choose patches and train their networks, ``loops`` times. Networks that are not chosen stay unchanged."""
        layers = [(weights.copy(), biases.copy()) for weights, biases in start]
        history: History = []
        for loop in range(self.recipe.tuning.loops):
            chosen = choose(top_units(patches, layers), signs, self.recipe.boosting)
            rows, tops = chosen.patches, chosen.tops
            trained = [(weights[rows], biases[rows]) for weights, biases in layers]
            columns = zip(
                rows.tolist(), chosen.votes.tolist(), chosen.errors.tolist(), chosen.losses.tolist(), strict=True
            )
            for number, (patch, vote, error, loss) in enumerate(columns):
                row = {
                    "loop": loop + 1,
                    "round": number + 1,
                    "patch": patch,
                    "vote": vote,
                    "error": error,
                    "loss": loss,
                }
                history.append(row)
            if not len(rows):
                break
            trained, tops, _ = tune(patches[rows], trained, tops, chosen.votes, signs, self.recipe.tuning)
            for (weights, biases), (tuned_weights, tuned_biases) in zip(layers, trained, strict=True):
                weights[rows], biases[rows] = tuned_weights, tuned_biases
        return StrongClassifier(rows, trained, tops, chosen.votes), history
