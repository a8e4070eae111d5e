"""Boosted deep belief networks of patches of a face (BDBN, Liu et al. 2014). Importing this loads neither torch nor
scikit-learn."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field, PositiveFloat, PositiveInt

from ferbench.methods.interface import FOLD, Family, Recogniser
from ferbench.schema import Schema

if TYPE_CHECKING:
    from ferbench.methods.recipes import Method


class Patches(Schema):
    """Square patches of ``side`` pixels, one for every ``stride`` pixels in both directions."""

    side: int = Field(ge=2, le=48)
    stride: PositiveInt


class Belief(Schema):
    """Deep belief networks: stacked restricted Boltzmann machines with these numbers of ``hidden`` units, from the
    bottom up, and how each machine is trained."""

    hidden: tuple[PositiveInt, ...] = Field(min_length=1)
    epochs: PositiveInt
    lr: PositiveFloat
    batch: PositiveInt


class Boosting(Schema):
    """``rounds``: maximum number of patches chosen for a class. ``ridge``: weight of the squared weights of a top unit.
    ``newton``: Newton steps that fit a top unit."""

    rounds: PositiveInt
    ridge: PositiveFloat
    newton: PositiveInt


class Tuning(Schema):
    """Joint training of the chosen networks by the exponential loss: ``steps`` of Adam over all images at ``lr``.
    ``loops``: repetitions of the choice followed by this training."""

    loops: PositiveInt
    steps: PositiveInt
    lr: PositiveFloat


class BoostingRecipe(Schema):
    """A boosted deep belief network for each class against the rest."""

    patches: Patches
    belief: Belief
    boosting: Boosting
    tuning: Tuning


class BoostingFamily(Family[BoostingRecipe]):
    """Each fold is one training without a pre-training, in float64 on the CPU."""

    recipe = BoostingRecipe
    revision: ClassVar[Mapping[str, int]] = {FOLD: 2}
    torch: ClassVar[bool] = False

    def recogniser(self, method: Method[BoostingRecipe], kind: str, classes: tuple[str, ...]) -> Recogniser:
        from ferbench.methods.boosting.recogniser import BoostingRecogniser

        return BoostingRecogniser(method.recipe, classes)


FAMILY = BoostingFamily()
