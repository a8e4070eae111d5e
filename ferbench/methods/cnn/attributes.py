"""A network that learns who people are, or attributes of their faces: what other networks of this family ask."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from ferbench.data.faces import COLUMNS, Faces
from ferbench.errors import DataError
from ferbench.methods.cnn.asking import outputs_of
from ferbench.methods.cnn.methods import build
from ferbench.methods.cnn.network import Network
from ferbench.methods.cnn.recipe import Recipe
from ferbench.methods.cnn.schedule import learns, stage_of
from ferbench.methods.interface import AttributeSet, History, Workspace
from ferbench.methods.recipes import Method
from ferbench.seeds import generator
from ferbench.training.loop import Terms, fit
from ferbench.training.networks import seeded
from ferbench.training.plan import Batch, single_epoch
from ferbench.training.samples import Computed

SEVERAL, ENOUGH = 5, 100  # images of a person, and people with so many, for identities to be learned: our choice
HELD_OUT = 10  # one of so many images is only watched


@dataclass(frozen=True)
class Targets:
    """What is learned of which images.

    title : in words. rows : int64 [N], of the prepared dataset. values : float32 [N,C] of 0 and 1, or int64 [N] where
    each image is of one of C people.
    """

    title: str
    rows: np.ndarray
    values: np.ndarray

    @property
    def outputs(self) -> int:
        return self.values.shape[1] if self.values.ndim > 1 else int(self.values.max()) + 1


def targets(faces: Faces, what: str) -> Targets:
    """Return what a network learns of a set: one attribute by its name, all "attributes", "identities", or "either":
    identities where :data:`ENOUGH` people have :data:`SEVERAL` images or more, else all attributes.

    Images of the official test partition are left out.
    Raises DataError where the set lacks it.
    """
    samples = faces.samples
    pool = np.flatnonzero((samples["split"] != "test").to_numpy())
    names = [name for name in samples.columns if name not in COLUMNS]
    people, person, counts = np.unique(
        samples["subject"].to_numpy(dtype=str)[pool], return_inverse=True, return_counts=True
    )
    several = (people != "") & (counts >= SEVERAL)
    if what == "identities" or (what == "either" and several.sum() >= ENOUGH):
        if several.sum() < 2:
            raise DataError(f"the prepared dataset {faces.name} has no two people with {SEVERAL} images or more")
        keep = several[person]
        own = np.unique(person[keep], return_inverse=True)[1]
        return Targets(f"identities of {several.sum():,} people", pool[keep], own.astype(np.int64))
    wanted = names if what in ("either", "attributes") else [what]
    if not wanted or (missing := [name for name in wanted if name not in names]):
        lacking = f"attribute {missing[0]}" if wanted else "attributes"
        raise DataError(f"the prepared dataset {faces.name} has no {lacking}")
    title = f"{len(wanted)} attributes" if len(wanted) > 1 else f"the attribute {wanted[0]}"
    return Targets(title, pool, samples[wanted].to_numpy(dtype=np.float32)[pool])


class Attributes:
    """One training on a set of faces with attributes. Nothing is tested on that set."""

    def __init__(self, method: Method, kind: str):
        self.recipe: Recipe = method.recipe
        self.kind = kind
        self.network: Network | None = None

    def fit(self, data: AttributeSet, work: Workspace) -> History:
        device, stage = work.device, stage_of(self.kind, self.recipe, work.protocol)
        found = targets(data.faces, learns(self.recipe))
        order = generator(work.seed("held out")).permutation(len(found.rows))
        held, own = (np.sort(part) for part in np.split(order, [len(order) // HELD_OUT]))
        images, values = np.array(data.faces.images[found.rows[own]]), torch.tensor(found.values[own]).to(device.name)
        network = self.network = seeded(work.seed("weights"), lambda: build(self.recipe, self.kind, found.outputs))
        network.normalise.fit(torch.tensor(images), self.recipe.interpretation.normalise)
        device.place(network)
        samples = Computed(torch.tensor(images).to(device.name), None, self.recipe.interpretation.border, device)

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
        said = outputs_of(network, np.array(data.faces.images[found.rows[held]]), device)["logits"]
        work.facts |= {"learned": found.title, "parameters": sum(one.numel() for one in network.parameters())}
        work.result |= {
            "validation_accuracy": hits(said, torch.tensor(found.values[held])),
            "validation_images": len(held),
        }
        return history

    def state(self) -> dict[str, Tensor]:
        assert self.network is not None
        return self.network.state_dict()

    def load(self, state: Mapping[str, Tensor]) -> None:
        self.network = build(self.recipe, self.kind, len(state["classifier.weight"]))
        self.network.load_state_dict(dict(state))


def attribute_loss(logits: Tensor, values: Tensor) -> Tensor:
    """Cross-entropy of one of C people [N], or the mean over C attributes [N,C] of that of each, absent or present."""
    if values.ndim == 1:
        return nn.functional.cross_entropy(logits, values)
    return nn.functional.binary_cross_entropy_with_logits(logits, values)


def hits(logits: Tensor, values: Tensor) -> float:
    """The share of people that are found, or of attributes that are told right."""
    if values.ndim == 1:
        return float((logits.argmax(dim=1) == values).double().mean())
    return float(((logits > 0) == (values > 0)).double().mean())
