"""Random weights that depend on a seed alone."""

from collections.abc import Callable
from threading import Lock
from typing import TypeVar

import torch
from torch import nn

M = TypeVar("M", bound=nn.Module)
_GENERATOR = Lock()  # torch has one generator for all threads of a process


def seeded(seed: int, build: Callable[[], M]) -> M:
    """Build a network whose random weights are those of ``seed``, whatever other threads draw meanwhile."""
    with _GENERATOR:
        torch.manual_seed(seed)
        return build()
