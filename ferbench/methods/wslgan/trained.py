"""A finished run as a module that takes images as they are stored."""

from typing import Literal

import numpy as np
import torch
from pydantic import BaseModel

from ferbench.errors import DataError, UsageError
from ferbench.methods.wslgan.attention import PARTS, AttentionMapGenerator
from ferbench.methods.wslgan.deployed import Deployed
from ferbench.methods.wslgan.network import WSLGAN
from ferbench.methods.wslgan.settings import Architecture
from ferbench.runs.record import Record
from ferbench.runs.store import WEIGHTS, Store
from ferbench.schema import validated
from ferbench.training.deployable import check_kept, load_weights
from ferbench.training.device import Device
from ferbench.training.samples import maps_of


class _Shapes(BaseModel):
    """The one part of a stored recipe that the network is rebuilt from."""

    architecture: Architecture


class _Shape(BaseModel):
    """Of ``Architecture.generator``."""

    layers: tuple[int, ...]
    growth: int
    stem_stride: Literal[1, 2]


class _Generator(BaseModel):
    """The one part of a stored recipe that an AMG is rebuilt from."""

    generator: _Shape


def deployed(record: Record, store: Store) -> Deployed:
    """Rebuild the network of a fold or pre-training run, with the AMG that it was trained with.

    Raises UsageError for other runs, DataError when weights are missing, damaged or of another shape.
    """
    identity = record.identity
    if identity.kind == "attention":
        raise UsageError(f"run {record.key} holds attention maps alone: take a fold or pretrain run (`ferbench runs`)")
    check_kept(record)
    architecture = validated(_Shapes, identity.recipe, store.folder(record.key) / "record.json").architecture
    network = WSLGAN(architecture, len(record.classes))
    load_weights(network, store.file(record, WEIGHTS))
    amg = None
    if architecture.needs_attention:
        if "attention" not in identity.parents:
            raise DataError(f"run {record.key} names no attention run, but its network takes attention maps")
        amg = AttentionMapGenerator(architecture)
        key = identity.parents["attention"]
        holder = store.holder(key)
        load_weights(amg, holder.file(holder.record(key), WEIGHTS))
    return Deployed(network, amg)


def generator_of(record: Record, store: Store, user: Record | None = None) -> AttentionMapGenerator:
    """Rebuild the AMG of an attention run, frozen.

    user : a run that was trained with it, whose reading of the maps (``cam_class``) is taken; without one, that of
        the package's own recipes: weights are the same for all readings.
    Raises DataError when weights are missing, damaged or of another shape.
    """
    shape = validated(_Generator, record.identity.recipe, store.folder(record.key) / "record.json").generator
    amg = AttentionMapGenerator(
        Architecture(growth=shape.growth, stem_stride=shape.stem_stride, generator_layers=shape.layers)
    )
    load_weights(amg, store.file(record, WEIGHTS))
    if user is not None:
        path = store.holder(user.key).folder(user.key) / "record.json"
        amg.cam_class = validated(_Shapes, user.identity.recipe, path).architecture.cam_class
    return amg.freeze()


def maps(record: Record, store: Store, images: np.ndarray) -> tuple[str, dict[str, np.ndarray]]:
    """Return what :meth:`ferbench.methods.interface.Family.maps` says."""
    user, generator = None, record
    if record.identity.kind != "attention":
        key = record.identity.parents.get("attention")
        if key is None:
            raise UsageError(f"run {record.key} takes no attention maps")
        user, generator = record, store.holder(key).record(key)
    amg = generator_of(generator, store.holder(generator.key), user)
    made = maps_of(amg, torch.from_numpy(np.array(images)), Device()).numpy()
    return generator.key, {part: made[:, number] for number, part in enumerate(PARTS)}
