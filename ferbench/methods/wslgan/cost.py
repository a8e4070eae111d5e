"""Costs of WS-LGAN: sizes for ``ferbench show``, bytes of a pass for ``ferbench bench``, seconds for a plan.

Dense layers move nearly all bytes. A layer with c inputs and k = growth outputs on P pixels moves (c + 9k)·P elements
at inference if each of its two convolutions is one kernel with its normalisation (c read; 4k written and read; k
written), and (8c + 39k)·P elements in training if the batch statistics of each map are computed once and maps are
concatenated into one buffer.
"""

from collections.abc import Callable, Hashable
from typing import Any

import torch
from torch import Tensor, nn

from ferbench.data.faces import SIZE
from ferbench.methods.interface import Task
from ferbench.methods.recipes import resolve
from ferbench.methods.wslgan.densenet import BOTTLENECK, DenseLayer
from ferbench.methods.wslgan.lean import map_generator
from ferbench.methods.wslgan.network import WSLGAN, AttentionMapGenerator
from ferbench.methods.wslgan.recipe import ATTENTION, Architecture, PairStage, WslganRecipe
from ferbench.methods.wslgan.stages import LabelledImages, branches_at_once, network_plan, pair_loss, part_loss
from ferbench.runs.record import TEACHER
from ferbench.training.augment import DERIVED
from ferbench.training.device import Device
from ferbench.training.loop import engine
from ferbench.training.networks import FORWARD, flops, seconds_of
from ferbench.training.plan import passes, single_epoch
from ferbench.training.samples import Computed, Tables, pixel_table
from ferbench.training.schedule import Stage


def bytes_of(module: nn.Module, inputs: tuple[Tensor, ...], width: int, training: bool) -> int:
    """Bytes that the dense layers of a module move for a batch of inputs. width : bytes of an element."""
    moved = 0

    def count(layer: nn.Module, args: tuple[Tensor, ...], out: Tensor) -> None:
        nonlocal moved
        batch, channels, height, length = args[0].shape
        growth = out.shape[1] - channels
        elements = 8 * channels + 39 * growth if training else channels + (2 * BOTTLENECK + 1) * growth
        moved += batch * height * length * elements * width

    handles = [m.register_forward_hook(count) for m in module.modules() if isinstance(m, DenseLayer)]
    with torch.no_grad():
        module(*inputs)
    for handle in handles:
        handle.remove()
    return moved


def describe(architecture: Architecture, classes: int) -> list[tuple[str, dict[str, Any]]]:
    """Parameters, FLOPs of one image, and shapes of all features."""
    network = WSLGAN(architecture, classes).eval()
    x, size = torch.zeros(2, 1, SIZE, SIZE), architecture.map_size
    maps = torch.zeros(2, 2, size, size)
    parts: dict[str, tuple[nn.Module, tuple[Tensor, ...]]] = {"network": (network, (x, maps))}
    if architecture.needs_attention:
        parts["amg"] = (AttentionMapGenerator(architecture).eval(), (x,))
    sizes: dict[str, Any] = {}
    for title, (module, inputs) in parts.items():
        sizes[f"{title} parameters"] = f"{sum(p.numel() for p in module.parameters()):,}"
        sizes[f"{title} FLOPs per image"] = f"{flops(module, inputs) / len(x) / 1e9:.3f} G"
    used_in_training = sum(p.numel() for p in network.auxiliary.parameters())
    sizes["of these in training only"] = f"{used_in_training:,} parameters of the auxiliary layers"
    with torch.no_grad():
        branches = network.branches(x, maps)
        fused = network.fusion(list(branches.values()))
    shapes: dict[str, Any] = {f"F_{branch}": _shape(features) for branch, features in branches.items()}
    shapes |= {"A_eyes, A_mouth": f"1×{size}×{size}", "V": _shape(fused), "classes": classes}
    return [("sizes", sizes), ("shapes", shapes)]


def _shape(features: Tensor) -> str:
    return "×".join(str(side) for side in features.shape[1:])


# Maximum number of images in the measured step: enough to use a GPU fully, few enough for the largest preset on a CPU.
ROWS = {"cpu": 20, "cuda": 128}
_CLASSES = 7


class DurationEstimate:
    """Seconds of the tasks of a plan, in their order, from one measured step of each kind. The first task that needs a
    table of maps includes the time of its computation.

    Steps of compiled engines are measured without compilation, which would take minutes before the plan is shown.
    """

    def __init__(self, device: Device):
        self.device = device
        self.rates: dict[tuple[str, str, int, int], float] = {}  # seconds for one image, measured on first use
        self.tables: set[tuple[Hashable, ...]] = set()
        self.cold_start: dict[str, float] = {}  # seconds of maps before the first step, by the key of the run

    def __call__(self, task: Task, threads: int) -> float:
        """Return the seconds of the unfinished part of a task on ``threads`` CPU threads."""
        recipe: WslganRecipe = task.method.recipe
        stage = recipe.stage(task.identity.kind, bool(task.protocol.pretrain))

        def rate(name: str, recipe: WslganRecipe = recipe) -> float:
            architecture = recipe.architecture
            count = min(ROWS[self.device.name], _rows(recipe, stage))
            key = name, str(architecture if name == "network" else architecture.generator()), count, threads
            if key not in self.rates:
                self.rates[key] = _measured(name, recipe, count, self.device, threads)
            return self.rates[key]

        kind, at_once = "network", 1
        if task.identity.kind == ATTENTION:
            kind, at_once = ATTENTION, branches_at_once(recipe, self.device, threads)
            threads //= at_once
        if task.retested:
            return stage.epochs * task.tested * rate(kind) * FORWARD
        images, left = task.images, 1 - task.done
        seen = passes(stage, images)
        seconds = left * seen * rate(kind) / at_once
        for role in task.identity.parents:
            if role.startswith(TEACHER):
                teacher = resolve(task.method.name, role[len(TEACHER) :], task.protocol.name).recipe
                maps = rate("maps", teacher) if teacher.architecture.needs_attention else 0.0
                seconds += left * images * (rate("network", teacher) * FORWARD + maps)
        if ATTENTION not in task.identity.parents:
            return seconds
        every = len(task.faces) * DERIVED
        shared = self.device.looks_up and task.folds * seen >= every
        # The table of all samples is the same for all trainings; any other table is shared only by trainings with the
        # same images in the same order.
        identity = task.identity
        table: tuple[Hashable, ...] = (identity.data, identity.fold, identity.parents[ATTENTION])
        table = table if shared else (*table, identity.protocol, identity.seed, str(stage))
        if not self.device.looks_up:
            return seconds + left * seen * rate("maps")
        if table not in self.tables:
            self.tables.add(table)
            maps = left * (every // task.folds if shared else min(seen, every)) * rate("maps")
            self.cold_start[identity.key] = maps
            seconds += maps
        return seconds


def _rows(recipe: WslganRecipe, stage: Stage) -> int:
    """Images in a step."""
    pairs = isinstance(stage, PairStage) and recipe.interpretation.batch_of == "pairs"
    return 2 * stage.batch if pairs else stage.batch


def _measured(name: str, recipe: WslganRecipe, count: int, device: Device, threads: int) -> float:
    """Seconds for one image of a batch of ``count`` images of noise."""
    prepare = {"maps": _maps, ATTENTION: _part_step, "network": _step}[name]
    return seconds_of(lambda: prepare(recipe, count, device), device, threads, recipe.threads) / count


def _maps(recipe: WslganRecipe, count: int, device: Device) -> Callable[[], object]:
    amg = map_generator(AttentionMapGenerator(recipe.architecture).freeze(), device)
    x = device.images(torch.rand(count, 1, SIZE, SIZE, device=device.name))

    def maps() -> None:
        with torch.no_grad(), device.autocast():
            amg(x)

    return maps


def _part_step(recipe: WslganRecipe, count: int, device: Device) -> Callable[[], object]:
    part, stage = AttentionMapGenerator(recipe.architecture).eyes, recipe.attention
    device.place(part)
    train = LabelledImages(_noise(count), torch.arange(count) % 2).on(device)
    samples = Computed(train.images, None, recipe.interpretation.border, device)
    steps = engine(part, lambda batch: part_loss(part, train.labels, samples, batch, stage, device), stage, device)
    batch = single_epoch(count, "sample", count, 0, 0, stage.shuffle)[0].on(device.name)
    return lambda: steps.step(batch)


def _step(recipe: WslganRecipe, count: int, device: Device) -> Callable[[], object]:
    architecture, interpretation = recipe.architecture, recipe.interpretation
    pairs = interpretation.batch_of == "pairs"
    stage = recipe.finetune.model_copy(update={"batch": count // 2 if pairs else count, "augment": "sample"})
    network, labels = WSLGAN(architecture, _CLASSES), torch.arange(count) % _CLASSES
    device.place(network)
    maps = torch.rand(count, DERIVED, 2, architecture.map_size, architecture.map_size)
    pixels = pixel_table(_noise(count), interpretation.border)
    samples = Tables(pixels.to(device.name), maps.to(device.name), device)
    on_device, losses = labels.to(device.name), recipe.losses_of(stage)
    steps = engine(
        network, lambda batch: pair_loss(network.stream, on_device, samples, batch, losses, device), stage, device
    )
    batch = next(iter(network_plan(labels.numpy(), stage, interpretation, 0)(0))).on(device.name)
    return lambda: steps.step(batch)


def _noise(count: int) -> Tensor:
    return torch.randint(0, 256, (count, SIZE, SIZE), dtype=torch.uint8)
