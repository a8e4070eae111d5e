"""Costs of a pass of a network: floating-point operations, and seconds on this machine."""

import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor, nn

from ferbench.training.device import Device

FORWARD = 1 / 3  # of a training pass: the backward pass computes two gradients, each as much work as the forward one
_CALLS, _SECONDS, _LONGEST = 4, 0.5, 3.0  # minimum number of timed calls, their minimum and maximum total seconds


def flops(module: nn.Module, inputs: tuple[Tensor, ...]) -> int:
    """Count the FLOPs of one forward pass of a batch: 2 for each multiply-add of convolutions and products; a training
    pass is three forward passes."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter, torch.no_grad():
        module(*inputs)
    return counter.get_total_flops()


def seconds_of(prepare: Callable[[], Callable[[], object]], device: Device, threads: int, most: int = 0) -> float:
    """Return the median seconds of a call on ``threads`` CPU threads.

    On a CPU the remaining threads of this process make the same call at the same time, as parallel trainings do,
    because cores share caches and memory bandwidth.

    prepare : returns a call; it is called once for each parallel call. most : maximum number of threads of a call, 0:
    no maximum.
    """
    before = torch.get_num_threads()
    copies = max(1, before // max(1, threads)) if device.name == "cpu" else 1
    calls = [prepare() for _ in range(copies)]

    def timed(call: Callable[[], object]) -> float:
        torch.set_num_threads(
            max(1, min(threads, most or threads))
        )  # OpenMP keeps the number for each thread separately
        taken: list[float] = []
        began = time.perf_counter()
        while True:
            start = time.perf_counter()
            call()
            if device.name == "cuda":
                torch.cuda.synchronize()
            taken.append(time.perf_counter() - start)
            spent = time.perf_counter() - began
            if spent > _LONGEST or (len(taken) >= _CALLS and spent > _SECONDS):
                return statistics.median(taken[1:] or taken)  # the first call allocates memory

    try:
        if copies == 1:
            return timed(calls[0])
        with ThreadPoolExecutor(copies) as pool:
            return max(pool.map(timed, calls))
    finally:
        torch.set_num_threads(before)
