"""The clock and its statistics: warm-up to steadiness, medians with intervals, and the limits of the machine."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

WINDOWS, STEADY = 3, 0.02  # warm: so many windows in a row within this share of each other
RESAMPLES = 2000  # of the bootstrap behind every interval

Call = Callable[[], object]


@dataclass(frozen=True)
class Median:
    """A median with its 95 % interval, by bootstrap over blocks."""

    median: float
    low: float
    high: float


def synchronise(device: str) -> None:
    """Wait for all work on a device; a CPU has none left when a call returns."""
    if device == "cuda":
        torch.cuda.synchronize()


def warm_up(call: Call, device: str, window: float, cap: float) -> float:
    """Call until three windows in a row agree within 2 %, for ``cap`` seconds at most.

    Returns the seconds of the very first call (the cold start: compilation, caches, allocation).
    """
    start = time.perf_counter()
    call()
    synchronise(device)
    cold = time.perf_counter() - start
    rates: list[float] = []
    while time.perf_counter() - start < cap:
        rates.append(rate(call, device, window))
        last = rates[-WINDOWS:]
        if len(last) == WINDOWS and max(last) - min(last) <= STEADY * min(last):
            break
    return cold


def rate(call: Call, device: str, seconds: float) -> float:
    """Calls per second, back to back for at least ``seconds``, the device waited for at the end only."""
    synchronise(device)
    start, calls = time.perf_counter(), 0
    while True:
        call()
        calls += 1
        if time.perf_counter() - start >= seconds:
            break
    synchronise(device)
    return calls / (time.perf_counter() - start)


def latencies(call: Call, device: str, seconds: float) -> list[float]:
    """Seconds of single calls, each waited for, the next sent when the last has returned."""
    taken: list[float] = []
    begin = time.perf_counter()
    while not taken or time.perf_counter() - begin < seconds:
        start = time.perf_counter()
        call()
        synchronise(device)
        taken.append(time.perf_counter() - start)
    return taken


def percentile(values: Sequence[float], percent: float) -> float | None:
    """A percentile, or None where fewer than ten values lie beyond it; for the median, of fewer than three values."""
    needed = 3 if percent == 50 else 10 / (1 - percent / 100)
    return float(np.percentile(values, percent)) if len(values) >= needed else None


def median(values: Sequence[float], seed: int = 0) -> Median:
    """The median of blocks and its interval; for one block the interval is its value."""
    array = np.asarray(values, dtype=np.float64)
    draws = np.median(_resampled(array, seed), axis=1)
    low, high = np.percentile(draws, [2.5, 97.5])
    return Median(float(np.median(array)), float(low), float(high))


def ratio(ours: Sequence[float], baseline: Sequence[float], seed: int = 0) -> Median:
    """Median of ours over the median of the baseline's, with an interval by bootstrap over the blocks of both."""
    a, b = np.asarray(ours, dtype=np.float64), np.asarray(baseline, dtype=np.float64)
    draws = np.median(_resampled(a, seed), axis=1) / np.median(_resampled(b, seed + 1), axis=1)
    low, high = np.percentile(draws, [2.5, 97.5])
    return Median(float(np.median(a) / np.median(b)), float(low), float(high))


def _resampled(values: np.ndarray, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return values[rng.integers(0, len(values), (RESAMPLES, len(values)))]


_SIZES = {"cpu": (1024, 64 << 20), "cuda": (8192, 4 << 30)}  # rows of the square product; bytes of the copy
_SECONDS = 1.0  # of repetitions: a shared CPU reaches its best only now and then
_TYPES = {"fp32": torch.float32, "tf32": torch.float32, "bf16": torch.bfloat16}


def ceilings(device: str, precision: str) -> dict[str, float]:
    """Measure the best that the device reaches: FLOP/s of a large square product, bytes/s of a large copy."""
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
    taken: list[float] = []
    begin = time.perf_counter()
    while len(taken) < 5 or time.perf_counter() - begin < _SECONDS:
        start = time.perf_counter()
        call()
        synchronise(device)
        taken.append(time.perf_counter() - start)
    return min(taken)
