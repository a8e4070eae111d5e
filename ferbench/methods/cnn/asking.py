"""What a frozen network, trained on faces with attributes by a run of its own, says of a training's images."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ferbench.methods.cnn.network import Network
from ferbench.methods.cnn.recipe import Shape
from ferbench.methods.interface import Workspace
from ferbench.training.checkpoint import unpack
from ferbench.training.device import Device
from ferbench.training.samples import batches


def asked(role: str, shape: Shape, work: Workspace) -> Network:
    """Rebuild the network of a training's parent, frozen, on the device."""
    tensors = unpack(work.parent(role)[1])[0]
    network = Network(shape, None, len(tensors["classifier.weight"]))
    network.load_state_dict(tensors)
    network.eval().requires_grad_(False)
    work.device.place(network)
    return network


def outputs_of(network: Network, images: np.ndarray, device: Device) -> dict[str, Tensor]:
    """What a network gives for undistorted images uint8 [N,48,48]: float32 on the CPU, by name."""
    network.eval()
    found: dict[str, list[Tensor]] = {}
    with torch.inference_mode(), device.autocast():
        for x in batches(torch.tensor(images), device):
            for name, one in network.outputs(x).items():
                found.setdefault(name, []).append(one.float().cpu())
    return {name: torch.cat(parts) for name, parts in found.items()}
