"""A finished run as one module for inference, and the same module in fewer operations.

Three equalities, exact but for rounding, are used in :func:`folded`. Batch normalisation with fixed statistics is
s·x + b for each channel, with s = γ/√(v + ε) and b = β − s·m (Ioffe & Szegedy 2015, Algorithm 2).

- A convolution followed by s·x + b is a convolution with weights s·W and a bias.
- relu(s·x + b) is s·max(x, −b/s) + b where s > 0, and s·min(x, −b/s) + b where s < 0. A 1×1 convolution after it takes
  s and b into its weights and bias. One comparison remains of three operations.
- A 1×1 convolution and an average over 2×2 pixels are linear and act on different axes, so the average can come first,
  and the convolution has a quarter of the work.
"""

import copy
from typing import Literal, TypeVar

import numpy as np
import torch
from pydantic import BaseModel
from torch import Tensor, nn

from ferbench.errors import DataError, UsageError
from ferbench.methods.wslgan.densenet import DenseLayer, Transition
from ferbench.methods.wslgan.network import PARTS, WSLGAN, AttentionMapGenerator
from ferbench.methods.wslgan.recipe import ATTENTION, Architecture
from ferbench.runs.record import Record
from ferbench.runs.store import WEIGHTS, Store
from ferbench.schema import validated
from ferbench.training.arithmetic import ROWS
from ferbench.training.device import Device, keep_freed_memory
from ferbench.training.networks import Deployable, check_kept, load_weights
from ferbench.training.samples import maps_of, shared_tensor


class Deployed(Deployable):
    """A trained method as one frozen module in eval mode: grey images in, logits and attention maps out.

    network : copied without its auxiliary layers, which the losses alone use.
    amg : the generator of its maps; None for GFNet, which takes none.

    Images uint8 [N,1,48,48] in 0..255 → ``(logits [N,K], maps [N,2,H,W])`` in the precision of the
    weights, maps in the order of ``network.PARTS``; without an AMG ``(logits,)``. The scaling to
    [0,1] and the network's own normalisation are inside.
    """

    parts = PARTS

    def __init__(self, network: WSLGAN, amg: AttentionMapGenerator | None):
        super().__init__()
        assert (amg is not None) == network.architecture.needs_attention
        self.network = copy.deepcopy(network)
        # Also because torch.export writes Python that names every submodule, and "global" is a keyword.
        self.network.auxiliary = nn.ModuleDict()
        self.amg = copy.deepcopy(amg)
        self.eval().requires_grad_(False)

    @property
    def outputs(self) -> tuple[str, ...]:
        return ("logits",) if self.amg is None else ("logits", "maps")

    def for_inference(self, device: Device) -> nn.Module:
        return in_fewest_operations(self, device)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        x = images.to(self.network.normalise.mean.dtype) / 255
        if self.amg is None:
            return (self.network(x, None),)
        maps = self.amg(x)
        return self.network(x, maps), maps


class _StoredNetwork(BaseModel):
    """The part of a stored recipe that the network is rebuilt from."""

    architecture: Architecture


class _GeneratorShape(BaseModel):
    """The result of ``Architecture.generator``."""

    layers: tuple[int, ...]
    growth: int
    stem_stride: Literal[1, 2]


class _StoredGenerator(BaseModel):
    """The part of a stored recipe that an AMG is rebuilt from."""

    generator: _GeneratorShape


def deployed(record: Record, store: Store) -> Deployed:
    """Rebuild the network of a fold or pre-training run, with the AMG that it was trained with.

    Raises UsageError for other runs, DataError when weights are missing, damaged or of another shape.
    """
    identity = record.identity
    if identity.kind == ATTENTION:
        raise UsageError(f"run {record.key} holds attention maps alone: take a fold or pretrain run (`ferbench runs`)")
    check_kept(record)
    architecture = validated(_StoredNetwork, identity.recipe, store.folder(record.key) / "record.json").architecture
    network = WSLGAN(architecture, len(record.classes))
    load_weights(network, store.file(record, WEIGHTS))
    amg = None
    if architecture.needs_attention:
        if ATTENTION not in identity.parents:
            raise DataError(f"run {record.key} names no attention run, but its network takes attention maps")
        amg = AttentionMapGenerator(architecture)
        key = identity.parents[ATTENTION]
        holder = store.holder(key)
        load_weights(amg, holder.file(holder.record(key), WEIGHTS))
    return Deployed(network, amg)


def generator_of(record: Record, store: Store, user: Record | None = None) -> AttentionMapGenerator:
    """Rebuild the AMG of an attention run, frozen.

    user : a run that was trained with it, whose ``cam_class`` is used; without one, that of the package's recipes is.
        The weights are the same for all.
    Raises DataError when weights are missing, damaged or of another shape.
    """
    shape = validated(_StoredGenerator, record.identity.recipe, store.folder(record.key) / "record.json").generator
    amg = AttentionMapGenerator(
        Architecture(growth=shape.growth, stem_stride=shape.stem_stride, generator_layers=shape.layers)
    )
    load_weights(amg, store.file(record, WEIGHTS))
    if user is not None:
        path = store.holder(user.key).folder(user.key) / "record.json"
        amg.cam_class = validated(_StoredNetwork, user.identity.recipe, path).architecture.cam_class
    return amg.freeze()


def maps(record: Record, store: Store, images: np.ndarray) -> tuple[str, dict[str, np.ndarray]]:
    """See :meth:`ferbench.methods.interface.HasAttentionMaps.maps`."""
    user, generator = None, record
    if record.identity.kind != ATTENTION:
        key = record.identity.parents.get(ATTENTION)
        if key is None:
            raise UsageError(f"run {record.key} takes no attention maps")
        user, generator = record, store.holder(key).record(key)
    amg = generator_of(generator, store.holder(generator.key), user)
    device = Device()
    keep_freed_memory()
    computed = maps_of(for_tests(amg, device), shared_tensor(images), device, ROWS[device.name]).numpy()
    return generator.key, {part: computed[:, number] for number, part in enumerate(PARTS)}


def in_fewest_operations(module: nn.Module, device: Device) -> nn.Module:
    """See :meth:`ferbench.training.networks.Deployable.for_inference`: :func:`folded`, and in bf16 on a GPU the kernels
    of ``lean``, whose weights have a precision of their own.

    module : a :class:`Deployed`, or one that contains an AMG or a network.
    """
    if device.name == "cuda" and device.precision == "bf16":
        from ferbench.methods.wslgan.lean import lean

        return lean(module, torch.bfloat16)
    return device.in_precision(folded(module))


M = TypeVar("M", bound=nn.Module)


@torch.no_grad()
def folded(module: M) -> M:
    """Return a copy in eval mode that gives the same logits and maps (up to rounding) with fewer operations.

    The folding is done in float64. The copy is for inference; its layers have no statistics left to train.
    """
    module = copy.deepcopy(module).eval()
    for parent in list(module.modules()):
        for name, child in parent.named_children():
            if isinstance(child, DenseLayer):
                setattr(parent, name, FoldedLayer(child))
            elif isinstance(child, Transition):
                setattr(parent, name, FoldedTransition(child))
    return module


def for_tests(module: M, device: Device) -> M:
    """Return the form of a network or AMG for images that nothing is learned from.

    In fp32 it is :func:`folded`, which changes no prediction. In bf16 it is the module itself.
    """
    return device.place(folded(module)) if device.precision == "fp32" else module  # type: ignore[return-value]


class Threshold(nn.Module):
    """The rest of BN-ReLU before a 1×1 convolution: [B,C,H,W] → the larger (smaller, where γ < 0) of each value and
    its channel's threshold."""

    def __init__(self, low: Tensor, high: Tensor):
        super().__init__()
        self.register_buffer("low", low[:, None, None])
        # None where no channel's γ is negative, as in every network trained so far: one pass over memory less.
        self.register_buffer("high", high[:, None, None] if bool(high.isfinite().any()) else None)

    low: Tensor
    high: Tensor | None

    def forward(self, x: Tensor) -> Tensor:
        x = torch.maximum(x, self.low)
        return x if self.high is None else torch.minimum(x, self.high)


class FoldedLayer(nn.Module):
    """A :class:`DenseLayer` with its batch normalisations folded away: [B,C,H,W] → [B,C+growth,H,W]."""

    def __init__(self, layer: DenseLayer):
        super().__init__()
        scale, shift = affine(layer.norm2)
        self.threshold, self.conv1 = _threshold_conv(layer.norm1, layer.conv1, scale, shift)
        self.conv2 = layer.conv2

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat((x, self.conv2(torch.relu_(self.conv1(self.threshold(x))))), dim=1)


class FoldedTransition(nn.Module):
    """A :class:`Transition` that averages first: [B,C,H,W] → [B,C·compression,H/2,W/2]."""

    def __init__(self, layer: Transition):
        super().__init__()
        self.threshold, self.conv = _threshold_conv(layer.norm, layer.conv)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(nn.functional.avg_pool2d(self.threshold(x), 2))


def affine(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """The s and b [C], in float64, of a batch normalisation with fixed statistics."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
    return scale, norm.bias.double() - scale * norm.running_mean.double()


def _threshold_conv(
    norm: nn.BatchNorm2d, conv: nn.Conv2d, after: Tensor | None = None, offset: Tensor | None = None
) -> tuple[Threshold, nn.Conv2d]:
    """relu(norm(x)) → conv → (after·y + offset) as a threshold and one 1×1 convolution with bias."""
    scale, shift = affine(norm)
    dead = scale == 0  # relu(b), whatever x is
    threshold = -shift / scale.where(~dead, torch.ones_like(scale))
    infinite = torch.full_like(threshold, torch.inf)
    low = torch.where(scale > 0, threshold, torch.where(dead, torch.zeros_like(threshold), -infinite))
    high = torch.where(scale < 0, threshold, torch.where(dead, torch.zeros_like(threshold), infinite))
    weight = conv.weight.double().flatten(1)  # [out, in]
    bias = weight @ torch.where(dead, shift.clamp_min(0), shift)
    weight = weight * scale
    if after is not None and offset is not None:
        weight, bias = after[:, None] * weight, after * bias + offset
    kind = conv.weight.dtype
    folded_conv = nn.Conv2d(conv.in_channels, conv.out_channels, 1).to(kind).requires_grad_(False)
    folded_conv.weight.copy_(weight[:, :, None, None])
    folded_conv.bias.copy_(bias)  # type: ignore[union-attr]
    return Threshold(low.to(kind), high.to(kind)), folded_conv
