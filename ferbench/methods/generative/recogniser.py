"""Both stages: a generator of neutral faces, then classifiers on it, frozen."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call

from ferbench.errors import UsageError
from ferbench.methods.generative.networks import Adversary, Classifiers, Generator
from ferbench.methods.generative.recipe import Losses, Recipe
from ferbench.methods.interface import History, SampleSet, TrainingSet, Workspace
from ferbench.methods.recipes import Method
from ferbench.training.augment import derive
from ferbench.training.loop import Terms, fit
from ferbench.training.losses import contrastive
from ferbench.training.networks import seeded
from ferbench.training.plan import Batch, paired_epoch, single_epoch


class Pair(nn.Module):
    """A generator and its adversary, trained in the same steps."""

    def __init__(self, generator: Generator, adversary: Adversary):
        super().__init__()
        self.generator, self.adversary = generator, adversary

    def loss(self, face: Tensor, neutral: Tensor, losses: Losses) -> Terms:
        """L_G = w L_adversarial + λ mean |neutral - G(x)|, and the adversary's own loss beside it (pix2pix: Isola et
        al. 2017, Eq. 4). The adversary gets no gradient from the first and the generator none from the second."""
        made = self.generator(face)
        terms = {"reconstruction": losses.reconstruction * (neutral - made).abs().mean()}
        if losses.adversary:
            fixed = {name: tensor.detach() for name, tensor in self.adversary.named_parameters()}
            fooled = functional_call(self.adversary, fixed, (face, made))
            terms["adversary"] = losses.adversary * _told(fooled, 1.0)
            terms["told apart"] = (
                _told(self.adversary(face, neutral), 1.0) + _told(self.adversary(face, made.detach()), 0.0)
            ) / 2
        return terms | {"total": torch.stack(list(terms.values())).sum()}


class Generative:
    """One training. Each sequence gives its last frames as faces and its first frame as their neutral face."""

    def __init__(self, method: Method, classes: tuple[str, ...]):
        self.title, self.classes = method.title, classes
        self.recipe: Recipe = method.recipe
        self.generator: Generator | None = None
        self.classifiers: Classifiers | None = None

    def fit(self, train: TrainingSet, work: Workspace) -> History:
        if work.epochs is not None or work.keep_best:
            raise UsageError(f"{self.title} is trained in two stages: an epoch cannot be chosen")
        recipe, network, device = self.recipe, self.recipe.network, work.device
        frames = np.concatenate([video.frames[-network.frames :] for video in train.videos])
        counts = [len(video.frames[-network.frames :]) for video in train.videos]
        faces = torch.from_numpy(frames).to(device.name)
        neutral = torch.from_numpy(np.stack([video.frames[0] for video in train.videos])).to(device.name)
        of = torch.from_numpy(np.repeat(np.arange(len(counts)), counts)).to(device.name)
        labels = torch.from_numpy(train.labels).to(device.name)[of]
        pair = seeded(work.seed("generator"), lambda: Pair(Generator(network.widths), Adversary(network.widths[0])))
        pair.to(device.name)

        def samples(batch: Batch) -> tuple[Tensor, Tensor]:
            return _signed(derive(faces[batch.images], batch.derived)), _signed(
                derive(neutral[of[batch.images]], batch.derived)
            )

        def reconstruct(batch: Batch) -> Terms:
            with device.autocast():
                return pair.loss(*samples(batch), recipe.losses)

        first, seed = recipe.generator, work.seed("generator plan")
        history = [
            {"part": "generator", **row}
            for row in work.timed(
                "generator",
                lambda: fit(
                    pair,
                    reconstruct,
                    lambda epoch: single_epoch(len(faces), first.augment, first.batch, seed, epoch),
                    first,
                    device,
                    work.checkpoint("generator"),
                    work.report,
                ),
            )
        ]
        generator = self.generator = pair.generator.eval().requires_grad_(False)
        head = self.classifiers = seeded(work.seed("classifiers"), lambda: Classifiers(network, len(self.classes))).to(
            device.name
        )
        second, then = recipe.finetune, work.seed("plan")

        def classify(batch: Batch) -> Terms:
            own = labels[batch.images]
            with device.autocast():
                logits, features = head(self._given(generator, samples(batch)[0]))
            terms = {
                "recognition": torch.stack([nn.functional.cross_entropy(one.float(), own) for one in logits]).sum()
            }
            if recipe.losses.contrast:
                terms["contrast"] = recipe.losses.contrast * contrastive(
                    features.float(), own, batch.first, batch.second, recipe.losses.margin
                )
            return terms | {"total": torch.stack(list(terms.values())).sum()}

        places = labels.cpu().numpy()
        history += [
            {"part": "classifiers", **row}
            for row in work.timed(
                "classifiers",
                lambda: fit(
                    head,
                    classify,
                    lambda epoch: paired_epoch(places, second.augment, second.batch, then, epoch, "images", "balanced"),
                    second,
                    device,
                    work.checkpoint("classifiers"),
                    work.report,
                ),
            )
        ]
        return history

    def predict(self, samples: SampleSet, work: Workspace) -> np.ndarray:
        """The mean of the probabilities of each sequence's last frames."""
        assert self.generator is not None
        assert self.classifiers is not None
        generator, head = self.generator.to(work.device.name).eval(), self.classifiers.to(work.device.name).eval()
        frames = [torch.from_numpy(video.frames[-self.recipe.network.frames :].copy()) for video in samples.videos]
        found = []
        with torch.inference_mode(), work.device.autocast():
            for part in torch.cat(frames).split(work.device.rows):
                x = _signed(part.to(work.device.name).unsqueeze(1).float() / 255)
                found.append(torch.softmax(head(self._given(generator, x))[0][-1].float(), dim=1).cpu())
        each = torch.cat(found).split([len(one) for one in frames])
        return torch.stack([one.mean(dim=0) for one in each]).numpy()

    def state(self) -> dict[str, Tensor]:
        assert self.generator is not None
        assert self.classifiers is not None
        parts = {"generator": self.generator, "classifiers": self.classifiers}
        return {f"{name}/{key}": tensor for name, part in parts.items() for key, tensor in part.state_dict().items()}

    def load(self, state: Mapping[str, Tensor]) -> None:
        self.generator = Generator(self.recipe.network.widths)
        self.classifiers = Classifiers(self.recipe.network, len(self.classes))
        for name, part in (("generator", self.generator), ("classifiers", self.classifiers)):
            part.load_state_dict({key.partition("/")[2]: t for key, t in state.items() if key.startswith(f"{name}/")})

    def _given(self, generator: Generator, x: Tensor) -> list[Tensor]:
        """What the classifiers read of a batch: maps of the frozen generator, or faces and what it makes of them."""
        with torch.no_grad():
            return generator.layers(x) if self.recipe.network.kind == "residue" else [x, generator(x)]


def _signed(x: Tensor) -> Tensor:
    """Grey levels in [0,1] → [-1,1], as the generator's last layer gives them."""
    return 2 * x - 1


def _told(logits: Tensor, real: float) -> Tensor:
    return nn.functional.binary_cross_entropy_with_logits(logits.float(), torch.full_like(logits, real).float())
