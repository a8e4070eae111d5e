"""One job from prepared dataset to stored run. The file to read first.

    parent      another dataset, e.g. CelebA's attributes or FER2013 → weights that folds start from
    fold        a training set of the target dataset → weights; then its test set → predictions
    best test   the kept epochs of a fold → predictions of the one with the best test accuracy (not a result)

The method is the one that the recipe names (``ferbench.methods``). It gets a training set and nothing else; the test
set is used here, once, after training has ended.
"""

import time
from collections.abc import Callable
from contextlib import nullcontext
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from ferbench import metrics
from ferbench.environment import describe_device
from ferbench.errors import UsageError
from ferbench.execution import learned, views
from ferbench.execution.jobs import Job
from ferbench.files import sha256_of, write_bytes, write_text
from ferbench.methods.interface import FOLD, AttributeSet, History, Learner, LearnsAttributes, Recogniser, Workspace
from ferbench.protocol import splits
from ferbench.protocol.protocol import AttributeProtocol
from ferbench.runs import provenance
from ferbench.runs.provenance import Pictures
from ferbench.runs.record import Record
from ferbench.runs.store import EPOCHS, LEARNED, Store, predictions_frame
from ferbench.seeds import derive_seed
from ferbench.training.checkpoint import epochs_done, kept, pack, sift, unpack
from ferbench.training.device import Device
from ferbench.training.schedule import Progress

_NO_ROWS = np.empty(0, dtype=np.int64)


class Run:
    """A job that is running: the recogniser that it trains, its workspace, and its timings so far."""

    def __init__(self, job: Job, store: Store, device: Device, progress: Progress):
        identity, protocol = job.identity, job.request.protocol
        self.job, self.store, self.progress = job, store, progress
        self.timings: dict[str, float] = {}
        self.classes = list(_classes(job))
        self.work = Workspace(
            identity,
            store,
            store.folder(job.key),
            device,
            seed=lambda use: derive_seed(identity.seed, identity.kind, identity.fold, use),
            protocol=protocol,
            report=progress,
            timed=self.timed,
        )

    @cached_property
    def recogniser(self) -> Recogniser:
        """What the job trains, where that is tested or validated."""
        return self.job.method.family.recogniser(self.job.method, self.job.kind, tuple(self.classes))

    def timed(self, phase: str, work: Callable[[], Any]) -> Any:
        """Call ``work`` and record its seconds."""
        start = time.perf_counter()
        result = work()
        self.timings[phase] = round(time.perf_counter() - start, 3)
        return result

    def fit(self, train: np.ndarray, validation: np.ndarray = _NO_ROWS, keep_best: bool = False) -> History:
        """Train on rows of the prepared dataset. ``validation`` rows are only measured, or choose the epoch."""
        work = self.work
        if len(validation):
            work.validation = self._training_set(validation)
        work.keep_best = keep_best
        return self.recogniser.fit(self._training_set(train, self.store.home / ".maps"), work)

    def _training_set(self, rows: np.ndarray, tables: Path | None = None) -> views.TrainingSet:
        job = self.job
        assert not isinstance(job.source, AttributeProtocol)
        return views.training_set(job.source, job.faces, rows, tuple(self.classes), tables, job.folds)

    def predict(self, rows: np.ndarray) -> pd.DataFrame:
        """Predict samples that took no part in training, and store the predictions."""
        job = self.job
        assert not isinstance(job.source, AttributeProtocol)
        samples = views.sample_set(job.source, job.faces, rows)
        probabilities = self.timed("prediction", lambda: self.recogniser.predict(samples, self.work))
        probabilities = np.asarray(probabilities)
        if not np.isfinite(probabilities).all():  # argmax would turn them into a class by chance
            raise FloatingPointError("the method gave probabilities that are no numbers")
        frame = predictions_frame(job.faces.samples.iloc[rows], self.classes, probabilities)
        self.store.write_predictions(job.key, frame)
        return frame

    def save(self, learner: Learner, history: History) -> None:
        """Store weights and history, and count the weights if the method has not."""
        state = learner.state()
        self.work.facts.setdefault("parameters", sum(int(np.prod(array.shape)) for array in state.values()))
        write_bytes(self.work.folder / "weights.safetensors", pack(state, {"run": self.job.key}))
        write_text(self.work.folder / "history.csv", pd.DataFrame(history).to_csv(index=False, float_format="%.9g"))


def run_job(job: Job, store: Store, device: Device, progress: Progress) -> Record:
    """Make one run, or resume it if it was interrupted, and store it. Returns its record."""
    for temporary in store.begin(job.identity).rglob(".*.*"):  # left by a process that was killed
        temporary.unlink(missing_ok=True)
    damage = [note for folder in unfinished(job, store) for note in sift(folder)]
    run = Run(job, store, device, progress)
    kind_of_run = _best_test if job.epochs_run else _fold if job.kind == FOLD else _parent
    family = job.request.family
    # How a BLAS divides a product among threads decides its last bits: one thread gives the same bytes everywhere.
    blas = nullcontext() if family.torch else threadpool_limits(1)
    with device.threads(family.threads(job.method) * job.trainings), blas:
        result = kind_of_run(run)
        facts = run.work.facts
        if (learned := _learned(job)) is not None:
            write_bytes(run.work.folder / LEARNED, provenance.pack(learned))
        facts["method"] = job.method.model_dump(mode="json", by_alias=True)
        facts |= {"damage": damage} if damage else {}
        record = Record.of(
            job.identity,
            dataset=job.faces.name,
            classes=run.classes,
            environment=describe_device(device.name, job.identity.precision, job.identity.engine),
            facts=facts,
            timings=run.timings,
            result=result,
        )
    store.finish(record)
    return record


def _parent(run: Run) -> dict[str, Any]:
    """Train what folds start from. The validation set of an official split is only measured."""
    job, work = run.job, run.work
    if isinstance(job.source, AttributeProtocol):
        learner = _learns_attributes(job).attribute_learner(job.method, job.kind)
        run.save(learner, learner.fit(AttributeSet(job.faces, job.source, job.identity.seed), work))
        work.facts["notes"] = work.notes
        return work.result
    train, validation = splits.training_sets(job.source, job.faces)
    work.facts |= {"train_images": len(train), "notes": work.notes}
    run.save(run.recogniser, run.fit(train, validation))
    if not len(validation):
        return work.result
    return {"validation_accuracy": metrics.share_correct(run.predict(validation)), "validation_images": len(validation)}


def _fold(run: Run) -> dict[str, Any]:
    """Train on the training set of one fold, then predict its test set, once."""
    job, request, work, split = run.job, run.job.request, run.work, run.job.split
    keep_best = request.selection == "best-val"
    train, validation = splits.inner(split, job.faces, request.seed) if keep_best else (split.train, _NO_ROWS)
    work.epochs = work.folder / EPOCHS if request.keep_epochs else None
    run.save(run.recogniser, run.fit(train, validation, keep_best))
    predictions = run.predict(split.test)
    assert job.splits is not None
    work.facts |= {
        "display": request.method.title,
        "published": request.method.published,
        "differs": list(request.method.differs),
        "command": request.command,
        "changed": list(request.changes),
        "sees": views.sees(job.method, request.protocol, job.faces, split.test),
        "trained_on": _trained_on(run),
        **views.fold_facts(request.protocol, job.faces, job.splits, split, train, len(validation)),
        **_held_out(run),
        "notes": [*job.splits.notes, *work.notes, *_shipped_parents(run)],
    }
    return {"accuracy": metrics.share_correct(predictions), "images": len(split.test)}


def _best_test(run: Run) -> dict[str, Any]:
    """Test the epoch with the best accuracy on the test set, as much of the literature does; the first of equal ones.

    The epochs are those that the run of the last epoch kept; if it kept none, the fold is trained again.
    """
    job, work, split = run.job, run.work, run.job.split
    files = kept_epochs(job, run.store)
    if not files:
        work.epochs = work.folder / EPOCHS
        run.fit(split.train)
        files = kept_epochs(job, run.store)
    samples = views.sample_set(job.request.protocol, job.faces, split.test)
    truth = views.targets(job.faces, split.test, tuple(run.classes))
    accuracies = []
    for number, file in enumerate(files):
        run.recogniser.load(unpack(file)[0])
        accuracies.append(float((run.recogniser.predict(samples, work).argmax(axis=1) == truth).mean()))
        run.progress(number + 1, len(files), f"epoch {number + 1}: {accuracies[-1]:.1%} of the test set")
    best = int(np.argmax(accuracies))
    run.recogniser.load(unpack(files[best])[0])
    predictions = run.predict(split.test)
    write_text(
        work.folder / "history.csv",
        pd.DataFrame({"epoch": range(1, len(files) + 1), "test_accuracy": accuracies}).to_csv(
            index=False, float_format="%.9g"
        ),
    )
    work.facts |= run.store.record(job.epochs_run).facts | {"epoch": best + 1, "command": job.request.command}
    return {"accuracy": metrics.share_correct(predictions), "images": len(split.test), "epoch": best + 1}


def unfinished(job: Job, store: Store) -> list[Path]:
    """Return the folders of unfinished work that a job resumes from, and that are deleted when it is done."""
    epochs = [store.folder(key) / EPOCHS for key in (job.key, job.epochs_run)] if job.epochs_run else []
    return [store.folder(job.key) / "checkpoint", *epochs]


def kept_epochs(job: Job, store: Store) -> list[Path]:
    """Return the weights of every epoch that a best-test run tests, kept by itself or by the training; or none."""
    folders = [store.folder(key) / EPOCHS for key in (job.key, job.epochs_run)]
    return next(filter(None, (kept(folder, job.epochs) for folder in folders)), [])


def share_done(job: Job, store: Store) -> float:
    """Return the share of a job's epochs that are done by its checkpoints, 0 to 1."""
    files = (store.folder(job.key) / "checkpoint").glob("*.safetensors")
    return sum(map(epochs_done, files)) / job.all_epochs if job.epochs else 0.0


def training_images(job: Job) -> int:
    """Return how many samples a job learns from."""
    if isinstance(job.source, AttributeProtocol):
        data = AttributeSet(job.faces, job.source, job.identity.seed)
        return _learns_attributes(job).attribute_image_count(data)
    if job.kind != FOLD:
        return len(splits.training_sets(job.source, job.faces)[0])
    return len(job.split.train)


def _learns_attributes(job: Job) -> LearnsAttributes:
    family = job.request.family
    if not isinstance(family, LearnsAttributes):
        raise UsageError(f"{job.method.title} does not learn from attributes, as {job.identity.protocol} would have it")
    return family


def test_images(job: Job) -> int:
    """Return how many samples a fold tests; 0 for what tests nothing."""
    return len(job.split.test) if job.kind == FOLD else 0


def _classes(job: Job) -> tuple[str, ...]:
    if isinstance(job.source, AttributeProtocol):
        return "absent", "present"
    return job.splits.classes if job.splits else job.source.classes


def _trained_on(run: Run) -> list[str]:
    """Return the protocols whose training sets the weights were learned from: the run's own, then those of its parents,
    direct and indirect."""
    names, waiting = [run.job.identity.protocol], list(run.job.identity.parents.values())
    while waiting:
        identity = run.store.holder(key := waiting.pop(0)).record(key).identity
        names.append(identity.protocol)
        waiting += identity.parents.values()
    return list(dict.fromkeys(names))


def _learned(job: Job) -> Pictures | None:
    """The pictures that a job may learn from, those by which it chooses an epoch among them; of attributes, all."""
    if isinstance(job.source, AttributeProtocol):
        rows = np.arange(len(job.faces))
    else:
        rows = job.split.train if job.kind == FOLD else splits.training_sets(job.source, job.faces)[0]
    return learned.pictures(job.source, job.faces, rows)


def _held_out(run: Run) -> dict[str, Any]:
    """Whether a fold's test set was held out from its training set and from all that its parents learned from."""
    job, protocol = run.job, run.job.request.protocol
    before = [one for key in job.identity.parents.values() for one in learned.of_run(key, run.store)]
    own, rows = _learned(job), job.split.test
    before += [] if own is None else [own]
    found, seen = learned.held_out(protocol, job.faces, rows, before, names_do=True)
    return {"held_out": found.model_dump(), "seen": job.faces.samples["id"].iloc[rows[seen]].tolist()}


def _shipped_parents(run: Run) -> list[str]:
    """Return a note for each parent that comes with the package.

    It has the first digits of the SHA-256 of its weights: the package may ship rounded weights, and another release
    other ones.
    """
    shipped = [(role, key) for role, key in run.job.identity.parents.items() if run.store.holder(key) != run.store]
    digests = {role: sha256_of(run.work.parent(role)[1].read_bytes())[:12] for role, _ in shipped}
    return [f"weights of the {role} run {key} come with ferbench, SHA-256 {digests[role]}" for role, key in shipped]
