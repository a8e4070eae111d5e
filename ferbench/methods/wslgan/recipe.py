"""The recipe of WS-LGAN and its ablations: the schema of ``baselines/wslgan.toml``, which gives the source of each
default. Importing this loads no torch."""

from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, Self, get_args

from pydantic import AliasChoices, Field, model_validator

from ferbench.methods.interface import PRETRAIN
from ferbench.schema import Schema
from ferbench.training.schedule import Stage

Features = Literal["local+global", "local", "global"]
Fusion = Literal["sfu", "sum", "concat"]
SfuOrder = Literal["fc-bn-relu", "fc-relu-bn"]
CamClass = Literal["either", "predicted", "positive"]
ClassifierInput = Literal["gap", "flatten"]

_BRANCHES = {"local+global": ("eyes", "mouth", "global"), "local": ("eyes", "mouth"), "global": ("global",)}


@dataclass(frozen=True)
class Architecture:
    """Shapes of the AMG and of WS-LGAN; the ablations are arguments of it.

    growth : growth rate of every dense block of the network.
    generator_growth : growth rate of the AMG; 0 stands for that of the network.
    stem_stride : stride of the first convolution, 1 (12×12 maps) or 2 (6×6 maps).
    extractor_layers, generator_layers : dense layers by block of the FE and of each AMG branch.
    features : "local+global" (WS-LGAN), "global" (GFNet) or "local" (LFNet), Table 8.
    fusion : "sfu", or "sum" / "concat" of Table 9.
    contrastive : False is WS-LGAN-WCL: no auxiliary layers, softmax loss alone (Table 10).
    embedding : length of the vectors of the contrastive losses.
    reduction : C/d of the SFU.
    sfu_order, cam_class, classifier_input : interpretations of the text.
    """

    growth: int = 32
    generator_growth: int = 0
    stem_stride: Literal[1, 2] = 1
    extractor_layers: tuple[int, ...] = (6, 6, 6)
    generator_layers: tuple[int, ...] = (6, 12, 24)
    features: Features = "local+global"
    fusion: Fusion = "sfu"
    contrastive: bool = True
    embedding: int = 128
    reduction: int = 16
    sfu_order: SfuOrder = "fc-bn-relu"
    cam_class: CamClass = "either"
    classifier_input: ClassifierInput = "gap"

    # pydantic reads this when it validates a recipe: an unknown field is an error.
    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012

    @property
    def branches(self) -> tuple[str, ...]:
        """Names of the features that are fused, in their order."""
        return _BRANCHES[self.features]

    @property
    def needs_attention(self) -> bool:
        """Whether the network takes attention maps; only GFNet does not."""
        return self.features != "global"

    @property
    def map_size(self) -> int:
        """Height and width of the maps: 48 pixels halved by two transitions and by the stem's stride."""
        return 12 // self.stem_stride

    def generator(self) -> dict[str, Any]:
        """The fields that determine the AMG and identify its training."""
        growth = self.generator_growth or self.growth
        return {"layers": self.generator_layers, "growth": growth, "stem_stride": self.stem_stride}

    def takes_weights_of(self, source: "Architecture") -> bool:
        """Whether weights of ``source`` fit: its resolution and its AMG may differ."""
        adapted = replace(source, stem_stride=self.stem_stride, generator_growth=self.generator_growth)
        return self == adapted and (self.classifier_input == "gap" or self.map_size == source.map_size)

    def identity(self) -> dict[str, Any]:
        """The fields that determine the network: the AMG's growth rate only if it differs from the network's."""
        fields = asdict(self)
        if not self.needs_attention or self.generator_growth in (0, self.growth):
            del fields["generator_growth"]
        return fields


@dataclass(frozen=True)
class LossWeights:
    """λ of Eq. 10: eyes λ1, mouth λ2, whole (global) λ3, classification λ4 = λ5; δ of Eq. 3 and 4 is the margin.

    ``contrastive`` is a common factor of λ1, λ2 and λ3, 1 in the paper.
    """

    eyes: float = 1.0
    mouth: float = 1.0
    whole: float = 2.0
    classification: float = 1.0
    contrastive: float = 1.0
    margin: float = 10.0

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012


ATTENTION = "attention"  # the kind of training of stage 1

Preset = Literal["paper", "full", "light", "wide", "tiny", "demo"]
PRESETS: tuple[Preset, ...] = get_args(Preset)


class Interpretation(Schema):
    """Assumptions where the paper is silent or ambiguous; ``baselines/wslgan.toml`` explains each field."""

    batch_of: Literal["pairs", "images"]
    pairing: Literal["permutation", "balanced", "all"]
    streams: Literal["split", "joint"]
    normalise: Literal["train", "half", "image"]
    border: Literal["edge", "zero"]


class PairStage(Stage):
    """Stage 2. ``contrastive``: a common factor of λ1, λ2 and λ3 in this training, 1 in the paper."""

    contrastive: float = Field(ge=0)
    smoothing: float = Field(0.0, ge=0, lt=1)  # of labels: Szegedy et al. 2016, section 7
    erase: float = Field(0.0, ge=0, le=1)  # share of images in which a rectangle is erased (``training.augment``)
    jitter: float = Field(0.0, ge=0, lt=0.5)  # largest zoom and shift, in sides of the image (``training.augment``)
    flip: bool = False  # probabilities are the mean over the image and its mirror image
    rotate: bool = False  # and over both, rotated by the angles of the derived samples

    def identity(self) -> dict[str, Any]:
        """The stage without the weights of losses, which are part of the losses."""
        return {name: value for name, value in super().identity().items() if name not in ("contrastive", "whole")}


class PretrainStage(PairStage):
    """Pre-training. ``teachers``: presets of the same method whose pre-trained networks' mean probabilities of each
    training image are the share ``distil`` of the classifier's target (Hinton et al. 2015, at temperature 1).
    ``start``: a preset of the same method whose pre-trained network is the start; it has the same shapes, but was
    trained at another resolution (progressive learning from small to large images: Tan & Le 2021, section 4).
    ``whole``: λ3 of this training; None stands for λ3 of the fine-tuning."""

    start: Preset | Literal[""] = ""
    teachers: tuple[Preset, ...] = ()
    distil: float = Field(0.0, ge=0, le=1)
    whole: float | None = Field(None, ge=0)

    @model_validator(mode="after")
    def _both_or_none(self) -> Self:
        if bool(self.teachers) != bool(self.distil):
            raise ValueError("teachers and distil go together: set both or neither")
        return self

    def as_only_training(self) -> Self:
        """The stage without teachers and start, with λ3 of the fine-tuning."""
        return self.model_copy(update={"start": "", "teachers": (), "distil": 0.0, "whole": None})


class FinetuneStage(PairStage):
    """Fine-tuning. ``classifier``: "new" starts from random weights for all classes, "shared" keeps the weights of the
    classes of the pre-training dataset. Random weights cause large gradients in the pre-trained layers (Kumar et al.
    2022, section 3)."""

    classifier: Literal["new", "shared"] = "new"


class PartStage(Stage):
    """Stage 1. ``shuffle``: the share of images whose tiles change places (``training.augment.rearrange``)."""

    shuffle: float = Field(0.0, ge=0, le=1)


class WslganRecipe(Schema):
    """All hyperparameters of a training, after the preset, the dataset and overrides are applied."""

    architecture: Architecture
    losses: LossWeights
    # Records and hashed identities have this table under its former name, so that keys of runs stay the same.
    interpretation: Interpretation = Field(
        validation_alias=AliasChoices("interpretation", "readings"), serialization_alias="readings"
    )
    attention: PartStage
    pretrain: PretrainStage
    finetune: FinetuneStage
    threads: int = Field(0, ge=0)  # maximum number of CPU threads, 0: all; not part of the identity
    amg: Preset | Literal[""] = ""  # preset of the AMG, empty: the same preset; not part of the identity

    def losses_of(self, stage: PairStage) -> LossWeights:
        """The weights of the losses in one training of stage 2."""
        whole = stage.whole if isinstance(stage, PretrainStage) else None
        return replace(self.losses, contrastive=stage.contrastive, whole=self.losses.whole if whole is None else whole)

    def stage(self, kind: str, pretrained: bool) -> Stage:
        """The schedule of a training by its kind. pretrained : whether the protocol has a pre-training dataset; without
        one, folds have the schedule of a pre-training, but no teachers and no start, as these may have been trained on
        the test set."""
        if kind == ATTENTION:
            return self.attention
        if kind == PRETRAIN:
            return self.pretrain
        return self.finetune if pretrained else self.pretrain.as_only_training()
