"""What ``ferbench bench`` does: it prepares cells, times them in turns, checks them, and returns a record."""

import resource
from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import partial
from itertools import product
from math import isfinite
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from ferbench.bench import BACKENDS, INFERENCE, MODES, TRAINING, BenchOptions, accuracy, timing
from ferbench.bench.timing import Median, ceilings
from ferbench.bench.workloads import Cell, Workload, baselines, build, loaders
from ferbench.environment import describe_device
from ferbench.errors import UsageError
from ferbench.runs.speed import SpeedRecord, SpeedRow
from ferbench.training.arithmetic import ROWS
from ferbench.training.device import Device
from ferbench.training.prediction import openvino_core

_WARMEST = {"quick": 2.0, "standard": 30.0}  # maximum seconds of a warm-up

Tick = Callable[[int, int, str], None]


def run(options: BenchOptions, tick: Tick, tell: Callable[[int, float], None]) -> SpeedRecord:
    """Time every cell of the options. Raises UsageError for options or combinations that do not exist.

    tell : called before anything is timed with the number of rows, and the approximate seconds that they take.
    """
    options.check()
    if options.threads:
        torch.set_num_threads(options.threads)
    device = options.device
    for precision in options.precisions:
        device = Device.chosen(device, precision).name
    cells = list(_cells(options, device))
    if not cells:
        raise UsageError("these options combine to nothing that can be timed: see `ferbench bench --help`")
    for precision in {cell.precision for cell in cells if cell.backend == "openvino"}:
        openvino_core(precision)
    blocks, seconds = MODES[options.mode]
    test_set = _test_set(options, cells)
    measured = {precision: ceilings(device, precision) for precision in dict.fromkeys(c.precision for c in cells)}
    groups = _groups(cells)
    tell(
        len(cells),
        timing.expected_seconds(
            groups,
            options.baselines,
            blocks,
            seconds,
            _WARMEST[options.mode],
            measured,
            0 if test_set is None else len(test_set.images),
        ),
    )
    rows: list[SpeedRow] = []
    with TemporaryDirectory() as scratch:
        for group in groups:
            progress = partial(_shown, tick, len(rows), group, len(cells))
            rows += _timed(group, options, blocks, seconds, measured, Path(scratch), progress)
    if test_set is not None:
        rows = _with_accuracy(rows, [cell for group in groups for cell in group], test_set, tick)
    tick(1, 1, "")
    noise, environment = _noise(options.seed), describe_device(device, "", "")
    if options.baselines and any(cell.what == "step" for cell in cells):
        environment["peer_loaders"] = loaders(device, cells[0].threads)
    return SpeedRecord(
        mode=options.mode, seed=options.seed, environment=environment, ceilings=measured, noise=noise, rows=rows
    )


def _test_set(options: BenchOptions, cells: list[Cell]) -> accuracy.TestSet | None:
    """The images for --accuracy. Raises UsageError and DataError for what is missing before anything is timed."""
    if not options.accuracy:
        return None
    inference = [cell for cell in cells if cell.what == "inference"]
    if not inference:
        raise UsageError("--accuracy is of inference: none is timed")
    for cell in inference:
        accuracy.shipped_weights(cell.method, cell.preset)
    return accuracy.TestSet.of(options.home)


def _with_accuracy(rows: list[SpeedRow], cells: list[Cell], test_set: accuracy.TestSet, tick: Tick) -> list[SpeedRow]:
    """Rows with the accuracy of their cells; cells that differ in batch size and scenario alone are tested once."""
    measured: dict[Cell, accuracy.Accuracy] = {}
    tested = []
    for number, (row, cell) in enumerate(zip(rows, cells, strict=True)):
        tick(number, len(rows), "accuracy")
        if cell.what == "inference":
            key = accuracy.accuracy_cell(cell)
            measured[key] = result = measured.get(key) or accuracy.accuracy(cell, test_set)
            row = row.model_copy(
                update={"accuracy": result.accuracy, "accuracy_images": result.images, "accuracy_run": result.run}
            )
        tested.append(row)
    return tested


def _shown(tick: Tick, before: int, group: list[Cell], cells: int, part: float) -> None:
    first = group[0]
    batches = ", ".join(dict.fromkeys(str(cell.batch) for cell in group))
    title = f"{first.what} {first.preset} batch {batches} {first.scenario}, {len(group)} ways"
    tick(round(100 * (before + part * len(group))), 100 * cells, title)


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
        if any(value not in known for value, known in zip((what, precision, device), BACKENDS[backend], strict=True)):
            continue
        if what in INFERENCE:
            if scenario != "evaluate" and (scenario == "single-stream") != (batch == 1):
                continue
            if scenario == "evaluate" and what != "inference":
                continue
            kind, size = scenario, batch
            # Other engines differ in training steps only, and the runtimes of exported files have one way.
            used = "plain" if engine == "plain" and backend == "torch" else "fast"
            if scenario == "evaluate":  # in the batches that predictions have; plain ones fit no cache
                size = Device(device).rows if used == "plain" else ROWS[device]
        else:
            kind, used, size = ("training", engine, batch) if what in TRAINING else ("preparation", "plain", 1)
            if what in TRAINING and batch == 1:
                continue  # batch statistics need more than one pair
        cell = Cell(
            what,
            method,
            preset,
            used,
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
    """Cells that do the same work in different ways: they are timed in turns, with the same baselines. Inference does
    the same work in batches of any size."""
    groups: dict[tuple[object, ...], list[Cell]] = defaultdict(list)
    for cell in cells:
        batch = 0 if cell.what in INFERENCE else cell.batch
        groups[cell.what, cell.method, cell.preset, batch, cell.scenario].append(cell)
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
    """Time the cells of a group and their baselines, block by block in shuffled order, and check each."""
    device, scenario, cap = group[0].device, group[0].scenario, _WARMEST[options.mode]
    calls: dict[str, Callable[[], object]] = {}
    calls |= baselines(group[0], options.baselines)
    works, peaks, cold = [], [], {}
    for number, cell in enumerate(group):
        progress(number / len(group) / 4)
        before = _memory(device)
        works.append(build(cell, scratch))
        calls[str(number)] = works[-1].call
        cold[str(number)] = timing.warm_up(works[-1].call, device, seconds / 2, cap)
        peaks.append(_peak(device) - before)
    for name in options.baselines:
        if name in calls:
            timing.warm_up(calls[name], device, seconds / 2, cap)
    rates: dict[str, list[float]] = defaultdict(list)
    single: dict[str, list[float]] = defaultdict(list)
    order = np.random.default_rng(options.seed)
    for block in range(blocks):
        progress(0.25 + 0.5 * block / blocks)
        for name in order.permutation(list(calls)):
            if scenario in ("offline", "evaluate") or name in options.baselines:
                rates[name].append(timing.rate(calls[name], device, seconds))
            else:
                latencies = timing.latencies(calls[name], device, seconds)
                single[name] += latencies
                rates[name].append(len(latencies) / sum(latencies))
    rows = []
    for number, work in enumerate(works):
        progress(0.75 + number / len(works) / 4)
        name = str(number)
        speed = timing.median(rates[name], options.seed)
        speed = Median(speed.median * work.images, speed.low * work.images, speed.high * work.images)
        figures = {**_shares(work, speed, ceiling), **_checked(work)}
        if single[name]:
            figures |= {f"p{p}_ms": _milli(timing.percentile(single[name], p)) for p in (50, 90, 99)}
        for baseline in options.baselines:
            if baseline in rates:
                ratio = timing.ratio(rates[name], rates[baseline], options.seed)
                figures |= {
                    f"ratio_{baseline}": ratio.median,
                    f"ratio_{baseline}_low": ratio.low,
                    f"ratio_{baseline}_high": ratio.high,
                }
        rows.append(
            _row(
                work,
                speed,
                blocks=blocks,
                calls=len(single[name]) or round(sum(rates[name]) * seconds),
                cold_start_s=cold[name],
                peak_mb=peaks[number],
                **figures,
            )
        )
    return rows


def _row(work: Workload, speed: Median, **figures: Any) -> SpeedRow:
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
        batch=cell.batch if cell.scenario == "evaluate" else work.images,
        scenario=cell.scenario,
        images_per_s=speed.median,
        images_per_s_low=speed.low,
        images_per_s_high=speed.high,
        **figures,
    )


def _shares(work: Workload, speed: Median, ceilings: dict[str, dict[str, float]]) -> dict[str, Any]:
    """Roofline columns: FLOPs and bytes of an image, and the share of the machine's ceilings at this speed."""
    if not work.flops or not work.bytes:
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
    checked = work.check()
    return {
        "error": checked.error if isfinite(checked.error) else None,
        "agree": checked.agree,
        "bound": checked.bound,
        "valid": checked.valid,
    }


def _milli(seconds: float | None) -> float | None:
    return None if seconds is None else 1000 * seconds


def _memory(device: str) -> float:
    """MB in use on a CUDA device, which are not part of the peak that is measured from here; 0 on a CPU."""
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
    """Time one call twice in turns: the deviation from 1 of a ratio of equals."""
    a, b = torch.randn(256, 256), torch.randn(256, 256)
    rates: dict[int, list[float]] = {0: [], 1: []}
    order = np.random.default_rng(seed)
    for _ in range(7):
        for name in order.permutation([0, 1]):
            rates[int(name)].append(timing.rate(lambda: a @ b, "cpu", 0.05))
    ratio = timing.ratio(rates[0], rates[1], seed)
    return max(abs(ratio.high - 1), abs(1 - ratio.low))
