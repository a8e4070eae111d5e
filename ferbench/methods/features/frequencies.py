"""The floor of all floors: a recogniser that looks at nothing."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from ferbench.methods.interface import History, SampleSet, TrainingSet, Workspace


class LargestClass:
    """Predicts each class with its share of the training set, whatever is shown; so the largest class is its answer,
    the first of equals."""

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
