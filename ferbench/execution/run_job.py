"""One job from prepared dataset to stored run. The file to read first.

    before      other sets, e.g. CelebA's attributes or FER2013 → weights that folds start from
    fold        a training set of the target dataset → weights; then its test set → predictions
    best test   a fold's kept epochs → predictions of the one with the best test accuracy (no result)

The method is whatever the recipe names (``ferbench.methods``). It gets a training set and nothing else; the test
set is looked at here, once, after training has ended.
"""

import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from ferbench import metrics
from ferbench.environment import describe_device
from ferbench.execution import views
from ferbench.execution.jobs import Job
from ferbench.files import sha256_of, write_bytes, write_text
from ferbench.methods.interface import FOLD, AttributeSet, History, Recogniser, Workspace
from ferbench.protocol import splits
from ferbench.protocol.protocol import AttributeProtocol
from ferbench.runs.record import Record
from ferbench.runs.store import EPOCHS, Store, predictions_frame
from ferbench.seeds import derive_seed
from ferbench.training.checkpoint import epochs_done, kept, pack, sift, unpack
from ferbench.training.device import Device
from ferbench.training.loop import Progress

NO_ROWS = np.empty(0, dtype=np.int64)


class Run:
    """A job under way: the recogniser that it trains, where that works, and what has been noted so far."""

    def __init__(self, job: Job, store: Store, device: Device, report: Progress):
        identity, protocol = job.identity, job.request.protocol
        self.job, self.store, self.report = job, store, report
        self.timings: dict[str, float] = {}
        self.classes = list(_classes(job))
        self.work = Workspace(
            identity,
            store,
            store.folder(job.key),
            device,
            seed=lambda use: derive_seed(identity.seed, identity.kind, identity.fold, use),
            protocol=protocol,
            report=report,
            timed=self.timed,
        )
        self.recogniser: Recogniser = job.method.family.recogniser(job.method, job.kind, tuple(self.classes))

    def timed(self, phase: str, work: Callable[[], Any]) -> Any:
        """Do some work and note its seconds."""
        start = time.perf_counter()
        result = work()
        self.timings[phase] = round(time.perf_counter() - start, 3)
        return result

    def fit(self, train: np.ndarray, validation: np.ndarray = NO_ROWS, keep_best: bool = False) -> History:
        """Train on rows of the prepared dataset; ``validation`` is only watched, or chooses the epoch."""
        work = self.work
        if len(validation):
            work.validation = self._set(validation)
        work.keep_best = keep_best
        return self.recogniser.fit(self._set(train, self.store.home / ".maps"), work)

    def _set(self, rows: np.ndarray, tables: Path | None = None) -> views.TrainingSet:
        job = self.job
        assert not isinstance(job.source, AttributeProtocol)
        return views.training_set(job.source, job.faces, rows, tuple(self.classes), tables, job.folds)

    def predict(self, rows: np.ndarray) -> pd.DataFrame:
        """Predict samples that took no part in training and store what was predicted."""
        job = self.job
        assert not isinstance(job.source, AttributeProtocol)
        samples = views.sample_set(job.source, job.faces, rows)
        probabilities = self.timed("prediction", lambda: self.recogniser.predict(samples, self.work))
        probabilities = np.asarray(probabilities)
        if not np.isfinite(probabilities).all():  # of which argmax would make a class, and chance a figure
            raise FloatingPointError("the method gave probabilities that are no numbers")
        frame = predictions_frame(job.faces.samples.iloc[rows], self.classes, probabilities)
        self.store.write_predictions(job.key, frame)
        return frame

    def save(self, history: History) -> None:
        """Store weights and history, and count the weights where the method has not."""
        state = self.recogniser.state()
        self.work.facts.setdefault("parameters", sum(int(np.prod(array.shape)) for array in state.values()))
        write_bytes(self.work.folder / "weights.safetensors", pack(state, {"run": self.job.key}))
        write_text(self.work.folder / "history.csv", pd.DataFrame(history).to_csv(index=False, float_format="%.9g"))


def run_job(job: Job, store: Store, device: Device, report: Progress) -> Record:
    """Make one run, or go on with it where it was interrupted, and store it. Returns its record."""
    for stray in store.begin(job.identity).rglob(".*.*"):  # begun by a process that was killed
        stray.unlink(missing_ok=True)
    damage = [note for folder in unfinished(job, store) for note in sift(folder)]
    run = Run(job, store, device, report)
    make = _best_test if job.made_from else _fold if job.kind == FOLD else _before
    family = job.request.family
    # How a BLAS shares a product among threads decides its last bits: one thread gives the same bytes wherever.
    alone = nullcontext() if family.torch else threadpool_limits(1)
    with device.threads(family.threads(job.method) * job.trainings), alone:
        result = make(run)
        facts = run.work.facts
        facts["method"] = job.method.model_dump(mode="json", by_alias=True)
        facts |= {"damage": damage} if damage else {}
        record = Record(
            key=job.key,
            experiment=job.identity.experiment,
            identity=job.identity,
            dataset=job.faces.name,
            classes=run.classes,
            environment=describe_device(device.name, job.identity.precision, job.identity.engine),
            facts=facts,
            timings=run.timings,
            result=result,
        )
    store.finish(record)
    return record


def _before(run: Run) -> dict[str, Any]:
    """A training that folds start from. Of an official split its validation set is only watched."""
    job, work = run.job, run.work
    if isinstance(job.source, AttributeProtocol):
        run.save(run.recogniser.fit(AttributeSet(job.faces, job.source, job.identity.seed), work))
        work.facts["notes"] = work.notes
        return work.result
    train, validation = splits.training_sets(job.source, job.faces)
    work.facts |= {"train_images": len(train), "notes": work.notes}
    run.save(run.fit(train, validation))
    if not len(validation):
        return work.result
    return {"validation_accuracy": metrics.hit_rate(run.predict(validation)), "validation_images": len(validation)}


def _fold(run: Run) -> dict[str, Any]:
    """Training on one fold's training set, then its test set, once."""
    job, request, work, split = run.job, run.job.request, run.work, run.job.split
    keep_best = request.selection == "best-val"
    train, validation = splits.inner(split, job.faces, request.seed) if keep_best else (split.train, NO_ROWS)
    work.epochs = work.folder / EPOCHS if request.keep_epochs else None
    run.save(run.fit(train, validation, keep_best))
    predictions = run.predict(split.test)
    made = job.splits
    assert made is not None
    work.facts |= {
        "display": request.method.title,
        "published": request.method.published,
        "differs": list(request.method.differs),
        "command": request.command,
        "sees": views.sees(job.method, request.protocol, job.faces, split.test),
        "trained_on": _trained_on(run),
        **views.fold_facts(request.protocol, job.faces, made, split, train, len(validation)),
        "notes": [*made.notes, *work.notes, *_given(run)],
    }
    return {"accuracy": metrics.hit_rate(predictions), "images": len(split.test)}


def _best_test(run: Run) -> dict[str, Any]:
    """The epoch that does best on the test set, as much of the literature reports it; the first of equals.

    From the epochs that the run of the last epoch kept; where it kept none, its training is done again.
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
        run.report(number + 1, len(files), f"epoch {number + 1}: {accuracies[-1]:.1%} of the test set")
    best = int(np.argmax(accuracies))
    run.recogniser.load(unpack(files[best])[0])
    predictions = run.predict(split.test)
    write_text(
        work.folder / "history.csv",
        pd.DataFrame({"epoch": range(1, len(files) + 1), "test_accuracy": accuracies}).to_csv(
            index=False, float_format="%.9g"
        ),
    )
    work.facts |= run.store.record(job.made_from).facts | {"epoch": best + 1, "command": job.request.command}
    return {"accuracy": metrics.hit_rate(predictions), "images": len(split.test), "epoch": best + 1}


def unfinished(job: Job, store: Store) -> list[Path]:
    """The folders of unfinished work that a job goes on from, which end with it."""
    kept = [store.folder(key) / EPOCHS for key in (job.key, job.made_from)] if job.made_from else []
    return [store.folder(job.key) / "checkpoint", *kept]


def kept_epochs(job: Job, store: Store) -> list[Path]:
    """The weights of every epoch that a best-test run is made of, here or where the training kept them; or none."""
    folders = [store.folder(key) / EPOCHS for key in (job.key, job.made_from)]
    return next(filter(None, (kept(folder, job.epochs) for folder in folders)), [])


def share_done(job: Job, store: Store) -> float:
    """Return the share of a job's epochs that its checkpoints have behind them, 0 to 1."""
    files = (store.folder(job.key) / "checkpoint").glob("*.safetensors")
    return sum(map(epochs_done, files)) / job.all_epochs if job.epochs else 0.0


def training_images(job: Job) -> int:
    """Return how many samples a job learns from."""
    if isinstance(job.source, AttributeProtocol):
        return job.request.family.attribute_image_count(AttributeSet(job.faces, job.source, job.identity.seed))
    if job.kind != FOLD:
        return len(splits.training_sets(job.source, job.faces)[0])
    return len(job.split.train)


def test_images(job: Job) -> int:
    """Return how many samples a fold tests; 0 for what tests nothing."""
    return len(job.split.test) if job.kind == FOLD else 0


def _classes(job: Job) -> tuple[str, ...]:
    if isinstance(job.source, AttributeProtocol):
        return "absent", "present"
    return job.splits.classes if job.splits else job.source.classes


def _trained_on(run: Run) -> list[str]:
    """The protocols whose training sets the weights have seen, those of its parents' parents among them; first its
    own."""
    seen, waiting = [run.job.identity.protocol], list(run.job.identity.parents.values())
    while waiting:
        identity = run.store.holder(key := waiting.pop(0)).record(key).identity
        seen.append(identity.protocol)
        waiting += identity.parents.values()
    return list(dict.fromkeys(seen))


def _given(run: Run) -> list[str]:
    """Which of the runs that this one starts from come with the package, in words.

    With the first digits of their file's SHA-256: the package may ship weights rounded, and another release others.
    """
    given = [(kind, key) for kind, key in run.job.identity.parents.items() if run.store.holder(key) != run.store]
    digits = {role: sha256_of(run.work.parent(role)[1].read_bytes())[:12] for role, _ in given}
    return [f"weights of the {kind} run {key} come with ferbench, SHA-256 {digits[kind]}" for kind, key in given]
