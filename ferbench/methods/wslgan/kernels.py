"""The two operations of a folded DenseNet, which write into allocated memory.

Maps are [G,B,H,W,C]: G networks of the same shape with channels last (NHWC). The row of a pixel is padded to a multiple
of 16 channels, so that rows begin at 16-byte words. ``out`` may be a part of the channels of a larger buffer: a dense
layer writes its maps beside its inputs, without a concatenation.

This is the implementation by operations of torch; ``tiles`` replaces it if x is on CUDA and triton is installed.
"""

from functools import cache
from types import ModuleType

import torch
from torch import Tensor, nn

ROW = 16  # channels to whose multiple a pixel's row is rounded up


def padded(channels: int) -> int:
    """Length of the row of a pixel with ``channels`` channels."""
    return -(-channels // ROW) * ROW


def pointwise(
    x: Tensor,
    scale: Tensor,
    shift: Tensor,
    weight: Tensor,
    bias: Tensor,
    out: Tensor,
    channels: int,
    relu: bool = False,
    pool: int = 1,
) -> None:
    """BN-ReLU, mean over pool × pool pixels, 1×1 convolution with bias, and ReLU if ``relu`` is set.

    x : [G,B,H,W,·], of which the first ``channels`` = c are read. scale, shift : [G,c'] of the batch normalisation,
    c' = padded(c). weight : [G,c',N'] in x's precision, N' = padded(N). bias : [G,N']. out : [G,B,H/pool,W/pool,N]
    is written.

    For each pixel c values are read and N / pool² written, which is the minimum. The BN is a multiply-add in fp32, not
    the threshold of ``folded``, which would leave −b/s, rounded to bf16, in the product wherever the ReLU gives 0.
    """
    if triton_kernels := _tiles(x):
        return triton_kernels.pointwise(x, scale, shift, weight, bias, out, channels, relu, pool)
    each = slice(None), None, None, None, slice(channels)
    active = torch.relu(x[..., :channels] * scale[each] + shift[each])
    if pool > 1:
        active = active.unflatten(3, (-1, pool)).unflatten(2, (-1, pool)).mean(dim=(3, 5))
    product = (
        active.to(weight.dtype).flatten(1, 3) @ weight[:, :channels, : out.shape[4]] + bias[:, None, : out.shape[4]]
    )
    out.copy_((torch.relu(product) if relu else product).unflatten(1, out.shape[1:4]))


def conv3(x: Tensor, weight: Tensor, out: Tensor, stride: int = 1) -> None:
    """3×3 convolution, zeros around, without bias.

    x : [G,B,H,W,·], of which the first C are read. weight : [G,9,C,N'] in x's precision, N' = padded(N). out :
    [G,B,H/stride,W/stride,N] is written.

    For each pixel C values are read from memory and 8 C from caches, and N / stride² are written. A dense layer moves
    c + 4k and 4k + k elements in its two calls: the minimum for one kernel per convolution (``cost``).
    """
    if triton_kernels := _tiles(x):
        return triton_kernels.conv3(x, weight, out, stride)
    for maps, kernel, target in zip(x, weight, out, strict=True):
        kernel = kernel[..., : out.shape[4]].permute(2, 1, 0).unflatten(2, (3, 3))
        convolved = nn.functional.conv2d(maps[..., : kernel.shape[1]].permute(0, 3, 1, 2), kernel, None, stride, 1)
        target.copy_(convolved.permute(0, 2, 3, 1))


def fused(device: str) -> bool:
    """Whether each operation is one kernel on a device."""
    return device == "cuda" and _triton() is not None


def _tiles(x: Tensor) -> ModuleType | None:
    """The same operations in Triton, with sums in fp32; None if they cannot run on ``x``."""
    return _triton() if x.is_cuda and x.dtype != torch.float64 else None


@cache
def _triton() -> ModuleType | None:
    try:
        from ferbench.methods.wslgan import tiles
    except ImportError:
        return None
    return tiles
