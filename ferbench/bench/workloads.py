"""What is timed: calls that handle a known number of images, with the means to check what they give.

Training and inference in torch need torch, numpy and pydantic alone, so that a bare GPU machine can be timed;
what needs more is imported where it is used.
"""

import sys
from collections.abc import Callable, Iterable, Iterator
from copy import deepcopy
from dataclasses import dataclass
from functools import cache, lru_cache
from itertools import cycle
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ferbench.bench import gate
from ferbench.bench.gate import Verdict
from ferbench.bench.peers import Loop, Pairs
from ferbench.errors import UsageError
from ferbench.methods import recipes as methods
from ferbench.methods.wslgan.attention import AttentionMapGenerator
from ferbench.methods.wslgan.cost import bytes_of
from ferbench.methods.wslgan.deployed import Deployed
from ferbench.methods.wslgan.network import WSLGAN
from ferbench.methods.wslgan.recipe import Recipe
from ferbench.methods.wslgan.stages import Labelled
from ferbench.seeds import derive_seed, generator
from ferbench.training import samples, stages
from ferbench.training.cost import flops
from ferbench.training.device import Device
from ferbench.training.engine import engine
from ferbench.training.plan import Batch, Step, looked_up, paired_epoch

INFERENCE, TRAINING = ("inference", "fe", "amg"), ("step", "epoch")
WHATS = (*INFERENCE, *TRAINING, "prepare")
CLASSES = 7
IMAGES = 256  # in the set that training is timed on
BUFFERS = 8  # batches taken in turns, so that no input waits in a cache
DRAWN = 200  # images that preparation is timed on
GATE_PAIRS = 16  # in a step of the loss gate


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

    call : handles ``images`` images and may leave work on the device. check : the gate, where there is one.
    flops, bytes : of one image, where known.
    """

    cell: Cell
    images: int
    call: Callable[[], object]
    check: Callable[[], Verdict] | None = None
    flops: float | None = None
    bytes: float | None = None


def build(cell: Cell, scratch: Path) -> Workload:
    """Make a cell ready. Raises UsageError for a combination that does not exist."""
    if cell.what in INFERENCE:
        return _inference(cell)
    if cell.backend != "torch":
        raise UsageError(f"{cell.backend} has no {cell.what}: it is a backend of inference, fe and amg")
    if cell.what == "prepare":
        return _preparation(cell, scratch)
    return _training(cell, scratch)


def peers(cell: Cell, names: tuple[str, ...]) -> dict[str, Callable[[], object]]:
    """Calls that do the same work as the cell, a training step, in the peers' ways."""
    recipe, network, amg = networks(cell.method, cell.preset, cell.seed)
    train = _set(cell.seed)
    pairs = [
        (int(s.images[a]), int(s.derived[a]), int(s.images[b]), int(s.derived[b]))
        for s in _plan(train, cell.batch, cell.seed) for a, b in zip(s.first, s.second, strict=True)
    ]  # fmt: skip
    stage = recipe.finetune
    return {
        name: Loop(
            name, deepcopy(network), deepcopy(amg), Pairs(train.images.numpy(), train.labels.numpy(), pairs),
            cell.batch, recipe.losses_of(stage), stage.lr, stage.momentum, stage.weight_decay, cell.device,
            min(2, cell.threads - 1),
        ).step
        for name in names
    }  # fmt: skip


def networks(method: str, preset: str, seed: int) -> tuple[Recipe, WSLGAN, AttentionMapGenerator | None]:
    """A method's networks with seeded random weights: speed does not depend on what they have learned."""
    recipe = methods.resolve(method, preset, "ckplus").recipe
    torch.manual_seed(derive_seed(seed, "bench weights"))
    network = WSLGAN(recipe.architecture, CLASSES)
    needed = recipe.architecture.needs_attention
    return recipe, network, AttentionMapGenerator(recipe.architecture).freeze() if needed else None


def images(seed: int, count: int, use: str) -> Tensor:
    """Random grey images uint8 [count,48,48]: kernels take their time whatever the picture."""
    return torch.from_numpy(generator(seed, "bench", use).integers(0, 256, (count, 48, 48), dtype=np.uint8))


def _inference(cell: Cell) -> Workload:
    """A call takes uint8 images [B,1,48,48] on the device; grey levels are scaled and normalised inside it."""
    _, network, amg = networks(cell.method, cell.preset, cell.seed)
    if cell.what == "amg" and amg is None:
        raise UsageError(f"{cell.method} has no attention maps to time")
    parts = {
        "inference": lambda: Deployed(network, amg),
        "fe": lambda: _Extractor(network),
        "amg": lambda: _Generator(amg),
    }
    reference = parts[cell.what]().eval()
    width = 2 if cell.precision == "bf16" else 4
    fresh = images(cell.seed, gate.FRESH, "fresh").unsqueeze(1)
    costs = flops(reference, (fresh[:2],)) / 2, bytes_of(reference, (fresh[:2],), width, training=False) / 2
    run = _RUNTIMES[cell.backend](cell) if cell.backend in _RUNTIMES else _torch(cell, deepcopy(reference))
    turns = cycle(
        batch.to(cell.device).unsqueeze(1)
        for batch in images(cell.seed, BUFFERS * cell.batch, "inputs").split(cell.batch)
    )

    def checked() -> Verdict:
        parts = [run(part).float().cpu() for part in fresh.to(cell.device).split(cell.batch)]
        return gate.of_logits(torch.cat(parts), reference, fresh, cell.precision)

    return Workload(cell, cell.batch, lambda: run(next(turns)), checked, *costs)


def _torch(cell: Cell, module: nn.Module) -> Callable[[Tensor], Tensor]:
    device = Device.chosen(cell.device, cell.precision, cell.engine)
    device.place(module)

    def eager(x: Tensor) -> Tensor:
        with torch.inference_mode(), device.autocast():
            return first(module(device.images(x)))

    if cell.engine == "plain" or cell.device == "cpu":
        return eager
    return _Graph(eager, cell.batch)


@lru_cache
def _exported(method: str, preset: str, seed: int) -> bytes:
    from ferbench.export import to_onnx

    _, network, amg = networks(method, preset, seed)
    return to_onnx(Deployed(network, amg), {})


def _onnx(cell: Cell) -> Callable[[Tensor], Tensor]:
    from ferbench.export import session

    opened = session(_exported(cell.method, cell.preset, cell.seed), cell.threads)
    return lambda x: torch.from_numpy(opened.run(["logits"], {"images": x.numpy()})[0])


def _openvino(cell: Cell) -> Callable[[Tensor], Tensor]:
    """The exported file in OpenVINO, compiled anew for each size of batch: free sizes cost it a third of its speed."""
    # Its Python package would load a client that reports usage over the network, and has a stub where there is none.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    try:
        import openvino
    except ImportError:
        raise UsageError("the backend openvino is not installed: pip install 'ferbench[openvino]'") from None
    settings = {
        "INFERENCE_NUM_THREADS": cell.threads, "NUM_STREAMS": 1, "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": {"fp32": "f32"}.get(cell.precision, cell.precision),
    }  # fmt: skip
    core, content = openvino.Core(), _exported(cell.method, cell.preset, cell.seed)

    @cache
    def request(size: int) -> Any:
        model = core.read_model(content)
        model.reshape([size, *model.inputs[0].partial_shape[1:]])
        return core.compile_model(model, "CPU", settings).create_infer_request()

    return lambda x: torch.from_numpy(request(len(x)).infer([x.numpy()])["logits"].copy())


_RUNTIMES = {"onnxruntime": _onnx, "openvino": _openvino}


def first(result: Tensor | tuple[Tensor, ...]) -> Tensor:
    """The logits of a network that may return its maps beside them."""
    return result if isinstance(result, Tensor) else result[0]


class _Extractor(nn.Module):
    """The network alone, with maps that are given: FE, pooling, fusion, classifier."""

    maps: Tensor

    def __init__(self, network: WSLGAN):
        super().__init__()
        self.network = network
        size = network.architecture.map_size
        self.register_buffer("maps", torch.linspace(0, 1, 2 * size * size).view(1, 2, size, size))

    def forward(self, x: Tensor) -> Tensor:
        maps = self.maps.expand(len(x), -1, -1, -1)
        return self.network(x.to(self.maps.dtype) / 255, maps if self.network.architecture.needs_attention else None)


class _Generator(nn.Module):
    """The AMG alone; its maps, flattened, take the place of logits in the gate."""

    def __init__(self, amg: AttentionMapGenerator | None):
        super().__init__()
        self.amg = amg

    def forward(self, x: Tensor) -> Tensor:
        assert self.amg is not None
        return self.amg(x.to(self.amg.eyes.output.weight.dtype) / 255).flatten(1)


class _Graph:
    """A forward pass replayed from one CUDA graph for one batch size."""

    def __init__(self, call: Callable[[Tensor], Tensor], batch: int):
        self.x = torch.zeros(batch, 1, 48, 48, dtype=torch.uint8, device="cuda")
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                call(self.x)
        torch.cuda.current_stream().wait_stream(side)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.out = call(self.x)

    def __call__(self, x: Tensor) -> Tensor:
        self.x.copy_(x)
        self.graph.replay()
        return self.out.clone()


def _training(cell: Cell, scratch: Path) -> Workload:
    """A step trains on ``batch`` pairs, two streams apart as in the paper; an epoch is one look at each image."""
    recipe, network, amg = networks(cell.method, cell.preset, cell.seed)
    device = Device.chosen(cell.device, cell.precision, cell.engine)
    train = _set(cell.seed)
    steps = list(_plan(train, cell.batch, cell.seed))
    run = _stepper(device, deepcopy(network), deepcopy(amg), train, steps, recipe)
    batches = cycle([step.on(cell.device) for step in steps])
    rows = len(steps[0].images)
    example = torch.zeros(2, 1, 48, 48)
    width = 2 if cell.precision == "bf16" else 4
    counted = _Extractor(network).eval()
    work = Workload(
        cell, rows, lambda: run(next(batches)),
        lambda: gate.of_losses(_losses(cell.method, cell.preset, cell.seed, device),
                               _losses(cell.method, cell.preset, cell.seed, Device()), cell.precision),
        3 * flops(counted, (example,)) / 2, bytes_of(counted, (example,), width, training=True) / 2,
    )  # fmt: skip
    if cell.what == "epoch":
        work.images = IMAGES // rows * rows
        work.call = lambda: _epoch(cell, device, network, amg, train, recipe, scratch)
    return work


def _set(seed: int) -> Labelled:
    return Labelled(images(seed, IMAGES, "training"), torch.arange(IMAGES) % CLASSES)


def _plan(train: Labelled, pairs: int, seed: int) -> Iterator[Step]:
    """Steps of several epochs; the same for ours and for the peers."""
    for epoch in range(4):
        yield from paired_epoch(train.labels.numpy(), "sample", pairs, seed, epoch)


def _samples(
    device: Device, amg: AttentionMapGenerator | None, train: Labelled, steps: Iterable[Step], border: str
) -> samples.Samples:
    """What ``steps`` look up, in the way of the device's engine."""
    if amg is not None:
        device.place(amg)
    if device.engine == "plain":
        return samples.Computed(train.images.to(device.name), amg, border, device)
    pixels = samples.pixel_table(train.images, border)
    maps = None
    if amg is not None:
        maps = samples.map_table(amg, pixels, device, looked_up(steps, len(pixels))).to(device.name)
    return samples.Tables(pixels.to(device.name), maps, device)


def _stepper(
    device: Device, network: WSLGAN, amg: AttentionMapGenerator | None, train: Labelled, steps: list[Step],
    recipe: Recipe,
) -> Callable[[Batch], dict[str, Tensor]]:  # fmt: skip
    device.place(network).train()
    source, labels = _samples(device, amg, train, steps, recipe.readings.border), train.labels.to(device.name)

    def loss(batch: Batch) -> dict[str, Tensor]:
        return stages.pair_loss(network, labels, source, batch, recipe.losses_of(recipe.finetune), device)

    return engine(network, loss, recipe.finetune, device).step


@lru_cache(maxsize=4)
def _losses(method: str, preset: str, seed: int, device: Device) -> list[float]:
    """The losses of the first steps, on small batches: the same plan and weights for every path."""
    recipe, network, amg = networks(method, preset, seed)
    train = _set(seed)
    plan = list(_plan(train, GATE_PAIRS, seed))[: gate.STEPS]
    run = _stepper(device, network, amg, train, plan, recipe)
    return [float(run(step.on(device.name))["total"]) for step in plan]


def _epoch(
    cell: Cell, device: Device, network: WSLGAN, amg: AttentionMapGenerator | None, train: Labelled, recipe: Recipe,
    scratch: Path,
) -> None:  # fmt: skip
    """One epoch as ``ferbench train`` does it: tables, plan, steps, checkpoint."""
    stage = recipe.finetune.model_copy(update={"epochs": 1, "batch": cell.batch, "augment": "sample"})
    readings = recipe.readings.model_copy(update={"batch_of": "pairs"})
    plan = stages.network_plan(train.labels.numpy(), stage, readings, cell.seed)
    source = _samples(device, amg, train, plan(0), readings.border)
    with TemporaryDirectory(dir=scratch) as folder:
        stages.train_network(network, train, source, stage, recipe.losses_of(stage), readings, cell.seed, device,
                             Path(folder) / "checkpoint", lambda *_: None)  # fmt: skip


def _preparation(cell: Cell, scratch: Path) -> Workload:
    """From drawn files in the layout of RAF-DB (100x100 JPEG) to a prepared set."""
    from ferbench.data import layouts
    from ferbench.data.prepare import prepare

    source, home = scratch / "rafdb", scratch / "prepared"
    count = layouts.write_layout("rafdb", source, DRAWN, cell.seed)["images"] if not source.exists() else DRAWN
    return Workload(cell, count, lambda: prepare("rafdb", source, home))
