"""Trunks: what makes vectors of normalised images, and the layer that makes the feature of them."""

import torch
from torch import Tensor, nn

from ferbench.methods.cnn.patches import patches, turned
from ferbench.methods.cnn.recipe import BaseShape, PatchShape, ResNetShape, Shape, SmallShape, StackShape

_MAP = 6  # pixels of a map's side after 48 pixels have been halved three times


class Trunk(nn.Module):
    """Normalised images [B,1,48,48] → vectors [B,width], of which :meth:`embedding` makes features [B,feature].

    The two are apart since some methods put several embeddings on one trunk.
    """

    width: int
    feature: int

    def embedding(self) -> nn.Module:
        """A new layer (or several) from the trunk's vectors to the feature."""
        raise AssertionError("a trunk says what its features are made by")


class SmallCnn(Trunk):
    """The trunk of IL-CNN and IACNN as we read it: convolution, max-pooling, batch normalisation, PReLU, three times,
    and one fully connected layer with PReLU; a second one makes the feature.

    Pooling before normalising differs from the order of the words by the batch statistics alone, as PReLU keeps the
    order of values, and saves a third of the time.
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
    """The convolutions of baseDCNN (Li, Deng, Du 2017) on 48×48 pixels: 6×6 maps, flattened.

    ReLU follows the pooling: the maximum of what ReLU leaves is what ReLU leaves of the maximum.
    """

    POOLED = (0, 1, 3)  # convolutions that max-pooling follows

    def __init__(self, shape: BaseShape):
        super().__init__()
        layers: list[nn.Module] = []
        channels = 1
        for place, width in enumerate(shape.widths):
            convolution = nn.Conv2d(channels, width, 3, padding=1)
            nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu")  # He et al. 2015: six layers without
            nn.init.zeros_(convolution.bias)  # type: ignore[arg-type]  # batch normalisation learn nothing otherwise
            layers += [convolution, *([nn.MaxPool2d(2)] if place in self.POOLED else []), nn.ReLU()]
            channels = width
        self.maps = nn.Sequential(*layers)
        self.width, self.feature = channels * _MAP**2, shape.feature

    def embedding(self) -> nn.Module:
        return nn.Sequential(nn.Linear(self.width, self.feature), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        return self.maps(x).flatten(1)


class BasicBlock(nn.Module):
    """Two 3×3 convolutions with a shortcut round them (He et al. 2016, Figure 5 left); the shortcut is a 1×1
    convolution where the shape changes (option B of their section 3.3).

    That of stride 2 is taken of every second row and column, which is the same: oneDNN's own of 8 channels writes
    beyond its memory (torch 2.13 on a CPU with AVX-512).
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
    """ResNet-18 (He et al. 2016, Table 1) with narrower stages and a stem for small images; its feature is the mean
    over the last map, as there."""

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
    """DCMA-CNNs as we read it: one network on all patches of a face, one on the whole face, their features side by
    side, and of each feature the greatest over transforms of the face (expressional transformation-invariant pooling):
    y = max_t φ(t(x)).

    Vectors are the whole face's ``face`` columns, then each patch's. Their embedding is one layer, so that a face of
    which all patches' columns have weight 0 is judged by the whole alone.
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
        """The images as they are, then as each of the transforms shows them."""
        mirrored = [x.flip(3)] if self.mirror else []
        return [x, *mirrored, *(turned(x, angle) for angle in self.turns)]

    def of_one(self, x: Tensor) -> Tensor:
        """φ: vectors of images as they are."""
        cut = patches(x, self.side, self.stride)
        of_patches = self.of_patches(cut.flatten(0, 1).unsqueeze(1)).unflatten(0, cut.shape[:2])
        return torch.cat([self.of_face(x), of_patches.flatten(1)], dim=1)

    def forward(self, x: Tensor) -> Tensor:
        together = self.transforms(x)
        return self.of_one(torch.cat(together)).unflatten(0, (len(together), len(x))).amax(dim=0)


class StackTrunk(Trunk):
    """Five steps of 3×3 convolutions, max-pooling after the first four: the shape of FN2EN's networks, that of the
    expression network and, with more and wider convolutions, that of our teacher. Maps have 3×3 cells."""

    POOLED = 4

    def __init__(self, shape: StackShape):
        super().__init__()
        layers: list[nn.Module] = []
        channels = 1
        for place, width in enumerate(shape.widths):
            for again in range(shape.depth):
                pooled = place < self.POOLED and again == shape.depth - 1
                layers += _convolution(channels, width, 3, pooled)
                channels = width
        self.maps = nn.Sequential(*layers)
        self.channels, self.width, self.feature = channels, channels * (_MAP // 2) ** 2, shape.feature

    def embedding(self) -> nn.Module:
        return nn.Sequential(nn.Linear(self.width, self.feature), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        return self.maps(x).flatten(1)


def _convolution(channels: int, width: int, kernel: int, pooled: bool = True) -> list[nn.Module]:
    """A convolution, pooling and ReLU, in this order: the maximum of what ReLU leaves is what it leaves of the maximum.

    Its start is that of He et al. 2015, since no batch normalisation follows.
    """
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
