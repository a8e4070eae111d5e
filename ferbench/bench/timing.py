"""The clock and its statistics: warm-up to steadiness, medians with intervals, the limits of the machine, and how long
``ferbench bench`` will take."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ferbench.bench import INFERENCE, TRAINING, workloads
from ferbench.bench.accuracy import accuracy_cell
from ferbench.bench.workloads import IMAGES, Cell, costs, existing_baselines, images_of

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


# From the records behind reports/speed.md, correct within a factor of two: the share of the memory's measured ceiling
# that calls reach, and the additional seconds of any call.
_SHARE, _CALL = 0.06, 0.002
# Relative to a step with tables: the plain one runs the frozen networks too, baselines also read pictures by PIL.
_SLOWER = {"fast": 1.0, "searched": 1.0, "compiled": 0.8, "plain": 2.0, "naive": 3.0, "strong": 2.0}
_BUILD = {"torch": 0.5, "onnxruntime": 1.5, "openvino": 3.0}  # seconds, once
_COMPILED, _COMPILATION = ("compiled", "strong"), 120.0  # seconds for each batch shape
_PREPARATION = 2.0  # seconds of a call
_FLOAT64 = 4.0  # times as long as the row itself


def expected_seconds(
    groups: Iterable[Sequence[Cell]],
    baselines: Sequence[str],
    blocks: int,
    block: float,
    warmest: float,
    ceilings: Mapping[str, Mapping[str, float]],
    tested: int = 0,
) -> float:
    """Return the approximate seconds that timing some groups of cells takes.

    baselines : reference loops. blocks, block : their number and seconds. warmest : maximum seconds of a warm-up.
    tested : images on which each :func:`accuracy_cell` is tested afterwards.
    """
    total = 0.0
    if tested:
        for cell in {accuracy_cell(cell) for group in groups for cell in group if cell.what == "inference"}:
            total += _BUILD[cell.backend] + tested / cell.batch * _call(cell, ceilings, cell.engine)
    for group in groups:
        for cell in group:
            call = _call(cell, ceilings, cell.engine)
            # The comparison has another batch shape, which is compiled for too.
            total += _BUILD[cell.backend] + 2 * _compilation(cell.engine) + _comparison(cell, call)
            total += _timed(call, blocks, block, warmest)
        for baseline in existing_baselines(group[0], baselines):
            call = _call(group[0], ceilings, baseline)
            total += _BUILD["torch"] + _compilation(baseline) + _timed(call, blocks, block, warmest)
    return total


def _call(cell: Cell, ceilings: Mapping[str, Mapping[str, float]], engine: str) -> float:
    """Seconds of one call. engine : or the name of a baseline."""
    if cell.what not in (*INFERENCE, *TRAINING):
        return _PREPARATION
    images = IMAGES if cell.what == "epoch" else 2 * cell.batch if cell.what in TRAINING else images_of(cell)
    moved = costs(cell)[1] * images
    slower = _SLOWER[engine] if cell.what in TRAINING else 1.0
    return _CALL + slower * moved / (_SHARE * ceilings[cell.precision]["bytes_per_s"])


def _compilation(engine: str) -> float:
    return _COMPILATION if engine in _COMPILED else 0.0


def _timed(call: float, blocks: int, block: float, warmest: float) -> float:
    """A cold call; a warm-up in windows of half a block until some agree, which on a shared machine takes three times
    the minimum; and the blocks, each of which ends with a whole call."""
    return call + min(warmest, 3 * WINDOWS * max(block / 2, call)) + blocks * (max(block, call) + min(block, call) / 2)


def _comparison(cell: Cell, call: float) -> float:
    if cell.what in TRAINING:
        return 2 * workloads.STEPS * workloads.PAIRS / cell.batch * call
    return workloads.FRESH / images_of(cell) * call * (1 + _FLOAT64) if cell.what in INFERENCE else 0.0
