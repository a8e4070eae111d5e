"""The generator of neutral faces, its adversary, and what classifies expressions by them."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from ferbench.methods.generative.recipe import Network

_LEAK = 0.2  # slope of the rectifiers below zero, as in pix2pix (Isola et al. 2017, appendix 6.1)


class Generator(nn.Module):
    """A face [B,1,48,48] in [-1,1] → the same person's neutral face, through maps of 24, 12, 6, 3 pixels and back,
    without shortcuts, so that the expression has to be left behind in between."""

    def __init__(self, widths: tuple[int, int, int, int]):
        super().__init__()
        sizes = (1, *widths)
        self.encoder = nn.ModuleList(
            nn.Sequential(nn.Conv2d(a, b, 4, 2, 1, bias=False), nn.BatchNorm2d(b), nn.LeakyReLU(_LEAK))
            for a, b in pairwise(sizes)
        )
        back = sizes[:0:-1]
        self.decoder = nn.ModuleList(
            nn.Sequential(nn.ConvTranspose2d(a, b, 4, 2, 1, bias=False), nn.BatchNorm2d(b), nn.ReLU())
            for a, b in pairwise(back)
        )
        self.last = nn.ConvTranspose2d(widths[0], 1, 4, 2, 1)

    def layers(self, x: Tensor) -> list[Tensor]:
        """Maps of every layer, encoding then decoding: 24, 12, 6, 3, 6, 12, 24 pixels."""
        found = []
        for block in (*self.encoder, *self.decoder):
            x = block(x)
            found.append(x)
        return found

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.last(self.layers(x)[-1]))


class Adversary(nn.Module):
    """Says of a face and a neutral face [B,2,48,48] whether both are real: logits [B,1,6,6] of overlapping patches."""

    def __init__(self, width: int):
        super().__init__()
        self.maps = nn.Sequential(
            nn.Conv2d(2, width, 4, 2, 1),
            nn.LeakyReLU(_LEAK),
            nn.Conv2d(width, 2 * width, 4, 2, 1),
            nn.LeakyReLU(_LEAK),
            nn.Conv2d(2 * width, 4 * width, 4, 2, 1),
            nn.LeakyReLU(_LEAK),
            nn.Conv2d(4 * width, 1, 3, 1, 1),
        )

    def forward(self, face: Tensor, neutral: Tensor) -> Tensor:
        return self.maps(torch.cat([face, neutral], dim=1))


class Classifiers(nn.Module):
    """DeRL: a small network on each of the generator's four middle layers (6, 3, 6, 12 pixels) and one on their last
    features together; the last decides. GCNet: one embedding network for a face and its generated neutral face, of
    whose difference a linear layer makes the logits.

    forward : takes the frozen generator's maps, or (faces, neutral faces) → logits of each classifier, the deciding one
    last, and the features that it reads.
    """

    def __init__(self, network: Network, classes: int):
        super().__init__()
        self.residue = network.kind == "residue"
        _, b, c, d = network.widths
        if self.residue:
            shapes = ((c, 6), (d, 3), (c, 6), (b, 12))
            self.bodies = nn.ModuleList(
                nn.Sequential(
                    nn.Conv2d(channels, network.width, 1),
                    nn.BatchNorm2d(network.width),
                    nn.ReLU(),
                    nn.Flatten(),
                    nn.Linear(network.width * side * side, network.embedding),
                    nn.ReLU(),
                )
                for channels, side in shapes
            )
            self.tops = nn.ModuleList(nn.Linear(network.embedding, classes) for _ in shapes)
            self.whole = nn.Linear(network.embedding * len(shapes), classes)
        else:
            width = network.width
            layers: list[nn.Module] = []
            for inputs, outputs in ((1, width // 2), (width // 2, width), (width, 2 * width)):
                layers += [
                    nn.Conv2d(inputs, outputs, 3, padding=1),
                    nn.BatchNorm2d(outputs),
                    nn.PReLU(),
                    nn.MaxPool2d(2),
                ]
            self.embed = nn.Sequential(*layers, nn.Flatten(), nn.Linear(2 * width * 36, network.embedding))
            self.whole = nn.Linear(network.embedding, classes)

    def forward(self, given: list[Tensor]) -> tuple[list[Tensor], Tensor]:
        if self.residue:
            each = [body(maps) for body, maps in zip(self.bodies, given[2:6], strict=True)]
            features = torch.cat(each, dim=1)
            return [*(top(one) for top, one in zip(self.tops, each, strict=True)), self.whole(features)], features
        face, neutral = given
        difference = self.embed(face) - self.embed(neutral)
        return [self.whole(difference)], difference
