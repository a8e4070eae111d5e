"""What families of methods do alike with a network: start it from a finished run, call it on all samples, count it."""

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from ferbench.training.checkpoint import unpack
from ferbench.training.device import Device


def start_from(network: nn.Module, weights: Path, parent_classes: Sequence[str], classes: Sequence[str]) -> None:
    """Copy the weights of a finished run, its parent, into a network.

    The rows of the layer ``classifier`` are copied for the classes that both have; a network without this layer has
    classifiers of its own. Rows of other classes, and tensors that the parent lacks, keep their random values.

    weights : the file of the parent. classes : of the network, in order; none for a classifier that starts anew.
    Raises DataError where the file is missing or damaged.
    """
    stored, own = unpack(weights)[0], network.state_dict()
    shared = [(row, parent_classes.index(label)) for row, label in enumerate(classes) if label in parent_classes]
    for name in [name for name in stored if name.startswith("classifier.")]:
        parent_rows = stored.pop(name)
        if name in own:
            for row, parent_row in shared:
                own[name][row] = parent_rows[parent_row]
    network.load_state_dict({**own, **stored})


def in_batches(call: Callable[..., Tensor], device: Device, *inputs: Tensor) -> Tensor:
    """Call a network in eval mode on all samples, ``device.rows`` at a time: float32 [N,…] on the CPU.

    call : gets a batch of each of ``inputs`` [N,…], on the device and in its precision; no gradients are recorded.
    """
    batches = zip(*(values.split(device.rows) for values in inputs), strict=True)
    with torch.inference_mode(), device.autocast():
        return torch.cat([call(*(part.to(device.name) for part in batch)).float().cpu() for batch in batches])


def on_images(call: Callable[..., Tensor], device: Device, images: Tensor, *inputs: Tensor) -> Tensor:
    """:func:`in_batches` for images uint8 [N,48,48], which ``call`` gets as float [B,1,48,48] in [0,1]."""

    def scaled(x: Tensor, *others: Tensor) -> Tensor:
        return call(device.images(x.unsqueeze(1).float() / 255), *others)

    return in_batches(scaled, device, images, *inputs)


def parameter_count(*modules: nn.Module) -> int:
    """How many numbers are learned by gradient."""
    return sum(parameter.numel() for module in modules for parameter in module.parameters())
