"""torchvision beside a torch that was built without CUDA."""

from functools import cache
from importlib.util import find_spec
from pathlib import Path

import torch


@cache
def define_missing_operators() -> torch.library.Library | None:
    """Make ``import torchvision`` possible where its compiled part cannot be loaded, as it needs CUDA's libraries.

    Its import registers kernels for two operators, so their schemas have to exist. No network of timm calls them.
    """
    spec = find_spec("torchvision")
    if spec is None or spec.origin is None:
        return None
    try:
        for compiled in Path(spec.origin).parent.glob("_C*.so"):
            torch.ops.load_library(compiled)
        return None
    except OSError:
        library = torch.library.Library("torchvision", "DEF")
        for operator in ("nms", "qnms"):
            library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        return library
