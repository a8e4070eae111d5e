"""One training: a strong classifier for each class against the rest, of networks of patches."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import softmax

from ferbench.methods.boosting.belief import Layers, cut, pretrained, upward
from ferbench.methods.boosting.recipe import Recipe
from ferbench.methods.boosting.rounds import choose, weak
from ferbench.methods.boosting.tuning import tuned
from ferbench.methods.interface import History, SampleSet, TrainingSet, Workspace


@dataclass(frozen=True)
class Machine:
    """F_e of one class: its patches int64 [Q], their networks, top units float [Q,H+1] and votes α [Q]."""

    patches: np.ndarray
    layers: Layers
    tops: np.ndarray
    votes: np.ndarray

    def score(self, cut_: np.ndarray) -> np.ndarray:
        """F_e(x)/Σα, in [−1,1], of samples cut into patches [P,N,D]: [N]; 0 where boosting found nothing."""
        if not len(self.votes):
            return np.zeros(cut_.shape[1])
        said = weak(upward(cut_[self.patches], self.layers), self.tops)
        return self.votes @ said / self.votes.sum()


class BoostedBelief:
    """BDBN. An interrupted training begins anew, which takes it to the same bytes."""

    def __init__(self, recipe: Recipe, classes: tuple[str, ...]):
        self.recipe, self.classes = recipe, classes
        self.machines: list[Machine] = []

    def fit(self, train: TrainingSet, work: Workspace) -> History:
        """One row for each patch that was chosen."""
        patches = cut(train.images, self.recipe.patches)
        total = len(patches) + len(self.classes)

        def report(done: int, text: str = "") -> None:
            work.report(done, total, text)

        start = work.timed("belief networks", lambda: pretrained(patches, self.recipe.belief, work.seed, report))

        def boosted() -> History:
            history: History = []
            for number, label in enumerate(self.classes):
                signs = np.where(train.labels == number, 1.0, -1.0)
                machine, rows = self._machine(patches, start, signs)
                self.machines.append(machine)
                history += [{"class": label, **row} for row in rows]
                report(len(patches) + number + 1, f"{label}: {len(machine.patches)} patches")
            return history

        self.machines = []
        history = work.timed("boosting", boosted)
        self.load(self.state())
        work.facts |= {
            "uncalibrated": True,
            "patches": {label: one.patches.tolist() for label, one in zip(self.classes, self.machines, strict=True)},
        }
        return history

    def predict(self, samples: SampleSet, work: Workspace) -> np.ndarray:
        work.facts["uncalibrated"] = True
        patches = cut(samples.images, self.recipe.patches)
        return softmax(np.stack([machine.score(patches) for machine in self.machines], axis=1), axis=1)

    def state(self) -> dict[str, np.ndarray]:
        """In float32: what predicts, so that it predicts alike when it is loaded."""
        found: dict[str, np.ndarray] = {}
        for number, machine in enumerate(self.machines):
            arrays = {"patches": machine.patches, "tops": machine.tops, "votes": machine.votes}
            for level, (weights, biases) in enumerate(machine.layers):
                arrays |= {f"weights{level}": weights, f"biases{level}": biases}
            for name, array in arrays.items():
                kept = np.int64 if name == "patches" else np.float32
                found[f"{number}.{name}"] = np.ascontiguousarray(array, dtype=kept)
        return found

    def load(self, state: Mapping[str, Any]) -> None:
        def taken(number: int, name: str) -> np.ndarray:
            array = np.asarray(state[f"{number}.{name}"])
            return array if name == "patches" else array.astype(np.float64)

        levels = range(len(self.recipe.belief.hidden))
        self.machines = [
            Machine(
                taken(number, "patches"),
                [(taken(number, f"weights{level}"), taken(number, f"biases{level}")) for level in levels],
                taken(number, "tops"),
                taken(number, "votes"),
            )
            for number in range(len(self.classes))
        ]

    def _machine(self, patches: np.ndarray, start: Layers, signs: np.ndarray) -> tuple[Machine, History]:
        """Choose patches and train their networks, as often as the recipe says. What is not chosen stays as it was."""
        layers = [(weights.copy(), biases.copy()) for weights, biases in start]
        history: History = []
        for loop in range(self.recipe.tuning.loops):
            chosen = choose(upward(patches, layers), signs, self.recipe.boosting)
            at = chosen.patches
            own = [(weights[at], biases[at]) for weights, biases in layers]
            rows = zip(at.tolist(), chosen.votes, chosen.errors, chosen.losses, strict=True)
            history += [
                {
                    "loop": loop + 1,
                    "round": number + 1,
                    "patch": patch,
                    "vote": float(vote),
                    "error": float(error),
                    "loss": float(loss),
                }
                for number, (patch, vote, error, loss) in enumerate(rows)
            ]
            if not len(at):
                return Machine(at, own, chosen.tops, chosen.votes), history
            own, tops, _ = tuned(patches[at], own, chosen.tops, chosen.votes, signs, self.recipe.tuning)
            for (weights, biases), (better, shift) in zip(layers, own, strict=True):
                weights[at], biases[at] = better, shift
        return Machine(at, own, tops, chosen.votes), history
