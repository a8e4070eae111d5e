"""How long ``ferbench bench`` will take, told before it begins."""

from collections.abc import Iterable, Mapping, Sequence

from ferbench.bench import accuracy, gate
from ferbench.bench.timing import LOOKS
from ferbench.bench.workloads import IMAGES, INFERENCE, TRAINING, Cell, costs

# What calls took in the records behind reports/speed.md, which holds within a factor of two: the share of the memory's
# measured ceiling that they reach, and the seconds that any call takes on top.
_SHARE, _CALL = 0.06, 0.002
# Of a step by tables: the plain one runs the frozen networks too, the peers also read pictures by PIL.
_SLOWER = {"fast": 1.0, "searched": 1.0, "compiled": 0.8, "plain": 2.0, "naive": 3.0, "strong": 2.0}
_BUILD = {"torch": 0.5, "onnxruntime": 1.5, "openvino": 3.0}  # seconds, once
_COMPILED, _COMPILATION = ("compiled", "strong"), 120.0  # seconds for each shape of batch
_PREPARATION = 2.0  # seconds of a call
_FLOAT64 = 4.0  # times as long as the row itself


def seconds(
    groups: Iterable[Sequence[Cell]],
    peers: Sequence[str],
    sizes: int,
    blocks: int,
    block: float,
    warmest: float,
    ceilings: Mapping[str, Mapping[str, float]],
    tested: int = 0,
) -> float:
    """Return the seconds that timing some groups of cells takes, about.

    peers : of training steps. sizes : batches that a server may form. blocks, block : how many, of how many seconds.
    warmest : seconds that warming up may take. tested : images on which each way of inference is tested afterwards.
    """
    total = 0.0
    for way in {accuracy.way(cell) for group in groups for cell in group if cell.what == "inference"} if tested else ():
        total += _BUILD[way.backend] + tested / way.batch * _call(way, ceilings, way.engine)
    for group in groups:
        for cell in group:
            call = _call(cell, ceilings, cell.engine)
            times = sizes if cell.scenario == "server" else 1
            # The gate has a shape of its own, so it is compiled for too.
            total += _BUILD[cell.backend] + 2 * _compilation(cell.engine) + _gate(cell, call)
            total += times * _timed(call, blocks, block, warmest)
        if group[0].what == "step":
            for peer in peers:
                call = _call(group[0], ceilings, peer)
                total += _BUILD["torch"] + _compilation(peer) + _timed(call, blocks, block, warmest)
    return total


def _call(cell: Cell, ceilings: Mapping[str, Mapping[str, float]], way: str) -> float:
    """Seconds of one call."""
    if cell.what not in (*INFERENCE, *TRAINING):
        return _PREPARATION
    images = IMAGES if cell.what == "epoch" else 2 * cell.batch if cell.what in TRAINING else cell.batch
    moved = costs(cell)[1] * images
    slower = _SLOWER[way] if cell.what in TRAINING else 1.0
    return _CALL + slower * moved / (_SHARE * ceilings[cell.precision]["bytes_per_s"])


def _compilation(way: str) -> float:
    return _COMPILATION if way in _COMPILED else 0.0


def _timed(call: float, blocks: int, block: float, warmest: float) -> float:
    """A cold call, warming up in windows of half a block until some agree, which takes a machine that others use three
    times as many as it must be, and the blocks; what is begun is ended."""
    return call + min(warmest, 3 * LOOKS * max(block / 2, call)) + blocks * (max(block, call) + min(block, call) / 2)


def _gate(cell: Cell, call: float) -> float:
    if cell.what in TRAINING:
        return 2 * gate.STEPS * gate.PAIRS / cell.batch * call
    return gate.FRESH / cell.batch * call * (1 + _FLOAT64) if cell.what in INFERENCE else 0.0
