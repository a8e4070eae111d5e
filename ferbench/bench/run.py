"""What ``ferbench bench`` does: cells are made ready, timed in turns, checked, and written down."""

import resource
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from math import isfinite
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

from ferbench.bench import timing
from ferbench.bench.energy import Meter
from ferbench.bench.roofline import ceilings
from ferbench.bench.server import largest_rate
from ferbench.bench.timing import Estimate
from ferbench.bench.workloads import INFERENCE, TRAINING, WHATS, Cell, Workload, build
from ferbench.environment import describe_device
from ferbench.errors import UsageError
from ferbench.methods import PRESETS
from ferbench.runs.speed import SpeedRecord, SpeedRow
from ferbench.training.device import ENGINES, Device

SCENARIOS = ("single-stream", "offline", "server")
BACKENDS = ("torch", "onnxruntime")
PEERS = ("naive", "strong")
MODES = {"quick": (3, 0.25), "standard": (7, 2.0)}  # blocks, seconds of a block
_WARMEST = {"quick": 2.0, "standard": 30.0}  # seconds that warming up may take

Tick = Callable[[int, int, str], None]


@dataclass(frozen=True)
class BenchOptions:
    """The options of ``ferbench bench``; every combination of the lists is one row."""

    whats: tuple[str, ...] = ("inference", "step")
    methods: tuple[str, ...] = ("wslgan",)
    presets: tuple[str, ...] = ("tiny",)
    engines: tuple[str, ...] = ("fast",)
    precisions: tuple[str, ...] = ("fp32",)
    backends: tuple[str, ...] = ("torch",)
    batches: tuple[int, ...] = (1, 32)
    scenarios: tuple[str, ...] = ("single-stream", "offline")
    peers: tuple[str, ...] = ()
    device: str = "auto"
    threads: int | None = None
    bound_ms: float = 100.0
    mode: str = "standard"
    seed: int = 0


def run(options: BenchOptions, tick: Tick) -> SpeedRecord:
    """Time every cell of the options. Raises UsageError for options or combinations that do not exist."""
    _known(options)
    if options.threads:
        torch.set_num_threads(options.threads)
    device = options.device
    for precision in options.precisions:
        device = Device.chosen(device, precision).name
    cells = list(_cells(options, device))
    if not cells:
        raise UsageError("these options combine to nothing that can be timed: see `ferbench bench --help`")
    blocks, seconds = MODES[options.mode]
    measured = {precision: ceilings(device, precision) for precision in dict.fromkeys(c.precision for c in cells)}
    total = len(cells) * (blocks + 1)
    rows = []
    with TemporaryDirectory() as scratch:
        for number, cell in enumerate(cells):
            tick(number * (blocks + 1), total, _title(cell))
            work = build(cell, options.peers if cell.what == "step" else (), Path(scratch))
            progress = lambda done, n=number, c=cell: tick(n * (blocks + 1) + 1 + done, total, _title(c))  # noqa: E731
            rows.append(_row(work, options, blocks, seconds, measured[cell.precision], progress))
    noise = _noise(options.seed)
    return SpeedRecord(
        mode=options.mode, seed=options.seed, environment=describe_device(device, "", ""), ceilings=measured,
        noise=noise, rows=rows,
    )  # fmt: skip


def _known(options: BenchOptions) -> None:
    for name, given, known in (
        ("what", options.whats, WHATS), ("preset", options.presets, PRESETS), ("engine", options.engines, ENGINES),
        ("backend", options.backends, BACKENDS), ("scenario", options.scenarios, SCENARIOS),
        ("peer", options.peers, PEERS), ("mode", (options.mode,), tuple(MODES)),
    ):  # fmt: skip
        for value in given:
            if value not in known:
                raise UsageError(f"unknown {name} {value!r}: it is {', '.join(known)}")
    if options.threads is not None and options.threads < 1:
        raise UsageError("--threads takes a number from 1")
    if any(batch < 1 for batch in options.batches):
        raise UsageError("--batch takes numbers from 1")


def _cells(options: BenchOptions, device: str) -> Iterator[Cell]:
    """Every combination that exists, each once: training has no scenario, preparation has no batch."""
    threads = torch.get_num_threads()
    seen = set()
    for what, method, preset, precision, backend, engine, batch, scenario in product(
        options.whats, options.methods, options.presets, options.precisions, options.backends, options.engines,
        options.batches, options.scenarios,
    ):  # fmt: skip
        if backend == "onnxruntime" and (what, precision, device) != ("inference", "fp32", "cpu"):
            continue  # what is exported is the whole, and in fp32
        if what in INFERENCE:
            if (scenario == "single-stream") != (batch == 1) and scenario != "server":
                continue
            kind = scenario
            # On a CPU torch has one way to run a forward pass, and onnxruntime is the fast one.
            way = ("fast" if backend == "onnxruntime" else "plain") if device == "cpu" else engine
            size = 1 if scenario == "server" else batch
        else:
            kind, way, size = ("training", engine, batch) if what in TRAINING else ("preparation", "plain", 1)
            if what in TRAINING and batch == 1:
                continue  # batch statistics need more than one pair
        cell = Cell(what, method, preset, way, precision if what != "prepare" else "fp32", backend, device, size, kind,
                    threads, options.seed)  # fmt: skip
        if cell not in seen:
            seen.add(cell)
            yield cell


def _title(cell: Cell) -> str:
    return f"{cell.what} {cell.preset} {cell.precision} {cell.backend} batch {cell.batch} {cell.scenario}"


def _row(
    work: Workload, options: BenchOptions, blocks: int, seconds: float, ceiling: dict[str, float],
    progress: Callable[[int], None],
) -> SpeedRow:  # fmt: skip
    cell = work.cell
    if cell.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    contenders = {"ours": work.call, **work.peers}
    cap = _WARMEST[options.mode]
    cold = {name: timing.warm_up(call, cell.device, seconds / 2, cap) for name, call in contenders.items()}
    rates: dict[str, list[float]] = defaultdict(list)
    single: list[float] = []
    meter, used, spent = Meter(), 0, 0
    order = np.random.default_rng(options.seed)
    for block in range(blocks):
        for name in order.permutation(list(contenders)):
            before = meter.millijoules()
            if cell.scenario == "offline" or name != "ours":
                rates[name].append(timing.rate(contenders[name], cell.device, seconds))
            else:
                calls = timing.latencies(work.call, cell.device, seconds)
                single += calls
                rates[name].append(len(calls) / sum(calls))
            after = meter.millijoules()
            if name == "ours" and before is not None and after is not None:
                used, spent = used + after - before, spent + round(rates[name][-1] * seconds * work.images)
        progress(block + 1)
    speed = _scaled(timing.estimate(rates["ours"], options.seed), work.images)
    extra: dict[str, float | None] = {}
    if cell.scenario == "server":
        speed, extra = _served(cell, options, seconds)
    elif single:
        extra = {f"p{p}_ms": _milli(timing.percentile(single, p)) for p in (50, 90, 99)}
    for name in work.peers:
        found = timing.ratio(rates["ours"], rates[name], options.seed)
        extra |= {f"ratio_{name}": found.median, f"ratio_{name}_low": found.low, f"ratio_{name}_high": found.high}
    if work.flops and work.bytes and cell.scenario != "server":
        extra |= {
            "gflop_per_image": work.flops / 1e9, "mb_per_image": work.bytes / 1e6,
            "share_of_flops": speed.median * work.flops / ceiling["flops_per_s"],
            "share_of_bytes": speed.median * work.bytes / ceiling["bytes_per_s"],
        }  # fmt: skip
    if work.check is not None:
        verdict = work.check()
        extra |= {
            "error": verdict.error if isfinite(verdict.error) else None,
            "agree": verdict.agree,
            "bound": verdict.bound,
        }
        valid = verdict.valid
    else:
        valid = True
    return SpeedRow(
        what=cell.what, method=cell.method, preset=cell.preset, engine=cell.engine, precision=cell.precision,
        backend=cell.backend, device=cell.device, threads=cell.threads, batch=work.images, scenario=cell.scenario,
        blocks=blocks, calls=len(single) or round(sum(rates["ours"]) * seconds), images_per_s=speed.median,
        images_per_s_low=speed.low, images_per_s_high=speed.high, cold_start_s=cold["ours"], peak_mb=_peak(cell.device),
        joules_per_1000=used / spent if spent else None, valid=valid, **extra,
    )  # fmt: skip


def _served(cell: Cell, options: BenchOptions, seconds: float) -> tuple[Estimate, dict[str, float | None]]:
    """Measure calls of every batch that the server may form, then search the largest rate under the bound."""
    service = {}
    for batch in sorted({1, *options.batches}):
        sized = build(Cell(**{**cell.__dict__, "batch": batch}), (), Path())
        timing.warm_up(sized.call, cell.device, seconds / 4, _WARMEST[options.mode] / 2)
        service[batch] = timing.latencies(sized.call, cell.device, seconds)
    found = largest_rate(service, options.bound_ms / 1000, options.seed)
    return Estimate(found.rate, found.rate, found.rate), {
        "bound_ms": options.bound_ms,
        **{f"p{p}_ms": _milli(timing.percentile(list(found.latencies), p)) for p in (50, 90, 99)},
    }


def _scaled(found: Estimate, images: int) -> Estimate:
    return Estimate(found.median * images, found.low * images, found.high * images)


def _milli(seconds: float | None) -> float | None:
    return None if seconds is None else 1000 * seconds


def _peak(device: str) -> float:
    """Peak memory in MB: of the row on CUDA, of the whole process so far on a CPU."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def _noise(seed: int) -> float:
    """Hold one thing against itself, as two contenders in turns: what a ratio of equals shows by chance."""
    a, b = torch.randn(256, 256), torch.randn(256, 256)
    rates: dict[int, list[float]] = {0: [], 1: []}
    order = np.random.default_rng(seed)
    for _ in range(7):
        for name in order.permutation([0, 1]):
            rates[int(name)].append(timing.rate(lambda: a @ b, "cpu", 0.05))
    found = timing.ratio(rates[0], rates[1], seed)
    return max(abs(found.high - 1), abs(1 - found.low))
