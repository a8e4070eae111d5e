"""How long the trainings of a plan take, from one measured step of each kind.

What an engine compiles is measured uncompiled: compiling takes minutes, and a plan is to be there at once.
"""

from collections.abc import Callable, Hashable

import torch
from torch import Tensor

from ferbench.data.faces import SIZE
from ferbench.methods.interface import Task
from ferbench.methods.recipes import resolve
from ferbench.methods.wslgan.attention import AttentionMapGenerator
from ferbench.methods.wslgan.lean import maker_of_maps
from ferbench.methods.wslgan.network import WSLGAN
from ferbench.methods.wslgan.recipe import PairStage, Recipe
from ferbench.methods.wslgan.stages import Labelled, branches_at_once, network_plan, pair_loss, part_loss
from ferbench.runs.record import TEACHER
from ferbench.training.augment import DERIVED
from ferbench.training.cost import FORWARD, seconds_of
from ferbench.training.device import Device
from ferbench.training.engine import engine
from ferbench.training.plan import passes, single_epoch
from ferbench.training.samples import Computed, Tables, pixel_table
from ferbench.training.schedule import Stage

ROWS = {
    "cpu": 20,
    "cuda": 128,
}  # images in the measured step, at most: enough to be a batch and to keep a GPU busy, few
# enough for the largest preset on a CPU
_CLASSES = 7


class Estimate:
    """Seconds of one task after another, as a plan makes them: a table of maps counts for the first that needs it."""

    def __init__(self, device: Device):
        self.device = device
        self.rates: dict[tuple[str, str, int, int], float] = {}  # seconds for one image, measured when first needed
        self.tables: set[tuple[Hashable, ...]] = set()

    def __call__(self, task: Task, threads: int) -> float:
        """Return the seconds of what is left of a task that has so many threads to itself."""
        recipe = task.method.recipe
        stage = task.method.family.stage(task.identity.kind, task.method, task.protocol)  # type: ignore[attr-defined]

        def rate(name: str, recipe: Recipe = recipe) -> float:
            shape = recipe.architecture
            count = min(ROWS[self.device.name], _rows(recipe, stage))
            key = name, str(shape if name == "network" else shape.generator()), count, threads
            if key not in self.rates:
                self.rates[key] = _measured(name, recipe, count, self.device, threads)
            return self.rates[key]

        kind, at_once = "network", 1
        if task.identity.kind == "attention":
            kind, at_once = "attention", branches_at_once(recipe, self.device, threads)
            threads //= at_once
        if task.retested:
            return stage.epochs * task.tested * rate(kind) * FORWARD
        images, left = task.images, 1 - task.done
        looks = passes(stage, images)
        seconds = left * looks * rate(kind) / at_once
        for role in task.identity.parents:
            if role.startswith(TEACHER):
                teacher = resolve(task.method.name, role[len(TEACHER) :], task.protocol.name).recipe
                maps = rate("maps", teacher) if teacher.architecture.needs_attention else 0.0
                seconds += left * images * (rate("network", teacher) * FORWARD + maps)
        if "attention" not in task.identity.parents:
            return seconds
        every = len(task.faces) * DERIVED
        shared = self.device.looks_up and task.folds * looks >= every
        # The table of all samples is the same for every training that looks into it, another is for those alone that
        # look at the same images in the same order.
        identity = task.identity
        table: tuple[Hashable, ...] = (identity.data, identity.fold, identity.parents["attention"])
        table = table if shared else (*table, identity.protocol, identity.seed, str(stage))
        if not self.device.looks_up:
            return seconds + left * looks * rate("maps")
        if table not in self.tables:
            self.tables.add(table)
            seconds += left * (every // task.folds if shared else min(looks, every)) * rate("maps")
        return seconds


def _rows(recipe: Recipe, stage: Stage) -> int:
    """Images in a step."""
    pairs = isinstance(stage, PairStage) and recipe.readings.batch_of == "pairs"
    return 2 * stage.batch if pairs else stage.batch


def _measured(name: str, recipe: Recipe, count: int, device: Device, threads: int) -> float:
    """Seconds for one image of a batch of so many, of noise."""
    made = {"maps": _maps, "attention": _part_step, "network": _step}[name]
    return seconds_of(lambda: made(recipe, count, device), device, threads, recipe.threads) / count


def _maps(recipe: Recipe, count: int, device: Device) -> Callable[[], object]:
    amg = maker_of_maps(AttentionMapGenerator(recipe.architecture).freeze(), device)
    x = device.images(torch.rand(count, 1, 48, 48, device=device.name))

    def maps() -> None:
        with torch.no_grad(), device.autocast():
            amg(x)

    return maps


def _part_step(recipe: Recipe, count: int, device: Device) -> Callable[[], object]:
    part, stage = AttentionMapGenerator(recipe.architecture).eyes, recipe.attention
    device.place(part)
    train = Labelled(_noise(count), torch.arange(count) % 2).on(device)
    samples = Computed(train.images, None, recipe.readings.border, device)
    steps = engine(part, lambda batch: part_loss(part, train.labels, samples, batch, stage, device), stage, device)
    batch = single_epoch(count, "sample", count, 0, 0, stage.shuffle)[0].on(device.name)
    return lambda: steps.step(batch)


def _step(recipe: Recipe, count: int, device: Device) -> Callable[[], object]:
    shape, readings = recipe.architecture, recipe.readings
    pairs = readings.batch_of == "pairs"
    stage = recipe.finetune.model_copy(update={"batch": count // 2 if pairs else count, "augment": "sample"})
    network, labels = WSLGAN(shape, _CLASSES), torch.arange(count) % _CLASSES
    device.place(network)
    maps = torch.rand(count, DERIVED, 2, shape.map_size, shape.map_size)
    samples = Tables(pixel_table(_noise(count), readings.border).to(device.name), maps.to(device.name), device)
    there, losses = labels.to(device.name), recipe.losses_of(stage)
    steps = engine(
        network, lambda batch: pair_loss(network.stream, there, samples, batch, losses, device), stage, device
    )
    batch = network_plan(labels.numpy(), stage, readings, 0)(0)[0].on(device.name)
    return lambda: steps.step(batch)


def _noise(count: int) -> Tensor:
    return torch.randint(0, 256, (count, SIZE, SIZE), dtype=torch.uint8)
