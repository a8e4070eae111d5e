"""What networks for sequences are to the rest of ferbench."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ferbench.methods.interface import Family, Recogniser, Task
from ferbench.methods.sequences.recipe import TRACKS, Recipe

if TYPE_CHECKING:
    from ferbench.methods.recipes import Method
    from ferbench.protocol.protocol import Protocol
    from ferbench.training.device import Device


class SequencesFamily(Family):
    """Trained on each fold from random weights: nothing is known of pre-training for any of them."""

    recipe = Recipe

    def recogniser(self, method: Method, kind: str, classes: tuple[str, ...]) -> Recogniser:
        from ferbench.methods.sequences.recogniser import Sequences

        return Sequences(method, classes)

    def identity(self, kind: str, method: Method, protocol: Protocol) -> dict[str, Any]:
        content = super().identity(kind, method, protocol)
        if content["network"]["start"] == "random":  # what was trained before there was a choice keeps its key
            del content["network"]["start"]
        return content

    def needs(self, method: Method) -> frozenset[str]:
        tracks = any(part in TRACKS for part in method.recipe.network.parts)
        return frozenset({"sequences", "landmarks"} if tracks else {"sequences"})

    def estimate(self, device: Device) -> Callable[[Task, int], float]:
        from ferbench.methods.sequences.inspection import Estimate

        return Estimate(device)

    def describe(self, method: Method, protocol: Protocol) -> list[tuple[str, dict[str, Any]]]:
        from ferbench.methods.sequences.inspection import describe

        return describe(method, len(protocol.classes))


FAMILY = SequencesFamily()
