"""Training of one or two networks on sequences, and of what fuses them."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor, nn

from ferbench.errors import UsageError
from ferbench.methods.interface import History, SampleSet, TrainingSet, Workspace
from ferbench.methods.recipes import Method
from ferbench.methods.sequences import centroids, inputs, networks
from ferbench.methods.sequences.recipe import TRACKS, Part, Recipe
from ferbench.seeds import derive_seed
from ferbench.training.augment import DERIVED
from ferbench.training.loop import Terms, fit
from ferbench.training.losses import contrastive
from ferbench.training.networks import seeded
from ferbench.training.plan import Batch, Step, paired_epoch, single_epoch

Read = Callable[[Tensor, Tensor], Tensor]  # places in the set and numbers of derived samples → a network's input


def build(part: Part, recipe: Recipe, classes: int) -> nn.Module:
    """Build one network with random weights."""
    network = recipe.network
    if part == "dtan":
        return networks.Appearance(network.frames, classes, network.dropout)
    if part == "dtgn":
        return networks.Geometry(network.steps, len(inputs.GEOMETRY), classes, network.dropout)
    if part == "phrnn":
        return networks.Hierarchy(network.steps, classes)
    if part == "mscnn":
        return networks.Still(classes)
    return networks.ActionParts(
        network.frames, classes, network.filters, part == "3dcnn-dap", network.start == "centroids"
    )


class Sequences:
    """One training. Parts are trained one after the other, each with a checkpoint of its own."""

    def __init__(self, method: Method, classes: tuple[str, ...]):
        self.title, self.classes = method.title, classes
        self.recipe: Recipe = method.recipe
        self.parts: dict[Part, nn.Module] = {}

    def fit(self, train: TrainingSet, work: Workspace) -> History:
        recipe, names = self.recipe, self.recipe.network.parts
        if (work.epochs is not None or work.keep_best) and len(names) > 1:
            raise UsageError(f"{self.title} is two networks that are trained in turn: an epoch cannot be chosen")
        labels = torch.from_numpy(train.labels).to(work.device.name)
        history = []
        for part in names:
            module = self.parts[part] = seeded(
                work.seed(f"{part} weights"),
                lambda: build(part, recipe, len(self.classes)),  # noqa: B023
            )
            module.to(work.device.name)
            read = self._reader(part, train, work)
            if isinstance(module, networks.Tracks):
                every = torch.arange(len(train), device=work.device.name).repeat_interleave(DERIVED)
                module.standardise(read(every, torch.arange(DERIVED, device=work.device.name).repeat(len(train))))
            if isinstance(module, networks.ActionParts) and recipe.network.start == "centroids":
                whole = torch.arange(len(train), device=work.device.name)
                centroids.begin(module, read(whole, torch.zeros_like(whole)), labels, work.seed(part))
            rows = work.timed(part, lambda: self._train(part, module, read, labels, train, work))  # noqa: B023
            history += [{"part": part, **row} for row in rows]
        work.facts["parameters"] = sum(p.numel() for one in self.parts.values() for p in one.parameters())
        if recipe.fusion.kind == "joint":
            rows = work.timed("joint", lambda: self._join(train, labels, work))
            history += [{"part": "joint", **row} for row in rows]
        return history

    def predict(self, samples: SampleSet, work: Workspace) -> np.ndarray:
        """Of two parts the sum of their logits decides, or the mean of their probabilities."""
        logits = [self._logits(part, module, samples, work) for part, module in self.parts.items()]
        fusion = self.recipe.fusion
        if fusion.kind == "joint":
            return torch.softmax(logits[0] + logits[1], dim=1).numpy()
        each = [torch.softmax(one, dim=1).numpy() for one in logits]
        return each[0] if fusion.kind == "none" else fusion.share * each[0] + (1 - fusion.share) * each[1]

    def state(self) -> dict[str, Tensor]:
        return {f"{part}/{name}": t for part, one in self.parts.items() for name, t in one.state_dict().items()}

    def load(self, state: Mapping[str, Tensor]) -> None:
        for part in self.recipe.network.parts:
            module = self.parts.setdefault(part, build(part, self.recipe, len(self.classes)))
            own = {name[len(part) + 1 :]: t for name, t in state.items() if name.startswith(f"{part}/")}
            module.load_state_dict(own or dict(state))  # the epochs of a training hold its one part without its name

    def _train(
        self, part: Part, module: nn.Module, read: Read, labels: Tensor, train: TrainingSet, work: Workspace
    ) -> History:
        stage, seed = self.recipe.finetune, derive_seed(work.seed("plan"), part)
        device, signal = work.device, self.recipe.verification

        def loss(batch: Batch) -> Terms:
            own = labels[batch.images]
            with device.autocast():
                logits, features = module(read(batch.images, batch.derived))
            terms = {"recognition": nn.functional.cross_entropy(logits.float(), own)}
            if part == "mscnn":
                terms["verification"] = signal.weight * contrastive(
                    features.float(), own, batch.first, batch.second, signal.margin
                )
            terms["total"] = torch.stack(list(terms.values())).sum()
            return terms

        def plan(epoch: int) -> list[Step]:
            # An epoch's dropout draws from a seed of its own, so that an interrupted training goes on with the same.
            torch.manual_seed(derive_seed(seed, "dropout", epoch) % 2**63)
            if part == "mscnn":
                return paired_epoch(train.labels, stage.augment, stage.batch, seed, epoch, "images", "balanced")
            return single_epoch(len(train), stage.augment, stage.batch, seed, epoch)

        def validate() -> float:
            held = work.validation
            assert held is not None
            found = self._logits(part, module, held, work).argmax(dim=1).numpy()
            return float((found == held.labels).mean())

        watch = validate if work.validation is not None and len(self.recipe.network.parts) == 1 else None
        return fit(
            module, loss, plan, stage, device, work.checkpoint(part), work.report, watch, work.keep_best, work.epochs
        )

    def _join(self, train: TrainingSet, labels: Tensor, work: Workspace) -> History:
        """Train both networks' last layers alone: L = λ1 CE(g1) + λ2 CE(g2) + λ3 CE(g1 + g2) (Jung et al. 2015)."""
        stage, names = self.recipe.joint, self.recipe.network.parts
        assert stage is not None
        readers = [self._reader(part, train, work) for part in names]
        bodies = [self.parts[part] for part in names]
        tops = nn.ModuleList([body.top for body in bodies])  # type: ignore[misc]
        seed, weights, device = work.seed("joint plan"), self.recipe.fusion.weights, work.device

        def loss(batch: Batch) -> Terms:
            with torch.no_grad(), device.autocast():
                features = [
                    body.eval()(read(batch.images, batch.derived))[1]
                    for body, read in zip(bodies, readers, strict=True)
                ]
            logits = [top(one.float()) for top, one in zip(tops, features, strict=True)]
            own = labels[batch.images]
            each = [nn.functional.cross_entropy(one, own) for one in (*logits, logits[0] + logits[1])]
            return {"total": sum((w * one for w, one in zip(weights, each, strict=True)), torch.zeros(()))}

        return fit(
            tops,
            loss,
            lambda epoch: single_epoch(len(train), stage.augment, stage.batch, seed, epoch),
            stage,
            device,
            work.checkpoint("joint"),
            work.report,
        )

    def _reader(self, part: Part, train: TrainingSet, work: Workspace) -> Read:
        """What gives a part its input of derived samples of a training set, on the device."""
        network, name = self.recipe.network, work.device.name
        if part in TRACKS:
            table = inputs.tracks_of(train.videos, network.steps, every=True)
            table = (table[..., inputs.GEOMETRY, :] if part == "dtgn" else table).to(name)
            return lambda rows, which: table[rows, which]
        count = 1 if part == "mscnn" else network.frames
        frames = inputs.frames_of(train.videos, count).to(name)

        def pixels(rows: Tensor, which: Tensor) -> Tensor:
            x = inputs.derived_frames(frames[rows], which) - 0.5
            return x[:, 0] if part == "mscnn" else x

        return pixels

    def _logits(self, part: Part, module: nn.Module, samples: SampleSet, work: Workspace) -> Tensor:
        """Logits float32 [N,K] on the CPU of undistorted sequences."""
        network, device = self.recipe.network, work.device
        if part in TRACKS:
            x = inputs.tracks_of(samples.videos, network.steps, every=False)[:, 0]
            x = x[..., inputs.GEOMETRY, :] if part == "dtgn" else x
        else:
            x = inputs.frames_of(samples.videos, 1 if part == "mscnn" else network.frames).float() / 255 - 0.5
            x = x[:, 0] if part == "mscnn" else x
        module.to(device.name).eval()
        with torch.inference_mode(), device.autocast():
            return torch.cat([module(one.to(device.name))[0].float().cpu() for one in x.split(device.rows)])
