"""What a recipe says to each of its trainings: schedules, and what is learned from attributes. No torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ferbench.methods.cnn.recipe import GENDER, TEACHER, NetworkStage, Recipe, RegressionLoss, Shape
from ferbench.methods.interface import PRETRAIN

if TYPE_CHECKING:
    from ferbench.protocol.protocol import Protocol


def stage_of(kind: str, recipe: Recipe, protocol: Protocol | None) -> NetworkStage:
    """The schedule of a training for a protocol (None: one like those with a pre-training set).

    A set without a pre-training set is trained as one would be, since its training starts from random weights too.
    """
    if kind in (TEACHER, GENDER):
        assert recipe.attributes is not None
        return recipe.attributes
    scratch = kind == PRETRAIN or (protocol is not None and not protocol.pretrain)
    return recipe.pretrain if scratch and recipe.interpretation.pretrained else recipe.finetune


def asked_shape(recipe: Recipe) -> Shape:
    """The shape of the network that learns from attributes: a loss's own, else that of the method."""
    return recipe.loss.teacher if isinstance(recipe.loss, RegressionLoss) else recipe.network


def learns(recipe: Recipe) -> str:
    """What that network learns (:func:`ferbench.methods.cnn.attributes.targets`)."""
    return recipe.loss.learns if isinstance(recipe.loss, RegressionLoss) else "Male"
