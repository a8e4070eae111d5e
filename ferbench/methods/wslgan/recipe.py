"""The recipe of WS-LGAN and its ablations: the schema of ``baselines/wslgan.toml``. No torch."""

from dataclasses import replace
from typing import Any, Literal, Self, get_args

from pydantic import Field, model_validator

from ferbench.methods.wslgan.settings import Architecture, LossWeights
from ferbench.schema import Schema
from ferbench.training.schedule import Stage

Preset = Literal["paper", "full", "light", "wide", "tiny", "demo"]
PRESETS: tuple[Preset, ...] = get_args(Preset)


class Readings(Schema):
    """How the paper's silent or ambiguous places are read; each is explained in ``baselines/wslgan.toml``."""

    batch_of: Literal["pairs", "images"]
    pairing: Literal["permutation", "balanced", "all"]
    streams: Literal["split", "joint"]
    normalise: Literal["train", "half", "image"]
    border: Literal["edge", "zero"]


class PairStage(Stage):
    """Stage 2. ``contrastive``: a common factor of λ1, λ2 and λ3 in this training, 1 in the paper."""

    contrastive: float = Field(ge=0)
    smoothing: float = Field(0.0, ge=0, lt=1)  # of labels: Szegedy et al. 2016, section 7
    erase: float = Field(0.0, ge=0, le=1)  # share of images of which a rectangle is erased (``training.augment``)
    jitter: float = Field(0.0, ge=0, lt=0.5)  # zoom and shift at most, in sides of the image (``training.augment``)
    flip: bool = False  # probabilities are the mean over the image and its mirror image
    rotate: bool = False  # and over these rotated by the angles of the derived samples

    def identity(self) -> dict[str, Any]:
        """Without the weights of losses, which the losses identify."""
        return {name: value for name, value in super().identity().items() if name not in ("contrastive", "whole")}


class TaughtStage(PairStage):
    """Pre-training. ``teachers``: presets of the same method whose pre-trained networks' mean probabilities of each
    training image make the share ``distil`` of the classifier's target (Hinton et al. 2015, at temperature 1).
    ``start``: a preset of the same method whose pre-trained network it goes on from, one of the same shapes that saw
    its images at another resolution (from small to large: Tan & Le 2021, section 4).
    ``whole``: λ3 of this training; that of the target where None."""

    start: Preset | Literal[""] = ""
    teachers: tuple[Preset, ...] = ()
    distil: float = Field(0.0, ge=0, le=1)
    whole: float | None = Field(None, ge=0)

    @model_validator(mode="after")
    def _both_or_none(self) -> Self:
        if bool(self.teachers) != bool(self.distil):
            raise ValueError("teachers and distil go together: name presets and the share of what they say, or neither")
        return self

    def alone(self) -> Self:
        """The same as the only training: without other networks, with the target's λ3."""
        return self.model_copy(update={"start": "", "teachers": (), "distil": 0.0, "whole": None})


class TargetStage(PairStage):
    """Fine-tuning. ``classifier``: "new" begins with random weights for all classes, "shared" takes over the weights of
    those that the pre-training set has as well. Random ones send large gradients through what was learned before
    (Kumar et al. 2022, section 3)."""

    classifier: Literal["new", "shared"] = "new"


class PartStage(Stage):
    """Stage 1. ``shuffle``: the share of images whose tiles change places (``training.augment.rearrange``)."""

    shuffle: float = Field(0.0, ge=0, le=1)


class Recipe(Schema):
    """Everything that decides a training, resolved: method × preset × dataset × overrides."""

    architecture: Architecture
    losses: LossWeights
    readings: Readings
    attention: PartStage
    pretrain: TaughtStage
    finetune: TargetStage
    threads: int = Field(
        0, ge=0
    )  # of a CPU that a training takes at most; 0: all that there are. No part of the identity
    amg: Preset | Literal[""] = ""  # the preset whose AMG is taken; its own where empty. No shape, so no identity

    def losses_of(self, stage: PairStage) -> LossWeights:
        """The weights of the losses in one training of stage 2."""
        own = stage.whole if isinstance(stage, TaughtStage) else None
        return replace(self.losses, contrastive=stage.contrastive, whole=self.losses.whole if own is None else own)
