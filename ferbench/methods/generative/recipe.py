"""The recipe of methods that generate neutral faces. It loads no torch."""

from typing import Literal

from pydantic import NonNegativeFloat, PositiveInt

from ferbench.schema import Schema
from ferbench.training.schedule import Stage


class GenerativeNetworkSettings(Schema):
    """kind : "residue" classifies the maps in the generator's layers (DeRL), "contrast" the difference between the
    embeddings of a face and of its generated neutral face (GCNet). widths : of the four encoding layers of the
    generator.
    width, embedding : of the classifiers. frames : last frames of each sequence that are used, each for learning and
    their mean for testing.
    """

    kind: Literal["residue", "contrast"]
    widths: tuple[PositiveInt, PositiveInt, PositiveInt, PositiveInt]
    width: PositiveInt = 32
    embedding: PositiveInt = 64
    frames: PositiveInt = 3


class GenerativeLosses(Schema):
    """reconstruction : weight of the mean |neutral − G(x)|. adversary : weight of the adversarial loss; 0 turns it off.
    contrast, margin : of the contrastive loss on differences of embeddings."""

    reconstruction: NonNegativeFloat = 100.0
    adversary: NonNegativeFloat = 1.0
    contrast: NonNegativeFloat = 0.0
    margin: NonNegativeFloat = 1.0


class GenerativeRecipe(Schema):
    """A method of this family. generator : the first stage. finetune : the second, classifiers on the frozen
    generator."""

    network: GenerativeNetworkSettings
    losses: GenerativeLosses
    generator: Stage
    finetune: Stage
