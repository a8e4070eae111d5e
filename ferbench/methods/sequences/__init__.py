"""Networks for whole sequences: DTAGN, PHRNN-MSCNN and 3DCNN-DAP, with their parts. Importing this loads no torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, NonNegativeFloat, PositiveInt

from ferbench.methods.interface import Family, Recogniser, Task
from ferbench.schema import Schema
from ferbench.training.schedule import Stage

if TYPE_CHECKING:
    from ferbench.methods.recipes import Method
    from ferbench.protocol.protocol import Protocol
    from ferbench.training.device import Device

Part = Literal["dtan", "dtgn", "phrnn", "mscnn", "3dcnn", "3dcnn-dap"]
LANDMARK_PARTS = ("dtgn", "phrnn")  # the parts that read landmarks; all others read pixels


class SequenceNetworkSettings(Schema):
    """parts : one network, or two that are trained one after the other and then fused.

    frames, steps : length to which a sequence is resampled, for parts that read pixels and landmarks respectively.
    stills : number of last frames of each sequence that MSCNN reads, each for learning and their mean for testing.
    filters : number of generic and of specific filters of the 3-D network. start : its initial filters and connections,
        "random" or from "centroids" of the training set's patches.
    """

    parts: tuple[Part, ...] = Field(min_length=1, max_length=2)
    frames: PositiveInt = 3
    steps: PositiveInt = 12
    stills: PositiveInt = 1
    filters: PositiveInt = 64
    start: Literal["random", "centroids"] = "random"
    dropout: float = Field(0.5, ge=0, lt=1)


class Fusion(Schema):
    """kind : "none" for one part; "joint" trains the last layers of both parts further and adds their logits (DTAGN);
    "mean" averages their probabilities, the first part with weight ``share``.

    weights : of the losses of the first part, the second part, and their sum, in joint training.
    """

    kind: Literal["none", "joint", "mean"] = "none"
    weights: tuple[float, float, float] = (1.0, 1.0, 0.1)
    share: float = Field(0.5, ge=0, le=1)


class Verification(Schema):
    """The contrastive loss of MSCNN: its weight beside cross-entropy, and its margin."""

    weight: NonNegativeFloat = 0.1
    margin: NonNegativeFloat = 1.0


class SequenceRecipe(Schema):
    """The hyperparameters of a method. finetune : schedule of each part. joint : schedule of their fusion."""

    network: SequenceNetworkSettings
    fusion: Fusion = Field(default_factory=lambda: Fusion(share=0.5))
    verification: Verification = Field(default_factory=Verification)
    finetune: Stage
    joint: Stage | None = None


class SequencesFamily(Family[SequenceRecipe]):
    """Each fold is trained from random weights; for none of these methods a pre-training is known."""

    recipe = SequenceRecipe

    def recogniser(self, method: Method[SequenceRecipe], kind: str, classes: tuple[str, ...]) -> Recogniser:
        from ferbench.methods.sequences.recogniser import SequenceRecogniser

        return SequenceRecogniser(method, classes)

    def identity(self, kind: str, method: Method[SequenceRecipe], protocol: Protocol) -> dict[str, Any]:
        content = super().identity(kind, method, protocol)
        if content["network"]["start"] == "random":  # not part of the keys of older runs
            del content["network"]["start"]
        if content["network"]["stills"] == 1:  # likewise
            del content["network"]["stills"]
        if "3dcnn-dap" in content["network"]["parts"]:  # in place of a revision, which would change all methods' keys
            content["network"]["score"] = "maximum"  # of a part's map; older runs have its mean
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
