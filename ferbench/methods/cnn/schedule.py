"""Which of a recipe's schedules a training follows. No torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ferbench.methods.cnn.recipe import NetworkStage, Recipe
from ferbench.methods.interface import PRETRAIN

if TYPE_CHECKING:
    from ferbench.protocol.protocol import Protocol


def stage_of(kind: str, recipe: Recipe, protocol: Protocol | None) -> NetworkStage:
    """The schedule of a training for a protocol (None: one like those with a pre-training set).

    A set without a pre-training set is trained as one would be, since its training starts from random weights too.
    """
    scratch = kind == PRETRAIN or (protocol is not None and not protocol.pretrain)
    return recipe.pretrain if scratch and recipe.readings.pretrained else recipe.finetune
