"""One training: a strong classifier for each class against the rest, made of networks of patches."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import softmax

from ferbench.methods.boosting.networks import Layers, choose, patches_of, pretrained, top_units, tune, weak_classifiers
from ferbench.methods.boosting.recipe import BoostingRecipe
from ferbench.methods.interface import History, SampleSet, TrainingSet, Workspace


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
    """BDBN. An interrupted training starts again from the beginning and ends with the same bytes."""

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
        chosen = {label: one.patches.tolist() for label, one in zip(self.classes, self.classifiers, strict=True)}
        work.facts |= {"uncalibrated": True, "patches": chosen}
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
