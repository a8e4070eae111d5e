"""Somebody's model at work: faces in its form, its scores as probabilities of the classes that are asked for."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image

from ferbench.errors import DataError, FerbenchError, UsageError, one_line
from ferbench.methods import modules
from ferbench.methods.foreign import FILES, Input, file_of, module_of
from ferbench.methods.foreign.checks import check_input, check_metadata, choose, labels_of, table
from ferbench.methods.interface import History, SampleSet, TrainingSet, Workspace
from ferbench.methods.recipes import Method
from ferbench.metrics import sums_to_one
from ferbench.seeds import generator

BATCH = 64  # faces that a model is given at a time, unless its file has another number
_SCORES = ("predict_proba", "decision_function")  # of an estimator, the first of them that it has
MOST = 4096  # faces of a fixed batch, which is padded in memory
SAME = 0.01  # difference between two batches that arithmetic may make in a probability: float16, other kernels


class Foreign:
    """One model. ``classes`` are those that it is to speak of, in their order."""

    def __init__(self, method: Method, classes: tuple[str, ...]):
        self.method, self.classes, self.card = method, classes, method.recipe
        self.name = method.title if self.card.model.kind in FILES else self.card.model.source  # in messages
        self.model: Any = self._opened()
        self.fitted: tuple[str, ...] = ()  # emotions of the columns of an estimator that was fitted here
        self.output = self.card.output.name
        self.notes: list[str] = []
        self.batch: int | None = None  # faces in every batch, where the file says how many
        if self.card.model.kind in FILES and self.model.shape is not None:
            face = prepared(np.zeros((1, 48, 48), dtype=np.uint8), self.card.input).shape[1:]
            check_input(self.card.input, face, self.model.shape, self.model.kind, self.name)
            check_metadata(self.card, self.model.metadata, self.name)
            first = self.model.shape[0]
            self.batch = first if isinstance(first, int) and first > 0 else None
            if (self.batch or 0) > MOST:
                raise DataError(f"{self.name} takes {first:,} faces at once: export it with a batch of any size")

    def _opened(self) -> Any:
        """Open the model of the card: a network of a file, a callable, or an estimator.

        Raises DataError for what cannot be opened, UsageError for a library that is missing.
        """
        model = self.card.model
        if model.kind == "keras":
            from ferbench.methods.foreign import keras_files

            return keras_files.Network(file_of(self.method))
        if model.kind == "onnx":
            from ferbench.methods.foreign import onnx_files

            return onnx_files.Network(file_of(self.method))
        self.module, name = module_of(self.method), model.source.partition(":")[2]
        found = getattr(self.module, name, None)
        if found is None:
            raise DataError(f"the module {self.module.__name__} has no {name!r}, which {self.method.title} is to be")
        is_estimator = not isinstance(found, type) and any(hasattr(found, one) for one in ("fit", *_SCORES))
        if model.kind == "estimator" and callable(found) and not is_estimator:
            found = self._run("makes no estimator", found)  # a class, or a function that makes one
        if not callable(found) and not any(hasattr(found, one) for one in _SCORES):
            raise DataError(
                f"{self.name} is a {type(found).__name__}: it is neither a function of faces nor an estimator with "
                f"{' or '.join(_SCORES)}"
            )
        return found

    def fit(self, train: TrainingSet, work: Workspace) -> History:
        """Fit an estimator anew. Raises UsageError for a model that cannot learn."""
        if not hasattr(self.model, "fit"):
            raise UsageError(f"{self.method.title} has no fit: `ferbench evaluate` tests it as it is")
        if hasattr(self.model, "get_params"):
            from sklearn.base import clone

            self.model = clone(self.model)
        self.model.fit(prepared(train.images, self.card.input), train.labels)
        present = getattr(self.model, "classes_", np.arange(len(train.classes)))
        self.fitted = tuple(train.classes[int(label)] for label in present)
        work.notes.append("the fitted estimator is not stored: that would take a pickle, which ferbench never writes")
        return []

    def try_out(self) -> None:
        """Run the model once on two images of noise. Afterwards it is known which files it opens only then.

        Raises DataError as :meth:`predict` does.
        """
        self._in_batches(generator(0, "trial").integers(0, 256, (2, 48, 48), dtype=np.uint8), self._labels())

    def predict(self, samples: SampleSet, work: Workspace | None) -> np.ndarray:
        """Probabilities [N,K] of :attr:`classes`; what the model has scores for beside them is left out, and the rest
        brought to a sum of 1.

        Raises DataError for scores that are none, and for those that depend on the batch that a face is in.
        """
        labels = self._labels()
        probabilities = self._in_batches(samples.images, labels)
        if self.batch is None:
            self._check_alone(samples.images[:BATCH], probabilities[:BATCH], labels)
        if work is not None:
            work.notes += [note for note in self.notes if note not in work.notes]
            if self._gives == "scores":
                work.facts["uncalibrated"] = True
        found = np.zeros((len(probabilities), len(self.classes)))
        for column, label in enumerate(labels):
            if label in self.classes:
                found[:, self.classes.index(label)] += probabilities[:, column]
        return found / np.maximum(found.sum(axis=1, keepdims=True), np.finfo(np.float64).tiny)

    def state(self) -> Mapping[str, np.ndarray]:
        """Nothing: a model from elsewhere stays in its own file."""
        return {}

    def load(self, state: Mapping[str, Any]) -> None:
        """Nothing to take up."""

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
        """Probabilities of any number of images, of which few are prepared at a time: a large network takes far more
        bytes a face than are kept."""
        size = self.batch or BATCH
        batches = [images[at : at + size] for at in range(0, len(images), size)]
        return np.concatenate([self._probabilities(batch, labels) for batch in batches])

    def _check_alone(self, images: np.ndarray, probabilities: np.ndarray, labels: tuple[str, ...]) -> None:
        """Raise DataError where the first, the middle or the last of some faces gets other scores without the rest."""
        if len(images) < 2:
            return
        for place in sorted({0, len(images) // 2, len(images) - 1}):
            alone = self._probabilities(images[place : place + 1], labels)[0]
            if (difference := float(np.abs(alone - probabilities[place]).max())) > SAME:
                raise DataError(
                    f"{self.name} gives a face other scores alone than in a batch of {len(images)} (a probability "
                    f"differs by {difference:.2f}): normalise each face by itself, and take dropout and batch "
                    "normalisation out of training mode"
                )

    def _run(self, fails: str, function: Any, *given: Any) -> Any:
        """Call something of the user's. Raises DataError with whatever it raises."""
        try:
            with modules.running(self.module):
                return function(*given)
        except (FerbenchError, MemoryError):
            raise
        except (Exception, SystemExit) as error:
            hint = "; --refit fits it on each fold" if type(error).__name__ == "NotFittedError" else ""
            raise DataError(f"{self.name} {fails}: {one_line(error)}{hint}") from None

    def _scores(self, faces: np.ndarray, width: int) -> np.ndarray:
        """What the model gives for prepared faces: scores float64 [N,width]."""
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
        given = self._run(f"cannot be run on {len(faces)} faces", score, faces)
        return table(given, len(faces), width, self.name)

    def _probabilities(self, images: np.ndarray, labels: tuple[str, ...]) -> np.ndarray:
        """Probabilities float64 [N,len(labels)] of images uint8 [N,48,48]."""
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
        raised = np.exp(scores - scores.max(axis=1, keepdims=True))
        return raised / raised.sum(axis=1, keepdims=True)


def prepared(images: np.ndarray, wanted: Input) -> np.ndarray:
    """Return faces uint8 [N,48,48] in a model's own form: float32, resized, scaled, with its axes."""
    if images.shape[1] != wanted.size:
        size, way = (wanted.size, wanted.size), Image.Resampling[wanted.resize.upper()]
        images = np.stack([np.asarray(Image.fromarray(one).resize(size, way)) for one in images])
    x: np.ndarray = images.astype(np.float32)
    if wanted.scale != "0..255":
        x = x / 255
    if wanted.scale == "-1..1":
        x = x * 2 - 1
    if wanted.layout in ("nhw", "flat"):
        x = (x - wanted.mean[0]) / wanted.deviation[0]
        return x if wanted.layout == "nhw" else x.reshape(len(x), -1)
    channels = 1 if wanted.colour == "grey" else 3
    x = np.repeat(x[:, None], channels, axis=1)
    mean, deviation = (np.array(one, dtype=np.float32).reshape(1, -1, 1, 1) for one in (wanted.mean, wanted.deviation))
    x = (x - mean) / deviation
    return np.ascontiguousarray(x.transpose(0, 2, 3, 1)) if wanted.layout == "nhwc" else x
