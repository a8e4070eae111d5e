"""Which way a training gets its samples: computed at every step, or from tables that its folds share."""

from collections.abc import Callable
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ferbench.execution.jobs import Job
from ferbench.files import canonical_json, sha256_of, write_bytes
from ferbench.methods.wslgan.attention import AttentionMapGenerator
from ferbench.training import samples
from ferbench.training.augment import DERIVED
from ferbench.training.checkpoint import pack, unpack
from ferbench.training.device import Device
from ferbench.training.plan import Step, looked_up
from ferbench.training.samples import Computed, Samples, Tables

Timed = Callable[[str, Callable[[], Tensor]], Tensor]  # does some work and notes its seconds under a name


def passes(job: Job, images: int) -> int:
    """How many samples a training on ``images`` images looks at in all its epochs."""
    return job.stage.epochs * images * (DERIVED if job.stage.augment == "expand" else 1)


def shared(job: Job, images: int) -> bool:
    """Say whether a training on ``images`` images takes its maps from a table of all derived samples of the
    whole set, which it shares with others, and not from one of those alone that its own plan names: where the folds
    that are asked for look, all together, at no fewer samples than there are; or where it does so by itself."""
    return max(1, job.folds) * passes(job, images) >= DERIVED * len(job.faces)


def samples_of(
    job: Job, train: np.ndarray, plan: Callable[[int], list[Step]], amg: AttentionMapGenerator | None,
    weights: Path | None, home: Path, device: Device, timed: Timed, report: Callable[[int, int], None],
) -> Samples:  # fmt: skip
    """Return the samples of the images ``train`` (indices into the prepared set) that ``plan`` names by epoch.

    amg : frozen and on the device, with its file of weights; both None where no maps are needed.
    home : where tables of maps are kept; one is keyed by everything that decides its bytes.
    report : told how many maps of a new table there are, of how many.
    """
    recipe = job.request.method.recipe
    border = recipe.readings.border
    if device.engine == "plain":
        return Computed(torch.from_numpy(job.faces.images[train]).to(device.name), amg, border, device)
    rows = torch.from_numpy(train)
    pixels = timed("derived samples", lambda: samples.pixel_table(torch.from_numpy(np.array(job.faces.images)), border))
    wanted, maps = None, None
    if amg is not None and weights is not None:
        if not shared(job, len(train)):
            wanted = torch.zeros(pixels.shape[:2], dtype=torch.bool)
            wanted[rows] = looked_up(chain.from_iterable(map(plan, range(job.stage.epochs))), len(train))
        identity = [
            sha256_of(weights.read_bytes()), sha256_of(pixels.numpy().tobytes()), recipe.architecture.cam_class,
            device.rows, device.precision, device.name, torch.get_num_threads(), torch.__version__,
            None if wanted is None else sha256_of(wanted.numpy().tobytes()),
        ]  # fmt: skip
        path = home / f"{sha256_of(canonical_json(identity).encode())[:16]}.safetensors"
        if not path.is_file():
            made = timed("attention maps", lambda: samples.map_table(amg, pixels, device, wanted, report))
            write_bytes(path, pack({"maps": made}, {}))
        maps = unpack(path)[0]["maps"][rows].to(device.name)
    return Tables(pixels[rows].to(device.name), maps, device)
