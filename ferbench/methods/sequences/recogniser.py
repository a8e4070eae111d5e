"""Trainings of this family: the inputs of the networks, one network or two, and their fusion."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ferbench.data.landmarks import COUNT, WITHOUT_CORNERS, normalised, resample
from ferbench.errors import UsageError
from ferbench.methods.interface import History, SampleSet, Task, TrainingSet, Video, Workspace
from ferbench.methods.recipes import Method
from ferbench.methods.sequences import LANDMARK_PARTS, Part, SequenceRecipe, networks
from ferbench.seeds import derive_seed
from ferbench.training.augment import DERIVED, derive, turned
from ferbench.training.device import Device
from ferbench.training.loop import Terms
from ferbench.training.networks import contrastive_loss_of_batch, flops, in_batches, parameter_count, seconds_of, seeded
from ferbench.training.plan import Batch, Step, paired_epoch, passes, single_epoch

Reader = Callable[[Tensor, Tensor], Tensor]  # rows of the set and numbers of derived samples → the input of a network
DTGN_POINTS = list(WITHOUT_CORNERS)  # the 49 landmarks that DTGN reads
_MEASURED_SEQUENCES = 16  # in the training step that an estimate measures


def build(part: Part, recipe: SequenceRecipe, classes: int) -> nn.Module:
    """Build one network with random weights."""
    network = recipe.network
    if part == "dtan":
        return networks.Dtan(network.frames, classes, network.dropout)
    if part == "dtgn":
        return networks.Dtgn(network.steps, len(DTGN_POINTS), classes, network.dropout)
    if part == "phrnn":
        return networks.Phrnn(network.steps, classes)
    if part == "mscnn":
        return networks.Mscnn(classes)
    deformed, centred = part == "3dcnn-dap", network.start == "centroids"
    return networks.ActionPartCnn(network.frames, classes, network.filters, deformed, centred)


def frames_of(videos: Sequence[Video], count: int) -> Tensor:
    """Frames uint8 [N,count,48,48] of sequences."""
    return torch.from_numpy(np.stack([resample(video.frames, count) for video in videos]))


def stills_of(videos: Sequence[Video], count: int) -> tuple[Tensor, Tensor]:
    """The last ``count`` frames of each sequence, or all of a shorter one: uint8 [M,1,48,48], and the rows of their
    sequences, int64 [M]."""
    last = [video.frames[-count:] for video in videos]
    rows = np.repeat(np.arange(len(last)), [len(frames) for frames in last])
    return torch.from_numpy(np.concatenate(last)[:, None]), torch.from_numpy(rows)


def derived_frames(frames: Tensor, which: Tensor) -> Tensor:
    """Derived samples of frames uint8 [B,T,48,48], the same for all frames of a sequence: float [B,T,48,48] in
    [0,1]."""
    count = frames.shape[1]
    return derive(frames.flatten(0, 1), which.repeat_interleave(count)).view(-1, *frames.shape[1:])


def tracks_of(videos: Sequence[Video], steps: int, derived: int) -> Tensor:
    """Normalised tracks of the first ``derived`` derived samples of sequences, float32 [N,derived,steps,68,2]. Derived
    sample 0 is the undistorted sequence."""
    tracks = []
    for video in videos:
        assert video.landmarks is not None
        track = resample(video.landmarks.astype(np.float64), steps)
        tracks.append(np.stack([normalised(turned(track, which), tuple(range(COUNT))) for which in range(derived)]))
    return torch.from_numpy(np.stack(tracks).astype(np.float32))


class SequenceRecogniser:
    """One training. Parts are trained one after the other; each has a checkpoint."""

    def __init__(self, method: Method[SequenceRecipe], classes: tuple[str, ...]):
        self.title, self.recipe, self.classes = method.title, method.recipe, classes
        self.parts: dict[Part, nn.Module] = {}

    def fit(self, train: TrainingSet, work: Workspace) -> History:
        recipe, names, device = self.recipe, self.recipe.network.parts, work.device.name
        if (work.epochs is not None or work.keep_best) and len(names) > 1:
            raise UsageError(f"{self.title} is two networks that are trained in turn: an epoch cannot be chosen")
        labels, rows = torch.from_numpy(train.labels).to(device), torch.arange(len(train), device=device)
        history = []
        for part in names:
            module = self.parts[part] = seeded(
                work.seed(f"{part} weights"),
                lambda: build(part, recipe, len(self.classes)),  # noqa: B023
            )
            module.to(device)
            read = self._reader(part, train, work)
            if isinstance(module, networks.TrackNetwork):
                numbers = torch.arange(DERIVED, device=device).repeat(len(train))
                module.standardise(read(rows.repeat_interleave(DERIVED), numbers))
            if isinstance(module, networks.ActionPartCnn) and recipe.network.start == "centroids":
                networks.initialise(module, read(rows, torch.zeros_like(rows)), labels, work.seed(part))
            history += [{"part": part, **row} for row in self._train(part, module, read, labels, train, work)]
        work.facts["parameters"] = parameter_count(*self.parts.values())
        if recipe.fusion.kind == "joint":
            history += [{"part": "joint", **row} for row in self._train_jointly(train, labels, work)]
        return history

    def predict(self, samples: SampleSet, work: Workspace) -> np.ndarray:
        logits = [self._logits(part, module, samples, work) for part, module in self.parts.items()]
        fusion = self.recipe.fusion
        if fusion.kind == "joint":
            return torch.softmax(logits[0] + logits[1], dim=1).numpy()
        first, *others = [torch.softmax(values, dim=1).numpy() for values in logits]
        return first if fusion.kind == "none" else fusion.share * first + (1 - fusion.share) * others[0]

    def state(self) -> dict[str, Tensor]:
        return {f"{part}/{name}": t for part, module in self.parts.items() for name, t in module.state_dict().items()}

    def load(self, state: Mapping[str, Tensor]) -> None:
        for part in self.recipe.network.parts:
            module = self.parts.setdefault(part, build(part, self.recipe, len(self.classes)))
            of_part = {name[len(part) + 1 :]: t for name, t in state.items() if name.startswith(f"{part}/")}
            module.load_state_dict(
                of_part or dict(state)
            )  # weights of single epochs are stored without the part's name

    def _train(
        self, part: Part, module: nn.Module, read: Reader, labels: Tensor, train: TrainingSet, work: Workspace
    ) -> History:
        stage, seed = self.recipe.finetune, derive_seed(work.seed("plan"), part)
        device, verification = work.device, self.recipe.verification
        if part == "mscnn":
            labels = labels[stills_of(train.videos, self.recipe.network.stills)[1].to(device.name)]
        label_table = labels.cpu().numpy()

        def loss(batch: Batch) -> Terms:
            target = labels[batch.images]
            with device.autocast():
                logits, features = module(read(batch.images, batch.derived))
            terms = {"recognition": nn.functional.cross_entropy(logits.float(), target)}
            if part == "mscnn":
                terms["verification"] = verification.weight * contrastive_loss_of_batch(
                    features.float(), target, batch.first, batch.second, verification.margin
                )
            return {**terms, "total": torch.stack(list(terms.values())).sum()}

        def plan(epoch: int) -> list[Step]:
            # A seed for the dropout of each epoch, so that an interrupted training continues with the same numbers.
            torch.manual_seed(derive_seed(seed, "dropout", epoch) % 2**63)
            if part == "mscnn":
                return paired_epoch(label_table, stage.augment, stage.batch, seed, epoch, "images", "balanced")
            return single_epoch(len(train), stage.augment, stage.batch, seed, epoch)

        def scores(validation: SampleSet) -> np.ndarray:
            return self._logits(part, module, validation, work).numpy()

        return work.train(part, module, loss, plan, stage, scores if len(self.recipe.network.parts) == 1 else None)

    def _train_jointly(self, train: TrainingSet, labels: Tensor, work: Workspace) -> History:
        """Train the last layers of both networks: L = λ1 CE(g1) + λ2 CE(g2) + λ3 CE(g1 + g2) (Jung et al. 2015)."""
        stage, names = self.recipe.joint, self.recipe.network.parts
        assert stage is not None
        readers = [self._reader(part, train, work) for part in names]
        modules = [self.parts[part] for part in names]
        tops = nn.ModuleList([module.top for module in modules])  # type: ignore[misc]
        seed, weights, device = work.seed("joint plan"), self.recipe.fusion.weights, work.device

        def loss(batch: Batch) -> Terms:
            with torch.no_grad(), device.autocast():
                features = [
                    module.eval()(read(batch.images, batch.derived))[1]
                    for module, read in zip(modules, readers, strict=True)
                ]
            first, second = [top(values.float()) for top, values in zip(tops, features, strict=True)]
            target = labels[batch.images]
            terms = [nn.functional.cross_entropy(logits, target) for logits in (first, second, first + second)]
            return {"total": sum((w * term for w, term in zip(weights, terms, strict=True)), torch.zeros(()))}

        def plan(epoch: int) -> list[Step]:
            return single_epoch(len(train), stage.augment, stage.batch, seed, epoch)

        return work.train("joint", tops, loss, plan, stage)

    def _reader(self, part: Part, train: TrainingSet, work: Workspace) -> Reader:
        """A function from derived samples of the training set to the input of a part, on the device."""
        if part in LANDMARK_PARTS:
            table = self._tracks(part, train, DERIVED).to(work.device.name)
            return lambda rows, which: table[rows, which]
        frames = self._frames(part, train).to(work.device.name)
        return lambda rows, which: _pixels(part, derived_frames(frames[rows], which))

    def _logits(self, part: Part, module: nn.Module, samples: SampleSet, work: Workspace) -> Tensor:
        """Logits float32 [N,K] on the CPU of undistorted sequences; the logarithms of mean probabilities where MSCNN
        reads several stills of each."""
        if part in LANDMARK_PARTS:
            x = self._tracks(part, samples, 1)[:, 0]
        else:
            x = _pixels(part, self._frames(part, samples).float() / 255)
        module.to(work.device.name).eval()
        logits = in_batches(lambda values: module(values)[0], work.device, x)
        if len(logits) == len(samples):
            return logits
        rows = stills_of(samples.videos, self.recipe.network.stills)[1]  # the mean probability of a sequence's stills
        sums = torch.zeros(len(samples), logits.shape[1]).index_add_(0, rows, torch.softmax(logits, dim=1))
        return (sums / rows.bincount()[:, None]).log()

    def _tracks(self, part: Part, samples: SampleSet, derived: int) -> Tensor:
        tracks = tracks_of(samples.videos, self.recipe.network.steps, derived)
        return tracks[..., DTGN_POINTS, :] if part == "dtgn" else tracks

    def _frames(self, part: Part, samples: SampleSet) -> Tensor:
        network = self.recipe.network
        if part == "mscnn":
            return stills_of(samples.videos, network.stills)[0]
        return frames_of(samples.videos, network.frames)


def _pixels(part: Part, frames: Tensor) -> Tensor:
    """Frames [B,T,48,48] in [0,1] as a part reads them: in [-0.5,0.5], for MSCNN one frame [B,48,48]."""
    return (frames - 0.5)[:, 0] if part == "mscnn" else frames - 0.5


class SequenceEstimate:
    """Seconds of a task, from one measured training step of each part."""

    def __init__(self, device: Device):
        self.device = device
        self.seconds: dict[tuple[str, str, int], float] = {}  # for one input, by part, network and threads

    def __call__(self, task: Task, threads: int) -> float:
        recipe: SequenceRecipe = task.method.recipe
        seconds = sum(self._seconds(part, recipe, threads) * _inputs(part, recipe) for part in recipe.network.parts)
        return (1 - task.done) * passes(recipe.finetune, task.images) * seconds

    def _seconds(self, part: Part, recipe: SequenceRecipe, threads: int) -> float:
        key = part, str(recipe.network), threads
        if key not in self.seconds:
            total = seconds_of(lambda: self._step(part, recipe), self.device, threads)
            self.seconds[key] = total / _MEASURED_SEQUENCES
        return self.seconds[key]

    def _step(self, part: Part, recipe: SequenceRecipe) -> Callable[[], object]:
        """A training step of a part, without its loss."""
        module = build(part, recipe, 7).to(self.device.name)
        x = _example(part, recipe, _MEASURED_SEQUENCES).to(self.device.name)

        def step() -> None:
            with self.device.autocast():
                module(x)[0].float().sum().backward()

        return step


def describe(recipe: SequenceRecipe, classes: int) -> list[tuple[str, dict[str, Any]]]:
    """The parameters of each part and its FLOPs for one sequence."""
    sizes: dict[str, Any] = {}
    for part in recipe.network.parts:
        module = build(part, recipe, classes).eval()
        sizes[f"{part} parameters"] = f"{parameter_count(module):,}"
        count = flops(module, (_example(part, recipe, 2),)) / 2 * _inputs(part, recipe)
        sizes[f"{part} FLOPs per sequence"] = f"{count / 1e9:.4f} G"
    return [("sizes", sizes)]


def _inputs(part: Part, recipe: SequenceRecipe) -> int:
    """Number of inputs that a part reads of each sequence."""
    return recipe.network.stills if part == "mscnn" else 1


def _example(part: Part, recipe: SequenceRecipe, count: int) -> Tensor:
    """A random input of a part for ``count`` sequences."""
    network = recipe.network
    if part in LANDMARK_PARTS:
        return torch.rand(count, network.steps, len(DTGN_POINTS) if part == "dtgn" else COUNT, 2)
    return torch.rand(count, 48, 48) if part == "mscnn" else torch.rand(count, network.frames, 48, 48)
