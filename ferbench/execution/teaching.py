"""What finished runs say of a training's images: the teachers of another network."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from ferbench.execution.jobs import Job
from ferbench.execution.sampling import Timed
from ferbench.files import write_bytes
from ferbench.methods.wslgan import stages
from ferbench.methods.wslgan.stages import Teacher
from ferbench.methods.wslgan.trained import deployed
from ferbench.runs.record import TEACHER
from ferbench.runs.store import Store
from ferbench.training.checkpoint import pack, unpack
from ferbench.training.device import Device
from ferbench.training.samples import maps_if_any

_BATCHES = 10  # of a prediction, between two reports


def taught(
    job: Job, images: Tensor, file: Path, store: Store, device: Device, timed: Timed,
    report: Callable[[int, int], None],
) -> Teacher | None:  # fmt: skip
    """Return the mean of what a job's teachers say of its training images, uint8 [N,48,48], undistorted; None where
    it has no teachers.

    file : where it is kept, so that an interrupted training goes on with the same. report : told how many images the
        teachers have seen, of how many.
    """
    keys = [key for kind, key in job.identity.parents.items() if kind.startswith(TEACHER)]
    if not keys:
        return None

    def mean() -> Tensor:
        parts = images.split(_BATCHES * device.rows)
        total = torch.zeros(())
        for number, key in enumerate(keys):
            holder = store.holder(key)
            one = deployed(holder.record(key), holder)
            device.place(one)
            said = []
            for part in parts:
                said.append(stages.predict(one.network, part, device, maps_if_any(one.amg, part, device)))
                report(number * len(images) + sum(map(len, said)), len(keys) * len(images))
            total = total + torch.cat(said)
        return total / len(keys)

    if not file.is_file():
        write_bytes(file, pack({"probabilities": timed("teachers", mean)}, {}))
    return Teacher(unpack(file)[0]["probabilities"], job.request.method.recipe.pretrain.distil)
