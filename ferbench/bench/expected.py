"""How long ``ferbench bench`` will take, estimated before it begins."""

from collections.abc import Iterable, Mapping, Sequence

from ferbench.bench import comparison
from ferbench.bench.accuracy import accuracy_cell
from ferbench.bench.timing import WINDOWS
from ferbench.bench.workloads import IMAGES, INFERENCE, TRAINING, Cell, costs, existing_baselines, images_of

# From the records behind reports/speed.md, correct within a factor of two: the share of the memory's measured ceiling
# that calls reach, and the additional seconds of any call.
_SHARE, _CALL = 0.06, 0.002
# Relative to a step with tables: the plain one runs the frozen networks too, baselines also read pictures by PIL.
_SLOWER = {"fast": 1.0, "searched": 1.0, "compiled": 0.8, "plain": 2.0, "naive": 3.0, "strong": 2.0}
_BUILD = {"torch": 0.5, "onnxruntime": 1.5, "openvino": 3.0}  # seconds, once
_COMPILED, _COMPILATION = ("compiled", "strong"), 120.0  # seconds for each batch shape
_PREPARATION = 2.0  # seconds of a call
_FLOAT64 = 4.0  # times as long as the row itself


def seconds(
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
        return 2 * comparison.STEPS * comparison.PAIRS / cell.batch * call
    return comparison.FRESH / images_of(cell) * call * (1 + _FLOAT64) if cell.what in INFERENCE else 0.0
