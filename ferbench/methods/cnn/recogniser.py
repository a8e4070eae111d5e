"""What the runs of this family train: a network, from random weights or from a pre-training."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from ferbench.errors import UsageError
from ferbench.methods.cnn.methods import build
from ferbench.methods.cnn.network import Network, Truth
from ferbench.methods.cnn.recipe import NetworkStage, Recipe, TargetStage
from ferbench.methods.cnn.samplers import shifted
from ferbench.methods.cnn.schedule import stage_of
from ferbench.methods.interface import PRETRAIN, History, SampleSet, TrainingSet, Workspace
from ferbench.methods.recipes import Method
from ferbench.training.augment import jitter
from ferbench.training.checkpoint import unpack
from ferbench.training.device import Device
from ferbench.training.loop import Terms, fit
from ferbench.training.networks import seeded
from ferbench.training.plan import Batch, passes
from ferbench.training.samples import Computed, Samples, Tables, batches, pixel_table


class Cnn:
    """One training of a network: pre-training by softmax alone, or a fold by the method's loss."""

    def __init__(self, method: Method, kind: str, classes: tuple[str, ...]):
        self.kind, self.classes = kind, classes
        self.recipe: Recipe = method.recipe
        self.network: Network | None = None

    def fit(self, train: TrainingSet, work: Workspace) -> History:
        device, stage = work.device, stage_of(self.kind, self.recipe, work.protocol)
        network = self.network = seeded(work.seed("weights"), self._built)
        if device.captures and not network.level:
            raise UsageError("the steps of this method differ in size, which a captured graph cannot: --engine plain")
        if PRETRAIN in work.identity.parents:
            self._start(network, stage, work)
        network.normalise.fit(torch.tensor(train.images), self.recipe.interpretation.normalise)
        device.place(network)
        truth, border = Truth.of(train, device.name), self.recipe.interpretation.border
        plan = network.plan(train, stage, work.seed("plan"))
        if stage.shift:
            plan = shifted(plan, stage.shift, work.seed("shifts"))
        work.facts |= {"parameters": parameters(network), **network.facts(train, plan)}
        samples = samples_of(train, stage, border, work)
        network.begin(train, samples, stage, work)
        outputs_of = device.compiled(network.outputs)

        def loss(batch: Batch) -> Terms:
            x, _ = samples(batch.images, batch.derived)
            if batch.moves.numel():
                x = device.images(jitter(x, None, batch.moves, border)[0])
            with device.autocast():
                outputs = outputs_of(x)
            return network.loss({name: one.float() for name, one in outputs.items()}, truth, batch)

        def validate() -> float:
            held = work.validation
            assert held is not None
            found = predict(network, held.images, device).argmax(dim=1).numpy()
            return float((found == held.labels).mean())

        watch = validate if work.validation is not None else None
        return work.timed(
            "training",
            lambda: fit(
                network,
                loss,
                plan,
                stage,
                device,
                work.checkpoint("network"),
                work.report,
                watch,
                work.keep_best,
                work.epochs,
                network.after,
            ),
        )

    def predict(self, samples: SampleSet, work: Workspace) -> np.ndarray:
        assert self.network is not None
        work.device.place(self.network)
        return predict(self.network, samples.images, work.device).numpy()

    def state(self) -> dict[str, Tensor]:
        assert self.network is not None
        return self.network.state_dict()

    def load(self, state: Mapping[str, Tensor]) -> None:
        if self.network is None:
            self.network = seeded(0, self._built)
        self.network.load_state_dict(dict(state))

    def _built(self) -> Network:
        return build(self.recipe, self.kind, len(self.classes))

    def _start(self, network: Network, stage: NetworkStage, work: Workspace) -> None:
        """Take the weights of the pre-trained network, the classifier's only of classes that both know, and only where
        the recipe shares them. What the method adds to that network keeps its random weights."""
        record, weights = work.parent(PRETRAIN)
        theirs, own = unpack(weights)[0], network.state_dict()
        known = record.classes if isinstance(stage, TargetStage) and stage.classifier == "shared" else []
        for name in [name for name in theirs if name.startswith("classifier.")]:
            if name not in own:
                del theirs[name]  # a method that has classifiers of its own
                continue
            rows = theirs[name]
            theirs[name] = own[name].clone()
            for place, label in enumerate(self.classes):
                if label in known:
                    theirs[name][place] = rows[known.index(label)]
        network.load_state_dict({**own, **theirs})


def predict(network: Network, images: np.ndarray, device: Device) -> Tensor:
    """Class probabilities of undistorted images: uint8 [N,48,48] → float32 [N,K] on the CPU."""
    network.eval()
    with torch.inference_mode(), device.autocast():
        parts = [torch.softmax(network(x).float(), dim=1).cpu() for x in batches(torch.tensor(images), device)]
    return torch.cat(parts)


def samples_of(train: TrainingSet, stage: NetworkStage, border: str, work: Workspace) -> Samples:
    """The derived samples of a training set: from a table of all of them where the folds look often enough or a graph
    is captured, which cannot compute them, else computed at each step. All give the same bytes."""
    device, shared, images = work.device, train.shared, torch.tensor(train.images)
    if shared is not None and (device.captures or (device.looks_up and shared.pays(passes(stage, len(train))))):
        return shared.tables(border, device, work.timed)
    if device.captures:
        return Tables(pixel_table(images, border).to(device.name), None, device)
    return Computed(images.to(device.name), None, border, device)


def parameters(network: torch.nn.Module) -> int:
    """How many numbers are learned by gradient."""
    return sum(parameter.numel() for parameter in network.parameters())
