"""How long the trainings of a plan take, from one measured step of each kind."""

import time
from collections.abc import Callable, Hashable

import torch

from ferbench.methods.interface import Task
from ferbench.methods.recipes import resolve
from ferbench.methods.wslgan.attention import AttentionMapGenerator
from ferbench.methods.wslgan.network import WSLGAN
from ferbench.methods.wslgan.sampling import passes
from ferbench.methods.wslgan.settings import Architecture
from ferbench.runs.record import TEACHER
from ferbench.training.augment import DERIVED
from ferbench.training.device import Device

FORWARD = 1 / 3  # of a training pass: the backward pass computes two gradients, each as much work as the forward one
ROWS = {"cpu": 20, "cuda": 128}  # images in the measured step: enough to be a batch and to keep a GPU busy, few
# enough for the largest preset on a CPU


class Estimate:
    """Seconds of one task after another, as a plan makes them: a table of maps counts for the first that needs it."""

    def __init__(self, device: Device):
        self.device = device
        self.rates: dict[tuple[str, str, int], float] = {}  # seconds for one image, measured when first needed
        self.tables: set[tuple[Hashable, ...]] = set()

    def __call__(self, task: Task, threads: int) -> float:
        """Return the seconds of what is left of a task that has so many threads to itself."""
        recipe = task.method.recipe
        stage = task.method.kin.stage(task.identity.kind, task.method, task.protocol)  # type: ignore[attr-defined]

        def rate(name: str, shape: Architecture = recipe.architecture) -> float:
            key = name, str(shape if name == "network" else shape.generator()), threads
            if key not in self.rates:
                before = torch.get_num_threads()
                torch.set_num_threads(threads)
                self.rates[key] = _measured(name, shape, self.device)
                torch.set_num_threads(before)
            return self.rates[key]

        kind = "attention" if task.identity.kind == "attention" else "network"
        if task.retested:
            return stage.epochs * task.tested * rate(kind) * FORWARD
        images, left = task.images, 1 - task.done
        looks = passes(stage, images)
        seconds = left * looks * rate(kind)
        for role in task.identity.parents:
            if role.startswith(TEACHER):
                shape = resolve(task.method.name, role[len(TEACHER) :], task.protocol.name).recipe.architecture
                maps = rate("maps", shape) if shape.needs_attention else 0.0
                seconds += left * images * (rate("network", shape) * FORWARD + maps)
        if "attention" not in task.identity.parents:
            return seconds
        every = len(task.faces) * DERIVED
        shared = self.device.engine == "fast" and task.folds * looks >= every
        # The table of all samples is the same for every training that looks into it, another is for those alone that
        # look at the same images in the same order.
        identity = task.identity
        table: tuple[Hashable, ...] = (identity.data, identity.fold, identity.parents["attention"])
        table = table if shared else (*table, identity.protocol, identity.seed, str(stage))
        if self.device.engine == "plain":
            return seconds + left * looks * rate("maps")
        if table not in self.tables:
            self.tables.add(table)
            seconds += left * (every // task.folds if shared else min(looks, every)) * rate("maps")
        return seconds


def _measured(name: str, architecture: Architecture, device: Device) -> float:
    rows = ROWS[device.name]
    x = device.images(torch.rand(rows, 1, 48, 48, device=device.name))
    call: Callable[[], object]
    if name == "maps":
        amg = AttentionMapGenerator(architecture)
        device.place(amg)
        amg.freeze()
        call = lambda: amg(x)  # noqa: E731
    elif name == "attention":
        part = AttentionMapGenerator(architecture).eyes
        device.place(part)
        call = lambda: part(x).float().sum().backward()  # noqa: E731
    else:
        network = WSLGAN(architecture, 7)
        device.place(network)
        maps = torch.rand(rows, 2, architecture.map_size, architecture.map_size, device=device.name)
        call = lambda: network(x, maps).float().sum().backward()  # noqa: E731
    times = []
    for _ in range(3):
        start = time.perf_counter()
        with device.autocast():
            call()
        if device.name == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return min(times) / rows
