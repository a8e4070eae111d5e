"""What one pass of a network costs in floating-point operations."""

import torch
from torch import Tensor, nn


def flops(module: nn.Module, inputs: tuple[Tensor, ...]) -> int:
    """Count the FLOPs of one forward pass of a batch: 2 for each multiply-add of convolutions and products; a training
    pass is three forward passes."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter, torch.no_grad():
        module(*inputs)
    return counter.get_total_flops()
