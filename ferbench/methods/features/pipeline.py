"""One training of a descriptor with a linear classifier behind it."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ferbench.methods.features.derived import learned_from
from ferbench.methods.features.descriptor import Descriptor, described, taken_up
from ferbench.methods.features.margins import Margins, softmax
from ferbench.methods.features.recipe import Recipe
from ferbench.methods.interface import History, SampleSet, TrainingSet, Workspace
from ferbench.protocol.stratified import grouped_folds
from ferbench.training.augment import DERIVED


class Pipeline:
    """Describe, learn the descriptor's part, then one margin for each class. All that is learned is learned in
    :meth:`fit`, of the training set."""

    def __init__(self, recipe: Recipe, make: Callable[[], Descriptor], classes: int) -> None:
        assert recipe.classifier is not None
        self.recipe, self.classifier, self.make, self.classes = recipe, recipe.classifier, make, classes
        self.descriptor = make()
        self.margins = Margins(self.classifier, classes)

    def fit(self, train: TrainingSet, work: Workspace) -> History:
        """One row for each penalty that was tried: its accuracy on held-out subjects of the training set."""
        samples = learned_from(train, self.recipe, work)
        raw = work.timed("description", lambda: described(self.descriptor, samples, work.report))
        self.descriptor.fit(raw, samples.labels, work.seed)
        x = self.descriptor.transform(raw)
        history = self._tried(raw, x, samples, work)
        best = max(history, key=lambda row: (row.get("inner_accuracy", 0.0), -row["c"]))["c"]
        self.margins.fit(x, samples.labels, best, work.seed("margins"))
        if not self.margins.converged:
            work.notes.append("the support vector machine stopped at its largest number of steps")
        self.load(self.state())
        work.facts |= {"uncalibrated": True, "features": x.shape[1], "c": best}
        return history

    def predict(self, samples: SampleSet, work: Workspace) -> np.ndarray:
        work.facts["uncalibrated"] = True
        return softmax(self.margins.decide(self.descriptor.transform(described(self.descriptor, samples, work.report))))

    def state(self) -> dict[str, np.ndarray]:
        parts = {"descriptor": self.descriptor.state(), "classifier": self.margins.state()}
        return {f"{part}.{name}": array for part, arrays in parts.items() for name, array in arrays.items()}

    def load(self, state: Mapping[str, Any]) -> None:
        arrays = taken_up(state)
        self.descriptor.load(_under("descriptor.", arrays))
        self.margins.load(_under("classifier.", arrays))

    def _tried(self, raw: np.ndarray, x: np.ndarray, samples: TrainingSet, work: Workspace) -> History:
        """Rows of the penalties. What is learned with labels is learned again without the subjects held out; derived
        samples, which come behind the samples themselves, are never held out."""
        count = len(samples) // (DERIVED if self.recipe.training.augment == "expand" else 1)
        penalties = sorted(self.classifier.c)
        if len(penalties) == 1:
            return [{"c": penalties[0]}]
        folds = grouped_folds(
            samples.labels[:count], samples.subjects[:count], self.classifier.inner, work.seed("inner")
        )
        if not folds:
            middle = penalties[len(penalties) // 2]
            work.notes.append(f"too few samples to hold some out: the penalty {middle} was not compared with others")
            return [{"c": middle}]
        hits, held_out = np.zeros(len(penalties), dtype=int), 0
        for number, (learn, held) in enumerate(folds):
            rows = np.concatenate([learn + offset for offset in range(0, len(samples), count)])
            given, asked = x[rows], x[held]
            if self.descriptor.labelled:
                inner = self.make()
                inner.fit(raw[rows], samples.labels[rows], work.seed)
                given, asked = inner.transform(raw[rows]), inner.transform(raw[held])
            for place, penalty in enumerate(penalties):
                machine = Margins(self.classifier, self.classes)
                machine.fit(given, samples.labels[rows], penalty, work.seed("margins"))
                hits[place] += int((machine.decide(asked).argmax(axis=1) == samples.labels[held]).sum())
            held_out += len(held)
            work.report(number + 1, len(folds), "choosing the penalty on held-out subjects")
        return [{"c": c, "inner_accuracy": int(hit) / held_out} for c, hit in zip(penalties, hits, strict=True)]


def _under(prefix: str, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
