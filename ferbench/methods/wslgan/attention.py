"""The Attention Map Generator (section III-B) and bilinear attention pooling (Eq. 1 and 2)."""

import torch
from torch import Tensor, nn

from ferbench.methods.wslgan.densenet import DenseNet
from ferbench.methods.wslgan.settings import Architecture, CamClass
from ferbench.training.normalise import Normalise

PARTS = ("eyes", "mouth")  # order of the maps everywhere: index 0 is A_e, index 1 is A_m

_FLAT = 1e-8  # a map flatter than this has no place to point at; dividing by its range would be noise


class PartClassifier(nn.Module):
    """One branch of the AMG: does this face show any attribute of the part? (Figure 3)

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
        so that all values fall in the range [0, 1]" by each map's own minimum and maximum.
        "predicted" maps the predicted class, in the paper's words; since the map of one class is that of
        the other upside down, it turns over where the prediction does. "either" takes the size of what the
        two classes' maps differ by: where the network sees that an attribute is there, or that it is
        not, and either is seen at the part. "positive" maps "present" whatever is predicted, so that the
        map of a closed mouth is lowest at the mouth.
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
    """Scale each map of [B,H,W] to [0,1] by its own extremes; a constant map becomes 0."""
    low = maps.amin(dim=(1, 2), keepdim=True)
    high = maps.amax(dim=(1, 2), keepdim=True)
    return (maps - low) / (high - low).clamp_min(_FLAT)


class AttentionMapGenerator(nn.Module):
    """Two separate branches, for the eyes and the mouth; frozen and in eval mode once trained.

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
        """Stop all learning, batch statistics included: "In the second stage, the AMG is frozen"."""
        return self.eval().requires_grad_(False)


def bilinear_attention_pooling(features: Tensor, attention: Tensor) -> Tensor:
    """F_part = A ⊙ F_g for each channel (Eq. 1, Eq. 2): [B,C,H,W] and [B,H,W] → [B,C,H,W]."""
    return features * attention.unsqueeze(1)
