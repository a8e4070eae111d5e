"""What the machine can do at most, measured in the same run as what is held against it."""

import time
from collections.abc import Callable

import torch

from ferbench.bench.timing import synchronise

_SIZES = {"cpu": (1024, 64 << 20), "cuda": (8192, 4 << 30)}  # rows of the square product; bytes of the copy
_SECONDS = 1.0  # of trying: a shared CPU reaches its best now and then only
_TYPES = {"fp32": torch.float32, "tf32": torch.float32, "bf16": torch.bfloat16}


def ceilings(device: str, precision: str) -> dict[str, float]:
    """Measure what the device does at best: FLOP/s of a large square product, bytes/s of a large copy."""
    size, volume = _SIZES[device]
    kind = _TYPES[precision]
    a, b = (torch.randn(size, size, device=device).to(kind) for _ in range(2))
    source = torch.ones(volume // 4, device=device)
    target = torch.empty_like(source)
    return {
        "flops_per_s": 2 * size**3 / _best(lambda: a @ b, device),
        "bytes_per_s": 2 * volume / _best(lambda: target.copy_(source), device),
    }


def _best(call: Callable[[], object], device: str) -> float:
    call()
    synchronise(device)
    found: list[float] = []
    begin = time.perf_counter()
    while len(found) < 5 or time.perf_counter() - begin < _SECONDS:
        start = time.perf_counter()
        call()
        synchronise(device)
        found.append(time.perf_counter() - start)
    return min(found)
