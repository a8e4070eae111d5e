"""The generator of neutral faces, its adversary, and the classifiers of expressions that use the generator."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.func import functional_call

from ferbench.methods.generative.recipe import GenerativeLosses, GenerativeNetworkSettings
from ferbench.training.engine import Terms

_LEAK = 0.2  # slope of the rectifiers below zero, as in pix2pix (Isola et al. 2017, appendix 6.1)


class NeutralFaceGenerator(nn.Module):
    """A face [B,1,48,48] in [-1,1] → the neutral face of the same person, through maps of 24, 12, 6, 3 pixels and back,
    without shortcuts past the smallest maps, which would carry the expression."""

    def __init__(self, widths: tuple[int, int, int, int]):
        super().__init__()
        sizes = (1, *widths)
        self.encoder = nn.ModuleList(
            nn.Sequential(nn.Conv2d(a, b, 4, 2, 1, bias=False), nn.BatchNorm2d(b), nn.LeakyReLU(_LEAK))
            for a, b in pairwise(sizes)
        )
        self.decoder = nn.ModuleList(
            nn.Sequential(nn.ConvTranspose2d(a, b, 4, 2, 1, bias=False), nn.BatchNorm2d(b), nn.ReLU())
            for a, b in pairwise(sizes[:0:-1])
        )
        self.last = nn.ConvTranspose2d(widths[0], 1, 4, 2, 1)

    def layers(self, x: Tensor) -> list[Tensor]:
        """The maps of all layers, of 24, 12, 6, 3, 6, 12, 24 pixels."""
        maps = []
        for block in (*self.encoder, *self.decoder):
            x = block(x)
            maps.append(x)
        return maps

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.last(self.layers(x)[-1]))


class Adversary(nn.Module):
    """Classifies a face with a neutral face [B,1,48,48] each as real or generated: logits [B,1,6,6] of overlapping
    patches."""

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


class AdversarialPair(nn.Module):
    """A generator and its adversary, trained in the same steps."""

    def __init__(self, generator: NeutralFaceGenerator, adversary: Adversary):
        super().__init__()
        self.generator, self.adversary = generator, adversary

    def loss(self, face: Tensor, neutral: Tensor, losses: GenerativeLosses) -> Terms:
        """L_G = w L_adversarial + λ mean |neutral − G(x)|, and the loss of the adversary beside it (pix2pix: Isola et
        al. 2017, Eq. 4). L_G gives the adversary no gradient, and the adversary's loss gives the generator none."""
        generated = self.generator(face)
        terms = {"reconstruction": losses.reconstruction * (neutral - generated).abs().mean()}
        if losses.adversary:
            fixed = {name: tensor.detach() for name, tensor in self.adversary.named_parameters()}
            terms["adversary"] = losses.adversary * _real_or_not(
                functional_call(self.adversary, fixed, (face, generated)), 1.0
            )
            real = _real_or_not(self.adversary(face, neutral), 1.0)
            terms["told apart"] = (real + _real_or_not(self.adversary(face, generated.detach()), 0.0)) / 2
        return terms | {"total": torch.stack(list(terms.values())).sum()}


def _real_or_not(logits: Tensor, real: float) -> Tensor:
    """Binary cross-entropy of the adversary's logits; ``real`` is 1 for real faces and 0 for generated ones."""
    return nn.functional.binary_cross_entropy_with_logits(logits.float(), torch.full_like(logits, real).float())


class ExpressionClassifiers(nn.Module):
    """DeRL: a small network on each of the four middle layers of the generator (6, 3, 6, 12 pixels), and a classifier
    of their concatenated features, which decides. GCNet: one embedding network for a face and for its generated neutral
    face, and a linear classifier of the difference.
    """

    def __init__(self, network: GenerativeNetworkSettings, classes: int):
        super().__init__()
        self.residue = network.kind == "residue"
        _, second, third, fourth = network.widths
        if self.residue:
            shapes = ((third, 6), (fourth, 3), (third, 6), (second, 12))
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

    def forward(self, inputs: list[Tensor]) -> tuple[list[Tensor], Tensor]:
        """All maps of the generator (DeRL), or faces and neutral faces (GCNet) → logits of each classifier, those of
        the deciding one last, and its features."""
        if self.residue:
            parts = [body(maps) for body, maps in zip(self.bodies, inputs[2:6], strict=True)]
            features = torch.cat(parts, dim=1)
            return [*(top(part) for top, part in zip(self.tops, parts, strict=True)), self.whole(features)], features
        face, neutral = inputs
        difference = self.embed(face) - self.embed(neutral)
        return [self.whole(difference)], difference
