"""What one pass of a network costs in bytes.

They are those of the dense layers, which are nearly all: a layer with c inputs and k = growth outputs on P pixels
moves (c + 9k)·P elements at inference when each of its two convolutions is one kernel with its normalisation (c read;
4k written and read; k written), and (8c + 39k)·P elements in training with batch statistics computed once for each map
and concatenation into one buffer.
"""

import torch
from torch import Tensor, nn

from ferbench.methods.wslgan.densenet import BOTTLENECK, DenseLayer


def bytes_of(module: nn.Module, inputs: tuple[Tensor, ...], width: int, training: bool) -> int:
    """Bytes that the dense layers of a module move for these inputs, ``width`` bytes an element."""
    moved = 0

    def count(layer: nn.Module, args: tuple[Tensor, ...], out: Tensor) -> None:
        nonlocal moved
        batch, channels, height, length = args[0].shape
        growth = out.shape[1] - channels
        elements = 8 * channels + 39 * growth if training else channels + (2 * BOTTLENECK + 1) * growth
        moved += batch * height * length * elements * width

    handles = [m.register_forward_hook(count) for m in module.modules() if isinstance(m, DenseLayer)]
    with torch.no_grad():
        module(*inputs)
    for handle in handles:
        handle.remove()
    return moved
