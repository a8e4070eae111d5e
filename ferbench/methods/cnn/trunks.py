"""Trunks: the layers from a normalised image to a vector, and the layer from that vector to the feature."""

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from ferbench.methods.cnn.recipe import BaseShape, PatchShape, ResNetShape, Shape, SmallShape, StackShape

_MAP = 6  # pixels of a map's side after 48 pixels have been halved three times


class Trunk(ABC, nn.Module):
    """Normalised images [B,1,48,48] → vectors [B,width], which an :meth:`embedding` maps to features [B,feature].

    Some methods have several embeddings on one trunk.
    """

    width: int
    feature: int

    @abstractmethod
    def embedding(self) -> nn.Module:
        """New layers from the vectors of the trunk to the feature."""


class SmallCnn(Trunk):
    """The trunk of IL-CNN and IACNN by our interpretation: three times convolution, max-pooling, batch normalisation,
    PReLU, then one fully connected layer with PReLU. A second one gives the feature.

    The papers name batch normalisation before pooling. With our order only the batch statistics differ, because PReLU
    is monotonic, and the network takes a third less time.
    """

    def __init__(self, shape: SmallShape):
        super().__init__()
        layers: list[nn.Module] = []
        channels = 1
        for width, kernel in zip(shape.widths, shape.kernels, strict=True):
            layers += [
                nn.Conv2d(channels, width, kernel, padding=kernel // 2, bias=False),
                nn.MaxPool2d(2),
                nn.BatchNorm2d(width),
                nn.PReLU(width),
            ]
            channels = width
        self.maps = nn.Sequential(*layers)
        self.hidden = nn.Sequential(nn.Linear(channels * _MAP**2, shape.hidden), nn.PReLU())
        self.width, self.feature = shape.hidden, shape.feature

    def embedding(self) -> nn.Module:
        return nn.Sequential(nn.Linear(self.width, self.feature), nn.PReLU())

    def forward(self, x: Tensor) -> Tensor:
        return self.hidden(self.maps(x).flatten(1))


class BaseDcnn(Trunk):
    """The convolutions of baseDCNN (Li, Deng, Du 2017) on 48×48 pixels: 6×6 maps, flattened."""

    POOLED = (0, 1, 3)  # convolutions that max-pooling follows

    def __init__(self, shape: BaseShape):
        super().__init__()
        layers: list[nn.Module] = []
        channels = 1
        for place, width in enumerate(shape.widths):
            layers += _convolution(channels, width, 3, place in self.POOLED)
            channels = width
        self.maps = nn.Sequential(*layers)
        self.width, self.feature = channels * _MAP**2, shape.feature

    def embedding(self) -> nn.Module:
        return nn.Sequential(nn.Linear(self.width, self.feature), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        return self.maps(x).flatten(1)


class BasicBlock(nn.Module):
    """Two 3×3 convolutions with a shortcut around them (He et al. 2016, Figure 5 left). The shortcut is a 1×1
    convolution where the shape changes (option B of their section 3.3).

    A shortcut of stride 2 is implemented as a convolution of stride 1 on every second row and column, which is equal,
    because oneDNN's kernel for stride 2 writes beyond its memory with 8 channels (torch 2.13, CPU with AVX-512).
    """

    def __init__(self, channels: int, width: int, stride: int):
        super().__init__()
        self.stride = stride
        self.first = nn.Conv2d(channels, width, 3, stride, padding=1, bias=False)
        self.first_norm = nn.BatchNorm2d(width)
        self.second = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.second_norm = nn.BatchNorm2d(width)
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1 or channels != width:
            self.shortcut = nn.Sequential(nn.Conv2d(channels, width, 1, bias=False), nn.BatchNorm2d(width))

    def forward(self, x: Tensor) -> Tensor:
        inner = nn.functional.relu(self.first_norm(self.first(x)))
        beside = self.shortcut(x[:, :, :: self.stride, :: self.stride])
        return nn.functional.relu(self.second_norm(self.second(inner)) + beside)


class ResNet18(Trunk):
    """ResNet-18 (He et al. 2016, Table 1) with fewer channels and a stem for small images. The feature is the mean over
    the last map, as in the paper."""

    def __init__(self, shape: ResNetShape):
        super().__init__()
        channels = shape.widths[0]
        self.stem = nn.Sequential(
            nn.Conv2d(1, channels, 3, shape.stem_stride, padding=1, bias=False), nn.BatchNorm2d(channels), nn.ReLU()
        )
        blocks: list[nn.Module] = []
        for place, width in enumerate(shape.widths):
            blocks += [BasicBlock(channels, width, 1 if place == 0 else 2), BasicBlock(width, width, 1)]
            channels = width
        self.blocks = nn.Sequential(*blocks)
        self.width = self.feature = channels

    def embedding(self) -> nn.Module:
        return nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks(self.stem(x)).mean(dim=(2, 3))


class PatchTrunk(Trunk):
    """DCMA-CNNs by our interpretation: one network on all patches of a face and one on the whole face, whose features
    are concatenated. Each feature is the maximum over transforms of the face (expressional transformation-invariant
    pooling): y = max_t φ(t(x)).

    The first ``face`` columns of a vector are features of the whole face, followed by those of each patch.
    """

    SIZE = 48

    def __init__(self, shape: PatchShape):
        super().__init__()
        self.side, self.stride, self.mirror, self.turns = shape.side, shape.stride, shape.mirror, shape.turns
        self.of_patches = nn.Sequential(
            *_convolution(1, shape.patch_widths[0], 3),
            *_convolution(*shape.patch_widths, 3),
            nn.Flatten(),
            nn.Linear(shape.patch_widths[1] * (shape.side // 4) ** 2, shape.patch_feature),
            nn.ReLU(),
        )
        channels = shape.widths
        self.of_face = nn.Sequential(
            *_convolution(1, channels[0], 5),
            *_convolution(channels[0], channels[1], 3),
            *_convolution(channels[1], channels[2], 3),
            nn.Flatten(),
            nn.Linear(channels[2] * _MAP**2, shape.face_feature),
            nn.ReLU(),
        )
        self.face, self.feature = shape.face_feature, shape.feature
        self.width = self.face + ((self.SIZE - self.side) // self.stride + 1) ** 2 * shape.patch_feature

    def embedding(self) -> nn.Module:
        return nn.Sequential(nn.Linear(self.width, self.feature), nn.ReLU())

    def transforms(self, x: Tensor) -> list[Tensor]:
        """The images themselves, then the images under each transform."""
        mirrored = [x.flip(3)] if self.mirror else []
        return [x, *mirrored, *(rotated(x, angle) for angle in self.turns)]

    def vectors(self, x: Tensor) -> Tensor:
        """φ: vectors of images, without transforms."""
        parts = patches(x, self.side, self.stride)
        of_patches = self.of_patches(parts.flatten(0, 1).unsqueeze(1)).unflatten(0, parts.shape[:2])
        return torch.cat([self.of_face(x), of_patches.flatten(1)], dim=1)

    def forward(self, x: Tensor) -> Tensor:
        views = self.transforms(x)
        return self.vectors(torch.cat(views)).unflatten(0, (len(views), len(x))).amax(dim=0)


class StackTrunk(Trunk):
    """Five steps of 3×3 convolutions, max-pooling after the first four: the expression network of FN2EN and, with more
    and wider convolutions, our teacher. The maps have 3×3 cells."""

    POOLED = 4

    def __init__(self, shape: StackShape):
        super().__init__()
        layers: list[nn.Module] = []
        channels = 1
        for place, width in enumerate(shape.widths):
            for depth in range(shape.depth):
                pooled = place < self.POOLED and depth == shape.depth - 1
                layers += _convolution(channels, width, 3, pooled)
                channels = width
        self.maps = nn.Sequential(*layers)
        self.channels, self.width, self.feature = channels, channels * (_MAP // 2) ** 2, shape.feature

    def embedding(self) -> nn.Module:
        return nn.Sequential(nn.Linear(self.width, self.feature), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        return self.maps(x).flatten(1)


def _convolution(channels: int, width: int, kernel: int, pooled: bool = True) -> list[nn.Module]:
    """A convolution, pooling and ReLU. ReLU after the pooling gives the same values as before it, in less time. Six
    layers without batch normalisation need the initialisation of He et al. 2015 to learn at all."""
    convolution = nn.Conv2d(channels, width, kernel, padding=kernel // 2)
    nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu")
    nn.init.zeros_(convolution.bias)  # type: ignore[arg-type]
    return [convolution, *([nn.MaxPool2d(2)] if pooled else []), nn.ReLU()]


def trunk(shape: Shape) -> Trunk:
    """Build the trunk of a recipe."""
    if isinstance(shape, PatchShape):
        return PatchTrunk(shape)
    if isinstance(shape, StackShape):
        return StackTrunk(shape)
    if isinstance(shape, SmallShape):
        return SmallCnn(shape)
    if isinstance(shape, BaseShape):
        return BaseDcnn(shape)
    return ResNet18(shape)


def patches(x: Tensor, side: int, stride: int) -> Tensor:
    """Cut images [B,1,H,W] into patches [B,P,side,side], row by row from the upper left corner."""
    columns = nn.functional.unfold(x, side, stride=stride)  # [B, side², P]
    return columns.transpose(1, 2).unflatten(2, (side, side))


def rotated(x: Tensor, degrees: float) -> Tensor:
    """Rotate images [B,1,H,W] counter-clockwise about their centre, bilinear; uncovered pixels take the nearest one."""
    angle = math.radians(degrees)
    matrix = x.new_tensor([[math.cos(angle), -math.sin(angle), 0], [math.sin(angle), math.cos(angle), 0]])
    grid = nn.functional.affine_grid(matrix.expand(len(x), 2, 3), list(x.shape), align_corners=False)
    return nn.functional.grid_sample(x, grid, mode="bilinear", padding_mode="border", align_corners=False)
