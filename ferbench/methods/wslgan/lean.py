"""The networks for inference on a GPU: two kernels for each dense layer, with the foldings of ``deployed.folded``.

Both branches of the AMG have the same shape, so the same kernels compute both. Weights are stored in the precision of
the arithmetic. The layers of a dense block write their maps into one buffer, and a transition writes into the buffer of
the next block. If the classifier reads means over space, branches are averaged before the fusion, because both
operations are linear (Eq. 1, 2, 5-9).
"""

import copy
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from ferbench.methods.wslgan import kernels
from ferbench.methods.wslgan.densenet import DenseLayer, DenseNet, Transition
from ferbench.methods.wslgan.deployed import Deployed, affine
from ferbench.methods.wslgan.network import PARTS, WSLGAN, AttentionMapGenerator, unit_range
from ferbench.training.device import Device
from ferbench.training.networks import Normalise


def lean(module: nn.Module, kind: torch.dtype, at_once: int = 0) -> nn.Module:
    """Return a copy for inference with the same outputs up to rounding, with weights of ``kind``, in eval mode.

    module : an AMG, a network, or any module that contains them. Logits and maps are float32 (float64 for float64).
    at_once : images that pass through a dense block together, 0: all. For few images its buffer stays in the cache.
    """
    if isinstance(module, AttentionMapGenerator):
        return LeanMapGenerator(module, kind, at_once)
    if isinstance(module, WSLGAN):
        return LeanNetwork(module, kind, at_once)
    if isinstance(module, Deployed):
        return LeanDeployed(module, kind, at_once)
    module = copy.deepcopy(module)
    for name, child in module.named_children():
        setattr(module, name, lean(child, kind, at_once))
    return module


def map_generator(amg: AttentionMapGenerator, device: Device) -> Callable[[Tensor], Tensor]:
    """A frozen AMG on a device in the form that computes its maps: :func:`lean` in bf16, and unchanged in fp32, so that
    the maps are accurate to 1e-5."""
    if device.captures and device.precision == "bf16" and kernels.fused(device.name):
        return lean(amg, torch.bfloat16).to(device.name)
    device.place(amg)
    return amg


class LeanDeployed(nn.Module):
    """A :class:`Deployed`: images uint8 [N,1,48,48] → ``(logits [N,K], maps [N,2,H,W])``, or ``(logits,)``."""

    def __init__(self, module: Deployed, kind: torch.dtype, at_once: int = 0):
        super().__init__()
        self.network = LeanNetwork(module.network, kind, at_once)
        self.amg = None if module.amg is None else LeanMapGenerator(module.amg, kind, at_once)
        self.side: torch.cuda.Stream | None = None

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        x = images.to(self.network.shift.dtype) / 255
        if self.amg is None:
            return (self.network(x, None),)
        if not x.is_cuda:
            maps = self.amg(x)
            return self.network(x, maps), maps
        # AMG and features are independent, so each has a CUDA stream, which is a branch of a captured graph.
        here = torch.cuda.current_stream(x.device)
        self.side = side = self.side or torch.cuda.Stream(x.device)
        side.wait_stream(here)
        with torch.cuda.stream(side):
            features = self.network.features(x)
        features.record_stream(here)
        maps = self.amg(x)
        here.wait_stream(side)
        return self.network.classify(features, maps), maps


class LeanMapGenerator(nn.Module):
    """An :class:`AttentionMapGenerator`: images [B,1,48,48] in [0,1] → maps [B,2,H,W]."""

    def __init__(self, amg: AttentionMapGenerator, kind: torch.dtype, at_once: int = 0):
        super().__init__()
        parts = [getattr(amg, part) for part in PARTS]
        self.cam_class = amg.cam_class
        self.backbone = Backbone([p.backbone for p in parts], [p.normalise for p in parts], kind, at_once)
        # The map of a class is a 1×1 convolution by the weights of its logit, after the last BN-ReLU.
        self.maps = Pointwise([p.backbone.norm for p in parts], [p.output.weight for p in parts], kind)
        self.register_buffer("bias", torch.stack([p.output.bias for p in parts]).detach().to(_wide(kind)))

    bias: Tensor

    def forward(self, x: Tensor) -> Tensor:
        features = self.backbone(x)
        both = features.new_empty(*features.shape[:4], 2, dtype=self.bias.dtype)  # [2,B,H,W,2], by class
        self.maps(features, both)
        if self.cam_class == "either":
            maps = (both[..., 1] - both[..., 0]).abs()
        elif self.cam_class == "positive":
            maps = both[..., 1]
        else:
            present = (both.mean(dim=(2, 3)) + self.bias[:, None]).argmax(dim=2).bool()
            maps = torch.where(present[:, :, None, None], both[..., 1], both[..., 0])
        return unit_range(maps.flatten(0, 1)).unflatten(0, maps.shape[:2]).transpose(0, 1)


class LeanNetwork(nn.Module):
    """A :class:`WSLGAN` at test: images [B,1,48,48] in [0,1] and maps [B,2,H,W] (or None) → logits [B,K]."""

    def __init__(self, network: WSLGAN, kind: torch.dtype, at_once: int = 0):
        super().__init__()
        self.architecture, self.channels = network.architecture, network.extractor.channels
        self.backbone = Backbone([network.extractor], [network.normalise], kind, at_once)
        scale, shift = affine(network.extractor.norm)
        self.register_buffer("scale", scale.detach().to(_wide(kind)))
        self.register_buffer("shift", shift.detach().to(_wide(kind)))
        self.head = copy.deepcopy(network)  # fuses and classifies
        self.head.extractor = nn.Identity()  # type: ignore[assignment]
        self.head.auxiliary = nn.ModuleDict()
        self.head.to(_wide(kind)).eval().requires_grad_(False)

    scale: Tensor
    shift: Tensor

    def forward(self, x: Tensor, attention: Tensor | None) -> Tensor:
        return self.classify(self.features(x), attention)

    def features(self, x: Tensor) -> Tensor:
        """Images → F_g [B,H,W,C]."""
        return torch.relu(self.backbone(x)[0, ..., : self.channels] * self.scale + self.shift)

    def classify(self, features: Tensor, attention: Tensor | None) -> Tensor:
        """F_g [B,H,W,C] and maps → logits [B,K]."""
        names = self.architecture.branches
        masks = features.new_ones(len(features), len(names), *features.shape[1:3])
        for place, name in enumerate(names):
            if name in PARTS and attention is not None:
                masks[:, place] = attention[:, PARTS.index(name)]
        if self.architecture.classifier_input == "gap":
            area = features.shape[1] * features.shape[2]
            means = torch.bmm(masks.flatten(2), features.flatten(1, 2)) / area  # [B,branches,C]
            return self.head.classify({name: means[:, i, :, None, None] for i, name in enumerate(names)})
        whole = features.permute(0, 3, 1, 2)
        return self.head.classify({name: whole * masks[:, i, None] for i, name in enumerate(names)})


class Backbone(nn.Module):
    """G :class:`DenseNet` of the same shape, each with a :class:`Normalise`.

    Images [B,1,48,48] in [0,1] → input of the last BN-ReLU, [G,B,H,W,·], C channels and the padding of the row.
    """

    def __init__(self, nets: list[DenseNet], normalise: list[Normalise], kind: torch.dtype, at_once: int = 0):
        super().__init__()
        self.at_once = at_once
        self.pixels = Pixels(normalise, kind)
        columns = list(zip(*(net.body for net in nets), strict=True))  # the same part of all networks
        block = Block(Conv3(columns[0], kind))
        self.blocks = nn.ModuleList([block])
        for column in columns[1:]:
            if isinstance(column[0], DenseLayer):
                block.add(Dense(column, kind))
                continue
            assert isinstance(column[0], Transition)
            block = Block(Pointwise([c.norm for c in column], [c.conv.weight for c in column], kind, pool=2))
            self.blocks.append(block)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pixels(x)
        for block in self.blocks:
            x = block(x, self.at_once or x.shape[1])
        return x


class Block(nn.Module):
    """A dense block with the stem or transition before it, its ``entry``: [G,B,H,W,·] → [G,B,H',W',·]."""

    def __init__(self, entry: "Conv3 | Pointwise"):
        super().__init__()
        self.entry, self.layers = entry, nn.ModuleList()
        # Channels of the buffer of all layers, and of the buffer between the two kernels of a layer.
        self.channels, self.inner = entry.outputs, 0

    def add(self, layer: "Dense") -> None:
        """Append a layer."""
        self.layers.append(layer)
        self.channels, self.inner = self.channels + layer.outputs, layer.inner

    def forward(self, x: Tensor, at_once: int) -> Tensor:
        nets, images, height, width = x.shape[0], x.shape[1], *(size // self.entry.shrinks for size in x.shape[2:4])
        maps = x.new_empty(nets, images, height, width, kernels.padded(self.channels))
        narrow = x.new_empty(nets, min(at_once, images), height, width, kernels.padded(self.inner))
        for rows in _parts(images, at_once):
            wide = maps[:, rows]
            self.entry(x[:, rows], wide[..., : self.entry.outputs])
            for layer in self.layers:
                layer(wide, narrow[:, : wide.shape[1]])
        return maps


class Dense(nn.Module):
    """The :class:`DenseLayer` of G networks: reads the first c channels of a buffer and writes the next k."""

    def __init__(self, layers: tuple[DenseLayer, ...], kind: torch.dtype):
        super().__init__()
        self.narrow = Pointwise(
            [layer.norm1 for layer in layers],
            [layer.conv1.weight for layer in layers],
            kind,
            [layer.norm2 for layer in layers],
        )
        self.conv = Conv3(tuple(layer.conv2 for layer in layers), kind)
        self.channels, self.inner, self.outputs = self.narrow.channels, self.narrow.outputs, self.conv.outputs

    def forward(self, wide: Tensor, narrow: Tensor) -> None:
        self.narrow(wide, narrow[..., : self.inner])
        self.conv(narrow, wide[..., self.channels : self.channels + self.outputs])


class Pointwise(nn.Module):
    """BN-ReLU and 1×1 convolution of G networks. after : a BN that is folded into the convolution, with its ReLU.

    pool : side of the square of pixels that is averaged before the convolution, which acts on another axis.
    """

    def __init__(
        self,
        before: list[nn.BatchNorm2d],
        weights: list[Tensor],
        kind: torch.dtype,
        after: list[nn.BatchNorm2d] | None = None,
        pool: int = 1,
    ):
        super().__init__()
        affines = [affine(norm) for norm in before]
        matrices = [weight.detach().double().flatten(1) for weight in weights]  # [N,c]
        offsets = [matrix.new_zeros(len(matrix)) for matrix in matrices]
        if after is not None:
            behind = [affine(norm) for norm in after]
            matrices = [scale[:, None] * matrix for (scale, _), matrix in zip(behind, matrices, strict=True)]
            offsets = [shift for _, shift in behind]
        self.relu, self.pool = after is not None, pool
        self.outputs, self.channels = matrices[0].shape
        wide = _wide(kind)
        self.register_buffer("scale", _rows([scale for scale, _ in affines], wide))
        self.register_buffer("shift", _rows([shift for _, shift in affines], wide))
        self.register_buffer("bias", _rows(offsets, wide))
        deep = nn.functional.pad(_rows([matrix.T for matrix in matrices], kind).mT, (0, _rest(self.channels)))
        self.register_buffer("weight", deep.mT.contiguous())

    scale: Tensor
    shift: Tensor
    weight: Tensor
    bias: Tensor

    @property
    def shrinks(self) -> int:
        return self.pool

    def forward(self, x: Tensor, out: Tensor) -> None:
        kernels.pointwise(x, self.scale, self.shift, self.weight, self.bias, out, self.channels, self.relu, self.pool)


class Conv3(nn.Module):
    """The 3×3 convolution of G networks, without bias."""

    def __init__(self, convs: tuple[nn.Conv2d, ...], kind: torch.dtype):
        super().__init__()
        self.shrinks, self.outputs = convs[0].stride[0], convs[0].out_channels
        self.register_buffer("weight", _rows([conv.weight.flatten(2).permute(2, 1, 0) for conv in convs], kind))

    weight: Tensor

    def forward(self, x: Tensor, out: Tensor) -> None:
        kernels.conv3(x, self.weight, out, self.shrinks)


class Pixels(nn.Module):
    """The :class:`Normalise` of G networks: images [B,1,H,W] in [0,1] → [G,B,H,W,1]."""

    def __init__(self, layers: list[Normalise], kind: torch.dtype):
        super().__init__()
        self.kind, self.layers = kind, nn.ModuleList(copy.deepcopy(layers)).to(_wide(kind))
        self.shared = all(float(layer.each) == 0 for layer in layers)  # then two operations normalise for all networks
        self.register_buffer("mean", torch.stack([layer.mean for layer in layers]).to(_wide(kind))[:, None, None, None])
        self.register_buffer("deviation", torch.stack([layer.deviation for layer in layers]).to(self.mean))
        self.deviation = self.deviation.view_as(self.mean)

    mean: Tensor
    deviation: Tensor

    def forward(self, x: Tensor) -> Tensor:
        if self.shared:
            pixels = (x.squeeze(1) - self.mean) / self.deviation
        else:
            pixels = torch.stack([layer(x).squeeze(1) for layer in self.layers])
        return pixels.to(self.kind).unsqueeze(4)


def _wide(kind: torch.dtype) -> torch.dtype:
    """The precision of sums of products of a kind, and of biases."""
    return torch.promote_types(kind, torch.float32)


def _rest(channels: int) -> int:
    return kernels.padded(channels) - channels


def _rows(parts: list[Tensor], kind: torch.dtype) -> Tensor:
    """G tensors [...,N] → [G,...,N'], padded by zeros."""
    stacked = torch.stack(parts).detach()
    return nn.functional.pad(stacked, (0, _rest(stacked.shape[-1]))).to(kind)


def _parts(count: int, size: int) -> Iterator[slice]:
    return (slice(start, min(start + size, count)) for start in range(0, count, size))
