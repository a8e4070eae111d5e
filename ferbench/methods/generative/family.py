"""What methods that generate neutral faces are to the rest of ferbench."""

from __future__ import annotations

from typing import Any, ClassVar

from ferbench.methods.generative.recipe import Recipe
from ferbench.methods.interface import Family, Recogniser
from ferbench.methods.recipes import Method
from ferbench.protocol.protocol import Protocol


class GenerativeFamily(Family):
    """Both stages are trained on each fold: the generator on pairs of a training subject's own faces."""

    recipe = Recipe
    consumes: ClassVar[frozenset[str]] = frozenset({"sequences", "neutral"})

    def recogniser(self, method: Method, kind: str, classes: tuple[str, ...]) -> Recogniser:
        from ferbench.methods.generative.recogniser import Generative

        return Generative(method, classes)

    def describe(self, method: Method, protocol: Protocol) -> list[tuple[str, dict[str, Any]]]:
        from ferbench.methods.generative.networks import Classifiers, Generator

        network, classes = method.recipe.network, len(protocol.classes)
        parts = {"generator": Generator(network.widths), "classifiers": Classifiers(network, classes)}
        return [
            (
                "sizes",
                {
                    f"{name} parameters": f"{sum(p.numel() for p in part.parameters()):,}"
                    for name, part in parts.items()
                },
            )
        ]


FAMILY = GenerativeFamily()
