"""What a method is to the rest of ferbench: it learns from a training set, then gives probabilities for a test set.

A *family* is a package or module with a ``FAMILY``, an instance of a subclass of :class:`Family`. It reads its part of
a TOML file (:attr:`Family.recipe`), says which runs come before (:meth:`Family.parents`) and builds a
:class:`Recogniser` for each training. Protocols, folds, seeds, interruption, records, reports and comparisons are
the same for all families; none of them knows a family by name.

Importing this loads no torch: recipes are listed and reports are written without it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import numpy as np

from ferbench.errors import UsageError
from ferbench.schema import Schema, plain

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

    from ferbench.data.faces import Faces
    from ferbench.methods.recipes import Method
    from ferbench.protocol.protocol import AttributeProtocol
    from ferbench.protocol.protocol import Protocol as Rules
    from ferbench.runs.record import Identity, Record
    from ferbench.runs.store import Store
    from ferbench.training.deployable import Deployable
    from ferbench.training.device import Device
    from ferbench.training.plan import Batch, Step
    from ferbench.training.samples import Shared

Progress = Callable[[int, int, str], None]  # steps done, steps in all, what there is to tell
History = list[dict[str, Any]]  # one row an epoch, or whatever a training counts by
FOLD = "fold"  # the kind of training that is tested under the protocol; others only come before it
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
    attributes. Nothing of it is ever tested. ``protocol.splits.attribute_split`` draws training images from it."""

    faces: Faces
    protocol: AttributeProtocol
    seed: int


@dataclass
class Workspace:
    """Where a training works, and what it is told.

    identity : of the run. protocol : that the method is to be tested under. folder : of the run; unfinished work goes
    to :meth:`checkpoint`.
    seed : the seed of one use of randomness by the name of the use, such as "weights" or "plan".
    report : to be called as work goes on. validation : samples held out of the training set, never test data; None
    where there are none. keep_best : end with the epoch that did best on them. epochs : a folder for the weights after
    every epoch, where all of them are wanted.
    facts : for the record: what was counted. notes : for the record, a sentence each. result : for the record of a
    training that is not tested.
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
        """The file that an interrupted training goes on from; it is deleted when the run is done."""
        return self.folder / "checkpoint" / f"{name}.safetensors"

    def parent(self, role: str) -> tuple[Record, Path]:
        """The record and the file of weights of a run that this one starts from; DataError where it is damaged."""
        key = self.identity.parents[role]
        holder = self.store.holder(key)
        record = holder.record(key)
        return record, holder.file(record, "weights.safetensors")


class Recogniser(Protocol):
    """One training of a method. Torch modules and scikit-learn estimators fit behind it alike."""

    def fit(self, train: TrainingSet | AttributeSet, work: Workspace) -> History:
        """Learn. Interrupted and called again with the same workspace, it ends with the same bytes."""
        ...

    def predict(self, samples: SampleSet, work: Workspace) -> np.ndarray:
        """Probabilities float [N,K] of the classes it was built for; rows sum to 1."""
        ...

    def state(self) -> Mapping[str, Tensor | np.ndarray]:
        """All that was learned, as named arrays: what ``weights.safetensors`` holds."""
        ...

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Take up what :meth:`state` gave."""
        ...


@dataclass(frozen=True)
class Parent:
    """A run that a training starts from.

    role : its name among the training's parents, once each. kind : of training it is. method : whose.
    protocol : the name of the protocol whose training set it learns from.
    """

    role: str
    kind: str
    method: Method
    protocol: str


@dataclass(frozen=True)
class Task:
    """A training as an estimate sees it.

    protocol : that the method is to be tested under. faces : the prepared dataset to learn from. images : different
    samples that are learned from. folds : of the same training that are asked for together, 1 where there are none.
    done : share of the epochs that lie behind it. tested : samples that are predicted. retested : it predicts them
    after every epoch of a training that is done, and does not train.
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


class Timed(Protocol):
    """A method with random weights, as ``ferbench bench`` times it; images are uint8 [N,48,48], labels int64 [N]."""

    def __hash__(self) -> int: ...

    def load(self, record: Record, store: Store) -> None:
        """Take the weights of a finished run of the same architecture instead, for inference alone."""
        ...

    def part(self, what: str) -> Module | None:
        """What takes images uint8 [B,1,48,48] and gives logits first: "inference" is the whole method, the other parts
        are the family's; None for one that the method does not have."""
        ...

    def quick(self, what: str, device: Device) -> Module | None:
        """The same as :meth:`part`, on a device and in the form that is fastest there. What precision it has it has
        itself: it is called without autocast."""
        ...

    def deployable(self) -> Deployable:
        """The whole method as it is exported."""
        ...

    def bytes_of(self, module: Module, example: Tensor, width: int, training: bool) -> int:
        """Bytes that a part moves for a batch, ``width`` bytes an element."""
        ...

    def trained(self) -> Module:
        """The part whose arithmetic a training step is counted by."""
        ...

    def stepper(
        self, device: Device, images: Tensor, labels: Tensor, steps: list[Step]
    ) -> Callable[[Batch], dict[str, Tensor]]:
        """What carries out a training step on a copy of the network; ``steps`` are all that will come."""
        ...

    def epoch(self, device: Device, images: Tensor, labels: Tensor, batch: int, seed: int, folder: Path) -> None:
        """One epoch as ``ferbench train`` does it, checkpoint and all."""
        ...

    def peer(
        self, name: str, images: Tensor, labels: Tensor, steps: list[Step], batch: int, device: str, workers: int
    ) -> Callable[[], object]:
        """A call that does the work of a training step in a peer's way, with so many loader processes."""
        ...


class Family:
    """A family of methods. Subclasses override what differs from these defaults.

    recipe : the schema of what decides a training: the tables of ``baselines/*.toml`` below the head. Fields
        ``pretrain`` and ``finetune`` that are a ``training.schedule.Stage`` are the schedules of these trainings.
    consumes : what it needs beside images: "sequences", "landmarks", "neutral" (sequences that begin with a neutral
        face), "subjects".
    revision : raised, by kind of training, when a change of code changes what a training gives; 1 where not named.
    titles : what kinds of training are called in a plan.
    trainings : how many trainings of so many epochs a run of a kind holds; 1 where not named.
    torch : whether a device, a precision and an engine are chosen for it; else it computes in float64 on the CPU.
    """

    recipe: ClassVar[type[Schema]]
    consumes: ClassVar[frozenset[str]] = frozenset()
    revision: ClassVar[Mapping[str, int]] = {}
    titles: ClassVar[Mapping[str, str]] = {PRETRAIN: "pre-training"}
    trainings: ClassVar[Mapping[str, int]] = {}
    torch: ClassVar[bool] = True

    def recogniser(self, method: Method, kind: str, classes: tuple[str, ...]) -> Recogniser:
        """Build what is trained by a run of this kind, untrained."""
        raise AssertionError("a family says what it trains")

    def needs(self, method: Method) -> frozenset[str]:
        """What a method needs beside images: :attr:`consumes`, unless its recipe decides."""
        return self.consumes

    def parents(self, kind: str, method: Method, protocol: Rules) -> list[Parent]:
        """Runs that a training of this kind starts from: by default a fold starts from the method's pre-training, where
        both the recipe and the protocol have one."""
        if kind == FOLD and protocol.pretrain and getattr(method.recipe, PRETRAIN, None) is not None:
            return [Parent(PRETRAIN, PRETRAIN, method, protocol.pretrain)]
        return []

    def identity(self, kind: str, method: Method, protocol: Rules) -> dict[str, Any]:
        """What of the recipe decides a training of this kind; its schedule, where it has one, under "stage"."""
        content = method.recipe.model_dump()
        stages = {name: content.pop(name, None) for name in (PRETRAIN, "finetune")}
        stage = stages[PRETRAIN if kind == PRETRAIN else "finetune"]
        return {**content, "stage": stage} if stage else content

    def owner(self, kind: str, method: Method) -> tuple[str, str]:
        """The method and the preset that a run of this kind belongs to: another's where several share it."""
        return method.name, method.preset

    def check(self, role: str, record: Record, method: Method, protocol: Rules) -> None:
        """Raise UsageError where a finished run cannot take the place of the parent ``role``: by default a pre-training
        can, however long it took, where the rest of the recipe is the same."""
        if role != PRETRAIN:
            raise UsageError(f"{method.title} takes no finished run as {role}")
        wanted = {**plain(self.identity(PRETRAIN, method, protocol)), "method": self.owner(PRETRAIN, method)[0]}
        found = {**record.identity.recipe, "method": record.identity.method}
        if differ := [name for name in wanted if name != "stage" and wanted[name] != found.get(name)]:
            raise UsageError(
                f"run {record.key} was pre-trained with another {', '.join(differ)} than {method.title} "
                f"has with preset {method.preset}"
            )

    def attribute_image_count(self, data: AttributeSet) -> int:
        """Return how many images of an attribute set a training uses."""
        return len(data.faces)

    def estimate(self, device: Device) -> Callable[[Task, int], float] | None:
        """What says how many seconds a task takes with so many threads, measured when first asked; None: unknown."""
        return None

    def threads(self, method: Method) -> int:
        """Threads of a CPU that a training takes at most, 0: all that there are. Steps of small networks gain next to
        nothing by a second one, and lose much by it where other processes want the cores."""
        return 0

    def epochs(self, kind: str, method: Method, protocol: Rules) -> int:
        """Epochs of a training, 0 where it is not counted by epochs."""
        stage = self.identity(kind, method, protocol).get("stage") or {}
        return int(stage.get("epochs", 0))

    def module(self, record: Record, store: Store) -> Deployable:
        """Rebuild the network of a finished run as one frozen module.

        Raises UsageError where a run has no such network, DataError where its weights are damaged.
        """
        raise UsageError(f"run {record.key} is of {record.identity.method}, which is no network that can be handed on")

    def timed(self, method: Method, classes: int, seed: int) -> Timed:
        """Build a method for ``ferbench bench``. Raises UsageError where the family is not timed."""
        raise UsageError(f"{method.title} is not among the methods that `ferbench bench` times")

    def maps(self, record: Record, store: Store, images: np.ndarray) -> tuple[str, dict[str, np.ndarray]]:
        """Attention maps float32 [N,H,W] of images uint8 [N,48,48] by the part of the face that they look at, from a
        finished run or from the one that it got them of; with the key of the run that learned them.

        Raises UsageError where there are none.
        """
        raise UsageError(f"run {record.key} is of {record.identity.method}, which has no attention maps")

    def describe(self, method: Method, protocol: Rules) -> list[tuple[str, dict[str, Any]]]:
        """Titled facts for ``ferbench show``, the first of them sizes. The recipe is shown without being asked for."""
        return []
