"""Small networks of WS-LGAN, with and without training."""

from dataclasses import asdict

import torch
from torch import nn

from ferbench.files import write_bytes
from ferbench.methods.wslgan import stages
from ferbench.methods.wslgan.network import WSLGAN, AttentionMapGenerator
from ferbench.methods.wslgan.recipe import Architecture
from ferbench.runs.store import Store
from ferbench.schema import plain
from ferbench.training.checkpoint import pack
from ferbench.training.device import Device
from support.runs import CLASSES, store_fold, store_stage

SMALL_FIELDS = {
    "growth": 4,
    "stem_stride": 2,
    "extractor_layers": (1, 1, 1),
    "generator_layers": (1, 1, 1),
    "reduction": 4,
}
SMALL = Architecture(**SMALL_FIELDS)
CPU = Device()
ROWS = [("S1", "anger", "anger")]


def labelled(count: int = 24) -> stages.LabelledImages:
    rng = torch.Generator().manual_seed(0)
    labels = torch.arange(count) % 3
    images = torch.randint(0, 80, (count, 48, 48), generator=rng, dtype=torch.uint8)
    for image, label in zip(images, labels, strict=True):
        image[torch.arange(48) // (1, 3, 9)[int(label)] % 2 == 0] += 120  # the class is how wide the stripes are
    return stages.LabelledImages(images, labels)


def statistics_as_after_training(module: nn.Module, seed: int) -> None:
    """Give every batch normalisation statistics, scales and shifts; some scales are negative, some 0."""
    rng = torch.Generator().manual_seed(seed)
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.running_mean.copy_(torch.randn(norm.running_mean.shape, generator=rng))
            norm.running_var.copy_(torch.rand(norm.running_var.shape, generator=rng) + 0.2)
            norm.weight.data.copy_(torch.randn(norm.weight.shape, generator=rng))
            norm.weight.data[::5] = 0
            norm.bias.data.copy_(torch.randn(norm.bias.shape, generator=rng))


def seeded(module: torch.nn.Module, seed: int) -> dict[str, torch.Tensor]:
    """The state of a module as after some training: no statistic or scale is at its start."""
    rng = torch.Generator().manual_seed(seed)
    state = module.state_dict()
    for name, tensor in state.items():
        if name.endswith(("running_var", "deviation")):
            tensor.copy_(torch.rand(tensor.shape, generator=rng) + 0.5)
        elif tensor.is_floating_point() and not name.endswith("each"):
            tensor.add_(0.1 * torch.randn(tensor.shape, generator=rng))
    return state


def store_network(store: Store, method: str = "wslgan", **shape) -> str:
    """Store one untrained fold, and its AMG where it takes one, as training does; return the fold's key."""
    torch.manual_seed(0)
    architecture = Architecture(**SMALL_FIELDS, **shape)
    parents = {}
    if architecture.needs_attention:
        parents["attention"] = store_stage(store, "attention")
        state = seeded(AttentionMapGenerator(architecture), 1)
        write_bytes(store.folder(parents["attention"]) / "weights.safetensors", pack(state, {}))
    recipe = plain({"architecture": asdict(architecture), "losses": {}})
    key = store_fold(store, "01", ROWS, method=method, recipe=recipe, parents=parents)
    write_bytes(store.folder(key) / "weights.safetensors", pack(seeded(WSLGAN(architecture, len(CLASSES)), 2), {}))
    return key
