"""Networks that read whole sequences: DTAGN, PHRNN-MSCNN and 3DCNN-DAP, with their parts. Importing this loads no
torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ferbench.methods.interface import Family, Recogniser, Task
from ferbench.methods.sequences.recipe import LANDMARK_PARTS, SequenceRecipe

if TYPE_CHECKING:
    from ferbench.methods.recipes import Method
    from ferbench.protocol.protocol import Protocol
    from ferbench.training.device import Device


class SequencesFamily(Family[SequenceRecipe]):
    """Each fold is trained from random weights; no pre-training is known for any of these methods."""

    recipe = SequenceRecipe

    def recogniser(self, method: Method[SequenceRecipe], kind: str, classes: tuple[str, ...]) -> Recogniser:
        from ferbench.methods.sequences.recogniser import SequenceRecogniser

        return SequenceRecogniser(method, classes)

    def identity(self, kind: str, method: Method[SequenceRecipe], protocol: Protocol) -> dict[str, Any]:
        content = super().identity(kind, method, protocol)
        if content["network"]["start"] == "random":  # older runs have no such field, and keep their keys
            del content["network"]["start"]
        return content

    def needs(self, method: Method[SequenceRecipe]) -> frozenset[str]:
        landmarks = any(part in LANDMARK_PARTS for part in method.recipe.network.parts)
        return frozenset({"sequences", "landmarks"} if landmarks else {"sequences"})

    def estimate(self, device: Device) -> Callable[[Task, int], float]:
        from ferbench.methods.sequences.recogniser import SequenceEstimate

        return SequenceEstimate(device)

    def describe(self, method: Method[SequenceRecipe], protocol: Protocol) -> list[tuple[str, dict[str, Any]]]:
        from ferbench.methods.sequences.recogniser import describe

        return describe(method.recipe, len(protocol.classes))


FAMILY = SequencesFamily()
