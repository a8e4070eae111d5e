"""The recipe of networks of timm: the schema of their TOML files. Importing this loads no torch."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, PositiveFloat, PositiveInt, field_validator, model_validator

from ferbench.data.views import InputSpec
from ferbench.schema import Schema
from ferbench.training.schedule import Stage

Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(ge=0)]


class Network(Schema):
    """model : the name of a network of timm.

    weights : a safetensors file of such a network, or a folder with ``model.safetensors``, as timm writes it; relative
        to the folder of the method's file, of a shipped method to the current folder. Empty for random weights.
    trained_on : what these were trained on, in words; empty if unknown. Of a run they are named by their SHA-256.
    """

    model: str
    weights: str = ""
    trained_on: str = ""

    @field_validator("model")
    @classmethod
    def _is_no_download(cls, name: str) -> str:
        if not name.replace("_", "").isalnum():
            raise ValueError(
                f"{name!r} is no plain name of a network: ferbench downloads no weights; `weights` names a file of them"
            )
        return name


class SoftmaxLoss(Schema):
    """Cross-entropy. smoothing : share of the target that all classes have in equal parts (Szegedy et al. 2016).
    mixup : α of the Beta distribution of mixup (Zhang et al. 2018); 0 without."""

    kind: Literal["softmax"]
    smoothing: float = Field(0.0, ge=0, lt=1)
    mixup: Positive = 0.0


class CenterLoss(Schema):
    """L = L_S + weight · L_C (Wen et al. 2016). ``alpha``: learning rate of the centers, which start at 0."""

    kind: Literal["center"]
    weight: Positive
    alpha: PositiveFloat


class IslandLoss(Schema):
    """L = L_S + weight · (L_C + push · Σ over pairs of centers of their cosine + 1) (Cai et al. 2018), with the step of
    the centers that the paper prints."""

    kind: Literal["island"]
    weight: Positive
    push: Positive
    alpha: PositiveFloat


class LocalityLoss(Schema):
    """L = L_S + weight · L_LP with the nearest ``neighbours`` of the same class in the batch (Li, Deng, Du 2017)."""

    kind: Literal["locality"]
    weight: Positive
    neighbours: PositiveInt


class ScnLoss(Schema):
    """SCN (Wang et al. 2020). ratio : β, share of the group of high importance. margin : δ1. relabel_epoch : the first
    epoch, from 1, after whose steps images are relabelled. relabel_margin : δ2."""

    kind: Literal["scn"]
    ratio: float = Field(0.7, gt=0, lt=1)
    margin: Positive = 0.15
    relabel_epoch: PositiveInt = 10
    relabel_margin: Share = 0.2


class RulLoss(Schema):
    """RUL (Zhang et al. 2021). feature : length of the mixed features. dropout : of the maps before them."""

    kind: Literal["rul"]
    feature: PositiveInt = 64
    dropout: float = Field(0.4, ge=0, lt=1)


class EacLoss(Schema):
    """EAC (Zhang et al. 2022): L = L_S + weight · L_consistency."""

    kind: Literal["eac"]
    weight: Positive = 5.0


class DanLoss(Schema):
    """DAN (Wen et al. 2021): L = L_S + affinity · L_affinity + partition · L_partition, with ``heads`` cross attention
    heads."""

    kind: Literal["dan"]
    heads: int = Field(4, ge=2)
    affinity: Positive = 1.0
    partition: Positive = 1.0


class AdaDfLoss(Schema):
    """Ada-DF (Liu et al. 2023). threshold : share of its own class in the first distribution of a class. turn : β, the
    epoch in which both branches have equal weights. low, high : range of the attention weights of a batch. ratio,
    margin : of the rank regularisation, as in :class:`ScnLoss`."""

    kind: Literal["ada-df"]
    threshold: float = Field(0.7, gt=0, lt=1)
    turn: PositiveInt = 3
    low: Share = 0.2
    high: Share = 1.0
    ratio: float = Field(0.7, gt=0, lt=1)
    margin: Positive = 0.07


Loss = Annotated[
    SoftmaxLoss | CenterLoss | IslandLoss | LocalityLoss | ScnLoss | RulLoss | EacLoss | DanLoss | AdaDfLoss,
    Field(discriminator="kind"),
]


class Augment(Schema):
    """Random changes of each training image, off by default. What a motion uncovers has the nearest pixel's value.

    flip : share of images that are mirrored. crop : smallest share of the area of a random crop with sides of a ratio
        between 3/4 and 4/3, resized to the whole; 1 for no crop. shift : largest shift along each axis, in sides, as by
        padding and cropping. rotate : largest angle, in degrees. moved : share of images that these three change.
    brightness, contrast, saturation : b for a factor between 1 − b and 1 + b.
    erase : share of images in which a rectangle is erased, of at most ``erased`` of the area.
    """

    flip: Share = 0.0
    crop: float = Field(1.0, gt=0, le=1)
    shift: float = Field(0.0, ge=0, lt=0.5)
    rotate: float = Field(0.0, ge=0, le=180)
    moved: Share = 1.0
    brightness: Share = 0.0
    contrast: Share = 0.0
    saturation: Share = 0.0
    erase: Share = 0.0
    erased: float = Field(0.33, gt=0.02, le=1)


class BackboneStage(Stage):
    """The schedule. sampling : "shuffled": each image once in an epoch; as many images, drawn so that all classes are
    equally frequent ("balanced"), or as frequent as the root of their number ("sqrt").

    layer_decay : factor of the learning rate from each layer of the network to the one before (Clark et al. 2020).
    head_rate : factor of the learning rate of all that stands behind the network.
    """

    drops: tuple[float, ...] = ()
    augment: Literal["none"] = "none"  # the table [augment] says it
    sampling: Literal["shuffled", "balanced", "sqrt"] = "shuffled"
    layer_decay: float = Field(1.0, gt=0, le=1)
    head_rate: PositiveFloat = 1.0


class BackboneRecipe(Schema):
    """The hyperparameters of a method. ``input.mean`` and ``input.std`` have one value, or one for each of red, green
    and blue, of which a network for grey images takes the mean."""

    network: Network
    input: InputSpec
    loss: Loss
    augment: Augment
    finetune: BackboneStage

    @property
    def channels(self) -> int:
        """The number of channels that the network sees."""
        return 3 if self.input.colour == "rgb" else 1

    @model_validator(mode="after")
    def _has_values_for_the_channels(self) -> Self:
        for name, values in (("mean", self.input.mean), ("std", self.input.std)):
            if len(values) not in (1, 3) or (name == "std" and min(values) <= 0):
                raise ValueError(f"input.{name} has one value or three, those of std above 0")
        return self
