"""The recipe of boosted deep belief networks. No torch, no scikit-learn."""

from pydantic import Field, PositiveFloat, PositiveInt

from ferbench.schema import Schema


class Patches(Schema):
    """Square patches of ``side`` pixels, one every ``stride`` pixels both ways."""

    side: int = Field(ge=2, le=48)
    stride: PositiveInt


class Belief(Schema):
    """A stack of restricted Boltzmann machines with so many ``hidden`` units, each trained by so many ``epochs``."""

    hidden: tuple[PositiveInt, ...] = Field(min_length=1)
    epochs: PositiveInt
    lr: PositiveFloat
    batch: PositiveInt


class Boosting(Schema):
    """``rounds``: patches chosen for a class at most. ``ridge``: weight of the squared weights of a patch's top unit.
    ``newton``: steps in which that is fitted."""

    rounds: PositiveInt
    ridge: PositiveFloat
    newton: PositiveInt


class Tuning(Schema):
    """The chosen networks' joint training by the exponential loss: ``steps`` of Adam over all images at ``lr``.
    ``loops``: how often choosing and this training follow each other."""

    loops: PositiveInt
    steps: PositiveInt
    lr: PositiveFloat


class Recipe(Schema):
    """A boosted deep belief network for each class against the rest."""

    patches: Patches
    belief: Belief
    boosting: Boosting
    tuning: Tuning
