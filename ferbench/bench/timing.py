"""The clock and its statistics: warm-up to steadiness, blocks in shuffled order, medians with intervals."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

LOOKS, STEADY = 3, 0.02  # so many windows in a row within this share of each other: warm
RESAMPLES = 2000  # of the bootstrap behind every interval

Call = Callable[[], object]


@dataclass(frozen=True)
class Estimate:
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
        last = rates[-LOOKS:]
        if len(last) == LOOKS and max(last) - min(last) <= STEADY * min(last):
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
    found: list[float] = []
    begin = time.perf_counter()
    while not found or time.perf_counter() - begin < seconds:
        start = time.perf_counter()
        call()
        synchronise(device)
        found.append(time.perf_counter() - start)
    return found


def percentile(values: Sequence[float], percent: float) -> float | None:
    """A percentile, or None where too few values lie beyond it (fewer than ten) to speak of it.

    The median needs three values.
    """
    needed = 3 if percent == 50 else 10 / (1 - percent / 100)
    return float(np.percentile(values, percent)) if len(values) >= needed else None


def estimate(values: Sequence[float], seed: int = 0) -> Estimate:
    """The median of blocks and its interval. One block has no interval but itself."""
    array = np.asarray(values, dtype=np.float64)
    draws = np.median(_resampled(array, seed), axis=1)
    low, high = np.percentile(draws, [2.5, 97.5])
    return Estimate(float(np.median(array)), float(low), float(high))


def ratio(ours: Sequence[float], peer: Sequence[float], seed: int = 0) -> Estimate:
    """Median of ours over median of the peer's, blocks of both drawn anew for the interval."""
    a, b = np.asarray(ours, dtype=np.float64), np.asarray(peer, dtype=np.float64)
    draws = np.median(_resampled(a, seed), axis=1) / np.median(_resampled(b, seed + 1), axis=1)
    low, high = np.percentile(draws, [2.5, 97.5])
    return Estimate(float(np.median(a) / np.median(b)), float(low), float(high))


def _resampled(values: np.ndarray, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return values[rng.integers(0, len(values), (RESAMPLES, len(values)))]
