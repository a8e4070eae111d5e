"""What ``ferbench show`` shows: methods, and one method's sizes, shapes and resolved recipe."""

from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn

from ferbench.methods import recipes as methods
from ferbench.methods.wslgan.attention import AttentionMapGenerator
from ferbench.methods.wslgan.network import WSLGAN
from ferbench.methods.wslgan.recipe import PRESETS
from ferbench.protocol import protocol as protocols
from ferbench.training.cost import flops

Sections = list[tuple[str, dict[str, Any]]]


def list_methods() -> Sections:
    """List all methods with what each is."""
    found = {}
    for name in methods.names():
        method = methods.resolve(name, "paper", "ckplus")
        shape = method.recipe.architecture
        found[name] = f"{method.title}: {shape.features} features, {shape.fusion}" + (
            "" if shape.contrastive else ", no contrastive loss")  # fmt: skip
    return [("methods", found), ("presets", {
        preset: f"growth {shape.growth}, of the AMG {shape.generator()['growth']}, stem stride {shape.stem_stride}"
        for preset in PRESETS for shape in [methods.resolve("wslgan", preset, "ckplus").recipe.architecture]
    })]  # fmt: skip


def describe(name: str, preset: str, dataset: str, overrides: tuple[str, ...]) -> Sections:
    """Describe a method: parameters, FLOPs of one image, shapes of all features, and its recipe."""
    protocol = protocols.load(dataset)
    method = methods.resolve(name, preset, protocol.name, overrides)
    architecture = method.recipe.architecture
    network = WSLGAN(architecture, len(protocol.classes)).eval()
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
    shapes |= {"A_eyes, A_mouth": f"1×{size}×{size}", "V": _shape(fused), "classes": len(protocol.classes)}
    recipe = method.recipe.model_dump(exclude={"architecture", "losses"})
    recipe = {"architecture": asdict(architecture), "losses": asdict(method.recipe.losses), **recipe}
    title = f"{method.title}, preset {preset}, for {protocol.identifier}"
    return [
        (title, sizes),
        ("shapes", shapes),
        *((f"recipe: {part}", fields) for part, fields in recipe.items()),
    ]


def _shape(features: Tensor) -> str:
    return "×".join(str(side) for side in features.shape[1:])
