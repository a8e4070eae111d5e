"""The recipe of methods that generate neutral faces. No torch."""

from typing import Literal

from pydantic import NonNegativeFloat, PositiveInt

from ferbench.schema import Schema
from ferbench.training.schedule import Stage


class Network(Schema):
    """kind : "residue" classifies what lies in the generator's layers (DeRL), "contrast" the difference of the
    embeddings of a face and of its generated neutral face (GCNet). widths : of the generator's four encoding layers.
    width : of the classifiers. frames : last ones of each sequence that are learned from and, their mean, tested."""

    kind: Literal["residue", "contrast"]
    widths: tuple[PositiveInt, PositiveInt, PositiveInt, PositiveInt]
    width: PositiveInt = 32
    embedding: PositiveInt = 64
    frames: PositiveInt = 3


class Losses(Schema):
    """reconstruction : weight of the mean |neutral - G(x)| beside the adversary's 1; adversary : 0 turns it off.
    contrast, margin : of the contrastive term on differences of embeddings."""

    reconstruction: NonNegativeFloat = 100.0
    adversary: NonNegativeFloat = 1.0
    contrast: NonNegativeFloat = 0.0
    margin: NonNegativeFloat = 1.0


class Recipe(Schema):
    """Everything that decides a training. generator : the first stage; finetune : the classifiers, on it frozen."""

    network: Network
    losses: Losses
    generator: Stage
    finetune: Stage
