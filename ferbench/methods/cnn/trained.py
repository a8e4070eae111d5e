"""A finished run as a module that takes images as they are stored."""

from __future__ import annotations

from pydantic import BaseModel

from ferbench.errors import DataError, UsageError
from ferbench.methods.cnn.methods import network_of
from ferbench.methods.cnn.recipe import Loss, Shape
from ferbench.runs.record import BEST_TEST, Record
from ferbench.runs.store import Store
from ferbench.schema import validated
from ferbench.training.checkpoint import unpack
from ferbench.training.deployable import Deployed
from ferbench.training.weights import seeded


class _Stored(BaseModel):
    """The parts of a stored recipe that the network is rebuilt from; a pre-training has no loss."""

    network: Shape
    loss: Loss | None = None


def deployed(record: Record, store: Store) -> Deployed:
    """Rebuild the network of a fold or pre-training run.

    Raises UsageError for runs that keep no weights, DataError where weights are missing, damaged or of another shape.
    """
    if record.identity.selection == BEST_TEST:
        raise UsageError(f"run {record.key} measures a habit and keeps no weights: take that of the last epoch")
    if record.error:
        raise UsageError(f"run {record.key} failed: the command that trained it tries again")
    if "learns" in record.identity.recipe:
        raise UsageError(f"run {record.key} learned attributes, no expressions: take a fold or pretrain run")
    folder = store.folder(record.key)
    stored = validated(_Stored, record.identity.recipe, folder / "record.json")
    network = seeded(0, lambda: network_of(stored.network, stored.loss, len(record.classes)))
    weights = folder / "weights.safetensors"
    tensors, _ = unpack(weights)
    try:
        network.load_state_dict(tensors)
    except RuntimeError:
        raise DataError(f"{weights} does not fit the run's recipe: delete its run folder and train again") from None
    return Deployed(network)
