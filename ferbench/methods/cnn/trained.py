"""A finished run as a module that takes images as they are stored."""

from __future__ import annotations

from pydantic import BaseModel

from ferbench.errors import UsageError
from ferbench.methods.cnn.methods import network_of
from ferbench.methods.cnn.recipe import Loss, Shape
from ferbench.runs.record import Record
from ferbench.runs.store import WEIGHTS, Store
from ferbench.schema import validated
from ferbench.training.networks import Deployed, check_kept, load_weights, seeded


class _Stored(BaseModel):
    """The parts of a stored recipe that the network is rebuilt from; a pre-training has no loss."""

    network: Shape
    loss: Loss | None = None


def deployed(record: Record, store: Store) -> Deployed:
    """Rebuild the network of a fold or pre-training run.

    Raises UsageError for runs that keep no weights, DataError where weights are missing, damaged or of another shape.
    """
    check_kept(record)
    if "learns" in record.identity.recipe:
        raise UsageError(f"run {record.key} learned attributes, no expressions: take a fold or pretrain run")
    stored = validated(_Stored, record.identity.recipe, store.folder(record.key) / "record.json")
    network = seeded(0, lambda: network_of(stored.network, stored.loss, len(record.classes)))
    load_weights(network, store.file(record, WEIGHTS))
    return Deployed(network)
