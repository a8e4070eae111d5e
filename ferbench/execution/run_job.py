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
from typing import Any

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from ferbench import metrics
from ferbench.data.views import View
from ferbench.data.views import notes as view_notes
from ferbench.environment import describe_device
from ferbench.execution import learned, views
from ferbench.execution.jobs import Job, kept_epochs, unfinished
from ferbench.files import sha256_of, write_bytes, write_text
from ferbench.methods.interface import FOLD, AttributeSet, History, Learner, Recogniser, TrainingSet, Workspace
from ferbench.protocol import splits
from ferbench.protocol.protocol import AttributeProtocol
from ferbench.runs import provenance
from ferbench.runs.provenance import Pictures
from ferbench.runs.record import Record
from ferbench.runs.store import EPOCHS, LEARNED, Store, predictions_frame
from ferbench.seeds import derive_seed
from ferbench.training.checkpoint import pack, sift, unpack
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

    @property
    def view(self) -> View:
        """Of the images that the method sees."""
        return self.job.method.family.view(self.job.method)

    def timed(self, phase: str, work: Callable[[], Any]) -> Any:
        """Call ``work`` and record its seconds."""
        start = time.perf_counter()
        result = work()
        self.timings[phase] = round(time.perf_counter() - start, 3)
        return result

    def training_set(self, rows: np.ndarray, validation: np.ndarray = _NO_ROWS, keep_best: bool = False) -> TrainingSet:
        """Return the samples ``rows`` of the prepared dataset, to be fitted in this workspace.

        validation : rows that are only measured or, with ``keep_best``, choose the epoch.
        """
        job, work, classes = self.job, self.work, tuple(self.classes)
        assert not isinstance(job.source, AttributeProtocol)
        if len(validation):
            work.validation = views.training_set(job.source, job.faces, validation, classes, view=self.view)
        work.keep_best = keep_best
        tables = self.store.home / ".maps"
        return views.training_set(job.source, job.faces, rows, classes, tables, job.folds, self.view)

    def predict(self, rows: np.ndarray) -> pd.DataFrame:
        """Predict samples that took no part in training, and store the predictions."""
        job = self.job
        assert not isinstance(job.source, AttributeProtocol)
        samples = views.sample_set(job.source, job.faces, rows, self.view)
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
        learner = job.attribute_family.attribute_learner(job.method, job.kind)
        run.save(learner, learner.fit(AttributeSet(job.faces, job.source, job.identity.seed), work))
        work.facts["notes"] = work.notes
        return work.result
    train, validation = splits.training_sets(job.source, job.faces)
    labels = views.label_counts(job.faces, train, job.source.classes)
    work.facts |= {"train_images": len(train), "train_labels": labels, "notes": work.notes}
    run.save(run.recogniser, run.recogniser.fit(run.training_set(train, validation), work))
    if not len(validation):
        return work.result
    return {"validation_accuracy": metrics.share_correct(run.predict(validation)), "validation_images": len(validation)}


def _fold(run: Run) -> dict[str, Any]:
    """Train on the training set of one fold, then predict its test set, once."""
    job, request, work, split = run.job, run.job.request, run.work, run.job.split
    keep_best = request.selection == "best-val"
    train, validation = splits.inner(split, job.faces, request.seed) if keep_best else (split.train, _NO_ROWS)
    work.epochs = work.folder / EPOCHS if request.keep_epochs else None
    run.save(run.recogniser, run.recogniser.fit(run.training_set(train, validation, keep_best), work))
    predictions = run.predict(split.test)
    assert job.splits is not None
    work.facts |= {
        "display": request.method.title,
        "published": request.method.published,
        "differs": list(request.method.differs),
        "command": request.command,
        "changed": list(request.changes),
        "sees": views.sees(job.method, request.protocol, job.faces, split.test),
        **views.view_facts(job.faces, run.view),
        "trained_on": _trained_on(run),
        **views.fold_facts(request.protocol, job.faces, job.splits, split, train, len(validation)),
        **_held_out(run),
        "notes": [*job.splits.notes, *view_notes(job.faces, split.test, run.view), *work.notes, *_shipped_parents(run)],
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
        run.recogniser.fit(run.training_set(split.train), work)
        files = kept_epochs(job, run.store)
    samples = views.sample_set(job.request.protocol, job.faces, split.test, run.view)
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
    sources = [source for key in job.identity.parents.values() for source in learned.of_run(key, run.store)]
    training_pictures, rows = _learned(job), job.split.test
    sources += [] if training_pictures is None else [training_pictures]
    verdict, seen = learned.held_out(protocol, job.faces, rows, sources, names_do=True)
    verdict = learned.with_weights(verdict, run.work.facts, protocol, job.faces, rows)
    return {"held_out": verdict.model_dump(), "seen": job.faces.samples["id"].iloc[rows[seen]].tolist()}


def _shipped_parents(run: Run) -> list[str]:
    """Return a note for each parent that comes with the package.

    It has the first digits of the SHA-256 of its weights: the package may ship rounded weights, and another release
    other ones.
    """
    shipped = [(role, key) for role, key in run.job.identity.parents.items() if run.store.holder(key) != run.store]
    digests = {role: sha256_of(run.work.parent(role)[1].read_bytes())[:12] for role, _ in shipped}
    return [f"weights of the {role} run {key} come with ferbench, SHA-256 {digests[role]}" for role, key in shipped]
