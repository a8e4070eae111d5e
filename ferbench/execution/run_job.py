"""One job from prepared set to stored run. The file to read first.

    attention   CelebA attributes        → AMG weights                        (stage 1)
    pretrain    FER2013, AMG             → WS-LGAN weights                    (stage 2)
    fold        target set, AMG, weights → fine-tuned weights, predictions    (stage 2)
    best test   a fold's kept epochs     → predictions of the flattering one  (a habit, no result)

The training functions get arrays of the training side and nothing else; the test side is looked at
here, once, after training has ended.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any, TypeVar

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from ferbench.data.faces import Faces
from ferbench.environment import describe_device
from ferbench.execution.jobs import Job
from ferbench.execution.sampling import samples_of
from ferbench.execution.teaching import taught
from ferbench.files import sha256_of, write_bytes, write_text
from ferbench.methods.wslgan import pointing, stages
from ferbench.methods.wslgan.attention import PARTS, AttentionMapGenerator, PartClassifier
from ferbench.methods.wslgan.network import WSLGAN
from ferbench.methods.wslgan.settings import CamClass
from ferbench.methods.wslgan.stages import Labelled
from ferbench.protocol import protocol as protocols
from ferbench.protocol import splits
from ferbench.runs.record import START, Record
from ferbench.runs.store import EPOCHS, Store, predictions_frame
from ferbench.seeds import derive_seed
from ferbench.training.checkpoint import epochs_done, kept, pack, unpack
from ferbench.training.device import Device
from ferbench.training.loop import Report
from ferbench.training.samples import maps_if_any, maps_of

M = TypeVar("M", bound=nn.Module)
_GENERATOR = Lock()  # torch has one for all threads of a process


@dataclass
class Run:
    """A job under way: where its files go, where it computes, and what has been noted so far."""

    job: Job
    store: Store
    device: Device
    report: Report
    facts: dict[str, Any] = field(default_factory=dict)
    timings: dict[str, float] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        return self.store.folder(self.job.key)

    def seed(self, use: str) -> int:
        """The seed of one use of randomness. Folds differ by name, stages by kind."""
        identity = self.job.identity
        return derive_seed(identity.seed, identity.kind, identity.fold, use)

    def timed(self, phase: str, work: Callable[[], Any]) -> Any:
        """Do some work and note its seconds."""
        start = time.perf_counter()
        result = work()
        self.timings[phase] = round(time.perf_counter() - start, 3)
        return result


def run_job(job: Job, store: Store, device: Device, report: Report) -> Record:
    """Make one run, or go on with it where it was interrupted, and store it. Returns its record."""
    store.begin(job.identity)
    run = Run(job, store, device, report)
    work = {"attention": _attention, "pretrain": _pretrain, "fold": _best_test if job.made_from else _fold}[job.kind]
    classes, result = work(run)
    record = Record(
        key=job.key, experiment=job.identity.experiment, identity=job.identity, dataset=job.faces.name,
        classes=classes, environment=describe_device(device.name, device.precision, device.engine),
        facts=run.facts, timings=run.timings, result=result,
    )  # fmt: skip
    store.finish(record)
    return record


def _attention(run: Run) -> tuple[list[str], dict[str, Any]]:
    """Stage 1: both branches of the AMG, one after the other."""
    request, faces = run.job.request, run.job.faces
    protocol = protocols.load_attributes(request.protocol.attributes)
    recipe = request.method.recipe
    result: dict[str, Any] = {}
    tensors: dict[str, Tensor] = {}
    history = []
    for number, part in enumerate(PARTS):
        split = splits.attribute_split(protocol, faces, part, request.seed)
        run.facts.setdefault("notes", []).extend(split.notes)
        train = _labelled(faces, split.train, split.train_target)
        validation = _labelled(faces, split.validation, split.validation_target)
        branch = getattr(_seeded(run, f"{part} weights", lambda: AttentionMapGenerator(recipe.architecture)), part)
        rows = run.timed(part, lambda: stages.train_part(
            branch, train, validation, recipe, run.seed(part), run.device,  # noqa: B023
            _checkpoint(run.folder, part),  # noqa: B023
            _share(run.report, number, len(PARTS), f"{part}: "),  # noqa: B023
        ))  # fmt: skip
        history += [{"part": part, **row} for row in rows]
        result[part] = {
            "validation_accuracy": rows[-1]["validation_accuracy"],
            "validation_images": len(split.validation), "train_images": len(split.train),
            "pointing": _pointing(branch, part, validation.images, recipe.architecture.cam_class, run.device),
            "pointing_chance": pointing.chance(part),
        }  # fmt: skip
        tensors |= {f"{part}.{name}": tensor for name, tensor in branch.state_dict().items()}
    _save(run, tensors, history)
    return ["absent", "present"], result


def _pointing(branch: PartClassifier, part: str, images: Tensor, cam_class: CamClass, device: Device) -> float:
    """The share of images whose attention map has its maximum on the part."""
    maps = maps_of(lambda x: branch.attention(x, cam_class), images, device)
    return float(pointing.hits(maps, part).double().mean())


def _pretrain(run: Run) -> tuple[list[str], dict[str, Any]]:
    """Stage 2 on the pre-training set: its training side alone; its validation side is only watched."""
    request, faces = run.job.request, run.job.faces
    protocol = protocols.load(request.protocol.pretrain)
    classes = list(protocol.classes)
    train, validation = splits.training_sides(protocol, faces)
    run.facts |= {"train_images": len(train), "notes": []}
    network, history, amg = _train(run, classes, train, validation, keep_best=False)
    _save(run, network.state_dict(), history)
    if not len(validation):
        return classes, {}
    predictions = _predictions(run, network, amg, classes, validation)
    return classes, {"validation_accuracy": _hits(predictions), "validation_images": len(validation)}


def _fold(run: Run) -> tuple[list[str], dict[str, Any]]:
    """Fine-tuning on one fold's training side, then its test side, once."""
    request, faces, made = run.job.request, run.job.faces, run.job.splits
    assert made is not None
    classes, split = list(made.classes), _split(run.job)
    keep_best = request.selection == "best-val"
    train, validation = split.train, np.empty(0, dtype=np.int64)
    if keep_best:
        train, validation = splits.inner(split, faces, request.seed)
    network, history, amg = _train(run, classes, train, validation, keep_best, request.keep_epochs)
    _save(run, network.state_dict(), history)
    predictions = _predictions(run, network, amg, classes, split.test)
    subjects = faces.samples["subject"].to_numpy()
    run.facts |= {
        "display": request.method.title, "published": request.method.published, "command": request.command,
        "folds": [other.fold for other in made.folds], "rule": made.rule, "split_hash": made.hash,
        "train_images": len(train), "validation_images": len(validation), "test_images": len(split.test),
        "train_subjects": len(set(subjects[train]) - {""}), "test_subjects": len(set(subjects[split.test]) - {""}),
        "notes": [*made.notes, *_given(run)],
    }  # fmt: skip
    return classes, {"accuracy": _hits(predictions), "images": len(split.test)}


def _best_test(run: Run) -> tuple[list[str], dict[str, Any]]:
    """The epoch that does best on the test side, as much of the literature reports it; the first of equals.

    From the epochs that the run of the last epoch kept; where it kept none, its training is done again.
    """
    job, made = run.job, run.job.splits
    assert made is not None
    classes, split = list(made.classes), _split(job)
    files = kept_epochs(job, run.store)
    if not files:
        _train(run, classes, split.train, np.empty(0, dtype=np.int64), keep_best=False, keep_epochs=True)
        files = kept_epochs(job, run.store)
    architecture = job.request.method.recipe.architecture
    network, amg = _seeded(run, "weights", lambda: WSLGAN(architecture, len(classes))), _amg(run)
    run.device.place(network)
    test = _labelled(job.faces, split.test, _targets(job.faces, split.test, classes))
    attention = maps_if_any(amg, test.images, run.device)
    accuracies = []
    for number, file in enumerate(files):
        network.load_state_dict(unpack(file)[0])
        accuracies.append(stages.accuracy(stages.predict(network, test.images, run.device, attention), test.labels))
        run.report(number + 1, len(files), f"epoch {number + 1}: {accuracies[-1]:.1%} of the test side")
    best = int(np.argmax(accuracies))
    network.load_state_dict(unpack(files[best])[0])
    predictions = _predictions(run, network, amg, classes, split.test)
    write_text(run.folder / "history.csv", pd.DataFrame({
        "epoch": range(1, len(files) + 1), "test_accuracy": accuracies,
    }).to_csv(index=False, float_format="%.9g"))  # fmt: skip
    run.facts |= run.store.record(job.made_from).facts | {"epoch": best + 1, "command": job.request.command}
    return classes, {"accuracy": _hits(predictions), "images": len(split.test), "epoch": best + 1}


def kept_epochs(job: Job, store: Store) -> list[Path]:
    """The weights of every epoch that a best-test run is made of, here or where the training kept them; or none."""
    folders = [store.folder(key) / EPOCHS for key in (job.key, job.made_from)]
    return next(filter(None, (kept(folder, job.stage.epochs) for folder in folders)), [])


def _split(job: Job) -> splits.Split:
    assert job.splits is not None
    return next(split for split in job.splits.folds if split.fold == job.identity.fold)


def _train(
    run: Run, classes: list[str], train: np.ndarray, validation: np.ndarray, keep_best: bool, keep_epochs: bool = False
) -> tuple[WSLGAN, list[dict[str, float]], AttentionMapGenerator | None]:
    """Build the network, start it from its parents, and train it: the same for pre-training and folds."""
    job, stage, recipe = run.job, run.job.pair_stage, run.job.request.method.recipe
    network = _seeded(run, "weights", lambda: WSLGAN(recipe.architecture, len(classes)))
    for kind in job.identity.parents:
        if kind.startswith(START) or kind == "pretrain":
            anew = kind == "pretrain" and recipe.finetune.classifier == "new"
            _start_from(run, kind, network, [] if anew else classes)
    run.facts["parameters"] = sum(parameter.numel() for parameter in network.parameters())
    amg = _amg(run)
    data = _labelled(job.faces, train, _targets(job.faces, train, classes))
    watched = None
    if len(validation):
        held = _labelled(job.faces, validation, _targets(job.faces, validation, classes))
        watched = (held, maps_if_any(amg, held.images, run.device))
    weights = None if amg is None else _weights(run, "attention")
    plan = stages.network_plan(data.labels.numpy(), stage, recipe.readings, run.seed("plan"))
    before = 0

    def ahead(what: str) -> Callable[[int, int], None]:
        """A report for work before the training, whose images cost about as much as those trained on."""
        start = before

        def told(done: int, total: int) -> None:
            nonlocal before
            before = start + total // stage.batch
            run.report(start + done // stage.batch, before + stage.epochs * len(plan(0)), what)

        return told

    said = _checkpoint(run.folder, "teacher")
    teacher = taught(job, data.images, said, run.store, run.device, run.timed, ahead("what the teachers say"))
    maps = run.store.home / ".maps"
    samples = samples_of(job, train, plan, amg, weights, maps, run.device, run.timed, ahead("attention maps"))
    history = run.timed("training", lambda: stages.train_network(
        network, data, samples, stage, job.losses, recipe.readings, run.seed("plan"), run.device,
        _checkpoint(run.folder, "network"),
        lambda done, total, text: run.report(before + done, before + total, text), watched, keep_best,
        run.folder / EPOCHS if keep_epochs else None, teacher,
    ))  # fmt: skip
    return network, history, amg


def _seeded(run: Run, use: str, build: Callable[[], M]) -> M:
    """Build a network with the random weights of the seed of one use."""
    with _GENERATOR:
        torch.manual_seed(run.seed(use))
        return build()


def _given(run: Run) -> list[str]:
    """Which of the runs that this one starts from come with the package, in words.

    With the first digits of their file's SHA-256: the package may ship weights rounded, and another release others.
    """
    given = [(kind, key) for kind, key in run.job.identity.parents.items() if run.store.holder(key) != run.store]
    digits = {kind: sha256_of(_weights(run, kind).read_bytes())[:12] for kind, _ in given}
    return [f"weights of the {kind} run {key} come with ferbench, SHA-256 {digits[kind]}" for kind, key in given]


def _weights(run: Run, parent: str) -> Path:
    key = run.job.identity.parents[parent]
    return run.store.holder(key).folder(key) / "weights.safetensors"


def _start_from(run: Run, parent: str, network: WSLGAN, classes: list[str]) -> None:
    """Take all weights of a parent's network, the classifier's only of those of ``classes`` that the parent knows.

    classes : all of the network's own, in their order; none for a classifier that begins anew.
    """
    tensors, _ = unpack(_weights(run, parent))
    key = run.job.identity.parents[parent]
    known = run.store.holder(key).record(key).classes
    for name, own in network.classifier.state_dict(prefix="classifier.").items():
        theirs, tensors[name] = tensors[name], own.clone()
        for row, label in enumerate(classes):
            if label in known:
                tensors[name][row] = theirs[known.index(label)]
    network.load_state_dict(tensors)


def _amg(run: Run) -> AttentionMapGenerator | None:
    if "attention" not in run.job.identity.parents:
        return None
    architecture = run.job.request.method.recipe.architecture
    # The stored weights take the place of random ones, but drawing those must not come between another's seed and draw.
    amg = _seeded(run, "weights", lambda: AttentionMapGenerator(architecture))
    amg.load_state_dict(unpack(_weights(run, "attention"))[0])
    run.device.place(amg)
    return amg.freeze()


def _labelled(faces: Faces, rows: np.ndarray, labels: np.ndarray) -> Labelled:
    return Labelled(torch.from_numpy(faces.images[rows]), torch.from_numpy(np.array(labels, dtype=np.int64)))


def _targets(faces: Faces, rows: np.ndarray, classes: list[str]) -> np.ndarray:
    return faces.samples["label"].iloc[rows].map(classes.index).to_numpy()


def _predictions(
    run: Run, network: WSLGAN, amg: AttentionMapGenerator | None, classes: list[str], rows: np.ndarray
) -> pd.DataFrame:
    """Predict images that took no part in training and store what was predicted."""
    faces = run.job.faces
    images = torch.from_numpy(faces.images[rows])

    def predicted(views: Tensor) -> Tensor:
        return stages.predict(network, views, run.device, maps_if_any(amg, views, run.device))

    def work() -> Tensor:
        return (predicted(images) + predicted(images.flip(2))) / 2 if run.job.pair_stage.flip else predicted(images)

    probabilities = run.timed("prediction", work).numpy()
    frame = predictions_frame(faces.samples.iloc[rows], classes, probabilities)
    run.store.write_predictions(run.job.key, frame)
    return frame


def _hits(predictions: pd.DataFrame) -> float:
    return float((predictions["truth"] == predictions["prediction"]).mean())


def _save(run: Run, tensors: dict[str, Tensor], history: list[dict[str, Any]]) -> None:
    write_bytes(run.folder / "weights.safetensors", pack(tensors, {"run": run.job.key}))
    write_text(run.folder / "history.csv", pd.DataFrame(history).to_csv(index=False, float_format="%.9g"))


def share_done(job: Job, store: Store) -> float:
    """Return the share of a job's epochs that its checkpoints have behind them, 0 to 1."""
    names = PARTS if job.kind == "attention" else ("network",)
    done = sum(epochs_done(_checkpoint(store.folder(job.key), name)) for name in names)
    return done / (job.stage.epochs * len(names))


def _checkpoint(folder: Path, name: str) -> Path:
    return folder / "checkpoint" / f"{name}.safetensors"


def training_images(job: Job) -> int:
    """Return how many different images a job trains on (stage 1: of both parts together)."""
    request = job.request
    if job.kind == "attention":
        protocol = protocols.load_attributes(request.protocol.attributes)
        return sum(len(splits.attribute_split(protocol, job.faces, part, request.seed).train) for part in PARTS)
    if job.kind == "pretrain":
        return len(splits.training_sides(protocols.load(request.protocol.pretrain), job.faces)[0])
    return len(_split(job).train)


def test_images(job: Job) -> int:
    """Return how many images a fold tests."""
    return len(_split(job).test)


def _share(report: Report, number: int, count: int, prefix: str) -> Report:
    """A report for one of several trainings of equal weight within a job."""
    return lambda done, total, text: report(number * total + done, count * total, prefix + text)
