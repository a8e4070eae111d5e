"""The trainings of WS-LGAN: both branches of the AMG (stage 1), and the network (stage 2)."""

from collections.abc import Callable, Hashable, Mapping
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ferbench.files import sha256_of
from ferbench.methods.interface import PRETRAIN, AttributeSet, History, SampleSet, TrainingSet, Workspace
from ferbench.methods.wslgan import stages
from ferbench.methods.wslgan.deployed import deployed, for_tests
from ferbench.methods.wslgan.lean import LeanMapGenerator, map_generator
from ferbench.methods.wslgan.network import PARTS, WSLGAN, AttentionMapGenerator, PartClassifier
from ferbench.methods.wslgan.recipe import ATTENTION, CamClass, PairStage, WslganRecipe
from ferbench.methods.wslgan.stages import LabelledImages, Teacher
from ferbench.protocol import splits
from ferbench.runs.record import START, TEACHER
from ferbench.training import pointing
from ferbench.training.arithmetic import ROWS
from ferbench.training.augment import ANGLES, DERIVED, levels
from ferbench.training.checkpoint import remembered, unpack
from ferbench.training.device import Device
from ferbench.training.loop import train_in_parallel
from ferbench.training.networks import parameter_count, seeded, start_from
from ferbench.training.plan import EpochPlan, looked_up, passes
from ferbench.training.samples import Computed, Samples, maps_if_any, maps_of, shared_tensor
from ferbench.training.schedule import Progress, Stage

_BATCHES = 10  # batches of a prediction between two calls of a progress callback


class AttentionLearner:
    """Stage 1: both branches of the AMG, in parallel if there are threads for both."""

    def __init__(self, recipe: WslganRecipe):
        self.recipe = recipe
        self.branches: dict[str, PartClassifier] = {}

    def fit(self, data: AttributeSet, work: Workspace) -> History:
        chosen = [splits.attribute_split(data.protocol, data.faces, part, data.seed) for part in PARTS]
        held_out = [_labelled(data.faces.pixels(split.validation), split.validation_target) for split in chosen]
        for part in PARTS:
            amg = seeded(work.seed(f"{part} weights"), lambda: AttentionMapGenerator(self.recipe.architecture))
            self.branches[part] = getattr(amg, part)

        def train(number: int, progress: Progress) -> History:
            part, split = PARTS[number], chosen[number]
            images = _labelled(data.faces.pixels(split.train), split.train_target)
            return work.timed(
                part,
                lambda: stages.train_part(
                    self.branches[part],
                    images,
                    held_out[number],
                    self.recipe,
                    work.seed(part),
                    work.device,
                    work.checkpoint(part),
                    lambda done, total, text: progress(done, total, f"{part}: {text}"),
                ),
            )

        at_once = stages.branches_at_once(self.recipe, work.device, torch.get_num_threads())
        histories = train_in_parallel(len(PARTS), at_once, self.recipe.threads, train, work.report)
        for part, split, held, rows in zip(PARTS, chosen, held_out, histories, strict=True):
            work.notes.extend(split.notes)
            work.result[part] = {
                "validation_accuracy": rows[-1]["validation_accuracy"],
                "validation_images": len(split.validation),
                "train_images": len(split.train),
                "pointing": _pointing_accuracy(
                    self.branches[part], part, held.images, self.recipe.architecture.cam_class, work.device
                ),
                "pointing_chance": pointing.chance(part),
            }
        return [{"part": part, **row} for part, rows in zip(PARTS, histories, strict=True) for row in rows]

    def state(self) -> dict[str, Tensor]:
        return {
            f"{part}.{name}": tensor
            for part, branch in self.branches.items()
            for name, tensor in branch.state_dict().items()
        }

    def load(self, state: Mapping[str, Tensor]) -> None:
        amg = AttentionMapGenerator(self.recipe.architecture)
        amg.load_state_dict(dict(state))
        self.branches = {part: getattr(amg, part) for part in PARTS}


class WslganRecogniser:
    """Stage 2, pre-training and folds: the network, initialised from its parents, with frozen attention maps."""

    def __init__(self, recipe: WslganRecipe, kind: str, classes: tuple[str, ...]):
        self.recipe, self.kind, self.classes = recipe, kind, classes
        self.network: WSLGAN | None = None
        self._amg: Callable[[Tensor], Tensor] | None = None
        self._maps: dict[str, Tensor | None] = {}  # by the images' hash, since the images are the same in all epochs

    def fit(self, train: TrainingSet, work: Workspace) -> History:
        recipe, stage = self.recipe, self._stage(work)
        network = self.network = seeded(work.seed("weights"), self._new_network)
        for role in work.identity.parents:
            if role.startswith(START) or role == PRETRAIN:
                new = role == PRETRAIN and recipe.finetune.classifier == "new"
                record, weights = work.parent(role)
                start_from(network, weights, record.classes, () if new else self.classes)
        work.facts["parameters"] = parameter_count(network)
        amg = self.amg(work)
        images = _labelled(train.images, train.labels)
        validation = None
        if work.validation is not None:
            held = _labelled(work.validation.images, work.validation.labels)
            validation = held.labels, self.views(held.images, work)
        amg_weights = None if amg is None else work.parent(ATTENTION)[1]
        plan = stages.network_plan(train.labels, stage, recipe.interpretation, work.seed("plan"))
        before = 0

        def preparing(what: str) -> Callable[[int, int], None]:
            """Progress of work before the training, in steps, as an image takes about as long as in training."""
            start = before

            def progress(done: int, total: int) -> None:
                nonlocal before
                before = start + total // stage.batch
                work.report(start + done // stage.batch, before + stage.epochs * len(plan(0)), what)

            return progress

        teacher = soft_targets(images.images, recipe.pretrain.distil, work, preparing("predictions of the teachers"))
        samples = samples_of(train, recipe, stage, plan, amg, amg_weights, work, preparing("attention maps"))
        return work.timed(
            "training",
            lambda: stages.train_network(
                network,
                images,
                samples,
                recipe,
                stage,
                work.seed("plan"),
                work.device,
                work.checkpoint("network"),
                lambda done, total, text: work.report(before + done, before + total, text),
                validation=validation,
                keep_best=work.keep_best,
                epochs=work.epochs,
                teacher=teacher,
            ),
        )

    def predict(self, samples: SampleSet, work: Workspace) -> np.ndarray:
        """The mean probabilities over all :meth:`views` of undistorted images, by one stream."""
        assert self.network is not None
        work.device.place(self.network)
        views = self.views(shared_tensor(samples.images), work)
        network = for_tests(self.network, work.device)
        return stages.predict_views(network, views, work.device, ROWS[work.device.name]).numpy()

    def views(self, images: Tensor, work: Workspace) -> list[stages.View]:
        """The views of images for prediction, each with its maps: the images; with ``flip`` their mirror images too;
        with ``rotate`` all of them rotated as well. Views are derived samples; with both options all 14."""
        stage, border, turns = self._stage(work), self.recipe.interpretation.border, len(ANGLES)
        numbers = [n for n in range(DERIVED) if (stage.flip or n < turns) and (stage.rotate or n % turns == 0)]
        views = [levels(images, torch.full((len(images),), number), border) for number in numbers]
        return [(view, self.maps(view, work)) for view in views]

    def state(self) -> dict[str, Tensor]:
        assert self.network is not None
        return self.network.state_dict()

    def load(self, state: Mapping[str, Tensor]) -> None:
        if self.network is None:
            self.network = self._new_network()
        self.network.load_state_dict(dict(state))

    def amg(self, work: Workspace) -> Callable[[Tensor], Tensor] | None:
        """The frozen AMG of the run's parent, on the device; None for GFNet, which has none."""
        if ATTENTION not in work.identity.parents:
            return None
        if self._amg is None:
            # Seeded although stored weights follow, so that the random numbers of other threads stay the same.
            amg = seeded(work.seed("weights"), lambda: AttentionMapGenerator(self.recipe.architecture))
            amg.load_state_dict(unpack(work.parent(ATTENTION)[1])[0])
            self._amg = map_generator(amg.freeze(), work.device)
        return self._amg

    def maps(self, images: Tensor, work: Workspace) -> Tensor | None:
        """Attention maps [N,2,H,W] of undistorted images uint8 [N,48,48], cached; None for GFNet."""
        key = sha256_of(images.contiguous().numpy().tobytes())
        if key not in self._maps:
            amg = self.amg(work)
            if isinstance(amg, AttentionMapGenerator):
                amg = for_tests(amg, work.device)
            self._maps[key] = maps_if_any(amg, images, work.device, ROWS[work.device.name])
        return self._maps[key]

    def _new_network(self) -> WSLGAN:
        return WSLGAN(self.recipe.architecture, len(self.classes))

    def _stage(self, work: Workspace) -> PairStage:
        assert work.protocol is not None
        stage = self.recipe.stage(self.kind, bool(work.protocol.pretrain))
        assert isinstance(stage, PairStage)
        return stage


def _labelled(images: np.ndarray, labels: np.ndarray) -> LabelledImages:
    return LabelledImages(shared_tensor(images), torch.from_numpy(np.array(labels, dtype=np.int64)))


def _pointing_accuracy(branch: PartClassifier, part: str, images: Tensor, cam_class: CamClass, device: Device) -> float:
    """The share of images whose attention map has its maximum on the part."""
    maps = maps_of(lambda x: branch.attention(x, cam_class), images, device)
    return float(pointing.on_part(maps, part).double().mean())


def samples_of(
    train: TrainingSet,
    recipe: WslganRecipe,
    stage: Stage,
    plan: EpochPlan,
    amg: Callable[[Tensor], Tensor] | None,
    weights: Path | None,
    work: Workspace,
    progress: Callable[[int, int], None],
) -> Samples:
    """Return the derived samples of a training set with their maps: computed at every step, or from tables that the
    folds share.

    plan : of the training. amg, weights : frozen and on the device, and its file; both None for a network without maps.
    progress : called with the numbers of computed maps and of all maps of a new table.
    """
    border, shared = recipe.interpretation.border, train.shared
    if not work.device.looks_up or shared is None:
        return Computed(shared_tensor(train.images).to(work.device.name), amg, border, work.device)
    if amg is None or weights is None:
        return shared.tables(border, work.device, work.timed)
    named = None
    if not shared.pays(passes(stage, len(train))):
        named = looked_up(chain.from_iterable(map(plan, range(stage.epochs))), len(train))
    identity: list[Hashable] = [sha256_of(weights.read_bytes()), recipe.architecture.cam_class]
    if isinstance(amg, LeanMapGenerator):
        identity.append("lean")
    return shared.tables(border, work.device, work.timed, amg, identity, named, progress)


def soft_targets(images: Tensor, share: float, work: Workspace, progress: Callable[[int, int], None]) -> Teacher | None:
    """Return the mean of the teachers' probabilities for undistorted training images uint8 [N,48,48]; None without
    teachers. They are stored, so that an interrupted training continues with the same bytes.

    share : of the teachers in the classifier's target. progress : called with the numbers of predicted and of all
    images.
    """
    keys = [key for role, key in work.identity.parents.items() if role.startswith(TEACHER)]
    if not keys:
        return None

    def mean() -> Tensor:
        parts = images.split(_BATCHES * work.device.rows)
        total = torch.zeros(())
        for number, key in enumerate(keys):
            holder = work.store.holder(key)
            teacher = deployed(holder.record(key), holder)
            work.device.place(teacher)
            predicted: list[Tensor] = []
            for part in parts:
                maps = maps_if_any(teacher.amg, part, work.device)
                predicted.append(stages.predict(teacher.network, part, work.device, maps))
                progress(number * len(images) + sum(map(len, predicted)), len(keys) * len(images))
            total = total + torch.cat(predicted)
        return total / len(keys)

    stored = remembered(work.checkpoint("teacher"), lambda: {"probabilities": work.timed("teachers", mean)})
    return Teacher(stored["probabilities"], share)
