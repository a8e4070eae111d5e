"""The DenseNet-BC backbone of both the Attention Map Generator and the Feature Extractor.

Section III-A: "a variant of DenseNet [25]. It consists of 3 dense blocks and 2 transition layers",
with (6, 12, 24) dense layers in the AMG and (6, 6, 6) in the FE. Growth rate, bottleneck and stem are
not printed; the defaults here are those of DenseNet-121 without its fourth block (growth 32,
bottleneck 4·growth, compression 0.5, 2·growth channels after the stem) with the 3×3 stride-1 stem
that DenseNet uses on small images (Huang et al. 2017, section 4.1).
"""

import torch
from torch import Tensor, nn

from ferbench.methods.wslgan.batchnorm import Statistics, joined, normalised, statistics

BOTTLENECK = 4  # Huang et al. 2017, section 3: the 1×1 convolution gives 4·growth maps
COMPRESSION = 0.5  # Huang et al. 2017, section 3: theta of DenseNet-BC


class DenseLayer(nn.Module):
    """BN-ReLU-Conv1×1-BN-ReLU-Conv3×3, its output appended to its input: [B,C,H,W] → [B,C+growth,H,W]."""

    def __init__(self, channels: int, growth: int):
        super().__init__()
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv1 = nn.Conv2d(channels, BOTTLENECK * growth, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(BOTTLENECK * growth)
        self.conv2 = nn.Conv2d(BOTTLENECK * growth, growth, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        narrow = self.conv1(torch.relu_(self.norm1(x)))
        return torch.cat((x, self.conv2(torch.relu_(self.norm2(narrow)))), dim=1)


class Transition(nn.Module):
    """BN-ReLU-Conv1×1-AveragePool2: [B,C,H,W] → [B,C·compression,H/2,W/2]."""

    def __init__(self, channels: int):
        super().__init__()
        self.norm = nn.BatchNorm2d(channels)
        self.conv = nn.Conv2d(channels, int(channels * COMPRESSION), 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.avg_pool2d(self.conv(torch.relu_(self.norm(x))), 2)


class DenseNet(nn.Module):
    """Backbone: [B,1,48,48] → [B,channels,H,W] with H = W = 12 / stem_stride, after a last BN-ReLU.

    channels : the number of output maps. For layers (6,6,6): 352 at growth 32 and 132 at growth 12;
        for (6,12,24) at growth 32: 1024.
    """

    def __init__(self, layers: tuple[int, ...], growth: int, stem_stride: int = 1):
        super().__init__()
        channels = 2 * growth
        parts: list[nn.Module] = [nn.Conv2d(1, channels, 3, stride=stem_stride, padding=1, bias=False)]
        for block, count in enumerate(layers):
            for _ in range(count):
                parts.append(DenseLayer(channels, growth))
                channels += growth
            if block < len(layers) - 1:
                parts.append(Transition(channels))
                channels = int(channels * COMPRESSION)
        self.body = nn.Sequential(*parts)
        self.norm = nn.BatchNorm2d(channels)
        self.channels = channels
        # He et al. 2015, as the DenseNet code does; gradients stay of one size through the ReLUs.
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)

    def forward(self, x: Tensor) -> Tensor:
        if self.training and torch.compiler.is_compiling():
            return self.sharing(x)
        return torch.relu_(self.norm(self.body(x)))

    def sharing(self, x: Tensor) -> Tensor:
        """The same in training, with each channel's batch statistics computed once: what is compiled."""
        stem, *rest = self.body
        exact, epsilon = self.norm.weight.dtype, self.norm.eps
        parts: list[Tensor] = []
        known: list[Statistics] = []

        def produced(channels: Tensor) -> None:
            parts.append(channels)
            known.append(statistics(channels, exact, epsilon))

        produced(stem(x))
        for layer in rest:
            before, own = torch.cat(parts, dim=1), joined(known)
            if isinstance(layer, DenseLayer):
                narrow = layer.conv1(normalised(layer.norm1, before, own))
                produced(layer.conv2(normalised(layer.norm2, narrow, statistics(narrow, exact, epsilon))))
            else:
                assert isinstance(layer, Transition)
                parts.clear()
                known.clear()
                produced(nn.functional.avg_pool2d(layer.conv(normalised(layer.norm, before, own)), 2))
        return normalised(self.norm, torch.cat(parts, dim=1), joined(known))
