"""Trainings of this family, estimates of their duration and size, and networks of finished runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from pydantic import BaseModel
from torch import Tensor

from ferbench.data.faces import COLUMNS, Faces
from ferbench.errors import DataError, UsageError
from ferbench.methods.cnn.guided import RegressionNetwork, TreeNetwork
from ferbench.methods.cnn.losses import attribute_loss
from ferbench.methods.cnn.networks import (
    CenterNetwork,
    CnnNetwork,
    IdentityNetwork,
    IslandNetwork,
    LocalityNetwork,
    TrainingLabels,
    TupletNetwork,
)
from ferbench.methods.cnn.recipe import CnnRecipe, CnnStage, FinetuneStage, Loss, Shape
from ferbench.methods.cnn.samplers import shifted
from ferbench.methods.interface import FOLD, PRETRAIN, AttributeSet, History, SampleSet, Task, TrainingSet, Workspace
from ferbench.runs.record import Record
from ferbench.runs.store import WEIGHTS, Store
from ferbench.schema import validated
from ferbench.seeds import generator
from ferbench.training.arithmetic import ROWS
from ferbench.training.augment import jitter
from ferbench.training.device import Device
from ferbench.training.loop import Terms
from ferbench.training.networks import (
    FORWARD,
    Deployed,
    check_kept,
    flops,
    fused,
    load_weights,
    on_images,
    parameter_count,
    seconds_of,
    seeded,
    start_from,
)
from ferbench.training.plan import Batch, Step, passes, single_epoch
from ferbench.training.samples import Computed, Samples, Tables, pixel_table, shared_tensor

NETWORKS: dict[str, type[CnnNetwork]] = {  # by the recipe's loss.kind
    "softmax": CnnNetwork,
    "center": CenterNetwork,
    "island": IslandNetwork,
    "locality": LocalityNetwork,
    "identity": IdentityNetwork,
    "tuplet": TupletNetwork,
    "regression": RegressionNetwork,
    "tree": TreeNetwork,
}
_MEASURED_IMAGES = {"cpu": 16, "cuda": 128}  # in the training step that an estimate measures
_MEASURED_CLASSES = 7
MIN_IMAGES, MIN_PEOPLE = 5, 100  # images of a person, and people with so many, for learning identities: our choice
HELD_OUT = 10  # every tenth image on average is held out for validation


class CnnRecogniser:
    """One training of a network: a pre-training by softmax, or a fold by the loss of the method."""

    def __init__(self, recipe: CnnRecipe, kind: str, classes: tuple[str, ...]):
        self.recipe, self.kind, self.classes = recipe, kind, classes
        self.network: CnnNetwork | None = None

    def fit(self, train: TrainingSet, work: Workspace) -> History:
        device, stage = work.device, self.recipe.stage(self.kind, work.protocol)
        network = self.network = seeded(work.seed("weights"), self._untrained)
        if device.captures and not network.equal_steps:
            raise UsageError("the steps of this method differ in size, which a captured graph cannot: --engine plain")
        if PRETRAIN in work.identity.parents:
            record, weights = work.parent(PRETRAIN)
            keeps_classifier = isinstance(stage, FinetuneStage) and stage.classifier == "shared"
            start_from(network, weights, record.classes, self.classes if keeps_classifier else ())
        network.normalise.fit(shared_tensor(train.images), self.recipe.interpretation.normalise)
        device.place(network)
        labels, border = TrainingLabels.of(train, device.name), self.recipe.interpretation.border
        plan = network.plan(train, stage, work.seed("plan"))
        if stage.shift:
            plan = shifted(plan, stage.shift, work.seed("shifts"))
        work.facts |= {"parameters": parameter_count(network), **network.facts(train, plan)}
        samples = samples_of(train, stage, border, work)
        network.before_training(train, samples, stage, work)
        outputs_of = device.compiled(network.outputs)

        def loss(batch: Batch) -> Terms:
            x, _ = samples(batch.images, batch.derived)
            if batch.moves.numel():
                x = device.images(jitter(x, None, batch.moves, border)[0])
            with device.autocast():
                outputs = outputs_of(x)
            return network.loss({name: output.float() for name, output in outputs.items()}, labels, batch)

        def scores(validation: SampleSet) -> np.ndarray:
            return predict(network, validation.images, device)

        return work.train("training", network, loss, plan, stage, scores, network.after_step, checkpoint="network")

    def predict(self, samples: SampleSet, work: Workspace) -> np.ndarray:
        assert self.network is not None
        work.device.place(self.network)
        return predict(self.network, samples.images, work.device)

    def state(self) -> dict[str, Tensor]:
        assert self.network is not None
        return self.network.state_dict()

    def load(self, state: Mapping[str, Tensor]) -> None:
        if self.network is None:
            self.network = seeded(0, self._untrained)
        self.network.load_state_dict(dict(state))

    def _untrained(self) -> CnnNetwork:
        return build(self.recipe, self.kind, len(self.classes))


class CnnEstimate:
    """Seconds of a task, from one measured training step of each network."""

    def __init__(self, device: Device):
        self.device = device
        self.seconds: dict[tuple[str, int], float] = {}  # for one image of a training, by network and threads

    def __call__(self, task: Task, threads: int) -> float:
        """Return the seconds that the rest of a task takes with so many threads."""
        recipe, kind = task.method.recipe, task.identity.kind
        stage = recipe.stage(kind, task.protocol)
        key = str(recipe.parent_shape if kind == recipe.parent_kind else recipe.network), threads
        if key not in self.seconds:
            count = _MEASURED_IMAGES[self.device.name]
            self.seconds[key] = seconds_of(lambda: self._step(recipe, kind, count), self.device, threads) / count
        seconds = self.seconds[key]
        if task.retested:
            return stage.epochs * task.tested * seconds * FORWARD
        return ((1 - task.done) * passes(stage, task.images) + task.tested * FORWARD) * seconds

    def _step(self, recipe: CnnRecipe, kind: str, count: int) -> Callable[[], object]:
        """A training step of so many images, without its loss."""
        device = self.device
        network = seeded(0, lambda: build(recipe, kind, _MEASURED_CLASSES))
        device.place(network)
        x = device.images(torch.rand(count, 1, 48, 48, device=device.name))

        def step() -> None:
            with device.autocast():
                network.outputs(x)["logits"].float().sum().backward()

        return step


class _StoredRecipe(BaseModel):
    """The parts of a stored recipe that determine the network; a pre-training has no loss."""

    network: Shape
    loss: Loss | None = None


def build(recipe: CnnRecipe, kind: str, classes: int) -> CnnNetwork:
    """Build the untrained network of a training of this kind. A pre-training trains the trunk by softmax, unless the
    loss defines its pre-training (FN2EN)."""
    if kind == recipe.parent_kind:
        return CnnNetwork(recipe.parent_shape, None, classes)
    return _network_of(recipe.network, recipe.pretraining_loss if kind == PRETRAIN else recipe.loss, classes)


def deployed(record: Record, store: Store) -> Deployed:
    """Rebuild the network of a fold or pre-training run as a module.

    Raises UsageError for runs without weights, DataError if weights are missing, damaged or of another shape.
    """
    check_kept(record)
    if "learns" in record.identity.recipe:
        raise UsageError(f"run {record.key} learned attributes, no expressions: take a fold or pretrain run")
    recipe = validated(_StoredRecipe, record.identity.recipe, store.folder(record.key) / "record.json")
    network = seeded(0, lambda: _network_of(recipe.network, recipe.loss, len(record.classes)))
    load_weights(network, store.file(record, WEIGHTS))
    return Deployed(network)


def describe(recipe: CnnRecipe, classes: int) -> list[tuple[str, dict[str, Any]]]:
    """The size of the network and the cost of a test image."""
    network = seeded(0, lambda: build(recipe, FOLD, classes)).eval()
    sizes = {
        "network parameters": f"{parameter_count(network):,}",
        "network FLOPs per image": f"{flops(network, (torch.zeros(1, 1, 48, 48),)) / 1e9:.3f} G",
        "feature": network.trunk.feature,
        "classes": classes,
    }
    return [("sizes", sizes)]


def predict(network: CnnNetwork, images: np.ndarray, device: Device) -> np.ndarray:
    """Class probabilities of undistorted images: uint8 [N,48,48] → float32 [N,K]."""
    network.eval()
    form = device.place(fused(network)) if device.precision == "fp32" else network
    rows, tensor = ROWS[device.name], shared_tensor(images)
    return on_images(lambda x: torch.softmax(form(x).float(), dim=1), device, tensor, rows=rows).numpy()


def samples_of(train: TrainingSet, stage: CnnStage, border: str, work: Workspace) -> Samples:
    """The derived samples of a training set. They are looked up in a table of all derived samples if the folds use it
    often enough, or if steps are captured, as a graph cannot compute them; otherwise they are computed at each step.
    Both give the same bytes."""
    device, shared, images = work.device, train.shared, shared_tensor(train.images)
    if shared is not None and (device.captures or (device.looks_up and shared.pays(passes(stage, len(train))))):
        return shared.tables(border, device, work.timed)
    if device.captures:
        return Tables(pixel_table(images, border).to(device.name), None, device)
    return Computed(images.to(device.name), None, border, device)


def _network_of(shape: Shape, loss: Loss | None, classes: int) -> CnnNetwork:
    return (NETWORKS[loss.kind] if loss else CnnNetwork)(shape, loss, classes)


@dataclass(frozen=True)
class Targets:
    """Training images of a parent network and their targets.

    title : for the record. rows : int64 [N], of the prepared dataset. values : attributes, float32 [N,C] of 0 and 1, or
    int64 [N], the number of the person among C people.
    """

    title: str
    rows: np.ndarray
    values: np.ndarray

    @property
    def outputs(self) -> int:
        return self.values.shape[1] if self.values.ndim > 1 else int(self.values.max()) + 1


def targets(faces: Faces, what: str) -> Targets:
    """Return the targets of a parent network, without the images of the official test partition.

    what : the name of an attribute, "attributes" for all, "identities", or "either": identities if :data:`MIN_PEOPLE`
    people have at least :data:`MIN_IMAGES` images, otherwise all attributes.
    Raises DataError if the dataset lacks them.
    """
    samples = faces.samples
    rows = np.flatnonzero((samples["split"] != "test").to_numpy())
    names = [name for name in samples.columns if name not in COLUMNS]
    people, person, counts = np.unique(
        samples["subject"].to_numpy(dtype=str)[rows], return_inverse=True, return_counts=True
    )
    several = (people != "") & (counts >= MIN_IMAGES)
    if what == "identities" or (what == "either" and several.sum() >= MIN_PEOPLE):
        if several.sum() < 2:
            raise DataError(f"the prepared dataset {faces.name} has no two people with {MIN_IMAGES} images or more")
        keep = several[person]
        numbers = np.unique(person[keep], return_inverse=True)[1]
        return Targets(f"identities of {several.sum():,} people", rows[keep], numbers.astype(np.int64))
    wanted = names if what in ("either", "attributes") else [what]
    if not wanted or (missing := [name for name in wanted if name not in names]):
        lacking = f"attribute {missing[0]}" if wanted else "attributes"
        raise DataError(f"the prepared dataset {faces.name} has no {lacking}")
    title = f"{len(wanted)} attributes" if len(wanted) > 1 else f"the attribute {wanted[0]}"
    return Targets(title, rows, samples[wanted].to_numpy(dtype=np.float32)[rows])


class CnnAttributeLearner:
    """The training of a parent network of FN2EN or PAT-ResNet on attributes or identities of faces."""

    def __init__(self, recipe: CnnRecipe, kind: str):
        self.recipe, self.kind = recipe, kind
        self.network: CnnNetwork | None = None

    def fit(self, data: AttributeSet, work: Workspace) -> History:
        device, stage = work.device, self.recipe.stage(self.kind, work.protocol)
        learned = targets(data.faces, self.recipe.parent_target)
        order = generator(work.seed("held out")).permutation(len(learned.rows))
        held_out, kept = (np.sort(part) for part in np.split(order, [len(order) // HELD_OUT]))
        images, validation = (shared_tensor(data.faces.pixels(learned.rows[p])) for p in (kept, held_out))
        values = torch.tensor(learned.values[kept]).to(device.name)
        network = self.network = seeded(work.seed("weights"), lambda: build(self.recipe, self.kind, learned.outputs))
        network.normalise.fit(images, self.recipe.interpretation.normalise)
        device.place(network)
        samples = Computed(images.to(device.name), None, self.recipe.interpretation.border, device)
        call = device.compiled(network)

        def loss(batch: Batch) -> Terms:
            x, _ = samples(batch.images, batch.derived)
            with device.autocast():
                logits = call(x)
            return {"total": attribute_loss(logits.float(), values[batch.images])}

        seed = work.seed("plan")

        def plan(epoch: int) -> list[Step]:
            return single_epoch(len(images), stage.augment, stage.batch, seed, epoch)

        history = work.train("training", network, loss, plan, stage, checkpoint="network")
        network.eval()
        logits = on_images(network, device, validation)
        work.facts |= {"learned": learned.title, "parameters": parameter_count(network)}
        work.result |= {
            "validation_accuracy": accuracy(logits, torch.tensor(learned.values[held_out])),
            "validation_images": len(held_out),
        }
        return history

    def state(self) -> dict[str, Tensor]:
        assert self.network is not None
        return self.network.state_dict()

    def load(self, state: Mapping[str, Tensor]) -> None:
        self.network = build(self.recipe, self.kind, len(state["classifier.weight"]))
        self.network.load_state_dict(dict(state))


def accuracy(logits: Tensor, values: Tensor) -> float:
    """The share of people, or of attributes, that are predicted correctly. Shapes as in :func:`attribute_loss`."""
    if values.ndim == 1:
        return float((logits.argmax(dim=1) == values).double().mean())
    return float(((logits > 0) == (values > 0)).double().mean())
