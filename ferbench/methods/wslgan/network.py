"""WS-LGAN (Figure 2) and its ablations of Tables 8, 9 and 10, which are arguments of the architecture.

The parts are the Attention Map Generator (section III-B), bilinear attention pooling (Eq. 1 and 2), and the Selective
Feature Unit (Eq. 5-9) with its ablations (Table 9).
"""

import torch
from torch import Tensor, nn

from ferbench.methods.wslgan.densenet import DenseNet
from ferbench.methods.wslgan.recipe import Architecture, CamClass, SfuOrder
from ferbench.training.networks import Normalise

PARTS = ("eyes", "mouth")  # order of the maps everywhere: index 0 is A_e, index 1 is A_m

_FLAT = 1e-8  # smallest range of a map: division by a smaller one would amplify noise


class PartClassifier(nn.Module):
    """One branch of the AMG (Figure 3): classifies whether a face shows any attribute of a part.

    Backbone → global average pooling → Linear(C, 2); class 1 is "any attribute of Table 1 present".
    Images are [B,1,48,48] with values in [0,1].
    """

    def __init__(self, layers: tuple[int, ...], growth: int, stem_stride: int):
        super().__init__()
        self.normalise = Normalise()
        self.backbone = DenseNet(layers, growth, stem_stride)
        self.output = nn.Linear(self.backbone.channels, 2)

    def features(self, x: Tensor) -> Tensor:
        """Images → feature maps [B,C,H,W]."""
        return self.backbone(self.normalise(x))

    def forward(self, x: Tensor) -> Tensor:
        """Images → logits [B,2]."""
        return self.output(self.features(x).mean(dim=(2, 3)))

    def attention(self, x: Tensor, cam_class: CamClass = "either") -> Tensor:
        """Images → attention maps [B,H,W] in [0,1].

        The class activation map of Zhou et al. 2016 (Eq. 2 there): the weights of the output layer
        summed over the feature maps, with neither bias nor ReLU; then "we normalize the attention map
        so that all values fall in the range [0, 1]" by the minimum and maximum of each map.
        "predicted" is the map of the predicted class, as in the paper; the maps of both classes are negatives of each
        other, so the sign depends on the prediction. "either" is the absolute difference of both maps: evidence that
        an attribute is present or absent, both of which lie at the part. "positive" is the map of "present", which is
        lowest at the mouth for a closed mouth.
        """
        features = self.features(x)
        if cam_class == "predicted":
            predicted = self.output(features.mean(dim=(2, 3))).argmax(dim=1)
            return unit_range(torch.einsum("bc,bchw->bhw", self.output.weight[predicted], features))
        if cam_class == "positive":
            return unit_range(torch.einsum("c,bchw->bhw", self.output.weight[1], features))
        difference = self.output.weight[1] - self.output.weight[0]
        return unit_range(torch.einsum("c,bchw->bhw", difference, features).abs())


def unit_range(maps: Tensor) -> Tensor:
    """Scale each map of [B,H,W] to [0,1] by its minimum and maximum; a constant map becomes 0."""
    low = maps.amin(dim=(1, 2), keepdim=True)
    high = maps.amax(dim=(1, 2), keepdim=True)
    return (maps - low) / (high - low).clamp_min(_FLAT)


class AttentionMapGenerator(nn.Module):
    """Two separate branches, for the eyes and the mouth; frozen and in eval mode after their training.

    Images [B,1,48,48] in [0,1] → maps [B,2,H,W] in [0,1]: A_e and A_m.
    """

    def __init__(self, architecture: Architecture):
        super().__init__()
        shape = architecture.generator()
        self.eyes = PartClassifier(**shape)
        self.mouth = PartClassifier(**shape)
        self.cam_class: CamClass = architecture.cam_class

    def forward(self, x: Tensor) -> Tensor:
        maps = [part.attention(x, self.cam_class) for part in (self.eyes, self.mouth)]
        return torch.stack(maps, dim=1)

    def freeze(self) -> "AttentionMapGenerator":
        """Disable gradients and updates of batch statistics: "the AMG is frozen" in stage 2 (section III-B)."""
        return self.eval().requires_grad_(False)


def bilinear_attention_pooling(features: Tensor, attention: Tensor) -> Tensor:
    """F_part = A ⊙ F_g for each channel (Eq. 1, Eq. 2): [B,C,H,W] and [B,H,W] → [B,C,H,W]."""
    return features * attention.unsqueeze(1)


class SelectiveFeatureUnit(nn.Module):
    """Adaptive weighted fusion of branches, channel by channel (section III-D-2, Figure 5).

    Fuse: U = ΣF, s = mean of U over space, z = FC → BN → ReLU (s) of length d = C / reduction.
    Select: a softmax over the branches for each channel of E_c·z, M_c·z, G_c·z (Eq. 5-7, 9), then
    V_c = e_c·F_e,c + m_c·F_m,c + g_c·F_g,c (Eq. 8).

    The matrices E, M, G are one tensor ``select`` [branches, C, d], without bias as printed.
    ``order`` interprets "a fully connected layer with ReLU function and Batch Normalization": the order of
    SK convolution (FC-BN-ReLU), or the order of the words.
    """

    def __init__(self, channels: int, branches: int = 3, reduction: int = 16, order: SfuOrder = "fc-bn-relu"):
        super().__init__()
        length = channels // reduction
        relu, norm = nn.ReLU(), nn.BatchNorm1d(length)
        self.squeeze = nn.Sequential(
            nn.Linear(channels, length), *((norm, relu) if order == "fc-bn-relu" else (relu, norm))
        )
        self.select = nn.Parameter(torch.empty(branches, channels, length))
        nn.init.uniform_(self.select, -(length**-0.5), length**-0.5)  # the bound of nn.Linear
        self.channels = channels

    def weights(self, branches: list[Tensor]) -> Tensor:
        """Branches [B,C,H,W] each → soft attention [B,branches,C], summing to 1 over the branches."""
        statistics = torch.stack(branches).sum(dim=0).mean(dim=(2, 3))
        compact = self.squeeze(statistics)
        scores = torch.einsum("ncd,bd->bnc", self.select, compact)
        wide = torch.promote_types(scores.dtype, torch.float32)  # bfloat16 is too coarse for an exponential
        return torch.softmax(scores, dim=1, dtype=wide).to(scores.dtype)

    def forward(self, branches: list[Tensor]) -> Tensor:
        weights = self.weights(branches)
        return torch.stack([features * weights[:, i, :, None, None] for i, features in enumerate(branches)]).sum(dim=0)


class SumFusion(nn.Module):
    """WS-LGAN-Sum: "the sum of all feature maps at the same spatial location and feature channel"."""

    def __init__(self, channels: int, branches: int = 3):
        super().__init__()
        self.channels = channels

    def forward(self, branches: list[Tensor]) -> Tensor:
        return torch.stack(branches).sum(dim=0)


class ConcatFusion(nn.Module):
    """WS-LGAN-Concat: the feature maps stacked across the channels, [B,branches·C,H,W]."""

    def __init__(self, channels: int, branches: int = 3):
        super().__init__()
        self.channels = branches * channels

    def forward(self, branches: list[Tensor]) -> Tensor:
        return torch.cat(branches, dim=1)


class WSLGAN(nn.Module):
    """One stream of stage 2 without the (frozen, separate) AMG: FE, attention pooling, SFU, classifier.

    Both siamese streams are calls of this module, so they share their weights.
    Images are [B,1,48,48] with values in [0,1]; attention maps are [B,2,H,W] in the order of :data:`PARTS`.
    """

    def __init__(self, architecture: Architecture, classes: int):
        super().__init__()
        self.architecture = architecture
        self.normalise = Normalise()
        self.extractor = DenseNet(architecture.extractor_layers, architecture.growth, architecture.stem_stride)
        channels, count = self.extractor.channels, len(architecture.branches)
        self.fusion: SelectiveFeatureUnit | SumFusion | ConcatFusion
        if count == 1 or architecture.fusion == "sum":
            self.fusion = SumFusion(channels, count)  # the sum of a single branch is that branch
        elif architecture.fusion == "sfu":
            self.fusion = SelectiveFeatureUnit(channels, count, architecture.reduction, architecture.sfu_order)
        else:
            self.fusion = ConcatFusion(channels, count)
        area = architecture.map_size**2 if architecture.classifier_input == "flatten" else 1
        self.classifier = nn.Linear(self.fusion.channels * area, classes)
        # "an auxiliary fully connected (FC) layer to represent the eyes-related features" (III-C-2);
        # only the losses use them, a test image does not.
        self.auxiliary = nn.ModuleDict(
            {name: nn.Linear(channels, architecture.embedding) for name in architecture.branches}
            if architecture.contrastive
            else {}
        )

    def branches(self, x: Tensor, attention: Tensor | None) -> dict[str, Tensor]:
        """Images and maps → F_e, F_m, F_g, as far as the method has them, by name, [B,C,H,W] each.

        ``attention`` may be None for GFNet, which has no local features.
        """
        whole = self.extractor(self.normalise(x))
        features = {"global": whole}
        if attention is not None:
            for index, part in enumerate(PARTS):
                features[part] = bilinear_attention_pooling(whole, attention[:, index])
        return {name: features[name] for name in self.architecture.branches}

    def classify(self, branches: dict[str, Tensor]) -> Tensor:
        """Fuse the branches and classify: logits [B,K]."""
        fused = self.fusion(list(branches.values()))
        pooled = fused.mean(dim=(2, 3)) if self.architecture.classifier_input == "gap" else fused.flatten(1)
        return self.classifier(pooled)

    def forward(self, x: Tensor, attention: Tensor | None) -> Tensor:
        """A test image in one stream: images and maps → logits [B,K]."""
        return self.classify(self.branches(x, attention))

    def stream(self, x: Tensor, attention: Tensor | None) -> tuple[Tensor, dict[str, Tensor]]:
        """One training stream: logits [B,K] and the vectors f(x) [B,embedding] of the contrastive losses."""
        branches = self.branches(x, attention)
        vectors = {name: layer(branches[name].mean(dim=(2, 3))) for name, layer in self.auxiliary.items()}
        return self.classify(branches), vectors
