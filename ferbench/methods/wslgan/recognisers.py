"""What the runs of WS-LGAN train: both branches of the AMG (stage 1), and the network (stage 2)."""

from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor

from ferbench.files import sha256_of
from ferbench.methods.interface import PRETRAIN, AttributeSet, History, SampleSet, TrainingSet, Workspace
from ferbench.methods.recipes import Method
from ferbench.methods.wslgan import stages
from ferbench.methods.wslgan.attention import PARTS, AttentionMapGenerator, PartClassifier
from ferbench.methods.wslgan.distillation import soft_targets
from ferbench.methods.wslgan.lean import maker_of_maps
from ferbench.methods.wslgan.network import WSLGAN
from ferbench.methods.wslgan.recipe import PairStage, Recipe
from ferbench.methods.wslgan.sampling import samples_of
from ferbench.methods.wslgan.settings import CamClass
from ferbench.methods.wslgan.stages import Labelled
from ferbench.protocol import splits
from ferbench.runs.record import START
from ferbench.training import pointing
from ferbench.training.augment import ANGLES, DERIVED, levels
from ferbench.training.checkpoint import unpack
from ferbench.training.device import Device
from ferbench.training.loop import Progress
from ferbench.training.samples import maps_if_any, maps_of
from ferbench.training.together import together
from ferbench.training.weights import seeded

ATTENTION = "attention"


class Attention:
    """Stage 1: both branches of the AMG, side by side where there are threads for both. It predicts nothing."""

    def __init__(self, method: Method):
        self.recipe: Recipe = method.recipe
        self.branches: dict[str, PartClassifier] = {}

    def fit(self, train: TrainingSet | AttributeSet, work: Workspace) -> History:
        assert isinstance(train, AttributeSet)
        chosen = [splits.attribute_split(train.protocol, train.faces, part, train.seed) for part in PARTS]
        held_out = [_labelled(train.faces.images[split.validation], split.validation_target) for split in chosen]
        for part in PARTS:
            whole = seeded(work.seed(f"{part} weights"), lambda: AttentionMapGenerator(self.recipe.architecture))
            self.branches[part] = getattr(whole, part)

        def trained(number: int, report: Progress) -> list[dict[str, float]]:
            part, split = PARTS[number], chosen[number]
            learned = _labelled(train.faces.images[split.train], split.train_target)
            return work.timed(
                part,
                lambda: stages.train_part(
                    self.branches[part],
                    learned,
                    held_out[number],
                    self.recipe,
                    work.seed(part),
                    work.device,
                    work.checkpoint(part),
                    lambda done, total, text: report(done, total, f"{part}: {text}"),
                ),
            )

        at_once = stages.branches_at_once(self.recipe, work.device, torch.get_num_threads())
        histories = together(len(PARTS), at_once, self.recipe.threads, trained, work.report)
        for part, split, held, rows in zip(PARTS, chosen, held_out, histories, strict=True):
            work.notes.extend(split.notes)
            work.result[part] = {
                "validation_accuracy": rows[-1]["validation_accuracy"],
                "validation_images": len(split.validation),
                "train_images": len(split.train),
                "pointing": _pointing(
                    self.branches[part], part, held.images, self.recipe.architecture.cam_class, work.device
                ),
                "pointing_chance": pointing.chance(part),
            }
        return [{"part": part, **row} for part, rows in zip(PARTS, histories, strict=True) for row in rows]

    def predict(self, samples: SampleSet, work: Workspace) -> np.ndarray:
        raise AssertionError("attention maps are learned from a set that nothing is tested on")

    def state(self) -> dict[str, Tensor]:
        return {f"{part}.{name}": t for part, one in self.branches.items() for name, t in one.state_dict().items()}

    def load(self, state: Mapping[str, Tensor]) -> None:
        whole = AttentionMapGenerator(self.recipe.architecture)
        whole.load_state_dict(dict(state))
        self.branches = {part: getattr(whole, part) for part in PARTS}


class Network:
    """Stage 2, in pre-training and on folds: the network, started from its parents, on frozen attention maps."""

    def __init__(self, method: Method, kind: str, classes: tuple[str, ...]):
        self.method, self.kind, self.classes = method, kind, classes
        self.recipe: Recipe = method.recipe
        self.network: WSLGAN | None = None
        self._amg: Callable[[Tensor], Tensor] | None = None
        self._maps: dict[str, Tensor | None] = {}  # by the images' hash: epochs of one training are tested in turn

    def fit(self, train: TrainingSet | AttributeSet, work: Workspace) -> History:
        assert isinstance(train, TrainingSet)
        recipe, stage, device = self.recipe, self._stage(work), work.device
        network = self.network = self._built(work)
        for role in work.identity.parents:
            if role.startswith(START) or role == PRETRAIN:
                anew = role == PRETRAIN and recipe.finetune.classifier == "new"
                _start_from(work, role, network, () if anew else self.classes)
        work.facts["parameters"] = sum(parameter.numel() for parameter in network.parameters())
        amg = self.amg(work)
        data = _labelled(train.images, train.labels)
        watched = None
        if work.validation is not None:
            held = _labelled(work.validation.images, work.validation.labels)
            watched = held.labels, self.views(held.images, work)
        weights = None if amg is None else work.parent(ATTENTION)[1]
        plan = stages.network_plan(train.labels, stage, recipe.readings, work.seed("plan"))
        before = 0

        def ahead(what: str) -> Callable[[int, int], None]:
            """A report for work before the training, whose images cost about as much as those trained on."""
            start = before

            def told(done: int, total: int) -> None:
                nonlocal before
                before = start + total // stage.batch
                work.report(start + done // stage.batch, before + stage.epochs * len(plan(0)), what)

            return told

        teacher = soft_targets(data.images, recipe.pretrain.distil, work, ahead("what the teachers say"))
        samples = samples_of(train, recipe, stage, plan, amg, weights, work, ahead("attention maps"))
        return work.timed(
            "training",
            lambda: stages.train_network(
                network,
                data,
                samples,
                stage,
                recipe.losses_of(stage),
                recipe.readings,
                work.seed("plan"),
                device,
                work.checkpoint("network"),
                lambda done, total, text: work.report(before + done, before + total, text),
                watched,
                work.keep_best,
                work.epochs,
                teacher,
            ),
        )

    def predict(self, samples: SampleSet, work: Workspace) -> np.ndarray:
        """One stream of undistorted images, the mean over all :meth:`views` of them."""
        assert self.network is not None
        work.device.place(self.network)
        views = self.views(torch.from_numpy(samples.images), work)
        return stages.predict_views(self.network, views, work.device).numpy()

    def views(self, images: Tensor, work: Workspace) -> list[stages.View]:
        """What a test or a validation predicts, each view with its maps: the images; with ``flip`` their mirror images
        too; with ``rotate`` either rotated as well. All views are derived samples, of which both make all 14."""
        stage, border, turns = self._stage(work), self.recipe.readings.border, len(ANGLES)
        numbers = [n for n in range(DERIVED) if (stage.flip or n < turns) and (stage.rotate or n % turns == 0)]
        seen = [levels(images, torch.full((len(images),), number), border) for number in numbers]
        return [(view, self.maps(view, work)) for view in seen]

    def state(self) -> dict[str, Tensor]:
        assert self.network is not None
        return self.network.state_dict()

    def load(self, state: Mapping[str, Tensor]) -> None:
        if self.network is None:
            self.network = WSLGAN(self.recipe.architecture, len(self.classes))
        self.network.load_state_dict(dict(state))

    def amg(self, work: Workspace) -> Callable[[Tensor], Tensor] | None:
        """The frozen AMG of the run's parent, on the device; None for GFNet, which takes none."""
        if ATTENTION not in work.identity.parents:
            return None
        if self._amg is None:
            # The stored weights take the place of random ones; drawing those must not come between another's draws.
            amg = seeded(work.seed("weights"), lambda: AttentionMapGenerator(self.recipe.architecture))
            amg.load_state_dict(unpack(work.parent(ATTENTION)[1])[0])
            self._amg = maker_of_maps(amg.freeze(), work.device)
        return self._amg

    def maps(self, images: Tensor, work: Workspace) -> Tensor | None:
        """Attention maps of undistorted images uint8 [N,48,48], made once."""
        key = sha256_of(images.contiguous().numpy().tobytes())
        if key not in self._maps:
            self._maps[key] = maps_if_any(self.amg(work), images, work.device)
        return self._maps[key]

    def _built(self, work: Workspace) -> WSLGAN:
        return seeded(work.seed("weights"), lambda: WSLGAN(self.recipe.architecture, len(self.classes)))

    def _stage(self, work: Workspace) -> PairStage:
        assert work.protocol is not None
        stage = self.method.family.stage(self.kind, self.method, work.protocol)  # type: ignore[attr-defined]
        assert isinstance(stage, PairStage)
        return stage


def _start_from(work: Workspace, role: str, network: WSLGAN, classes: tuple[str, ...]) -> None:
    """Take all weights of a parent's network, the classifier's only of those of ``classes`` that the parent knows.

    classes : all of the network's own, in their order; none for a classifier that begins anew.
    """
    record, weights = work.parent(role)
    tensors, _ = unpack(weights)
    for name, own in network.classifier.state_dict(prefix="classifier.").items():
        theirs, tensors[name] = tensors[name], own.clone()
        for row, label in enumerate(classes):
            if label in record.classes:
                tensors[name][row] = theirs[record.classes.index(label)]
    network.load_state_dict(tensors)


def _labelled(images: np.ndarray, labels: np.ndarray) -> Labelled:
    return Labelled(torch.from_numpy(np.array(images)), torch.from_numpy(np.array(labels, dtype=np.int64)))


def _pointing(branch: PartClassifier, part: str, images: Tensor, cam_class: CamClass, device: Device) -> float:
    """The share of images whose attention map has its maximum on the part."""
    maps = maps_of(lambda x: branch.attention(x, cam_class), images, device)
    return float(pointing.hits(maps, part).double().mean())
