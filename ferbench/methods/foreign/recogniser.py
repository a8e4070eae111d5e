"""Predictions of an external model: faces in the form of its input, its scores as probabilities of the classes."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image
from scipy.special import softmax

from ferbench.data.views import view_of
from ferbench.errors import DataError, FerbenchError, UsageError, one_line
from ferbench.methods import modules
from ferbench.methods.foreign import FILES, Card, Input, file_of, module_of
from ferbench.methods.foreign.checks import check_input, check_metadata, choose, labels_of, table
from ferbench.methods.foreign.files import KerasNetwork, OnnxNetwork
from ferbench.methods.interface import History, SampleSet, TrainingSet, Workspace
from ferbench.methods.recipes import Method
from ferbench.metrics import sums_to_one
from ferbench.seeds import generator

BATCH = 64  # faces in a batch, unless the file fixes another number
_SCORES = ("predict_proba", "decision_function")  # of an estimator, in order of preference
MAX_BATCH = 4096  # faces in a batch of fixed size, which is padded in memory
TOLERANCE = 0.01  # difference of a probability between two batches by rounding: float16, other kernels


class ExternalModel:
    """An external model. classes : of the predictions, in this order."""

    def __init__(self, method: Method[Card], classes: tuple[str, ...]):
        self.method, self.classes, self.card = method, classes, method.recipe
        self.view = method.recipe.input.view
        self.name = method.title if self.card.model.kind in FILES else self.card.model.source  # in messages
        self.model: Any = self._opened()
        self.fitted: tuple[str, ...] = ()  # emotions of the scores of an estimator after fit()
        self.output = self.card.output.name
        self.notes: list[str] = []
        self.batch: int | None = None  # faces in every batch, if the file fixes the number
        if self.card.model.kind in FILES and self.model.shape is not None:
            face = prepared(np.zeros((1, *self.view.shape), dtype=np.uint8), self.card.input).shape[1:]
            check_input(self.card.input, face, self.model.shape, self.model.kind, self.name)
            check_metadata(self.card, self.model.metadata, self.name)
            first = self.model.shape[0]
            self.batch = first if isinstance(first, int) and first > 0 else None
            if (self.batch or 0) > MAX_BATCH:
                raise DataError(f"{self.name} takes {first:,} faces at once: export it with a batch of any size")

    def _opened(self) -> Any:
        """Open the model of the card: a network of a file, a callable, or an estimator.

        Raises DataError for a model that cannot be opened, UsageError for a missing library.
        """
        model = self.card.model
        if model.kind in FILES:
            if model.kind == "timm":
                from ferbench.methods.foreign.files import TimmNetwork

                return TimmNetwork(file_of(self.method))
            return (KerasNetwork if model.kind == "keras" else OnnxNetwork)(file_of(self.method))
        self.module, name = module_of(self.method), model.source.partition(":")[2]
        source: Any = getattr(self.module, name, None)
        if source is None:
            raise DataError(f"the module {self.module.__name__} has no {name!r}, which {self.method.title} is to be")
        is_estimator = not isinstance(source, type) and any(hasattr(source, method) for method in ("fit", *_SCORES))
        if model.kind == "estimator" and callable(source) and not is_estimator:
            source = self._run("makes no estimator", source)  # a class, or a function that returns an estimator
        if not callable(source) and not any(hasattr(source, method) for method in _SCORES):
            raise DataError(
                f"{self.name} is a {type(source).__name__}: it is neither a function of faces nor an estimator with "
                f"{' or '.join(_SCORES)}"
            )
        return source

    def fit(self, train: TrainingSet, work: Workspace) -> History:
        """Fit a new copy of an estimator. Raises UsageError for a model without ``fit``."""
        if not hasattr(self.model, "fit"):
            raise UsageError(f"{self.method.title} has no fit: `ferbench evaluate` tests it as it is")
        if hasattr(self.model, "get_params"):
            from sklearn.base import clone

            self.model = clone(self.model)
        self.model.fit(prepared(train.images[:], self.card.input), train.labels)
        present = getattr(self.model, "classes_", np.arange(len(train.classes)))
        self.fitted = tuple(train.classes[int(label)] for label in present)
        work.notes.append("the fitted estimator is not stored: that would take a pickle, which ferbench never writes")
        return []

    def try_out(self) -> None:
        """Run the model once on two images of noise, so that files that it opens at its first prediction are recorded.

        Raises DataError as :meth:`predict`.
        """
        self._in_batches(generator(0, "trial").integers(0, 256, (2, *self.view.shape), dtype=np.uint8), self._labels())

    def predict(self, samples: SampleSet, work: Workspace | None) -> np.ndarray:
        """Probabilities [N,K] of :attr:`classes`; scores of other emotions are left out, and the rest is scaled to a
        sum of 1.

        Raises DataError for invalid scores, and for scores that depend on the other faces of the batch.
        """
        labels = self._labels()
        probabilities = self._in_batches(samples.images, labels)
        if self.batch is None:
            self._check_alone(samples.images[:BATCH], probabilities[:BATCH], labels)
        if work is not None:
            work.notes += [note for note in self.notes if note not in work.notes]
            if self._gives == "scores":
                work.facts["uncalibrated"] = True
        selected = np.zeros((len(probabilities), len(self.classes)))
        for column, label in enumerate(labels):
            if label in self.classes:
                selected[:, self.classes.index(label)] += probabilities[:, column]
        return selected / np.maximum(selected.sum(axis=1, keepdims=True), np.finfo(np.float64).tiny)

    def state(self) -> Mapping[str, np.ndarray]:
        """Empty: an external model stays in its file."""
        return {}

    def load(self, state: Mapping[str, Any]) -> None:
        """No state to restore."""

    @property
    def _gives(self) -> str:
        margins = not hasattr(self.model, "predict_proba") and hasattr(self.model, "decision_function")
        return "scores" if margins else str(self.card.output.gives)

    def _labels(self) -> tuple[str, ...]:
        """The emotion of each score."""
        if self.fitted:
            return self.fitted
        if not self.card.output.labels:
            raise UsageError(f"the card of {self.method.title} lacks the line `labels = [...]` under [output]")
        labels, note = labels_of(self.model, self.card.output.labels, self.name)
        self.notes += [note] if note and note not in self.notes else []
        return labels

    def _in_batches(self, images: np.ndarray, labels: tuple[str, ...]) -> np.ndarray:
        """Probabilities of any number of images, prepared batch by batch, because the input of a large network takes
        far more memory than an image."""
        size = self.batch or BATCH
        batches = [images[at : at + size] for at in range(0, len(images), size)]
        return np.concatenate([self._probabilities(batch, labels) for batch in batches])

    def _check_alone(self, images: np.ndarray, probabilities: np.ndarray, labels: tuple[str, ...]) -> None:
        """Raise DataError if the first, the middle or the last face gets other scores without the other faces."""
        if len(images) < 2:
            return
        for place in sorted({0, len(images) // 2, len(images) - 1}):
            alone = self._probabilities(images[place : place + 1], labels)[0]
            if (difference := float(np.abs(alone - probabilities[place]).max())) > TOLERANCE:
                raise DataError(
                    f"{self.name} gives a face other scores alone than in a batch of {len(images)} (a probability "
                    f"differs by {difference:.2f}): normalise each face by itself, and take dropout and batch "
                    "normalisation out of training mode"
                )

    def _run(self, fails: str, function: Any, *arguments: Any) -> Any:
        """Call a function of the user's module. Raises DataError for any of its errors."""
        try:
            with modules.running(self.module):
                return function(*arguments)
        except (FerbenchError, MemoryError):
            raise
        except (Exception, SystemExit) as error:
            hint = "; --refit fits it on each fold" if type(error).__name__ == "NotFittedError" else ""
            raise DataError(f"{self.name} {fails}: {one_line(error)}{hint}") from None

    def _scores(self, faces: np.ndarray, width: int) -> np.ndarray:
        """Scores float64 [N,width] of prepared faces."""
        if self.card.model.kind in FILES:
            size = self.batch or len(faces)
            padded = np.concatenate([faces, np.repeat(faces[-1:], size - len(faces), axis=0)])
            outputs = self.model(padded)
            name = choose(outputs, size, width, self.output, self.name)
            if len(outputs) > 1 and not self.output:
                self.notes.append(f"of the outputs {', '.join(outputs)}, {name} holds the scores")
            self.output = name
            return table(outputs[name], size, width, self.name)[: len(faces)]
        score = next((getattr(self.model, name) for name in _SCORES if hasattr(self.model, name)), self.model)
        scores = self._run(f"cannot be run on {len(faces)} faces", score, faces)
        return table(scores, len(faces), width, self.name)

    def _probabilities(self, images: np.ndarray, labels: tuple[str, ...]) -> np.ndarray:
        """Probabilities float64 [N,len(labels)] of images uint8 [N,S,S] or [N,S,S,3]."""
        scores = self._scores(prepared(images, self.card.input), len(labels))
        normalised = sums_to_one(scores)
        if self._gives == "probabilities":
            if not normalised.all():
                sums = scores.sum(axis=1)
                raise DataError(
                    f"{self.name} gives no probabilities (rows sum to {sums.min():.3g} up to {sums.max():.3g}; the "
                    f'smallest is {scores.min():.3g}): its card may need gives = "logits"'
                )
            return scores.clip(0) / scores.clip(0).sum(axis=1, keepdims=True)
        if self._gives == "logits" and len(scores) > 1 and normalised.all():
            raise DataError(
                f"{self.name} gives probabilities, which add up to 1 for each face, and its card says logits: write "
                'gives = "probabilities" under [output]'
            )
        if self._gives == "logits" and len(scores) > 1 and (scores == np.round(scores)).all():
            raise DataError(
                f'{self.name} gives whole numbers, and its card says logits: write gives = "scores" under [output], or '
                "export the model without quantised outputs"
            )
        return softmax(scores, axis=1)


def prepared(images: np.ndarray, wanted: Input) -> np.ndarray:
    """Return faces as the input of a model: float32, scaled, with the axes of its layout.

    images : uint8 [N,S,S] or [N,S,S,3], of its view; others are resized to it.
    """
    if images.shape[1:] != wanted.view.shape:
        images = np.stack([view_of(Image.fromarray(image), wanted.view) for image in images])
    x: np.ndarray = images.astype(np.float32)
    if wanted.scale != "0..255":
        x = x / 255
    if wanted.scale == "-1..1":
        x = x * 2 - 1
    if wanted.layout in ("nhw", "flat"):
        x = (x - wanted.mean[0]) / wanted.deviation[0]
        return x if wanted.layout == "nhw" else x.reshape(len(x), -1)
    x = x[:, None] if wanted.colour == "grey" else x.transpose(0, 3, 1, 2)[:, :: -1 if wanted.colour == "bgr" else 1]
    mean, deviation = (
        np.array(values, dtype=np.float32).reshape(1, -1, 1, 1) for values in (wanted.mean, wanted.deviation)
    )
    x = (x - mean) / deviation
    return np.ascontiguousarray(x.transpose(0, 2, 3, 1) if wanted.layout == "nhwc" else x)
