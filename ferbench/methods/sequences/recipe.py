"""The recipe of networks for sequences. It loads no torch."""

from typing import Literal

from pydantic import Field, NonNegativeFloat, PositiveInt

from ferbench.schema import Schema
from ferbench.training.schedule import Stage

Part = Literal["dtan", "dtgn", "phrnn", "mscnn", "3dcnn", "3dcnn-dap"]
LANDMARK_PARTS = ("dtgn", "phrnn")  # the parts that read landmarks; all others read pixels


class SequenceNetworkSettings(Schema):
    """parts : one network, or two that are trained one after the other and then fused.

    frames, steps : length to which a sequence is resampled, for parts that read pixels and landmarks respectively.
    filters : number of generic and of specific filters of the 3-D network. start : its initial filters and connections,
        "random" or from "centroids" of the training set's patches.
    """

    parts: tuple[Part, ...] = Field(min_length=1, max_length=2)
    frames: PositiveInt = 3
    steps: PositiveInt = 12
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
    """A method of this family. finetune : the training of each part. joint : the training of their fusion."""

    network: SequenceNetworkSettings
    fusion: Fusion = Field(default_factory=lambda: Fusion(share=0.5))
    verification: Verification = Field(default_factory=Verification)
    finetune: Stage
    joint: Stage | None = None
