"""What ``ferbench bench`` does: cells are made ready, timed in turns, checked, and written down."""

import resource
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from math import isfinite
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from ferbench import DEFAULT_METHOD
from ferbench.bench import accuracy, expected, timing
from ferbench.bench.energy import Meter
from ferbench.bench.roofline import ceilings
from ferbench.bench.server import largest_rate
from ferbench.bench.timing import Estimate
from ferbench.bench.workloads import INFERENCE, TRAINING, WHATS, Cell, Workload, build, loaders, peers
from ferbench.environment import describe_device
from ferbench.errors import UsageError
from ferbench.runs.speed import SpeedRecord, SpeedRow
from ferbench.training.device import ENGINES, PRECISIONS, Device

SCENARIOS = ("single-stream", "offline", "server")
BACKENDS = {  # what each can time, in which precisions, where; exported files hold the whole network
    "torch": (WHATS, PRECISIONS, ("cpu", "cuda")),
    "onnxruntime": (("inference",), ("fp32",), ("cpu",)),
    "openvino": (("inference",), ("fp32", "bf16"), ("cpu",)),
}
PEERS = ("naive", "strong")
MODES = {"quick": (3, 0.25), "standard": (7, 2.0)}  # blocks, seconds of a block
_WARMEST = {"quick": 2.0, "standard": 30.0}  # seconds that warming up may take

Tick = Callable[[int, int, str], None]


@dataclass(frozen=True)
class BenchOptions:
    """The options of ``ferbench bench``; every combination of the lists is one row."""

    whats: tuple[str, ...] = ("inference", "step")
    methods: tuple[str, ...] = (DEFAULT_METHOD,)
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
    accuracy: bool = False  # test trained weights too, in every way of inference
    home: Path | None = None  # the data home with FER2013, for this


def run(options: BenchOptions, tick: Tick, tell: Callable[[int, float], None]) -> SpeedRecord:
    """Time every cell of the options. Raises UsageError for options or combinations that do not exist.

    tell : is told before anything is timed how many rows there will be, and how many seconds they take, about.
    """
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
    ground = _ground(options, cells)
    measured = {precision: ceilings(device, precision) for precision in dict.fromkeys(c.precision for c in cells)}
    groups = _groups(cells)
    tell(
        len(cells),
        expected.seconds(
            groups,
            options.peers,
            len({1, *options.batches}),
            blocks,
            seconds,
            _WARMEST[options.mode],
            measured,
            0 if ground is None else len(ground.images),
        ),
    )
    rows: list[SpeedRow] = []
    with TemporaryDirectory() as scratch:
        for group in groups:
            progress = partial(_shown, tick, len(rows), group, len(cells))
            rows += _timed(group, options, blocks, seconds, measured, Path(scratch), progress)
    if ground is not None:
        rows = _with_accuracy(rows, [cell for group in groups for cell in group], ground, tick)
    tick(1, 1, "")
    noise, environment = _noise(options.seed), describe_device(device, "", "")
    if options.peers:
        environment["peer_loaders"] = loaders(device, cells[0].threads)
    return SpeedRecord(
        mode=options.mode, seed=options.seed, environment=environment, ceilings=measured, noise=noise, rows=rows
    )


def _ground(options: BenchOptions, cells: list[Cell]) -> accuracy.Ground | None:
    """What accuracy is tested on, where it is asked for. Raises what stands in its way before anything is timed."""
    if not options.accuracy:
        return None
    whole = [cell for cell in cells if cell.what == "inference"]
    if not whole:
        raise UsageError("--accuracy is of inference: none is timed")
    for cell in whole:
        accuracy.weights(cell.method, cell.preset)
    return accuracy.Ground.of(options.home)


def _with_accuracy(rows: list[SpeedRow], cells: list[Cell], ground: accuracy.Ground, tick: Tick) -> list[SpeedRow]:
    """Test each way of inference once, whatever the sizes of batches it is timed with. rows : of these cells."""
    found: dict[Cell, accuracy.Tested] = {}
    made = []
    for number, (row, cell) in enumerate(zip(rows, cells, strict=True)):
        tick(number, len(rows), "accuracy")
        if cell.what == "inference":
            way = accuracy.way(cell)
            found[way] = one = found.get(way) or accuracy.tested(cell, ground)
            row = row.model_copy(
                update={"accuracy": one.accuracy, "accuracy_images": one.images, "accuracy_run": one.run}
            )
        made.append(row)
    return made


def _shown(tick: Tick, before: int, group: list[Cell], cells: int, part: float) -> None:
    first = group[0]
    title = f"{first.what} {first.preset} batch {first.batch} {first.scenario}, {len(group)} ways"
    tick(round(100 * (before + part * len(group))), 100 * cells, title)


def _known(options: BenchOptions) -> None:
    for name, given, known in (
        ("what", options.whats, WHATS),
        ("engine", options.engines, ENGINES),
        ("backend", options.backends, tuple(BACKENDS)),
        ("scenario", options.scenarios, SCENARIOS),
        ("peer", options.peers, PEERS),
        ("mode", (options.mode,), tuple(MODES)),
    ):
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
        options.whats,
        options.methods,
        options.presets,
        options.precisions,
        options.backends,
        options.engines,
        options.batches,
        options.scenarios,
    ):
        if any(value not in there for value, there in zip((what, precision, device), BACKENDS[backend], strict=True)):
            continue
        if what in INFERENCE:
            if (scenario == "single-stream") != (batch == 1) and scenario != "server":
                continue
            kind = scenario
            # On a CPU torch has one way to run a forward pass, and the runtimes of exported files are the fast one.
            way = ("plain" if backend == "torch" else "fast") if device == "cpu" else engine
            way = "plain" if way == "plain" else "fast"  # what else an engine says is of training steps
            size = 1 if scenario == "server" else batch
        else:
            kind, way, size = ("training", engine, batch) if what in TRAINING else ("preparation", "plain", 1)
            if what in TRAINING and batch == 1:
                continue  # batch statistics need more than one pair
        cell = Cell(
            what,
            method,
            preset,
            way,
            precision if what != "prepare" else "fp32",
            backend,
            device,
            size,
            kind,
            threads,
            options.seed,
        )
        if cell not in seen:
            seen.add(cell)
            yield cell


def _groups(cells: list[Cell]) -> list[list[Cell]]:
    """Cells that do the same work in different ways: they are timed in turns, with the same peers."""
    groups: dict[tuple[object, ...], list[Cell]] = defaultdict(list)
    for cell in cells:
        groups[cell.what, cell.method, cell.preset, cell.batch, cell.scenario].append(cell)
    return list(groups.values())


def _timed(
    group: list[Cell],
    options: BenchOptions,
    blocks: int,
    seconds: float,
    ceiling: dict[str, dict[str, float]],
    scratch: Path,
    progress: Callable[[float], None],
) -> list[SpeedRow]:
    """Time the cells of a group and their peers, block by block in shuffled order, and check each."""
    device, scenario, cap = group[0].device, group[0].scenario, _WARMEST[options.mode]
    calls: dict[str, Callable[[], object]] = {}
    if group[0].what == "step":
        calls |= peers(group[0], options.peers)
    works, peaks, cold = [], [], {}
    for number, cell in enumerate(group):
        progress(number / len(group) / 4)
        before = _memory(device)
        works.append(build(cell, scratch))
        calls[str(number)] = works[-1].call
        cold[str(number)] = timing.warm_up(works[-1].call, device, seconds / 2, cap)
        peaks.append(_peak(device) - before)
    for name in options.peers:
        if name in calls:
            timing.warm_up(calls[name], device, seconds / 2, cap)
    rates: dict[str, list[float]] = defaultdict(list)
    single: dict[str, list[float]] = defaultdict(list)
    meter = Meter()
    used: dict[str, int] = defaultdict(int)  # millijoules
    spent: dict[str, int] = defaultdict(int)  # calls
    order = np.random.default_rng(options.seed)
    for block in range(blocks):
        progress(0.25 + 0.5 * block / blocks)
        for name in order.permutation(list(calls)):
            millijoules = meter.millijoules()
            if scenario == "offline" or name in options.peers:
                rates[name].append(timing.rate(calls[name], device, seconds))
            else:
                found = timing.latencies(calls[name], device, seconds)
                single[name] += found
                rates[name].append(len(found) / sum(found))
            after = meter.millijoules()
            if millijoules is not None and after is not None:
                used[name] += after - millijoules
                spent[name] += round(rates[name][-1] * seconds)
    rows = []
    for number, work in enumerate(works):
        progress(0.75 + number / len(works) / 4)
        name = str(number)
        speed = _scaled(timing.estimate(rates[name], options.seed), work.images)
        extra: dict[str, Any] = {}
        if scenario == "server":
            speed, extra = _served(work.cell, options, seconds)
        elif single[name]:
            extra = {f"p{p}_ms": _milli(timing.percentile(single[name], p)) for p in (50, 90, 99)}
        for peer in options.peers:
            if peer in rates:
                ratio = timing.ratio(rates[name], rates[peer], options.seed)
                extra |= {
                    f"ratio_{peer}{end}": getattr(ratio, field)
                    for end, field in (("", "median"), ("_low", "low"), ("_high", "high"))
                }
        joules = used[name] / (spent[name] * work.images) if spent[name] else None
        rows.append(
            _row(
                work,
                speed,
                {**extra, **_shares(work, speed, ceiling), **_checked(work)},
                blocks=blocks,
                calls=len(single[name]) or round(sum(rates[name]) * seconds),
                cold_start_s=cold[name],
                peak_mb=peaks[number],
                joules_per_1000=joules,
            )
        )
    return rows


def _row(work: Workload, speed: Estimate, extra: dict[str, Any], **measured: Any) -> SpeedRow:
    cell = work.cell
    return SpeedRow(
        what=cell.what,
        method=cell.method,
        preset=cell.preset,
        engine=cell.engine,
        precision=cell.precision,
        backend=cell.backend,
        device=cell.device,
        threads=cell.threads,
        batch=work.images,
        scenario=cell.scenario,
        images_per_s=speed.median,
        images_per_s_low=speed.low,
        images_per_s_high=speed.high,
        **measured,
        **extra,
    )


def _shares(work: Workload, speed: Estimate, ceilings: dict[str, dict[str, float]]) -> dict[str, float]:
    """Roofline columns: work of an image, and the share of the machine's ceilings at this speed."""
    if not work.flops or not work.bytes or work.cell.scenario == "server":
        return {}
    ceiling = ceilings[work.cell.precision]
    return {
        "gflop_per_image": work.flops / 1e9,
        "mb_per_image": work.bytes / 1e6,
        "share_of_flops": speed.median * work.flops / ceiling["flops_per_s"],
        "share_of_bytes": speed.median * work.bytes / ceiling["bytes_per_s"],
    }


def _checked(work: Workload) -> dict[str, Any]:
    if work.check is None:
        return {"valid": True}
    verdict = work.check()
    return {
        "error": verdict.error if isfinite(verdict.error) else None,
        "agree": verdict.agree,
        "bound": verdict.bound,
        "valid": verdict.valid,
    }


def _served(cell: Cell, options: BenchOptions, seconds: float) -> tuple[Estimate, dict[str, float | None]]:
    """Measure calls of every batch that the server may form, then search the largest rate under the bound."""
    service = {}
    for batch in sorted({1, *options.batches}):
        sized = build(replace(cell, batch=batch), Path())
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


def _memory(device: str) -> float:
    """MB that lie on a CUDA device already, from here on not counted in its peak; 0 on a CPU."""
    if device != "cuda":
        return 0.0
    torch.cuda.reset_peak_memory_stats()
    return torch.cuda.memory_allocated() / 1e6


def _peak(device: str) -> float:
    """Peak memory in MB: since the last :func:`_memory` on CUDA, of the whole process so far on a CPU."""
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
