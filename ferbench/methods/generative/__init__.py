"""Methods that generate the neutral face of each person: DeRL and GCNet. Importing this loads no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import NonNegativeFloat, PositiveInt

from ferbench.methods.interface import FOLD, Family, Recogniser
from ferbench.schema import Schema
from ferbench.training.schedule import Stage

if TYPE_CHECKING:
    from ferbench.methods.recipes import Method
    from ferbench.protocol.protocol import Protocol


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
    """The hyperparameters of a method. generator : schedule of the first stage. finetune : schedule of the second
    stage, classifiers on the frozen generator."""

    network: GenerativeNetworkSettings
    losses: GenerativeLosses
    generator: Stage
    finetune: Stage


class GenerativeFamily(Family[GenerativeRecipe]):
    """Both stages are trained on each fold; the generator learns from pairs of faces of the same training subject."""

    recipe = GenerativeRecipe
    consumes: ClassVar[frozenset[str]] = frozenset({"sequences", "neutral"})
    revision: ClassVar[Mapping[str, int]] = {FOLD: 2}

    def recogniser(self, method: Method[GenerativeRecipe], kind: str, classes: tuple[str, ...]) -> Recogniser:
        from ferbench.methods.generative.recogniser import GenerativeRecogniser

        return GenerativeRecogniser(method, classes)

    def describe(self, method: Method[GenerativeRecipe], protocol: Protocol) -> list[tuple[str, dict[str, Any]]]:
        from ferbench.methods.generative.recogniser import describe

        return describe(method.recipe, len(protocol.classes))


FAMILY = GenerativeFamily()
