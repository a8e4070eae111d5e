"""Somebody's model at work: faces in its form, its scores as probabilities of the classes that are asked for."""

import importlib
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from PIL import Image

from ferbench.errors import DataError, UsageError
from ferbench.methods.foreign.recipe import FILES, Input
from ferbench.methods.interface import History, SampleSet, TrainingSet, Workspace
from ferbench.methods.recipes import Method
from ferbench.methods.registry import is_module

BATCH = 64  # faces that a model is given at a time

Scores = Callable[[np.ndarray], np.ndarray]


class Foreign:
    """One model. ``classes`` are those that it is to speak of, in their order."""

    def __init__(self, method: Method, classes: tuple[str, ...]):
        self.method, self.classes, self.card = method, classes, method.recipe
        self.model = opened(method)
        self.fitted: tuple[str, ...] = ()  # emotions of the columns of an estimator that was fitted here

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

    def predict(self, samples: SampleSet, work: Workspace | None) -> np.ndarray:
        """Probabilities [N,K] of :attr:`classes`; what the model has scores for beside them is left out, and the rest
        brought to a sum of 1."""
        labels = self.fitted or self.card.output.labels
        if not labels:
            raise UsageError(f"the card of {self.method.title} lacks the line `labels = [...]` under [output]")
        scores = np.concatenate(
            [  # prepared batch by batch: a large network takes far more bytes a face than are kept
                self._scores(prepared(samples.images[at : at + BATCH], self.card.input))
                for at in range(0, len(samples.images), BATCH)
            ]
        )
        if scores.ndim != 2 or scores.shape[1] != len(labels):
            raise DataError(
                f"{self.method.title} gives {scores.shape[1:]} scores a face, and its card names {len(labels)} labels"
            )
        if not np.isfinite(scores).all():
            raise DataError(f"{self.method.title} gives scores that are no finite numbers")
        probabilities = self._probabilities(scores, work)
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

    def _scores(self, faces: np.ndarray) -> np.ndarray:
        if hasattr(self.model, "predict_proba"):
            return np.asarray(self.model.predict_proba(faces), dtype=np.float64)
        if hasattr(self.model, "decision_function"):
            return np.asarray(self.model.decision_function(faces), dtype=np.float64)
        if hasattr(self.model, "run"):
            from ferbench.methods.foreign.onnx_files import scores

            return scores(self.model, faces, self.method.title)
        given = self.model(faces)
        given = given.detach().cpu().numpy() if hasattr(given, "detach") else given
        return np.asarray(given, dtype=np.float64)

    def _probabilities(self, scores: np.ndarray, work: Workspace | None) -> np.ndarray:
        margins = not hasattr(self.model, "predict_proba") and hasattr(self.model, "decision_function")
        gives = "scores" if margins else self.card.output.gives
        if gives == "probabilities":
            sums = scores.sum(axis=1)
            if scores.min() < -1e-3 or np.abs(sums - 1).max() > 1e-2:
                raise DataError(
                    f"{self.method.title} gives no probabilities (rows sum to {sums.min():.3g} up to "
                    f'{sums.max():.3g}): its card may need gives = "logits"'
                )
            return scores.clip(0) / scores.clip(0).sum(axis=1, keepdims=True)
        if gives == "scores" and work is not None:
            work.facts["uncalibrated"] = True
        raised = np.exp(scores - scores.max(axis=1, keepdims=True))
        return raised / raised.sum(axis=1, keepdims=True)


def opened(method: Method) -> Any:
    """Return the model of a card: an onnxruntime session, a callable (a Keras network too), or an estimator.

    Raises DataError for what cannot be opened, UsageError for a library that is missing.
    """
    model = method.recipe.model
    if model.kind in FILES:
        from ferbench.methods.foreign.family import file_of

        path = file_of(method)
        if model.kind == "keras":
            from ferbench.methods.foreign.keras_files import Network

            return Network(path)
        from ferbench.methods.foreign.onnx_files import session

        return session(path)
    module = module_of(model.source, method.folder)
    name = model.source.partition(":")[2]
    found = getattr(module, name, None)
    if found is None:
        raise DataError(f"the module {module.__name__} has no {name!r}, which {method.title} is to be")
    if model.kind == "estimator" and not hasattr(found, "get_params") and callable(found):
        found = found()  # a class, or a function that makes one
    elif model.kind == "estimator" and isinstance(found, type):
        found = found()
    return found


def module_of(source: str, folder: Path | None) -> ModuleType:
    """Import the module of ``package.module:name``, beside the card or installed. DataError where that fails."""
    name, colon, _ = source.partition(":")
    if not colon or not is_module(name):
        raise DataError(f"[model] source of a callable or an estimator is package.module:name, not {source!r}")
    for place in filter(None, (folder, Path.cwd())):
        if str(place) not in sys.path and (place / f"{name.partition('.')[0]}.py").is_file():
            sys.path.insert(0, str(place))
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise DataError(f"the module {name!r} cannot be imported ({error})") from None


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
