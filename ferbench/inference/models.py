"""One opened model, whatever it is: a finished run, the weights that come with ferbench, or a model with a card.

Opening is lazy: what identifies an evaluation is known without the model's weights, and a stored result without torch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ferbench import __version__
from ferbench.data.views import IMAGES, View
from ferbench.data.views import notes as view_notes
from ferbench.environment import cores
from ferbench.errors import CheckFailed, DataError, UsageError
from ferbench.files import cache_home, canonical_json, runs_home, sha256_of, write_bytes
from ferbench.inference.shipped import ATTENTION, shipped_of
from ferbench.methods.foreign import FILES, Card
from ferbench.methods.foreign.cards import card_of
from ferbench.methods.interface import PRETRAIN, Recogniser, SampleSet, Workspace
from ferbench.methods.recipes import Method, network_of, resolve
from ferbench.runs.record import Identity, Record
from ferbench.runs.store import WEIGHTS, Store, shipped_runs
from ferbench.schema import plain
from ferbench.seeds import derive_seed
from ferbench.training.arithmetic import FP32, ROWS, Arithmetic

if TYPE_CHECKING:
    from onnxruntime import InferenceSession
    from torch import Tensor

    from ferbench.execution.learned import Unrecorded
    from ferbench.execution.views import TestSet
    from ferbench.runs.facts import HeldOut
    from ferbench.runs.provenance import Pictures
    from ferbench.training.networks import Deployable
    from ferbench.training.prediction import PreparedNetwork

VERIFIED = 8  # images on which a network's graph for the cache is verified; all 64 of an export take 5 s
REVISION = 1  # raised when a change of code changes what an evaluation gives
TRANSFER = "transfer"  # the kind of run that stores an evaluation


class Model(ABC):
    """A finished model.

    title : in messages and headings. description : the title, and of a run its method and preset. classes : the K
    emotions that it gives probabilities of, in their order. notes : of its prediction, for the record of an evaluation.
    """

    classes: list[str]
    view: View = IMAGES  # of the images that it predicts

    def __init__(self, title: str, description: str):
        self.title, self.description = title, description
        self.notes: list[str] = []
        self._prediction_facts: dict[str, Any] = {}

    @abstractmethod
    def learned_from(self) -> str:
        """What it learned from, in words."""

    @abstractmethod
    def facts(self) -> dict[str, Any]:
        """What the record of an evaluation says of the model; some of it is known only once it has predicted."""

    @abstractmethod
    def held_out(self, test_set: TestSet) -> tuple[HeldOut, np.ndarray]:
        """Whether a test set was held out from what it learned from, and for each sample if it was not: bool [N]."""

    @abstractmethod
    def identity(self, test_set: TestSet) -> Identity:
        """The identity of its evaluation on a test set."""

    def train_labels(self) -> dict[str, int]:
        """How many samples of each class it learned from; none where that is unknown."""
        return {}

    def predict(self, samples: SampleSet) -> np.ndarray:
        """Probabilities float [N,K]; rows sum to 1. Raises UsageError where it cannot predict these samples."""
        raise UsageError(f"of {self.title} only stored predictions are known")

    def predict_faces(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """Probabilities [N,K] and attention maps [N,P,H,W] (None without) of images of its view."""
        return self.predict(SampleSet(images=images)), None

    def test(self, test_set: TestSet) -> np.ndarray:
        """Probabilities float [N,K] of the samples of a test set."""
        self.notes += view_notes(test_set.faces, test_set.rows, self.view)
        return self.predict(test_set.samples(self.view))

    def _workspace(self, identity: Identity, store: Store) -> Workspace:
        """Where a recogniser predicts. It adds to the facts and notes of the model."""
        from ferbench.training.device import Device

        places = identity, store, store.folder(identity.key), Device()
        return Workspace(*places, lambda use: derive_seed(0, use), facts=self._prediction_facts, notes=self.notes)


class StoredRun(Model):
    """A finished run.

    store : that holds it. home : data home where pictures that it did not record are looked up. arithmetic : of its
    network.
    """

    def __init__(self, record: Record, store: Store, home: Path | None = None, arithmetic: Arithmetic = FP32):
        words = record.identity.method, record.identity.preset, record.key
        super().__init__(record.key, " ".join(filter(None, words)))
        self.record, self.store, self.home, self.classes = record, store, home, record.classes
        self.arithmetic = arithmetic
        self._prepared: PreparedNetwork | None = None

    @cached_property
    def _pictures(self) -> list[Pictures | Unrecorded]:
        from ferbench.execution import learned

        return learned.of_run(self.record.key, self.store, self.home)

    def learned_from(self) -> str:
        return ", ".join(dict.fromkeys(map(str, self._pictures)))

    def facts(self) -> dict[str, Any]:
        identity, facts = self.record.identity, self.record.facts
        return {
            "trained_on": identity.protocol,
            "trained_as": identity.kind,
            "parameters": facts["parameters"],
            "display": facts.get("display") or resolve(identity.method, identity.preset, "").title,
            **self._prediction_facts,
        }

    def held_out(self, test_set: TestSet) -> tuple[HeldOut, np.ndarray]:
        from ferbench.execution import learned

        tested = test_set.protocol, test_set.faces, test_set.rows
        verdict, seen = learned.held_out(*tested, self._pictures)
        return learned.with_weights(verdict, self.record.facts, *tested), seen

    def identity(self, test_set: TestSet) -> Identity:
        tested = {"fold": "", "parents": {"network": self.record.key}, **self.arithmetic.identity}
        recipe = {name: value for name, value in self.record.identity.recipe.items() if name != "pictures"}
        tested["recipe"] = recipe | test_set.faces.pictures_identity(self.view)
        return self.record.identity.model_copy(update=evaluation_on(test_set) | tested)

    def train_labels(self) -> dict[str, int]:
        from ferbench.execution import learned

        return learned.train_labels(self.record, self.home)

    @cached_property
    def view(self) -> View:  # type: ignore[override]  # it is an attribute of the others
        return IMAGES if self.method is None else self.method.family.view(self.method)

    @cached_property
    def network(self) -> Deployable:
        """Its network. Raises UsageError where it has none, DataError where its weights are damaged."""
        return network_of(self.record, self.store)

    def _outputs(self, network: Deployable, images: np.ndarray) -> tuple[Tensor, ...]:
        """Logits float32 [N,K] and, where there are some, attention maps float32 [N,P,H,W], of images uint8 [N,48,48].

        All predictions of networks in this package are made here, but for those of a stored graph.
        """
        from ferbench.training.samples import shared_tensor

        if self._prepared is None:
            self._prepared = self.arithmetic.prepare(network)
        return self._prepared(shared_tensor(images))

    @cached_property
    def method(self) -> Method | None:
        """The method that was trained; None where the record does not hold its recipe."""
        stored = self.record.facts.get("method")
        return None if stored is None or self.record.error else Method.model_validate(stored)

    @cached_property
    def _recogniser(self) -> Recogniser:
        """What the method trained, with its weights."""
        from ferbench.training.checkpoint import unpack

        assert self.method is not None
        recogniser = self.method.family.recogniser(self.method, self.record.identity.kind, tuple(self.classes))
        weights = self.store.file(self.record, WEIGHTS)
        try:
            recogniser.load(unpack(weights)[0])
        except (KeyError, IndexError, TypeError, ValueError, RuntimeError):
            raise DataError(f"{weights} does not fit the run's recipe: train it again") from None
        return recogniser

    def predict(self, samples: SampleSet) -> np.ndarray:
        try:
            # Images of another view are read batch by batch, which the recogniser does.
            network = self.network if self.view.is_default else None
        except UsageError:
            if self.method is None:
                raise
            network = None
        if network is not None:
            return self._outputs(network, samples.images)[0].softmax(dim=1).numpy()
        assert self.method is not None
        self.arithmetic.check_default(f"run {self.title}")
        check_samples(self.method, samples)
        return self._recogniser.predict(samples, self._workspace(self.record.identity, self.store))

    def predict_faces(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        from ferbench.inference import export

        if not self.view.is_default:
            return super().predict_faces(images)
        try:
            if self.arithmetic == FP32 and self._graph is not None:
                logits, *maps = export.run_graph(self._graph, images[:, None], ROWS["cpu"])
            else:
                logits, *maps = (output.numpy() for output in self._outputs(self.network, images))
        except UsageError:
            return super().predict_faces(images)
        likelihoods = np.exp(logits.astype(float) - logits.max(axis=1, keepdims=True))  # softmax without its library
        return likelihoods / likelihoods.sum(axis=1, keepdims=True), maps[0] if maps else None

    @cached_property
    def _graph(self) -> InferenceSession | None:
        """The network as an ONNX file in the cache. It opens in a tenth of the time that torch takes to load.

        It is written at first use, once its results are those of the network. None where they are not.
        """
        from ferbench.inference import export

        parents = {role: self.store.holder(key) for role, key in self.record.identity.parents.items()}
        records = {role: store.record(self.record.identity.parents[role]) for role, store in parents.items()}
        files = [self.record.files, *(record.files for record in records.values())]
        if not all(WEIGHTS in names for names in files):
            return None  # records of older versions have no checksums: their weights may have changed
        self.store.file(self.record, WEIGHTS)  # damaged weights are noticed although they are not read
        if ATTENTION in records:
            parents[ATTENTION].file(records[ATTENTION], WEIGHTS)
        name = sha256_of(canonical_json([__version__, self.record.key, files]).encode())[:16]
        for path in (cache_home() / "networks").glob(f"{name}-*.onnx"):
            with suppress(OSError, DataError):
                if sha256_of(content := path.read_bytes())[:16] == path.stem.rpartition("-")[2]:
                    return export.session(content, cores())
        try:
            content, _ = export.verified(self, VERIFIED)
        except CheckFailed:
            return None
        with suppress(OSError, DataError):
            write_bytes(cache_home() / "networks" / f"{name}-{sha256_of(content)[:16]}.onnx", content)
        return export.session(content, cores())


class ExternalModel(Model):
    """A model from another program, of which its authors say what it learned from."""

    def __init__(self, title: str, trained_on: tuple[str, ...]):
        super().__init__(title, title)
        self.trained_on = trained_on

    def learned_from(self) -> str:
        return f"its card names {', '.join(self.trained_on) or 'nothing'}"

    def facts(self) -> dict[str, Any]:
        facts = {"trained_on": list(self.trained_on), "display": self.title, "trained_as": "elsewhere", "parameters": 0}
        return facts | self._prediction_facts

    def held_out(self, test_set: TestSet) -> tuple[HeldOut, np.ndarray]:
        from ferbench.execution import learned

        return learned.as_authors_say(test_set.protocol, test_set.faces, test_set.rows, self.trained_on)


class CardModel(ExternalModel):
    """An external model with a card: an ONNX or Keras file, a callable or an estimator.

    store : for its evaluations. Raises UsageError for a method that is to be trained.
    """

    def __init__(self, method: Method, store: Store):
        if not isinstance(method.recipe, Card):
            raise UsageError(
                f"{method.title} is a method to train: `ferbench train`; a card has a [model] and an [output]"
            )
        super().__init__(method.title, method.recipe.trained.on)
        self.method, self.card, self.store = method, method.recipe, store
        self.view = method.family.view(method)

    @cached_property
    def classes(self) -> list[str]:  # type: ignore[override]  # it is an attribute of the others
        """Raises UsageError for a card that does not say what the scores of the model stand for."""
        if labels := [label for label in self.card.output.labels if label]:
            return labels
        raise UsageError(
            f"the card of {self.title} lacks the line `labels = [...]` under [output]: what each score of the model "
            "stands for; or fit it on each fold with `ferbench evaluate --refit`"
        )

    def facts(self) -> dict[str, Any]:
        return {**super().facts(), "method": self.method.model_dump(mode="json", by_alias=True)}

    def identity(self, test_set: TestSet) -> Identity:
        if self.card.model.kind not in FILES:
            _ = self._recogniser  # which files a module opens, and thus its identity, is known once it has run
        recipe = plain(self.method.family.identity(TRANSFER, self.method, test_set.protocol))
        recipe |= test_set.faces.pictures_identity(self.view)
        return self._identity(recipe, test_set)

    def _identity(self, recipe: dict[str, Any], test_set: TestSet | None) -> Identity:
        method, preset = self.method.name, self.method.preset
        return Identity(method=method, preset=preset, recipe=recipe, seed=0, **evaluation_on(test_set))

    @cached_property
    def _recogniser(self) -> Recogniser:
        return self.method.family.recogniser(self.method, TRANSFER, tuple(self.classes))

    def predict(self, samples: SampleSet) -> np.ndarray:
        return self._recogniser.predict(samples, self._workspace(self._identity({}, None), self.store))


def open_model(
    name: str,
    preset: str,
    runs: Path | None,
    dataset: str = "",
    home: Path | None = None,
    arithmetic: Arithmetic = FP32,
    trained_on: str = "",
) -> Model:
    """Open a model.

    name : the key of a finished run, or how it begins; a model card or a file, callable or estimator with one
        (:mod:`ferbench.methods.foreign.cards`); empty for the shipped weights of ``preset``.
    dataset : the protocol that it is to be tested under. home, arithmetic : see :class:`StoredRun`.
    trained_on : the protocol that shipped weights were trained under; empty: see
        :func:`~ferbench.inference.shipped.shipped_of`.
    Raises UsageError where there is no such model and for an arithmetic that it does not have, DataError for a card
    that is missing or damaged.
    """
    if name and trained_on:
        raise UsageError("--trained-on chooses among the weights that come with ferbench: a named model needs it not")
    if card := card_of(name):
        arithmetic.check_default(name)
        return CardModel(resolve(str(card), "", dataset), Store(runs_home(runs)))
    return open_run(name, preset, runs, PRETRAIN, home, arithmetic, trained_on)


def open_run(
    name: str,
    preset: str,
    runs: Path | None,
    kind: str = PRETRAIN,
    home: Path | None = None,
    arithmetic: Arithmetic = FP32,
    trained_on: str = "",
) -> StoredRun:
    """Open the run whose key begins with ``name``; without a name, the shipped one of a kind that ``preset`` uses.

    trained_on : see :func:`open_model`. Raises UsageError where there is none.
    """
    if name:
        store = Store(runs_home(runs))
        record = store.find(name)
        return StoredRun(record, store.holder(record.key), home, arithmetic)
    return StoredRun(shipped_of(preset, kind, trained_on), shipped_runs(), home, arithmetic)


def check_samples(method: Method, samples: SampleSet) -> None:
    """Raise UsageError for single images that are given to a method of sequences, DataError for missing landmarks."""
    needs = method.family.needs(method)
    if "sequences" in needs and not samples.videos:
        raise UsageError(f"{method.title} reads whole sequences: test it under a protocol of sequences")
    if "landmarks" in needs and any(video.landmarks is None for video in samples.videos):
        raise DataError(f"{method.title} reads landmarks, and the sequences have none")


def evaluation_on(test_set: TestSet | None) -> dict[str, Any]:
    """The part of an identity that all evaluations on a test set share. None: of predictions that are not stored."""
    return {
        "kind": TRANSFER,
        "protocol": test_set.protocol.identifier if test_set else "",
        "data": test_set.faces.fingerprint if test_set else "",
        "split": test_set.split if test_set else "",
        "precision": "fp32",
        "code": REVISION,
    }
