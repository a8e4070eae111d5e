"""Trunks: what makes vectors of normalised images, and the layer that makes the feature of them."""

from torch import Tensor, nn

from ferbench.methods.cnn.recipe import BaseShape, ResNetShape, Shape, SmallShape

_MAP = 6  # pixels of a map's side after 48 pixels have been halved three times


class Trunk(nn.Module):
    """Normalised images [B,1,48,48] → vectors [B,width], of which :meth:`embedding` makes features [B,feature].

    The two are apart since some methods put several embeddings on one trunk.
    """

    width: int
    feature: int

    def embedding(self) -> nn.Module:
        """A new layer (or several) from the trunk's vectors to the feature."""
        raise NotImplementedError


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
                nn.Conv2d(channels, width, kernel, padding=kernel // 2, bias=False), nn.MaxPool2d(2),
                nn.BatchNorm2d(width), nn.PReLU(width),
            ]  # fmt: skip
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


def trunk(shape: Shape) -> Trunk:
    """Build the trunk of a recipe."""
    if isinstance(shape, SmallShape):
        return SmallCnn(shape)
    if isinstance(shape, BaseShape):
        return BaseDcnn(shape)
    return ResNet18(shape)
