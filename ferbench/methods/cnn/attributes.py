"""A network that learns attributes or identities of faces: the parent of FN2EN and PAT-ResNet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ferbench.data.faces import COLUMNS, Faces
from ferbench.errors import DataError
from ferbench.methods.cnn.losses import attribute_loss
from ferbench.methods.cnn.networks import CnnNetwork
from ferbench.methods.cnn.recipe import CnnRecipe
from ferbench.methods.cnn.recogniser import build
from ferbench.methods.interface import AttributeSet, History, Workspace
from ferbench.seeds import generator
from ferbench.training.loop import Terms, fit
from ferbench.training.networks import on_images, parameter_count, seeded
from ferbench.training.plan import Batch, single_epoch
from ferbench.training.samples import Computed, shared_tensor

SEVERAL, ENOUGH = 5, 100  # images of a person, and people with so many, for identities to be learned: our choice
HELD_OUT = 10  # one of so many images validates the training


@dataclass(frozen=True)
class Targets:
    """The images to learn from and what is learned of each.

    title : for the record. rows : int64 [N], of the prepared dataset. values : float32 [N,C] of 0 and 1, or int64 [N],
    the number of the person among C people.
    """

    title: str
    rows: np.ndarray
    values: np.ndarray

    @property
    def outputs(self) -> int:
        return self.values.shape[1] if self.values.ndim > 1 else int(self.values.max()) + 1


def targets(faces: Faces, what: str) -> Targets:
    """Return what a network learns of a dataset, without the images of the official test partition.

    what : the name of an attribute, "attributes" for all, "identities", or "either": identities where :data:`ENOUGH`
    people have at least :data:`SEVERAL` images, elsewhere all attributes.
    Raises DataError where the dataset lacks it.
    """
    samples = faces.samples
    rows = np.flatnonzero((samples["split"] != "test").to_numpy())
    names = [name for name in samples.columns if name not in COLUMNS]
    people, person, counts = np.unique(
        samples["subject"].to_numpy(dtype=str)[rows], return_inverse=True, return_counts=True
    )
    several = (people != "") & (counts >= SEVERAL)
    if what == "identities" or (what == "either" and several.sum() >= ENOUGH):
        if several.sum() < 2:
            raise DataError(f"the prepared dataset {faces.name} has no two people with {SEVERAL} images or more")
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
    """One training on a set of faces with attributes, on which nothing is tested."""

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
        history = work.timed(
            "training",
            lambda: fit(
                network,
                loss,
                lambda epoch: single_epoch(len(images), stage.augment, stage.batch, seed, epoch),
                stage,
                device,
                work.checkpoint("network"),
                work.report,
            ),
        )
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
