"""The two stages of a training: a generator of neutral faces, then classifiers on the frozen generator."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ferbench.errors import UsageError
from ferbench.methods.generative.networks import AdversarialPair, Adversary, ExpressionClassifiers, NeutralFaceGenerator
from ferbench.methods.generative.recipe import GenerativeRecipe
from ferbench.methods.interface import History, SampleSet, TrainingSet, Workspace
from ferbench.methods.recipes import Method
from ferbench.training.augment import derive
from ferbench.training.loop import Terms, fit
from ferbench.training.losses import contrastive_loss_of_batch
from ferbench.training.networks import in_batches, parameter_count, seeded
from ferbench.training.plan import Batch, Step, paired_epoch, single_epoch
from ferbench.training.schedule import Stage


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

        def trained(
            name: str,
            module: nn.Module,
            loss: Callable[[Batch], Terms],
            plan: Callable[[int], list[Step]],
            stage: Stage,
        ) -> History:
            rows = work.timed(name, lambda: fit(module, loss, plan, stage, device, work.checkpoint(name), work.report))
            return [{"part": name, **row} for row in rows]

        pair = seeded(
            work.seed("generator"),
            lambda: AdversarialPair(NeutralFaceGenerator(network.widths), Adversary(network.widths[0])),
        ).to(device.name)

        def pair_loss(batch: Batch) -> Terms:
            with device.autocast():  # derived samples are computed in its precision too, in both stages
                face = _signed(derive(faces[batch.images], batch.derived))
                target = _signed(derive(neutral[sequence[batch.images]], batch.derived))
                return pair.loss(face, target, recipe.losses)

        first, seed = recipe.generator, work.seed("generator plan")

        def single(epoch: int) -> list[Step]:
            return single_epoch(len(faces), first.augment, first.batch, seed, epoch)

        history = trained("generator", pair, pair_loss, single, first)
        generator = self.generator = pair.generator.eval().requires_grad_(False)
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

        return history + trained("classifiers", classifiers, classifier_loss, paired, second)

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


def describe(recipe: GenerativeRecipe, classes: int) -> list[tuple[str, dict[str, Any]]]:
    """The parameters of the generator and of the classifiers."""
    network = recipe.network
    parts = {"generator": NeutralFaceGenerator(network.widths), "classifiers": ExpressionClassifiers(network, classes)}
    return [("sizes", {f"{name} parameters": f"{parameter_count(part):,}" for name, part in parts.items()})]
