"""The same networks in fewer operations, for inference alone: what a batch normalisation with fixed statistics
and a convolution do one after the other is one convolution.

Three equalities, exact but for rounding. BN with fixed statistics is s·x + b for each channel, s = γ/√(v + ε)
and b = β − s·m (Ioffe & Szegedy 2015, Algorithm 2).

- A convolution, then s·x + b: a convolution with weights s·W and a bias.
- relu(s·x + b) = s·max(x, −b/s) + b where s > 0, and s·min(x, −b/s) + b where s < 0; a 1×1 convolution
  after it takes the s and the b into its weights and bias. One comparison is left of three operations.
- A 1×1 convolution and an average over 2×2 pixels are linear and act on different axes, so the average
  comes first and the convolution has a quarter of the work.
"""

import copy
from typing import TypeVar

import torch
from torch import Tensor, nn

from ferbench.methods.wslgan.densenet import DenseLayer, Transition

M = TypeVar("M", bound=nn.Module)


def folded(module: M) -> M:
    """Return a copy that gives the same logits and maps (up to rounding) with fewer operations.

    The folding is done in float64. The copy is for inference; its layers have no statistics left to train.
    """
    module = copy.deepcopy(module)
    for parent in list(module.modules()):
        for name, child in parent.named_children():
            if isinstance(child, DenseLayer):
                setattr(parent, name, FoldedLayer(child))
            elif isinstance(child, Transition):
                setattr(parent, name, FoldedTransition(child))
    return module


class Threshold(nn.Module):
    """What is left of BN-ReLU before a 1×1 convolution: [B,C,H,W] → the larger (smaller, where γ < 0) of
    each value and its channel's threshold."""

    def __init__(self, low: Tensor, high: Tensor):
        super().__init__()
        self.register_buffer("low", low[:, None, None])
        # None where no channel's γ is negative, as in every network trained so far: one pass less.
        self.register_buffer("high", high[:, None, None] if bool(high.isfinite().any()) else None)

    low: Tensor
    high: Tensor | None

    def forward(self, x: Tensor) -> Tensor:
        x = torch.maximum(x, self.low)
        return x if self.high is None else torch.minimum(x, self.high)


class FoldedLayer(nn.Module):
    """A :class:`DenseLayer` with its batch normalisations folded away: [B,C,H,W] → [B,C+growth,H,W]."""

    def __init__(self, layer: DenseLayer):
        super().__init__()
        scale, shift = affine(layer.norm2)
        self.threshold, self.conv1 = _threshold_conv(layer.norm1, layer.conv1, scale, shift)
        self.conv2 = layer.conv2

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat((x, self.conv2(torch.relu_(self.conv1(self.threshold(x))))), dim=1)


class FoldedTransition(nn.Module):
    """A :class:`Transition` that averages first: [B,C,H,W] → [B,C·compression,H/2,W/2]."""

    def __init__(self, layer: Transition):
        super().__init__()
        self.threshold, self.conv = _threshold_conv(layer.norm, layer.conv)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(nn.functional.avg_pool2d(self.threshold(x), 2))


def affine(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """The s and b [C], in float64, of a batch normalisation with fixed statistics."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
    return scale, norm.bias.double() - scale * norm.running_mean.double()


def _threshold_conv(
    norm: nn.BatchNorm2d, conv: nn.Conv2d, after: Tensor | None = None, offset: Tensor | None = None
) -> tuple[Threshold, nn.Conv2d]:
    """relu(norm(x)) → conv → (after·y + offset) as a threshold and one 1×1 convolution with bias."""
    scale, shift = affine(norm)
    dead = scale == 0  # relu(b), whatever x is
    turn = -shift / scale.where(~dead, torch.ones_like(scale))
    infinite = torch.full_like(turn, torch.inf)
    low = torch.where(scale > 0, turn, torch.where(dead, torch.zeros_like(turn), -infinite))
    high = torch.where(scale < 0, turn, torch.where(dead, torch.zeros_like(turn), infinite))
    weight = conv.weight.double().flatten(1)  # [out, in]
    bias = weight @ torch.where(dead, shift.clamp_min(0), shift)
    weight = weight * scale
    if after is not None and offset is not None:
        weight, bias = after[:, None] * weight, after * bias + offset
    kind = conv.weight.dtype
    made = nn.Conv2d(conv.in_channels, conv.out_channels, 1).to(kind).requires_grad_(False)
    made.weight.copy_(weight[:, :, None, None])
    made.bias.copy_(bias)  # type: ignore[union-attr]
    return Threshold(low.to(kind), high.to(kind)), made
