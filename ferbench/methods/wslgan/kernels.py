"""The two operations of a folded DenseNet, written into memory that is already allocated.

Maps lie as [G,B,H,W,C]: G networks of one shape side by side, their channels innermost (NHWC), each pixel's row at a
whole number of 16 channels, so that rows begin at whole 16-byte words. ``out`` may be some of the channels of a larger
buffer: a dense layer writes its maps beside those that it has read, and nothing is concatenated.

Here they are in torch's own operations; where x is on CUDA and triton is installed, ``tiles`` replaces them.
"""

from functools import cache
from types import ModuleType

import torch
from torch import Tensor, nn

ROW = 16  # channels to whose multiple a pixel's row is rounded up


def padded(channels: int) -> int:
    """Channels of a pixel's row that holds so many."""
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

    For each pixel c values are read and N / pool² written, the least there is. The BN is one multiply-add in fp32
    and not the threshold of ``folded``: a threshold leaves −b/s in the product where the ReLU's result is 0, and bf16
    rounds it.
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

    For each pixel C values come from memory, and 8 C more from the caches, and N / stride² are written. A dense layer
    moves c + 4k and 4k + k in its two calls, c + 9k in all: the floor of a layer whose two convolutions are a kernel
    each (``cost``).
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
    """The same operations in Triton, where they can run; sums there are in fp32."""
    return _triton() if x.is_cuda and x.dtype != torch.float64 else None


@cache
def _triton() -> ModuleType | None:
    try:
        from ferbench.methods.wslgan import tiles
    except ImportError:
        return None
    return tiles
