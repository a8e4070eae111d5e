"""Sizes and shapes of WS-LGAN and its ablations, for ``ferbench show``."""

from typing import Any

import torch
from torch import Tensor, nn

from ferbench.methods.recipes import Method
from ferbench.methods.wslgan.attention import AttentionMapGenerator
from ferbench.methods.wslgan.network import WSLGAN
from ferbench.training.cost import flops


def describe(method: Method, classes: int) -> list[tuple[str, dict[str, Any]]]:
    """Parameters, FLOPs of one image, and shapes of all features."""
    architecture = method.recipe.architecture
    network = WSLGAN(architecture, classes).eval()
    x, size = torch.zeros(2, 1, 48, 48), architecture.map_size
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
