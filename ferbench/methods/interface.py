"""What a method is to the rest of ferbench: it learns from a training set, then gives probabilities for a test set.

A *family* is a package or module with a ``FAMILY``, an instance of a subclass of :class:`Family`. It defines the schema
of its part of a TOML file (:attr:`Family.recipe`), names the runs that a training starts from (:meth:`Family.parents`)
and builds a :class:`Recogniser` for each training. Protocols, folds, seeds, interruption, records, reports and
comparisons are the same for all families; none of them knows a family by name.

What only some families offer is an optional protocol at the end of this module, such as :class:`HasAttentionMaps`. A
family implements a protocol by having its members, and callers test for it with ``isinstance``. Importing this loads
no torch: recipes are listed and reports are written without it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Protocol, TypeVar, runtime_checkable

from ferbench.data.views import IMAGES, View
from ferbench.errors import UsageError
from ferbench.runs.record import TABLES
from ferbench.schema import Schema, plain
from ferbench.training.schedule import Progress

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor
    from torch.nn import Module

    from ferbench.data.faces import Faces
    from ferbench.methods.recipes import Method
    from ferbench.protocol.protocol import AttributeProtocol
    from ferbench.protocol.protocol import Protocol as Rules
    from ferbench.runs.record import Identity, Record
    from ferbench.runs.store import Store
    from ferbench.training.device import Device
    from ferbench.training.loop import After, Loss
    from ferbench.training.networks import Deployable
    from ferbench.training.plan import Batch, EpochPlan, Step
    from ferbench.training.samples import Shared
    from ferbench.training.schedule import Stage

History = list[dict[str, Any]]  # one row for each epoch, or for each other unit of progress of a training
R = TypeVar("R", bound=Schema)  # the recipe of a family
S = TypeVar("S", contravariant=True)  # the kind of set that a training learns from
FOLD = "fold"  # the only kind of training that is tested under the protocol
PRETRAIN = "pretrain"


@dataclass(frozen=True)
class Video:
    """One sequence, cropped and aligned, from its first frame to its last.

    frames : uint8 [T,48,48], T ≥ 1. landmarks : float32 [T,68,2], x and y in pixels of the frames, in the order of the
    68 points that CK+ has; None where the set has none.
    """

    frames: np.ndarray
    landmarks: np.ndarray | None = None


@dataclass(frozen=True, kw_only=True)
class SampleSet:
    """N samples to be predicted: images or, under a protocol of sequences, whole sequences. It holds no labels.

    images : uint8 [N,48,48], or ``data.views.Images`` of :meth:`Family.view`, which are read as they are indexed by
    rows; the last frame of each sequence. videos : N under a protocol of sequences, else none.
    """

    images: np.ndarray
    videos: Sequence[Video] = ()

    def __len__(self) -> int:
        return len(self.images)


@dataclass(frozen=True, kw_only=True)
class TrainingSet(SampleSet):
    """N samples to learn from, without test samples.

    classes : names of the K classes. labels : int64 [N], indices of ``classes``. subjects, sequences : text [N], empty
    where unknown. shared : table of derived samples that all folds of a dataset share.
    """

    classes: tuple[str, ...]
    labels: np.ndarray
    subjects: np.ndarray
    sequences: np.ndarray
    shared: Shared | None = None


@dataclass(frozen=True)
class AttributeSet:
    """A dataset of faces with attributes and identities (CelebA) to learn from, with the protocol that names the
    attributes. It is never tested. ``protocol.splits.attribute_split`` selects its training images."""

    faces: Faces
    protocol: AttributeProtocol
    seed: int


@dataclass
class Workspace:
    """The run of a training: its files, device, seeds and options.

    identity, folder : of the run. protocol : under which the method will be tested.
    seed : returns the seed for a named use of random numbers, such as "weights" or "plan".
    report : progress callback. timed : calls a function and records its seconds under a name.
    validation : samples held out of the training set, never test data; None without.
    keep_best : end with the epoch of the best validation accuracy. epochs : folder for the weights of every epoch, or
    None.
    facts, notes, result : what the training adds to the record: counts; sentences; the result of a training that is
    not tested.
    """

    identity: Identity
    store: Store
    folder: Path
    device: Device
    seed: Callable[[str], int]
    protocol: Rules | None = None
    report: Progress = lambda done, total, text: None
    timed: Callable[[str, Callable[[], Any]], Any] = lambda phase, work: work()
    validation: TrainingSet | None = None
    keep_best: bool = False
    epochs: Path | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    result: dict[str, Any] = field(default_factory=dict)

    def checkpoint(self, name: str) -> Path:
        """The file from which an interrupted training continues; it is deleted when the run is done."""
        return self.folder / "checkpoint" / f"{name}.safetensors"

    def train(
        self,
        phase: str,
        module: Module,
        loss: Loss,
        plan: EpochPlan,
        stage: Stage,
        predict: Callable[[SampleSet], np.ndarray] | None = None,
        after: After | None = None,
        checkpoint: str = "",
    ) -> History:
        """Train a network by :func:`ferbench.training.loop.fit`; seconds are recorded under ``phase``.

        loss, plan, stage, after : see there. predict : scores [N,K] of samples by the network; without it this training
        is neither validated, nor are its epochs stored or chosen. checkpoint : its name where that is not ``phase``.
        """
        from ferbench.training.loop import fit

        def validate() -> float:
            assert predict is not None
            assert self.validation is not None
            return float((predict(self.validation).argmax(axis=1) == self.validation.labels).mean())

        place = self.device, self.checkpoint(checkpoint or phase), self.report
        validated = validate if predict is not None and self.validation is not None else None
        epochs = (self.keep_best, self.epochs) if predict is not None else (False, None)
        return self.timed(phase, lambda: fit(module, loss, plan, stage, *place, validated, *epochs, after))

    def parent(self, role: str) -> tuple[Record, Path]:
        """The record and the weights file of a run that this one starts from. DataError: it is damaged."""
        key = self.identity.parents[role]
        holder = self.store.holder(key)
        record = holder.record(key)
        return record, holder.file(record, "weights.safetensors")


class Learner(Protocol[S]):
    """One training, whose result is stored as named arrays."""

    def fit(self, data: S, work: Workspace, /) -> History:
        """Learn. A call with the same workspace after an interruption ends with the same bytes."""

    def state(self) -> Mapping[str, Tensor | np.ndarray]:
        """Everything that was learned, as named arrays: the content of ``weights.safetensors``."""

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Restore what :meth:`state` returned."""


class Recogniser(Learner[TrainingSet], Protocol):
    """One training of a method, by torch, scikit-learn or any other library."""

    def predict(self, samples: SampleSet, work: Workspace) -> np.ndarray:
        """Probabilities float [N,K] of the K classes of the training; rows sum to 1."""


AttributeLearner = Learner[AttributeSet]  # a training on attributes of faces, which is not tested


@dataclass(frozen=True)
class Parent:
    """A run that a training starts from.

    role : unique name among the parents of the training. kind : of the parent's training. method : of the parent.
    protocol : name of the protocol whose training set the parent learns from.
    """

    role: str
    kind: str
    method: Method
    protocol: str


class Family(ABC, Generic[R]):
    """A family of methods. Subclasses override what differs from these defaults.

    recipe : the schema of the hyperparameters: the tables of ``baselines/*.toml`` below the head. Fields
        ``pretrain`` and ``finetune`` of type ``training.schedule.Stage`` are the schedules of these trainings;
        ``threads`` is the maximum number of CPU threads of a training.
    consumes : input needed beside images: "sequences", "landmarks", "neutral" (sequences that begin with a neutral
        face), "subjects".
    revision : by kind of training, 1 by default; raised when a change of code changes the outcome of a training.
    torch : whether it uses a device, a precision and an engine; otherwise it computes in float64 on the CPU.
    """

    recipe: type[R]
    consumes: ClassVar[frozenset[str]] = frozenset()
    revision: ClassVar[Mapping[str, int]] = {}
    torch: ClassVar[bool] = True

    @abstractmethod
    def recogniser(self, method: Method[R], kind: str, classes: tuple[str, ...]) -> Recogniser:
        """Build the untrained recogniser of a run of this kind."""

    def needs(self, method: Method[R]) -> frozenset[str]:
        """Input needed beside images: :attr:`consumes`, or what the recipe of the method implies."""
        return self.consumes

    def view(self, method: Method[R]) -> View:
        """The view of the images that the method learns from and predicts: by default 48×48 grey."""
        return IMAGES

    def parents(self, kind: str, method: Method[R], protocol: Rules) -> list[Parent]:
        """Runs that a training of this kind starts from: by default a fold starts from the pre-training of its method
        if both the recipe and the protocol have one."""
        if kind == FOLD and protocol.pretrain and getattr(method.recipe, PRETRAIN, None) is not None:
            return [Parent(PRETRAIN, PRETRAIN, method, protocol.pretrain)]
        return []

    def identity(self, kind: str, method: Method[R], protocol: Rules) -> dict[str, Any]:
        """The part of the recipe that determines a training of this kind; its schedule, if any, under "stage"."""
        content = method.recipe.model_dump()
        stages = {name: content.pop(name, None) for name in (PRETRAIN, "finetune")}
        stage = stages[PRETRAIN if kind == PRETRAIN else "finetune"]
        return {**content, "stage": stage} if stage else content

    def owner(self, kind: str, method: Method[R]) -> tuple[str, str]:
        """The method and the preset that a run of this kind is named after, as several methods may share a run."""
        return method.name, method.preset

    def check_parent(self, role: str, record: Record, method: Method[R], protocol: Rules) -> None:
        """Raise UsageError if a finished run cannot be the parent ``role``. By default a pre-training with the same
        recipe can, whatever its schedule."""
        if role != PRETRAIN:
            raise UsageError(f"{method.title} takes no finished run as {role}")
        expected = {**plain(self.identity(PRETRAIN, method, protocol)), "method": self.owner(PRETRAIN, method)[0]}
        actual = {**record.identity.recipe, "method": record.identity.method}
        differ = [TABLES.get(name, name) for name, value in expected.items() if value != actual.get(name)]
        if differ := [name for name in differ if name != "stage"]:
            raise UsageError(
                f"run {record.key} was pre-trained with another {', '.join(differ)} than {method.title} "
                f"has with preset {method.preset}"
            )

    def threads(self, method: Method[R]) -> int:
        """Maximum number of CPU threads of a training, 0: all. Training steps of small networks gain almost nothing
        from a second thread, and lose much when other processes compete for the cores."""
        return getattr(method.recipe, "threads", 0)

    def epochs(self, kind: str, method: Method[R], protocol: Rules) -> int:
        """Number of epochs of a training, 0 for a training without epochs."""
        stage = self.identity(kind, method, protocol).get("stage") or {}
        return int(stage.get("epochs", 0))

    def describe(self, method: Method[R], protocol: Rules) -> list[tuple[str, dict[str, Any]]]:
        """Titled facts for ``ferbench show``, sizes first; the recipe is shown as well."""
        return []


@runtime_checkable
class HasStages(Protocol):
    """A family that names its kinds of training, or whose runs consist of several trainings.

    titles : by kind, for plans. trainings : number of trainings, of equally many epochs, in a run of a kind, 1 if none.
    """

    titles: Mapping[str, str]
    trainings: Mapping[str, int]


@runtime_checkable
class LearnsAttributes(Protocol):
    """A family with trainings on attributes of faces."""

    def attribute_learner(self, method: Method[Any], kind: str) -> AttributeLearner:
        """Build the untrained learner of a run of this kind."""

    def attribute_image_count(self, data: AttributeSet) -> int:
        """Number of images of a dataset that a training uses."""


@dataclass(frozen=True)
class Task:
    """A training whose duration is estimated.

    protocol : under which the method will be tested. faces : the prepared dataset to learn from. images : number of
    training samples. folds : number of folds of this training that are planned together, at least 1. done : share of
    the epochs that are finished. tested : number of test samples. retested : the task does not train, it predicts the
    test samples by the weights of every epoch.
    """

    identity: Identity
    method: Method
    protocol: Rules
    faces: Faces
    images: int
    folds: int = 1
    done: float = 0.0
    tested: int = 0
    retested: bool = False


@runtime_checkable
class EstimatesDuration(Protocol):
    """A family that estimates how long its trainings take."""

    def estimate(self, device: Device) -> Callable[[Task, int], float] | None:
        """A function from a task and its number of threads to seconds, by a measurement on first use. None: unknown.

        It may have an attribute ``cold_start``: which part of these a training needs before its first step, by run key.
        """


@runtime_checkable
class HasNetwork(Protocol):
    """A family whose runs hold a network for export and for predictions of images."""

    def module(self, record: Record, store: Store) -> Deployable:
        """Rebuild the network of a finished run as one frozen module.

        Raises UsageError if the run has no such network, DataError if its weights are damaged.
        """


@runtime_checkable
class HasAttentionMaps(Protocol):
    """A family whose runs learn attention maps."""

    def maps(self, record: Record, store: Store, images: np.ndarray) -> tuple[str, dict[str, np.ndarray]]:
        """The key of the run that learned the maps, which is the given one or its parent, and the maps float32 [N,H,W]
        of images uint8 [N,48,48] by the name of the part of the face. Raises UsageError if the run has no maps."""


@runtime_checkable
class Timeable(Protocol):
    """A family that ``ferbench bench`` times."""

    def timed(self, method: Method[Any], classes: int, seed: int) -> TimedMethod:
        """Build a method with random weights."""


class TimedMethod(Protocol):
    """A method with random weights for ``ferbench bench``; images are uint8 [N,48,48], labels int64 [N]."""

    def __hash__(self) -> int: ...

    def load(self, record: Record, store: Store) -> None:
        """Replace the weights by those of a finished run of the same architecture, for inference alone."""

    def part(self, what: str) -> Deployable | None:
        """A module from images uint8 [B,1,48,48] to logits (its first output): "inference" is the whole method, the
        family names the other parts; None for a part that the method does not have."""

    def deployable(self) -> Deployable:
        """The whole method as it is exported."""

    def bytes_of(self, module: Module, example: Tensor, width: int, training: bool) -> int:
        """Bytes that a part moves for a batch, ``width`` bytes an element."""

    def trained(self) -> Module:
        """The part whose FLOPs count as those of a training step."""

    def stepper(
        self, device: Device, images: Tensor, labels: Tensor, steps: list[Step]
    ) -> Callable[[Batch], dict[str, Tensor]]:
        """A function that carries out a training step on a copy of the network. steps : all steps to be timed."""

    def epoch(self, device: Device, images: Tensor, labels: Tensor, batch: int, seed: int, folder: Path) -> None:
        """One epoch as in ``ferbench train``, with its checkpoint."""

    def baseline(
        self, name: str, images: Tensor, labels: Tensor, steps: list[Step], batch: int, device: str, workers: int
    ) -> Callable[[], object]:
        """A call that carries out a training step of a reference loop, with ``workers`` loader processes."""
