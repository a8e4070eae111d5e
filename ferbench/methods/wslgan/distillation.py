"""Knowledge distillation: the soft targets that finished runs, the teachers, give for a training's images."""

from collections.abc import Callable

import torch
from torch import Tensor

from ferbench.methods.interface import Workspace
from ferbench.methods.wslgan import stages
from ferbench.methods.wslgan.stages import Teacher
from ferbench.methods.wslgan.trained import deployed
from ferbench.runs.record import TEACHER
from ferbench.training.checkpoint import remembered
from ferbench.training.samples import maps_if_any

_BATCHES = 10  # of a prediction, between two reports


def soft_targets(images: Tensor, share: float, work: Workspace, report: Callable[[int, int], None]) -> Teacher | None:
    """Return the mean of the teachers' probabilities for a run's training images, uint8 [N,48,48], undistorted;
    None where it has no teachers. An interrupted training goes on with the same.

    share : of it in the classifier's target. report : told how many images the teachers have seen, of how many.
    """
    keys = [key for role, key in work.identity.parents.items() if role.startswith(TEACHER)]
    if not keys:
        return None

    def mean() -> Tensor:
        parts = images.split(_BATCHES * work.device.rows)
        total = torch.zeros(())
        for number, key in enumerate(keys):
            holder = work.store.holder(key)
            one = deployed(holder.record(key), holder)
            work.device.place(one)
            said = []
            for part in parts:
                said.append(stages.predict(one.network, part, work.device, maps_if_any(one.amg, part, work.device)))
                report(number * len(images) + sum(map(len, said)), len(keys) * len(images))
            total = total + torch.cat(said)
        return total / len(keys)

    said = remembered(work.checkpoint("teacher"), lambda: {"probabilities": work.timed("teachers", mean)})
    return Teacher(said["probabilities"], share)
