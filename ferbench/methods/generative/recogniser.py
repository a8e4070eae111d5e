"""DeRL and GCNet: a generator of neutral faces with its discriminator, classifiers of expressions, their training."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call

from ferbench.errors import UsageError
from ferbench.methods.generative import GenerativeLosses, GenerativeNetworkSettings, GenerativeRecipe
from ferbench.methods.interface import History, SampleSet, TrainingSet, Workspace
from ferbench.methods.recipes import Method
from ferbench.training.augment import derive
from ferbench.training.device import Device
from ferbench.training.loop import Terms
from ferbench.training.networks import contrastive_loss_of_batch, in_batches, parameter_count, seeded
from ferbench.training.plan import Batch, Step, paired_epoch, single_epoch

_SIDES, _LEAST_SIDE = (24, 12, 6), 3  # pixels of the generator's encoding layers; the last one is the smallest
_LEAK = 0.2  # slope of the rectifiers below zero, as in pix2pix (Isola et al. 2017, appendix 6.1)


class NeutralFaceGenerator(nn.Module):
    """A face [B,1,48,48] in [-1,1] → the neutral face of the same person [B,1,48,48], through maps of 24, 12, 6, 3
    pixels and back. There are no shortcuts around the smallest maps, because they would transmit the expression."""

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


class Discriminator(nn.Module):
    """Classifies the neutral face of a pair [B,1,48,48] of a face and a neutral face as real or generated: logits
    [B,1,6,6] of overlapping patches (PatchGAN of pix2pix)."""

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
    """A generator and its discriminator, trained in the same steps."""

    def __init__(self, generator: NeutralFaceGenerator, discriminator: Discriminator):
        super().__init__()
        self.generator, self.discriminator = generator, discriminator

    def loss(self, face: Tensor, neutral: Tensor, losses: GenerativeLosses) -> Terms:
        """L_G = w L_adversarial + λ mean |neutral − G(x)|, and the loss of the discriminator (pix2pix: Isola et al.
        2017, Eq. 4). Each loss has gradients for its own network only. face, neutral : [B,1,48,48] in [-1,1]."""
        generated = self.generator(face)
        terms = {"reconstruction": losses.reconstruction * (neutral - generated).abs().mean()}
        if losses.adversary:
            fixed = {name: tensor.detach() for name, tensor in self.discriminator.named_parameters()}
            logits = functional_call(self.discriminator, fixed, (face, generated))
            terms["adversary"] = losses.adversary * _real_or_generated(logits, 1.0)
            real = _real_or_generated(self.discriminator(face, neutral), 1.0)
            generated_loss = _real_or_generated(self.discriminator(face, generated.detach()), 0.0)
            terms["discriminator"] = (real + generated_loss) / 2
        return terms | {"total": torch.stack(list(terms.values())).sum()}


def _real_or_generated(logits: Tensor, real: float) -> Tensor:
    """Binary cross-entropy of the discriminator's logits. real : the target, 1 for real faces, 0 for generated ones."""
    return nn.functional.binary_cross_entropy_with_logits(logits.float(), torch.full_like(logits, real).float())


class ExpressionClassifiers(nn.Module):
    """DeRL (Yang et al. 2018): the generator's layers of one size are joined, and a small network classifies each size,
    24, 12 and 6 pixels. Their features and the last encoding layer, of 3 pixels, are joined for the classifier whose
    prediction counts. GCNet (Kim et al. 2017): one embedding network for a face and for its generated neutral face, and
    a linear classifier of the difference.
    """

    def __init__(self, network: GenerativeNetworkSettings, classes: int):
        super().__init__()
        self.residue = network.kind == "residue"
        if self.residue:
            shapes = list(zip(network.widths[:-1], _SIDES, strict=True))
            self.bodies = nn.ModuleList(
                nn.Sequential(
                    nn.Conv2d(2 * channels, network.width, 3, padding=1),
                    nn.BatchNorm2d(network.width),
                    nn.ReLU(),
                    nn.MaxPool2d(2),
                    nn.Flatten(),
                    nn.Linear(network.width * (side // 2) ** 2, network.embedding),
                    nn.ReLU(),
                )
                for channels, side in shapes
            )
            self.tops = nn.ModuleList(nn.Linear(network.embedding, classes) for _ in shapes)
            self.whole = nn.Linear(network.embedding * len(shapes) + network.widths[-1] * _LEAST_SIDE**2, classes)
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
        """All maps of the generator (DeRL), or faces and neutral faces (GCNet) → logits of each classifier, last those
        of the final one, and the features of the final one."""
        if self.residue:
            joined = [torch.cat([inputs[place], inputs[-1 - place]], dim=1) for place in range(len(self.bodies))]
            parts = [body(maps) for body, maps in zip(self.bodies, joined, strict=True)]
            features = torch.cat([*parts, inputs[len(parts)].flatten(1)], dim=1)
            return [*(top(part) for top, part in zip(self.tops, parts, strict=True)), self.whole(features)], features
        face, neutral = inputs
        difference = self.embed(face) - self.embed(neutral)
        return [self.whole(difference)], difference


class GenerativeRecogniser:
    """One training. The last frames of each sequence are faces, and its first frame is their neutral face."""

    def __init__(self, method: Method[GenerativeRecipe], classes: tuple[str, ...]):
        self.title, self.recipe, self.classes = method.title, method.recipe, classes
        self.generator: NeutralFaceGenerator | None = None
        self.classifiers: ExpressionClassifiers | None = None

    def fit(self, train: TrainingSet, work: Workspace) -> History:
        if work.epochs is not None or work.keep_best:
            raise UsageError(f"{self.title} is trained in two stages: an epoch cannot be chosen")
        recipe, network, device = self.recipe, self.recipe.network, work.device
        last_frames = [video.frames[-network.frames :] for video in train.videos]
        faces = torch.from_numpy(np.concatenate(last_frames)).to(device.name)
        neutral = torch.from_numpy(np.stack([video.frames[0] for video in train.videos])).to(device.name)
        counts = [len(frames) for frames in last_frames]
        sequence = torch.from_numpy(np.repeat(np.arange(len(counts)), counts)).to(device.name)  # of each face
        labels = torch.from_numpy(train.labels).to(device.name)[sequence]

        pair = seeded(
            work.seed("generator"),
            lambda: AdversarialPair(NeutralFaceGenerator(network.widths), Discriminator(network.widths[0])),
        ).to(device.name)

        def pair_loss(batch: Batch) -> Terms:
            with device.autocast():  # in both stages derived samples have this precision too
                face = _signed(derive(faces[batch.images], batch.derived))
                target = _signed(derive(neutral[sequence[batch.images]], batch.derived))
                return pair.loss(face, target, recipe.losses)

        first, seed = recipe.generator, work.seed("generator plan")

        def single(epoch: int) -> list[Step]:
            return single_epoch(len(faces), first.augment, first.batch, seed, epoch)

        generator_rows = work.train("generator", pair, pair_loss, single, first)
        generator = self.generator = pair.generator.eval().requires_grad_(False)
        work.facts["distance_from_neutral"] = distances(generator, work.device, faces, neutral[sequence])
        classifiers = self.classifiers = seeded(
            work.seed("classifiers"), lambda: ExpressionClassifiers(network, len(self.classes))
        ).to(device.name)

        def classifier_loss(batch: Batch) -> Terms:
            target = labels[batch.images]
            with device.autocast():
                inputs = self._inputs(generator, _signed(derive(faces[batch.images], batch.derived)))
                logits, features = classifiers(inputs)
            cross_entropies = [nn.functional.cross_entropy(values.float(), target) for values in logits]
            terms = {"recognition": torch.stack(cross_entropies).sum()}
            if recipe.losses.contrast:
                terms["contrast"] = recipe.losses.contrast * contrastive_loss_of_batch(
                    features.float(), target, batch.first, batch.second, recipe.losses.margin
                )
            return terms | {"total": torch.stack(list(terms.values())).sum()}

        second, label_table, second_seed = recipe.finetune, labels.cpu().numpy(), work.seed("plan")

        def paired(epoch: int) -> list[Step]:
            return paired_epoch(label_table, second.augment, second.batch, second_seed, epoch, "images", "balanced")

        classifier_rows = work.train("classifiers", classifiers, classifier_loss, paired, second)
        parts = {"generator": generator_rows, "classifiers": classifier_rows}
        return [{"part": part, **row} for part, rows in parts.items() for row in rows]

    def predict(self, samples: SampleSet, work: Workspace) -> np.ndarray:
        """The mean of the probabilities of the last frames of each sequence."""
        assert self.generator is not None
        assert self.classifiers is not None
        generator, classifiers = self.generator.eval(), self.classifiers.eval()
        generator.to(work.device.name)
        classifiers.to(work.device.name)
        frames = [torch.from_numpy(video.frames[-self.recipe.network.frames :].copy()) for video in samples.videos]

        def probabilities(faces: Tensor) -> Tensor:
            inputs = self._inputs(generator, _signed(faces.unsqueeze(1).float() / 255))
            return torch.softmax(classifiers(inputs)[0][-1].float(), dim=1)

        by_sequence = in_batches(probabilities, work.device, torch.cat(frames)).split([len(part) for part in frames])
        return torch.stack([part.mean(dim=0) for part in by_sequence]).numpy()

    def state(self) -> dict[str, Tensor]:
        assert self.generator is not None
        assert self.classifiers is not None
        parts = {"generator": self.generator, "classifiers": self.classifiers}
        return {f"{name}/{key}": tensor for name, part in parts.items() for key, tensor in part.state_dict().items()}

    def load(self, state: Mapping[str, Tensor]) -> None:
        self.generator = NeutralFaceGenerator(self.recipe.network.widths)
        self.classifiers = ExpressionClassifiers(self.recipe.network, len(self.classes))
        for name, part in (("generator", self.generator), ("classifiers", self.classifiers)):
            part.load_state_dict({key.partition("/")[2]: t for key, t in state.items() if key.startswith(f"{name}/")})

    def _inputs(self, generator: NeutralFaceGenerator, faces: Tensor) -> list[Tensor]:
        """The inputs of the classifiers: the maps of the frozen generator, or faces and their generated neutral
        faces."""
        with torch.no_grad():
            return generator.layers(faces) if self.recipe.network.kind == "residue" else [faces, generator(faces)]


def _signed(x: Tensor) -> Tensor:
    """Grey levels in [0,1] → [-1,1], the range of the generator's output."""
    return 2 * x - 1


def distances(generator: NeutralFaceGenerator, device: Device, faces: Tensor, neutral: Tensor) -> dict[str, float]:
    """Mean |neutral − G(x)| of the "generated" faces and mean |neutral − x| of the "input" faces, in grey levels of
    [-1,1]. faces, neutral : uint8 [N,48,48]."""

    def of_batch(x: Tensor, target: Tensor) -> Tensor:
        x, target = (_signed(grey.unsqueeze(1).float() / 255) for grey in (x, target))
        return torch.stack([(target - image).abs().mean(dim=(1, 2, 3)) for image in (generator(x), x)], dim=1)

    generated, shown = in_batches(of_batch, device, faces, neutral).double().mean(dim=0).tolist()
    return {"generated": generated, "input": shown}


def describe(recipe: GenerativeRecipe, classes: int) -> list[tuple[str, dict[str, Any]]]:
    """The parameters of the generator and of the classifiers."""
    network = recipe.network
    parts = {"generator": NeutralFaceGenerator(network.widths), "classifiers": ExpressionClassifiers(network, classes)}
    return [("sizes", {f"{name} parameters": f"{parameter_count(part):,}" for name, part in parts.items()})]
