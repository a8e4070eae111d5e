"""The DenseNet-BC backbone of both the Attention Map Generator and the Feature Extractor.

Section III-A: "a variant of DenseNet [25]. It consists of 3 dense blocks and 2 transition layers", with (6, 12, 24)
dense layers in the AMG and (6, 6, 6) in the FE. The paper does not give growth rate, bottleneck and stem; the defaults
are those of DenseNet-121 without its fourth block (growth 32, bottleneck 4·growth, compression 0.5, 2·growth channels
after the stem) with the 3×3 stride-1 stem of DenseNet for small images (Huang et al. 2017, section 4.1).

In a dense block every layer normalises all previous channels again, with the same batch statistics. A compiled training
step therefore computes the statistics of each channel once (:meth:`DenseNet.sharing`). Batch normalisation and ReLU are
then one function with the backward pass of Ioffe & Szegedy 2015, section 3, which a compiler implements by two passes
over memory in each direction. Without compilation this is slower than the batch normalisation of torch.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

_PIXELS = (0, 2, 3)  # axes of [B,C,H,W] over which the statistics of a channel are taken


class Statistics(NamedTuple):
    """Mean, biased variance and 1/√(variance + ε) of each channel over a batch, [C] each. They have no gradients;
    the backward pass of :func:`normalised` includes them."""

    mean: Tensor
    variance: Tensor
    inverse: Tensor


def statistics(x: Tensor, exact: torch.dtype, epsilon: float) -> Statistics:
    """The statistics of a batch [B,C,H,W] in one pass. exact : the dtype of the sums.

    The variance is E[(x - k)²] - E[x - k]² with a value k of the channel; with k = 0 it would lose precision if the
    mean is large.
    """
    with torch.no_grad():
        values = x.detach().to(exact)
        shift = values[:1, :, :1, :1]
        values = values - shift
        mean = values.mean(_PIXELS)
        variance = (values.square().mean(_PIXELS) - mean.square()).clamp(min=0)
        return Statistics(mean + shift.flatten(), variance, torch.rsqrt(variance + epsilon))


def concatenated(parts: list[Statistics]) -> Statistics:
    """The statistics of channels side by side."""
    return Statistics(*(torch.cat(columns) for columns in zip(*parts, strict=True)))


def normalised(norm: nn.BatchNorm2d, x: Tensor, batch: Statistics) -> Tensor:
    """ReLU(BN(x)) of a batch [B,C,H,W] by its statistics, as in training; updates the running ones of ``norm``.

    batch : the statistics of x, with the ε of ``norm``.
    """
    running_mean, running_variance, batches = norm.running_mean, norm.running_var, norm.num_batches_tracked
    assert running_mean is not None
    assert running_variance is not None
    assert batches is not None
    assert norm.momentum is not None
    with torch.no_grad():
        count = x.numel() // x.shape[1]
        running_mean.lerp_(batch.mean, norm.momentum)
        running_variance.lerp_(batch.variance * (count / (count - 1)), norm.momentum)  # unbiased, as torch keeps it
        batches.add_(1)
    return _NormReLU.apply(x, norm.weight, norm.bias, batch.mean, batch.inverse)  # type: ignore[no-untyped-call]


class _NormReLU(torch.autograd.Function):
    """max(0, γ·x̂ + β) with x̂ = (x - mean) · inverse. The gradient of x includes those of mean and variance.

    There is no division and no root, because a compiler repeats them at every pixel, where they would dominate.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, gamma: Tensor, beta: Tensor, mean: Tensor, inverse: Tensor) -> Tensor:
        y = torch.relu((x.to(gamma.dtype) - _wide(mean)) * _wide(gamma * inverse) + _wide(beta)).to(x.dtype)
        ctx.save_for_backward(x, y, gamma, mean, inverse)
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, y, gamma, mean, inverse = ctx.saved_tensors
        share = x.shape[1] / x.numel()
        given = torch.where(y > 0, gradients[0], 0).to(gamma.dtype)
        centred = x.to(gamma.dtype) - _wide(mean)
        beta, slope = _sums(given), _sums(given * centred) * inverse
        gradient = given - _wide(beta * share) - centred * _wide(slope * inverse * share)
        return (gradient * _wide(gamma * inverse)).to(x.dtype), slope, beta, None, None


def _sums(values: Tensor) -> Tensor:
    """Sums of [B,C,H,W] over all axes but channels, image by image: compiled code reads its input once for every 32
    channels, and one image stays in the processor's cache."""
    return values.sum((2, 3)).sum(0)


def _wide(values: Tensor) -> Tensor:
    """One value for each channel [C] → [1,C,1,1]."""
    return values[None, :, None, None]


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
        # He et al. 2015, as in the code of DenseNet: gradients keep their magnitude through the ReLUs.
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)

    def forward(self, x: Tensor) -> Tensor:
        if self.training and torch.compiler.is_compiling():
            return self.sharing(x)
        return torch.relu_(self.norm(self.body(x)))

    def sharing(self, x: Tensor) -> Tensor:
        """:meth:`forward` in training for compilation, with the batch statistics of each channel computed once."""
        stem, *rest = self.body
        exact, epsilon = self.norm.weight.dtype, self.norm.eps
        parts: list[Tensor] = []
        known: list[Statistics] = []

        def produced(channels: Tensor) -> None:
            parts.append(channels)
            known.append(statistics(channels, exact, epsilon))

        produced(stem(x))
        for layer in rest:
            before, batch = torch.cat(parts, dim=1), concatenated(known)
            if isinstance(layer, DenseLayer):
                narrow = layer.conv1(normalised(layer.norm1, before, batch))
                produced(layer.conv2(normalised(layer.norm2, narrow, statistics(narrow, exact, epsilon))))
            else:
                assert isinstance(layer, Transition)
                parts.clear()
                known.clear()
                produced(nn.functional.avg_pool2d(layer.conv(normalised(layer.norm, before, batch)), 2))
        return normalised(self.norm, torch.cat(parts, dim=1), concatenated(known))
