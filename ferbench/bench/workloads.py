"""What is timed: calls that process a known number of images, and the comparison of their results with float64.

Training and inference in torch need torch, numpy and pydantic only, so that a bare GPU machine can be timed; anything
else is imported where it is used.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass
from functools import lru_cache
from itertools import cycle
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from torch import Tensor, nn

from ferbench.bench import INFERENCE, TRAINING
from ferbench.environment import cores
from ferbench.errors import UsageError
from ferbench.methods import recipes
from ferbench.methods.interface import Timeable, TimedMethod
from ferbench.seeds import derive_seed, generator
from ferbench.training.device import Device
from ferbench.training.networks import flops
from ferbench.training.plan import Step, paired_epoch
from ferbench.training.prediction import PreparedNetwork, outputs

FRESH = 64  # inputs of the comparison, which are not those of the timing
STEPS = 20  # training steps whose losses are compared
PAIRS = 16  # in each of them
FIRST = 5  # steps that are compared one by one in every precision
# Largest error of logits relative to the largest logit; of a loss curve relative to the plain path's.
BOUNDS = {"fp32": 1e-4, "tf32": 5e-3, "bf16": 5e-2}
LOSS_BOUNDS = {"fp32": 1e-3, "tf32": 1e-2, "bf16": 5e-2}


@dataclass(frozen=True)
class Comparison:
    """The error of a row against float64, and the bound for its precision."""

    error: float
    agree: float | None  # share of inputs with the same most probable class; None for training
    bound: float

    @property
    def valid(self) -> bool:
        return self.error <= self.bound


def compare_logits(logits: Tensor, module: nn.Module, inputs: Tensor, precision: str) -> Comparison:
    """Compare the logits of a row for ``inputs`` (on the CPU) with those of ``module`` in float64."""
    with torch.no_grad():
        result = deepcopy(module).double()(inputs)
    exact = result if isinstance(result, Tensor) else result[0]
    error = float((logits.double() - exact).abs().max() / exact.abs().max())
    agree = float((logits.argmax(dim=1) == exact.argmax(dim=1)).double().mean())
    return Comparison(error, agree, BOUNDS[precision])


def compare_losses(losses: list[float], reference: list[float], precision: str) -> Comparison:
    """Compare the losses of the first steps with those of the plain path in fp32.

    In fp32 and tf32 each step is compared. Training is chaotic: rounding errors of bf16 grow with each step until
    single batches differ, though the training is as good. In bf16 the first ``FIRST`` steps are compared one by one,
    and the mean of all.
    """
    a, b = torch.tensor(losses, dtype=torch.float64), torch.tensor(reference, dtype=torch.float64)
    each = ((a - b) / b).abs()
    if precision == "bf16":
        each = torch.cat([each[:FIRST], ((a.mean() - b.mean()) / b.mean()).abs().unsqueeze(0)])
    return Comparison(float(each.max()), None, LOSS_BOUNDS[precision])  # a loss that is not a number is not valid


CLASSES = 7
IMAGES = 256  # in the set that training is timed on
BUFFERS = 8  # batches used in turns, so that no input is in a cache
TESTED = {"cpu": 128, "cuda": 4096}  # images of a call in the scenario evaluate, from memory to logits in memory
DRAWN = 200  # images that preparation is timed on


@dataclass(frozen=True)
class Cell:
    """One combination to time. ``batch``: images of an inference call; pairs of a training step."""

    what: str
    method: str
    preset: str
    engine: str
    precision: str
    backend: str
    device: str
    batch: int
    scenario: str
    threads: int
    seed: int


@dataclass
class Workload:
    """A cell ready to be timed.

    call : processes ``images`` images and may leave work on the device. check : compares results, where possible.
    flops, bytes : of one image, where known.
    """

    cell: Cell
    images: int
    call: Callable[[], object]
    check: Callable[[], Comparison] | None = None
    flops: float | None = None
    bytes: float | None = None


def build(cell: Cell, scratch: Path) -> Workload:
    """Prepare a cell. Raises UsageError for a combination that does not exist."""
    if cell.what in INFERENCE:
        return _inference(cell)
    if cell.backend != "torch":
        raise UsageError(f"{cell.backend} has no {cell.what}: it is a backend of inference, fe and amg")
    if cell.what == "prepare":
        return _preparation(cell, scratch)
    return _training(cell, scratch)


def existing_baselines(cell: Cell, names: Sequence[str]) -> list[str]:
    """The names of those reference loops that exist for a cell's work."""
    known = ("naive", "strong") if cell.what == "step" else ("naive",) if cell.scenario == "evaluate" else ()
    return [name for name in names if name in known]


def baselines(cell: Cell, names: Sequence[str]) -> dict[str, Callable[[], object]]:
    """Calls of reference loops that do the same work as the cell, a training step or an evaluation."""
    names = existing_baselines(cell, names)
    if cell.what != "step":
        return {name: naive_evaluation(cell) for name in names}
    timed, (pixels, labels) = networks(cell.method, cell.preset, cell.seed), _set(cell.seed)
    steps, workers = list(_plan(labels, cell.batch, cell.seed)), loaders(cell.device, cell.threads)
    return {name: timed.baseline(name, pixels, labels, steps, cell.batch, cell.device, workers) for name in names}


def naive_evaluation(cell: Cell) -> Callable[[], np.ndarray]:
    """A call that evaluates as an ordinary script does and returns the logits [N,K]: eager PyTorch in fp32.

    It runs in a process of its own, since memory is kept in this one. The process ends with the returned call.
    """
    context = get_context("spawn")
    ours, theirs = context.Pipe()
    context.Process(target=_evaluate_on_request, args=(theirs, cell), daemon=True).start()
    theirs.close()

    def call() -> np.ndarray:
        ours.send(None)
        return np.asarray(ours.recv())

    return call


def _evaluate_on_request(requests: Connection, cell: Cell) -> None:
    torch.set_num_threads(cell.threads)
    module, tested = networks(cell.method, cell.preset, cell.seed).part(cell.what), _tested(cell)
    assert module is not None  # costs() refuses parts that the method does not have
    module = module.eval().to(cell.device)
    with suppress(EOFError), torch.inference_mode():
        while True:
            requests.recv()
            logits = [outputs(module(part.to(cell.device)))[0].cpu() for part in tested.split(Device(cell.device).rows)]
            requests.send(torch.cat(logits).numpy())


def loaders(device: str, threads: int) -> int:
    """Loader processes of each baseline: beside a GPU one for every core but one, since rotating pictures takes longer
    than a step; on a CPU at most two, which compete with the step for cores."""
    return max(1, cores() - 1) if device == "cuda" else min(2, threads - 1)


def networks(method: str, preset: str, seed: int) -> TimedMethod:
    """A method's networks with seeded random weights. Raises UsageError for a method that is not timed."""
    resolved = recipes.resolve(method, preset, "ckplus")
    if not isinstance(resolved.family, Timeable):
        raise UsageError(f"{resolved.title} is not among the methods that `ferbench bench` times")
    return resolved.family.timed(resolved, CLASSES, derive_seed(seed, "bench weights"))


_cached = lru_cache(maxsize=4)(networks)  # for cells of inference that are timed together


def costs(cell: Cell) -> tuple[float, float]:
    """FLOPs and bytes of one image, in inference or in training.

    Raises UsageError for a part that the method does not have.
    """
    return _costs(cell.what, cell.method, cell.preset, cell.precision, cell.seed)


@lru_cache
def _costs(what: str, method: str, preset: str, precision: str, seed: int) -> tuple[float, float]:
    timed, training = networks(method, preset, seed), what in TRAINING
    module = timed.trained() if training else timed.part(what)
    if module is None:
        raise UsageError(f"{method} has no {what} to time")
    example = torch.zeros(2, 1, 48, 48, dtype=torch.float32 if training else torch.uint8)
    moved = timed.bytes_of(module.eval(), example, 2 if precision == "bf16" else 4, training=training)
    return (3 if training else 1) * flops(module, (example,)) / 2, moved / 2


def images_of(cell: Cell) -> int:
    """Images of one call of inference."""
    return TESTED[cell.device] if cell.scenario == "evaluate" else cell.batch


def images(seed: int, count: int, use: str) -> Tensor:
    """Random grey images uint8 [count,48,48]: the time of kernels does not depend on the picture."""
    return torch.from_numpy(generator(seed, "bench", use).integers(0, 256, (count, 48, 48), dtype=np.uint8))


def _tested(cell: Cell) -> Tensor:
    """Images uint8 [N,1,48,48] in memory that a call of the scenario evaluate tests."""
    return images(cell.seed, images_of(cell), "inputs").unsqueeze(1)


def _inference(cell: Cell) -> Workload:
    """A call takes uint8 images [B,1,48,48] on the device; grey levels are scaled and normalised inside it."""
    timed = _cached(cell.method, cell.preset, cell.seed)
    costing = costs(cell)
    reference = timed.part(cell.what)
    assert reference is not None  # costs() refuses parts that the method does not have
    reference.eval()
    fresh = images(cell.seed, FRESH, "fresh").unsqueeze(1)
    run = runner(cell, timed)
    turns = cycle(
        batch.to(cell.device).unsqueeze(1)
        for batch in images(cell.seed, BUFFERS * cell.batch, "inputs").split(cell.batch)
    )

    def checked() -> Comparison:
        parts = [run(part).float().cpu() for part in fresh.to(cell.device).split(cell.batch)]
        return compare_logits(torch.cat(parts), reference, fresh, cell.precision)

    if cell.scenario == "evaluate":
        tested = _tested(cell)

        def evaluated() -> Tensor:
            return torch.cat([run(part.to(cell.device)).float().cpu() for part in tested.split(cell.batch)])

        return Workload(cell, len(tested), evaluated, checked, *costing)
    return Workload(cell, cell.batch, lambda: run(next(turns)), checked, *costing)


def runner(cell: Cell, timed: TimedMethod) -> Callable[[Tensor], Tensor]:
    """A function from images uint8 [B,1,48,48] on the cell's device to logits, in the cell's backend and engine."""
    if cell.backend == "onnxruntime":
        return _onnx(cell, _exported(timed))
    device, module = Device.chosen(cell.device, cell.precision, cell.engine), timed.part(cell.what)
    assert module is not None  # costs() refuses parts that the method does not have
    if cell.backend == "openvino" or device.looks_up:
        prepared = PreparedNetwork(module, device, cell.backend, cell.batch)
        return lambda x: prepared.batch(x)[0]
    plain = device.place(deepcopy(module).eval())

    def eager(x: Tensor) -> Tensor:
        with torch.inference_mode(), device.autocast():
            return outputs(plain(device.images(x)))[0]

    return eager


@lru_cache(maxsize=4)
def _exported(timed: TimedMethod) -> bytes:
    from ferbench.inference.export import to_onnx

    return to_onnx(timed.deployable(), {})


def _onnx(cell: Cell, content: bytes) -> Callable[[Tensor], Tensor]:
    from ferbench.inference.export import session

    opened = session(content, cell.threads)
    return lambda x: torch.from_numpy(opened.run(["logits"], {"images": x.numpy()})[0])


def _training(cell: Cell, scratch: Path) -> Workload:
    """A step trains on ``batch`` pairs in two separate streams as in the paper; an epoch sees each image once."""
    timed, (pixels, labels) = networks(cell.method, cell.preset, cell.seed), _set(cell.seed)
    device = Device.chosen(cell.device, cell.precision, cell.engine)
    steps = list(_plan(labels, cell.batch, cell.seed))
    run = timed.stepper(device, pixels, labels, steps)
    batches = cycle([step.on(cell.device) for step in steps])
    rows = len(steps[0].images)
    work = Workload(
        cell,
        rows,
        lambda: run(next(batches)),
        lambda: compare_losses(
            _losses(cell.method, cell.preset, cell.seed, device),
            _losses(cell.method, cell.preset, cell.seed, Device()),
            cell.precision,
        ),
        *costs(cell),
    )
    if cell.what == "epoch":
        work.images = IMAGES // rows * rows
        work.call = lambda: _epoch(cell, timed, device, scratch)
    return work


def _set(seed: int) -> tuple[Tensor, Tensor]:
    """Images uint8 [N,48,48] and labels [N] that training is timed on."""
    return images(seed, IMAGES, "training"), torch.arange(IMAGES) % CLASSES


def _plan(labels: Tensor, pairs: int, seed: int) -> Iterator[Step]:
    """Steps of several epochs; the same for ours and for the baselines."""
    for epoch in range(4):
        yield from paired_epoch(labels.numpy(), "sample", pairs, seed, epoch)


@lru_cache(maxsize=4)
def _losses(method: str, preset: str, seed: int, device: Device) -> list[float]:
    """The losses of the first steps, on small batches: the same plan and weights for every path."""
    Device.chosen(device.name, device.precision, device.engine)  # the last prepared cell may have another precision
    timed, (pixels, labels) = networks(method, preset, seed), _set(seed)
    plan = list(_plan(labels, PAIRS, seed))[:STEPS]
    run = timed.stepper(device, pixels, labels, plan)
    return [float(run(step.on(device.name))["total"]) for step in plan]


def _epoch(cell: Cell, timed: TimedMethod, device: Device, scratch: Path) -> None:
    with TemporaryDirectory(dir=scratch) as folder:
        timed.epoch(device, *_set(cell.seed), cell.batch, cell.seed, Path(folder))


def _preparation(cell: Cell, scratch: Path) -> Workload:
    """From drawn files in the layout of RAF-DB (100x100 JPEG) to a prepared set."""
    from ferbench.data.prepare import prepare
    from ferbench.data.synthetic import layouts

    source, home = scratch / "rafdb", scratch / "prepared"
    count = layouts.write_layout("rafdb", source, DRAWN, cell.seed)["images"] if not source.exists() else DRAWN
    return Workload(cell, count, lambda: prepare("rafdb", source, home))
