"""Methods that generate the neutral face of each person: DeRL and GCNet. Importing this loads no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from ferbench.methods.generative.recipe import GenerativeRecipe
from ferbench.methods.interface import Family, Recogniser

if TYPE_CHECKING:
    from ferbench.methods.recipes import Method
    from ferbench.protocol.protocol import Protocol


class GenerativeFamily(Family[GenerativeRecipe]):
    """Both stages are trained on each fold; the generator learns from pairs of faces of the same training subject."""

    recipe = GenerativeRecipe
    consumes: ClassVar[frozenset[str]] = frozenset({"sequences", "neutral"})

    def recogniser(self, method: Method[GenerativeRecipe], kind: str, classes: tuple[str, ...]) -> Recogniser:
        from ferbench.methods.generative.recogniser import GenerativeRecogniser

        return GenerativeRecogniser(method, classes)

    def describe(self, method: Method[GenerativeRecipe], protocol: Protocol) -> list[tuple[str, dict[str, Any]]]:
        from ferbench.methods.generative.recogniser import describe

        return describe(method.recipe, len(protocol.classes))


FAMILY = GenerativeFamily()
