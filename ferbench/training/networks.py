"""Shared by networks of all families: initial weights, grey levels, batches, the deployed form, contrastive loss,
and the costs of a pass: floating-point operations, and seconds on this machine."""

from __future__ import annotations

import copy
import statistics
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock
from typing import ClassVar, TypeVar

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Node, symbolic_trace
from torch.fx.proxy import TraceError
from torch.nn.utils.fusion import fuse_conv_bn_eval

from ferbench.errors import DataError, UsageError
from ferbench.runs.record import BEST_TEST, Record
from ferbench.training.checkpoint import unpack
from ferbench.training.device import Device

M = TypeVar("M", bound=nn.Module)
_RANDOM_STATE = Lock()  # torch has one random number generator for all threads of a process


def seeded(seed: int, build: Callable[[], M]) -> M:
    """Build a network whose random weights depend on ``seed`` alone, whatever other threads do."""
    with _RANDOM_STATE:
        torch.manual_seed(seed)
        return build()


def start_from(network: nn.Module, weights: Path, parent_classes: Sequence[str], classes: Sequence[str]) -> None:
    """Copy the weights of a finished run, its parent, into a network.

    The rows of the layer ``classifier`` are copied for the common classes, if the network has this layer. Rows of other
    classes, and tensors that the parent lacks, keep their random values.

    weights : the file of the parent. classes : of the network, in order; none to start with a random classifier.
    Raises DataError if the file is missing or damaged.
    """
    stored, state = unpack(weights)[0], network.state_dict()
    shared = [(row, parent_classes.index(label)) for row, label in enumerate(classes) if label in parent_classes]
    for name in [name for name in stored if name.startswith("classifier.")]:
        parent_rows = stored.pop(name)
        if name in state:
            for row, parent_row in shared:
                state[name][row] = parent_rows[parent_row]
    network.load_state_dict({**state, **stored})


_FLAT = 1e-3  # smallest deviation of an image, a quarter of a grey level; below it is noise


class Normalise(nn.Module):
    """(x − mean) / deviation on [B,1,H,W] in [0,1]. The paper names no normalisation.

    mean, deviation : one value each, buffers saved with the weights; 0.5 and 0.5 until they are set
        from the training images.
    each : 1 to scale each image by its mean and deviation instead.
    """

    mean: Tensor
    deviation: Tensor
    each: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(0.5))
        self.register_buffer("deviation", torch.tensor(0.5))
        self.register_buffer("each", torch.tensor(0.0))

    def fit(self, images: Tensor, rule: str) -> None:
        """Set the constants by ``rule`` ("train", "half", "image") from training images uint8 [N,48,48].

        The sums are taken over the 256 grey levels in integers, so they do not depend on order.
        """
        if rule == "train":
            counts = torch.bincount(images.flatten(), minlength=256).double()
            levels = torch.arange(256).double() / 255
            mean = (counts * levels).sum() / counts.sum()
            variance = (counts * (levels - mean).square()).sum() / counts.sum()
            self.mean.copy_(mean)
            self.deviation.copy_(variance.sqrt().clamp_min(_FLAT))
        elif rule == "half":
            self.mean.fill_(0.5)
            self.deviation.fill_(0.5)
        self.each.fill_(float(rule == "image"))

    def forward(self, x: Tensor) -> Tensor:
        image_deviation, image_mean = torch.std_mean(x, dim=(1, 2, 3), keepdim=True, correction=0)
        mean = torch.lerp(self.mean.expand_as(image_mean), image_mean, self.each)
        deviation = torch.lerp(self.deviation.expand_as(image_mean), image_deviation, self.each)
        return (x - mean) / deviation.clamp_min(_FLAT)


class Deployable(nn.Module, ABC):
    """A trained method as one frozen module in eval mode: images uint8 [N,1,48,48] in 0..255 → logits [N,K] first.

    It includes scaling and normalisation of levels. shape : of an image, where it is another one, with channels first.
    parts : the part of the face of each attention map [N,P,H,W],
    the second output; empty for a method without maps.
    """

    parts: ClassVar[tuple[str, ...]] = ()
    shape: tuple[int, int, int] = (1, 48, 48)

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the outputs of :meth:`forward`, in order."""
        return ("logits",)

    @abstractmethod
    def for_inference(self, device: Device) -> nn.Module:
        """A copy in the form with the fewest operations and in the precision of a device, not yet placed there."""


class Deployed(Deployable):
    """The deployed form of a network from grey levels in [0,1], [N,1,48,48], to logits."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network
        self.eval().requires_grad_(False)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Images uint8 [N,1,48,48] → ``(logits [N,K],)`` in the precision of the weights."""
        weight = next(self.network.parameters())
        return (self.network(images.to(weight.dtype) / 255),)

    def for_inference(self, device: Device) -> nn.Module:
        """Batch normalisation folded into convolutions where it follows them (:func:`fused`)."""
        return device.in_precision(Deployed(fused(self.network)))


def fused(network: M) -> M | GraphModule:
    """Return a copy in eval mode with each batch normalisation that follows a convolution folded into its weights.

    The copy gives the same up to rounding. A network whose operations depend on values cannot be traced; its copy is as
    it was.
    """
    network = copy.deepcopy(network).eval()
    try:
        traced = symbolic_trace(network)
    except (TraceError, TypeError, RuntimeError):  # a loop or condition on values; a conversion; len()
        return network
    modules = dict(traced.named_modules())
    calls = Counter(node.target for node in traced.graph.nodes)
    for node in list(traced.graph.nodes):
        norm, before = modules.get(str(node.target)), node.args and node.args[0]
        conv = modules.get(str(before.target)) if isinstance(before, Node) else None
        alone = conv and calls[node.target] == calls[before.target] == len(before.users) == 1  # one call, one reader
        if alone and isinstance(norm, nn.BatchNorm2d) and isinstance(conv, nn.Conv2d):
            traced.set_submodule(before.target, fuse_conv_bn_eval(conv, norm))
            node.replace_all_uses_with(before)
            traced.graph.erase_node(node)
    traced.delete_all_unused_submodules()
    traced.recompile()
    return traced


def check_kept(record: Record) -> None:
    """Raise UsageError for a run that keeps no weights."""
    if record.identity.selection == BEST_TEST:
        raise UsageError(f"run {record.key} measures data leakage and keeps no weights: take that of the last epoch")
    if record.error:
        raise UsageError(f"run {record.key} failed: the command that trained it tries again")


def load_weights(module: nn.Module, weights: Path) -> None:
    """Load the weights of a run. Raises DataError if they are missing, damaged or of another shape."""
    tensors, _ = unpack(weights)
    try:
        module.load_state_dict(tensors)
    except RuntimeError:
        raise DataError(f"{weights} does not fit the run's recipe: delete its run folder and train again") from None


def in_batches(call: Callable[..., Tensor], device: Device, *inputs: Tensor, rows: int = 0) -> Tensor:
    """Call a network in eval mode on all samples, ``rows`` at a time (0: ``device.rows``): float32 [N,…] on the CPU.

    call : gets a batch of each of ``inputs`` [N,…], on the device and in its precision; no gradients are recorded.
    """
    batches = zip(*(values.split(rows or device.rows) for values in inputs), strict=True)
    with torch.inference_mode(), device.autocast():
        return torch.cat([call(*(part.to(device.name) for part in batch)).float().cpu() for batch in batches])


def on_images(call: Callable[..., Tensor], device: Device, images: Tensor, *inputs: Tensor, rows: int = 0) -> Tensor:
    """:func:`in_batches` for images uint8 [N,48,48], which ``call`` gets as float [B,1,48,48] in [0,1]."""

    def scaled(x: Tensor, *others: Tensor) -> Tensor:
        return call(device.images(x.unsqueeze(1).float() / 255), *others)

    return in_batches(scaled, device, images, *inputs, rows=rows)


def parameter_count(*modules: nn.Module) -> int:
    """Number of trainable parameters."""
    return sum(parameter.numel() for module in modules for parameter in module.parameters())


_EPSILON = 1e-12  # added under the root of a squared distance, because the root has no gradient at 0


def contrastive_loss(
    first: Tensor, second: Tensor, same: Tensor, margin: float, epsilon_for_same: bool = False
) -> Tensor:
    """Mean over pairs of ½ D² for two samples of one class and ½ max(0, margin − D)² for two of different classes.

    D is the Euclidean distance (Hadsell, Chopra, LeCun 2006, "Dimensionality reduction by learning an invariant
    mapping", Eq. 4), computed in float32 or, for float64 features, in float64.

    first, second : features [P,F] of both members of each pair. same : [P], whether their classes are equal.
    epsilon_for_same : add the epsilon under the root to the D² of equal classes as well. The value hardly differs;
        methods that were trained this way keep it, so that a repeated training gives the same bytes.
    """
    difference = first - second
    squared = (difference if difference.dtype == torch.float64 else difference.float()).square().sum(dim=1)
    distance = (squared + _EPSILON).sqrt()
    attraction = distance.square() if epsilon_for_same else squared
    return torch.where(same.bool(), attraction, (margin - distance).clamp_min(0).square()).mean() / 2


def contrastive_loss_of_batch(features: Tensor, labels: Tensor, first: Tensor, second: Tensor, margin: float) -> Tensor:
    """:func:`contrastive_loss` of pairs of rows of a batch. features : [B,F]. labels : [B]. first, second : [P]."""
    same = labels[first] == labels[second]
    return contrastive_loss(features[first], features[second], same, margin, epsilon_for_same=True)


FORWARD = 1 / 3  # of a training pass: the backward pass computes two gradients, each as much work as the forward one
_CALLS, _SECONDS, _LONGEST = 4, 0.35, 3.0  # minimum number of timed calls, their minimum and maximum total seconds


def flops(module: nn.Module, inputs: tuple[Tensor, ...]) -> int:
    """Count the FLOPs of one forward pass of a batch: 2 for each multiply-add of convolutions and products; a training
    pass is three forward passes."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter, torch.no_grad():
        module(*inputs)
    return counter.get_total_flops()


def seconds_of(prepare: Callable[[], Callable[[], object]], device: Device, threads: int, most: int = 0) -> float:
    """Return the median seconds of a call on ``threads`` CPU threads.

    On a CPU the remaining threads of this process make the same call at the same time, as parallel trainings do,
    because cores share caches and memory bandwidth.

    prepare : returns a call; it is called once for each parallel call. most : maximum number of threads of a call, 0:
    no maximum.
    """
    before = torch.get_num_threads()
    copies = max(1, before // max(1, threads)) if device.name == "cpu" else 1
    calls = [prepare() for _ in range(copies)]

    def timed(call: Callable[[], object]) -> float:
        torch.set_num_threads(
            max(1, min(threads, most or threads))
        )  # OpenMP keeps the number for each thread separately
        taken: list[float] = []
        began = time.perf_counter()
        while True:
            start = time.perf_counter()
            call()
            if device.name == "cuda":
                torch.cuda.synchronize()
            taken.append(time.perf_counter() - start)
            spent = time.perf_counter() - began
            if spent > _LONGEST or (len(taken) >= _CALLS and spent > _SECONDS):
                return statistics.median(taken[1:] or taken)  # the first call allocates memory

    try:
        if copies == 1:
            return timed(calls[0])
        with ThreadPoolExecutor(copies) as pool:
            return max(pool.map(timed, calls))
    finally:
        torch.set_num_threads(before)
