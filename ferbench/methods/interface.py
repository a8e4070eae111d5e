"""What a method is to the rest of ferbench: it learns from a training set, then gives probabilities for a test set.

A *family* is a package or module with a ``FAMILY``, an instance of a subclass of :class:`Family`. It defines the schema
of its part of a TOML file (:attr:`Family.recipe`), names the runs that a training starts from (:meth:`Family.parents`)
and builds a :class:`Recogniser` for each training. Protocols, folds, seeds, interruption, records, reports and
comparisons are the same for all families; none of them knows a family by name.

What only some families offer is an optional protocol at the end of this module, such as :class:`HasAttentionMaps`. A
family implements one by having its members; whoever needs them asks by ``isinstance``.

Importing this loads no torch: recipes are listed and reports are written without it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Protocol, TypeVar, runtime_checkable

import numpy as np

from ferbench.errors import UsageError
from ferbench.runs.record import TABLES
from ferbench.schema import Schema, plain
from ferbench.training.schedule import Progress

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

    from ferbench.data.faces import Faces
    from ferbench.methods.recipes import Method
    from ferbench.protocol.protocol import AttributeProtocol
    from ferbench.protocol.protocol import Protocol as Rules
    from ferbench.runs.record import Identity, Record
    from ferbench.runs.store import Store
    from ferbench.training.device import Device
    from ferbench.training.networks import Deployable
    from ferbench.training.plan import Batch, Step
    from ferbench.training.samples import Shared

History = list[dict[str, Any]]  # one row for each epoch, or for whatever unit a training is counted by
R = TypeVar("R", bound=Schema)  # the recipe of a family
FOLD = "fold"  # the kind of training that is tested under the protocol; all others only come before it
PRETRAIN = "pretrain"


@dataclass(frozen=True)
class Video:
    """One sequence, cropped and aligned, from its first frame to its last.

    frames : uint8 [T,48,48], T ≥ 1. landmarks : float32 [T,68,2], x and y in pixels of the frames, in the order of
    the 68 points that CK+ has; None where the set has none.
    """

    frames: np.ndarray
    landmarks: np.ndarray | None = None


@dataclass(frozen=True, kw_only=True)
class SampleSet:
    """N samples to be predicted: images or, under a protocol of sequences, whole sequences. It holds no labels.

    images : uint8 [N,48,48]; of a sequence its last frame. videos : N of them under a protocol of sequences, else none.
    """

    images: np.ndarray
    videos: Sequence[Video] = ()

    def __len__(self) -> int:
        return len(self.images)


@dataclass(frozen=True, kw_only=True)
class TrainingSet(SampleSet):
    """N samples to learn from. Whatever is tested is not in here.

    classes : names of the K classes. labels : int64 [N], places in ``classes``. subjects, sequences : text [N], empty
    where unknown. shared : derived samples that the folds of one set look up in one table.
    """

    classes: tuple[str, ...]
    labels: np.ndarray
    subjects: np.ndarray
    sequences: np.ndarray
    shared: Shared | None = None


@dataclass(frozen=True)
class AttributeSet:
    """A set of faces with attributes and identities (CelebA) to learn from, with the protocol that names the
    attributes. Nothing of it is ever tested. ``protocol.splits.attribute_split`` selects training images from it."""

    faces: Faces
    protocol: AttributeProtocol
    seed: int


@dataclass
class Workspace:
    """Where a training works, and its circumstances.

    identity : of the run. protocol : that the method is to be tested under. folder : of the run; unfinished work goes
    to :meth:`checkpoint`.
    seed : the seed of one use of randomness by the name of the use, such as "weights" or "plan".
    report : called as work goes on. timed : carries out some work and records its seconds under a name. validation :
    samples held out of the training set, never test data; None where there are none. keep_best : end with the epoch
    that has the best validation accuracy. epochs : a folder for the weights after every epoch, where all of them are
    wanted.
    facts, notes, result : written by the training for the record: counts; a sentence each; the result of a training
    that is not tested.
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

    def parent(self, role: str) -> tuple[Record, Path]:
        """The record and the weights file of a run that this one starts from; DataError where it is damaged."""
        key = self.identity.parents[role]
        holder = self.store.holder(key)
        record = holder.record(key)
        return record, holder.file(record, "weights.safetensors")


class Learner(Protocol):
    """One training, whose result is stored as named arrays."""

    def state(self) -> Mapping[str, Tensor | np.ndarray]:
        """All that was learned, as named arrays: the content of ``weights.safetensors``."""
        ...

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Restore what :meth:`state` returned."""
        ...


class Recogniser(Learner, Protocol):
    """One training of a method. Torch modules and scikit-learn estimators fit behind it alike."""

    def fit(self, train: TrainingSet, work: Workspace) -> History:
        """Learn. Interrupted and called again with the same workspace, it ends with the same bytes."""
        ...

    def predict(self, samples: SampleSet, work: Workspace) -> np.ndarray:
        """Probabilities float [N,K] of the classes that it was built for; rows sum to 1."""
        ...


class AttributeLearner(Learner, Protocol):
    """One training on attributes of faces. It predicts nothing that is tested."""

    def fit(self, data: AttributeSet, work: Workspace) -> History:
        """Learn. Interrupted and called again with the same workspace, it ends with the same bytes."""
        ...


@dataclass(frozen=True)
class Parent:
    """A run that a training starts from.

    role : its unique name among the training's parents. kind : of training. method : that it is of.
    protocol : the name of the protocol whose training set it learns from.
    """

    role: str
    kind: str
    method: Method
    protocol: str


class Family(Generic[R]):
    """A family of methods. Subclasses override what differs from these defaults.

    recipe : the schema of what decides a training: the tables of ``baselines/*.toml`` below the head. Fields
        ``pretrain`` and ``finetune`` that are a ``training.schedule.Stage`` are the schedules of these trainings;
        ``threads`` is the largest number of CPU threads that a training uses.
    consumes : what it needs beside images: "sequences", "landmarks", "neutral" (sequences that begin with a neutral
        face), "subjects".
    revision : raised, by kind of training, when a change of code changes the outcome of a training; 1 where not named.
    torch : whether a device, a precision and an engine are chosen for it; else it computes in float64 on the CPU.
    """

    recipe: type[R]
    consumes: ClassVar[frozenset[str]] = frozenset()
    revision: ClassVar[Mapping[str, int]] = {}
    torch: ClassVar[bool] = True

    def recogniser(self, method: Method[R], kind: str, classes: tuple[str, ...]) -> Recogniser:
        """Build what a run of this kind trains, untrained."""
        raise NotImplementedError

    def needs(self, method: Method[R]) -> frozenset[str]:
        """What a method needs beside images: :attr:`consumes`, unless its recipe decides."""
        return self.consumes

    def parents(self, kind: str, method: Method[R], protocol: Rules) -> list[Parent]:
        """Runs that a training of this kind starts from: by default a fold starts from the method's pre-training, where
        both the recipe and the protocol have one."""
        if kind == FOLD and protocol.pretrain and getattr(method.recipe, PRETRAIN, None) is not None:
            return [Parent(PRETRAIN, PRETRAIN, method, protocol.pretrain)]
        return []

    def identity(self, kind: str, method: Method[R], protocol: Rules) -> dict[str, Any]:
        """The part of the recipe that decides a training of this kind; its schedule, if any, under "stage"."""
        content = method.recipe.model_dump()
        stages = {name: content.pop(name, None) for name in (PRETRAIN, "finetune")}
        stage = stages[PRETRAIN if kind == PRETRAIN else "finetune"]
        return {**content, "stage": stage} if stage else content

    def owner(self, kind: str, method: Method[R]) -> tuple[str, str]:
        """The method and the preset that a run of this kind belongs to: another's where several share it."""
        return method.name, method.preset

    def check_parent(self, role: str, record: Record, method: Method[R], protocol: Rules) -> None:
        """Raise UsageError where a finished run cannot be used as the parent ``role``. By default a pre-training can,
        whatever its schedule, if the rest of its recipe is the same."""
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
        """The largest number of CPU threads that a training uses, 0: all. Steps of small networks gain almost nothing
        from a second thread, and lose much where other processes compete for the cores."""
        return getattr(method.recipe, "threads", 0)

    def epochs(self, kind: str, method: Method[R], protocol: Rules) -> int:
        """Epochs of a training, 0 where it is not counted by epochs."""
        stage = self.identity(kind, method, protocol).get("stage") or {}
        return int(stage.get("epochs", 0))

    def describe(self, method: Method[R], protocol: Rules) -> list[tuple[str, dict[str, Any]]]:
        """Titled facts for ``ferbench show``, sizes first. The recipe is shown in any case."""
        return []


@runtime_checkable
class HasStages(Protocol):
    """A family whose kinds of training have titles of their own, or hold several trainings.

    titles : of kinds of training, for plans. trainings : how many trainings of the same number of epochs a run of a
    kind holds; 1 where not named.
    """

    titles: Mapping[str, str]
    trainings: Mapping[str, int]


@runtime_checkable
class LearnsAttributes(Protocol):
    """A family with trainings on attributes of faces."""

    def attribute_learner(self, method: Any, kind: str) -> AttributeLearner:
        """Build what a run of this kind trains, untrained."""
        ...

    def attribute_image_count(self, data: AttributeSet) -> int:
        """How many images of a set a training uses."""
        ...


@dataclass(frozen=True)
class Task:
    """A training whose duration is estimated.

    protocol : that the method is to be tested under. faces : the prepared dataset to learn from. images : different
    samples that are learned from. folds : how many folds of the same training are planned together, 1 where there are
    none. done : share of the epochs that are finished. tested : samples that are predicted. retested : it predicts
    them after every epoch of a training that is done, and does not train.
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
    """A family that can say how long its trainings take."""

    def estimate(self, device: Device) -> Callable[[Task, int], float] | None:
        """A function from a task and its number of threads to seconds, measured on first use; None: unknown."""
        ...


@runtime_checkable
class HasNetwork(Protocol):
    """A family whose runs hold a network that can be exported and shown pictures."""

    def module(self, record: Record, store: Store) -> Deployable:
        """Rebuild the network of a finished run as one frozen module.

        Raises UsageError where a run has no such network, DataError where its weights are damaged.
        """
        ...


@runtime_checkable
class HasAttentionMaps(Protocol):
    """A family whose runs learn attention maps."""

    def maps(self, record: Record, store: Store, images: np.ndarray) -> tuple[str, dict[str, np.ndarray]]:
        """The key of the run that learned the maps, and the maps float32 [N,H,W] of images uint8 [N,48,48] by the part
        of the face that they are for. They are those of a finished run or of its parent.

        Raises UsageError where there are none.
        """
        ...


@runtime_checkable
class Timeable(Protocol):
    """A family that ``ferbench bench`` times."""

    def timed(self, method: Any, classes: int, seed: int) -> TimedMethod:
        """Build a method with random weights."""
        ...


class TimedMethod(Protocol):
    """A method with random weights, as ``ferbench bench`` times it; images are uint8 [N,48,48], labels int64 [N]."""

    def __hash__(self) -> int: ...

    def load(self, record: Record, store: Store) -> None:
        """Replace the weights by those of a finished run of the same architecture, for inference alone."""
        ...

    def part(self, what: str) -> Deployable | None:
        """A module from images uint8 [B,1,48,48] to logits (its first output): "inference" is the whole method, the
        names of other parts are the family's; None for a part that the method does not have."""
        ...

    def deployable(self) -> Deployable:
        """The whole method as it is exported."""
        ...

    def bytes_of(self, module: Module, example: Tensor, width: int, training: bool) -> int:
        """Bytes that a part moves for a batch, ``width`` bytes an element."""
        ...

    def trained(self) -> Module:
        """The part whose FLOPs count as those of a training step."""
        ...

    def stepper(
        self, device: Device, images: Tensor, labels: Tensor, steps: list[Step]
    ) -> Callable[[Batch], dict[str, Tensor]]:
        """A function that carries out a training step on a copy of the network; ``steps`` are all that will come."""
        ...

    def epoch(self, device: Device, images: Tensor, labels: Tensor, batch: int, seed: int, folder: Path) -> None:
        """One epoch as ``ferbench train`` does it, checkpoint and all."""
        ...

    def baseline(
        self, name: str, images: Tensor, labels: Tensor, steps: list[Step], batch: int, device: str, workers: int
    ) -> Callable[[], object]:
        """A call that does the work of a training step as a reference loop does, with ``workers`` loader processes."""
        ...
