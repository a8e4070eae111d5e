"""Batch normalisation for compiled training steps: each channel's statistics are computed once, where it is produced.

In a dense block every layer normalises all channels before it anew (Huang et al. 2017), although their batch statistics
stay what they were. Here they travel with the channels, and batch normalisation and ReLU are one function with the
backward pass of Ioffe & Szegedy 2015, section 3, so that a compiler makes two passes over memory of each direction:
one that sums and one that writes. Carried out operation by operation this is slower than torch's own batch
normalisation.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

_PIXELS = (0, 2, 3)  # of [B,C,H,W]: what a channel's statistics are taken over


class Statistics(NamedTuple):
    """Mean, biased variance and 1/√(variance + ε) of each channel over a batch, [C] each, without gradients: those go
    through :func:`normalised`."""

    mean: Tensor
    variance: Tensor
    inverse: Tensor


def statistics(x: Tensor, exact: torch.dtype, epsilon: float) -> Statistics:
    """The statistics of a batch [B,C,H,W] in one pass. exact : what sums are taken in.

    The variance is E[(x - k)²] - E[x - k]² for k a value of the channel: for k = 0 it would be the small difference of
    large numbers where a mean is large.
    """
    with torch.no_grad():
        values = x.detach().to(exact)
        shift = values[:1, :, :1, :1]
        values = values - shift
        mean = values.mean(_PIXELS)
        variance = (values.square().mean(_PIXELS) - mean.square()).clamp(min=0)
        return Statistics(mean + shift.flatten(), variance, torch.rsqrt(variance + epsilon))


def joined(parts: list[Statistics]) -> Statistics:
    """The statistics of channels side by side."""
    return Statistics(*(torch.cat(of) for of in zip(*parts, strict=True)))


def normalised(norm: nn.BatchNorm2d, x: Tensor, own: Statistics) -> Tensor:
    """ReLU(BN(x)) of a batch [B,C,H,W] by its own statistics, as in training; the running ones of ``norm`` follow.

    own : with the ε of ``norm``.
    """
    running_mean, running_variance, batches = norm.running_mean, norm.running_var, norm.num_batches_tracked
    assert running_mean is not None
    assert running_variance is not None
    assert batches is not None
    assert norm.momentum is not None
    with torch.no_grad():
        count = x.numel() // x.shape[1]
        running_mean.lerp_(own.mean, norm.momentum)
        running_variance.lerp_(own.variance * (count / (count - 1)), norm.momentum)  # unbiased, as torch keeps it
        batches.add_(1)
    return _NormReLU.apply(x, norm.weight, norm.bias, own.mean, own.inverse)  # type: ignore[no-untyped-call]


class _NormReLU(torch.autograd.Function):
    """max(0, γ·x̂ + β) with x̂ = (x - mean) · inverse. The gradient of x counts what its mean and variance change.

    A compiler repeats arithmetic on channels at every pixel, where a division or a root takes longer than all the
    rest. There are therefore none here.
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
        own = given - _wide(beta * share) - centred * _wide(slope * inverse * share)
        return (own * _wide(gamma * inverse)).to(x.dtype), slope, beta, None, None


def _sums(values: Tensor) -> Tensor:
    """Sums of [B,C,H,W] over all but channels. A compiler goes through what it sums once for every 32 channels: of one
    image at a time, so that the processor's cache still holds it."""
    return values.sum((2, 3)).sum(0)


def _wide(values: Tensor) -> Tensor:
    """One value for each channel [C] → [1,C,1,1]."""
    return values[None, :, None, None]
