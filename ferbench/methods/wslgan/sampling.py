"""Which way a training gets its samples: computed at every step, or from tables that its folds share."""

from collections.abc import Callable, Hashable
from itertools import chain
from pathlib import Path

import torch
from torch import Tensor

from ferbench.files import sha256_of
from ferbench.methods.interface import TrainingSet, Workspace
from ferbench.methods.wslgan.lean import Generator
from ferbench.methods.wslgan.recipe import Recipe
from ferbench.training.plan import Step, looked_up, passes
from ferbench.training.samples import Computed, Samples
from ferbench.training.schedule import Stage


def samples_of(
    train: TrainingSet,
    recipe: Recipe,
    stage: Stage,
    plan: Callable[[int], list[Step]],
    amg: Callable[[Tensor], Tensor] | None,
    weights: Path | None,
    work: Workspace,
    report: Callable[[int, int], None],
) -> Samples:
    """Return the samples of a training set that ``plan`` names by epoch.

    amg : frozen and on the device, with its file of weights; both None where no maps are needed.
    report : told how many maps of a new table there are, of how many.
    """
    border, shared = recipe.readings.border, train.shared
    if not work.device.looks_up or shared is None:
        return Computed(torch.from_numpy(train.images).to(work.device.name), amg, border, work.device)
    if amg is None or weights is None:
        return shared.tables(border, work.device, work.timed)
    named = None
    if not shared.pays(passes(stage, len(train))):
        named = looked_up(chain.from_iterable(map(plan, range(stage.epochs))), len(train))
    decides: list[Hashable] = [sha256_of(weights.read_bytes()), recipe.architecture.cam_class]
    if isinstance(amg, Generator):
        decides.append("lean")
    return shared.tables(border, work.device, work.timed, amg, decides, named, report)
