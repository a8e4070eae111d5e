"""The recipe of networks for sequences. No torch."""

from typing import Literal

from pydantic import Field, NonNegativeFloat, PositiveInt

from ferbench.schema import Schema
from ferbench.training.schedule import Stage

Part = Literal["dtan", "dtgn", "phrnn", "mscnn", "3dcnn", "3dcnn-dap"]
TRACKS = ("dtgn", "phrnn")  # the parts that read landmarks


class Network(Schema):
    """parts : networks that are trained one after the other; of two, what they say is fused.

    frames, steps : a sequence is resampled to so many frames for parts that read pixels, and steps for landmarks.
    filters : generic and specific ones of the 3-D network. start : of its filters and connections, at random or from
        centroids of the training set's patches.
    """

    parts: tuple[Part, ...] = Field(min_length=1, max_length=2)
    frames: PositiveInt = 3
    steps: PositiveInt = 12
    filters: PositiveInt = 64
    start: Literal["random", "centroids"] = "random"
    dropout: float = Field(0.5, ge=0, lt=1)


class Fusion(Schema):
    """kind : "none" for one part; "joint": the parts' last layers alone are trained on, and the sum of their logits
    decides (DTAGN); "mean": of their probabilities, ``share`` that of the first part.

    weights : of the losses of the first part, the second, and their sum, in joint training.
    """

    kind: Literal["none", "joint", "mean"] = "none"
    weights: tuple[float, float, float] = (1.0, 1.0, 0.1)
    share: float = Field(0.5, ge=0, le=1)


class Verification(Schema):
    """Of MSCNN: its weight beside recognition, and the margin."""

    weight: NonNegativeFloat = 0.1
    margin: NonNegativeFloat = 1.0


class Recipe(Schema):
    """Everything that decides a training. finetune : of each part. joint : of the fusion, where that is trained."""

    network: Network
    fusion: Fusion = Field(default_factory=lambda: Fusion(share=0.5))
    verification: Verification = Field(default_factory=Verification)
    finetune: Stage
    joint: Stage | None = None
