"""What decides the shapes of the networks and the weights of their losses. Plain values, no torch, so that
recipes can be read and shown without it. ``baselines/wslgan.toml`` says where each default comes from."""

from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

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
    generator_growth : the same of the AMG; 0 is that of the network.
    stem_stride : stride of the first convolution, 1 (12×12 maps) or 2 (6×6 maps).
    extractor_layers, generator_layers : dense layers by block of the FE and of each AMG branch.
    features : "local+global" (WS-LGAN), "global" (GFNet) or "local" (LFNet), Table 8.
    fusion : "sfu", or "sum" / "concat" of Table 9.
    contrastive : False is WS-LGAN-WCL: no auxiliary layers, softmax loss alone (Table 10).
    embedding : length of the vectors of the contrastive losses.
    reduction : C/d of the SFU.
    sfu_order, cam_class, classifier_input : readings of the text.
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

    # Read by pydantic when a recipe is validated: an unknown field is an error there.
    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012

    @property
    def branches(self) -> tuple[str, ...]:
        """Names of the features that are fused, in their order."""
        return _BRANCHES[self.features]

    @property
    def needs_attention(self) -> bool:
        """GFNet alone does without attention maps."""
        return self.features != "global"

    @property
    def map_size(self) -> int:
        """Height and width of the maps: 48 pixels halved by two transitions and by the stem's stride."""
        return 12 // self.stem_stride

    def generator(self) -> dict[str, Any]:
        """The fields that the AMG depends on: what its training is identified by."""
        growth = self.generator_growth or self.growth
        return {"layers": self.generator_layers, "growth": growth, "stem_stride": self.stem_stride}

    def takes_weights_of(self, other: "Architecture") -> bool:
        """Whether a trained network of the other is one of this: at another resolution, say, on maps of another AMG."""
        at_own = replace(other, stem_stride=self.stem_stride, generator_growth=self.generator_growth)
        return self == at_own and (self.classifier_input == "gap" or self.map_size == other.map_size)

    def identity(self) -> dict[str, Any]:
        """The fields that the network depends on: the AMG's growth rate only where there is an AMG of another."""
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
