"""A finished model on a protocol's test set, with nothing learned there: cross-dataset accuracy, or zero-shot.

The model is a run of ferbench's, a model from elsewhere with its card, or nothing but a file of predictions.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ferbench import metrics, prediction_files
from ferbench.data import faces as prepared_sets
from ferbench.data import synthetic
from ferbench.data.faces import Faces
from ferbench.environment import describe_device
from ferbench.errors import DataError, UsageError
from ferbench.execution import learned
from ferbench.execution.views import sample_set
from ferbench.files import data_home, runs_home, sha256_of
from ferbench.methods.interface import SampleSet, Workspace
from ferbench.methods.recipes import Method, family_of, network_of, resolve
from ferbench.predict import chosen
from ferbench.protocol import protocol as protocols
from ferbench.protocol import splits
from ferbench.protocol.protocol import Protocol
from ferbench.runs.facts import HeldOut
from ferbench.runs.record import Identity, Record
from ferbench.runs.store import WEIGHTS, Store, predictions_frame
from ferbench.schema import plain
from ferbench.seeds import derive_seed
from ferbench.text import printable
from ferbench.training.arithmetic import FP32, Arithmetic
from ferbench.training.device import Device

REVISION = 1  # raised when a change of code changes what an evaluation gives
TRANSFER = "transfer"
BELOW_CHANCE = 0.001  # p-value from which an accuracy is said to be below chance
Predict = Callable[[SampleSet], np.ndarray]
Say = Callable[[str], None]


@dataclass(frozen=True)
class TestSet:
    """What is to be predicted: rows of a prepared dataset under a protocol. split : hash of the fold file, or empty."""

    protocol: Protocol
    faces: Faces
    rows: np.ndarray
    split: str
    notes: tuple[str, ...] = ()

    @classmethod
    def of(cls, dataset: str, home: Path | None) -> "TestSet":
        """All that a protocol tests. A set with a test set alone is enough, and people need not be known.

        Raises what ``protocols.load`` and ``faces.load`` raise, DataError where nothing is tested.
        """
        protocol, place = protocols.load(dataset), data_home(home)
        synthetic.ensure(protocol.dataset, place)
        faces = prepared_sets.load(protocol.dataset, place)
        try:
            made = splits.make(protocol, faces)
        except DataError as error:
            rows, note = splits.tested(protocol, faces)
            return cls(protocol, faces, rows, "", (note or str(error), *splits.alignment(faces, rows)))
        rows = np.sort(np.concatenate([fold.test for fold in made.folds]))
        return cls(protocol, faces, rows, made.hash, tuple(splits.alignment(faces, rows)))

    def samples(self, rows: np.ndarray) -> SampleSet:
        """Some rows of the prepared dataset as a model gets to see them."""
        return sample_set(self.protocol, self.faces, rows)


def evaluate(
    model: str,
    preset: str,
    dataset: str,
    runs: Path | None,
    home: Path | None,
    fresh: bool = False,
    say: Say = lambda line: None,
    arithmetic: Arithmetic = FP32,
) -> Record:
    """Test a model on all test samples of a protocol.

    model : the key of a finished run, a card of a model from elsewhere (a path ending in .toml, see
        ``methods.foreign``), or empty for the shipped weights of ``preset``.
    All classes of the model stay in play: one that the protocol lacks is an error wherever it is predicted.
    Images of classes that the model never learned are left out, and counted. The result is a run of kind
    "transfer" in the store ``runs``; one that is there already is reused, which is told to ``say``, unless ``fresh``.
    Raises UsageError for a run that has learned from all of these images or their people, DataError where no image is
    left.
    """
    test_set, store = TestSet.of(dataset, home), Store(runs_home(runs))
    if model.endswith(".toml"):
        arithmetic.check_default(model)
        return _card(resolve(model, "", test_set.protocol.name), test_set, store, fresh, say)
    record, source = chosen(model, preset, runs)
    before = learned.of_run(record.key, source, data_home(home))
    identity = record.identity.model_copy(
        update={
            "kind": TRANSFER,
            "protocol": test_set.protocol.identifier,
            "data": test_set.faces.fingerprint,
            "split": test_set.split,
            "fold": "",
            **arithmetic.identity,
            "code": REVISION,
            "parents": {"network": record.key},
        }
    )
    facts = {
        "trained_on": record.identity.protocol,
        "trained_as": record.identity.kind,
        "parameters": record.facts["parameters"],
        "display": record.facts.get("display") or resolve(identity.method, identity.preset, dataset).title,
    }
    return _tested(
        identity,
        test_set,
        store,
        record.classes,
        facts,
        lambda rows: _scores(record, source, test_set.samples(rows), arithmetic),
        lambda rows: learned.held_out(test_set.protocol, test_set.faces, rows, before),
        fresh=fresh,
        say=say,
    )


def _card(method: Method, test_set: TestSet, store: Store, fresh: bool, say: Say) -> Record:
    """Test a model from elsewhere as it is."""
    classes, predict, work = _opened(method, store, test_set)
    trained_on = method.recipe.trained.on
    facts: dict[str, Any] = {
        "trained_on": list(trained_on),
        "display": method.title,
        "trained_as": "elsewhere",
        "parameters": 0,
        "method": method.model_dump(mode="json", by_alias=True),
    }
    return _tested(
        work.identity,
        test_set,
        store,
        classes,
        facts,
        lambda rows: predict(test_set.samples(rows)),
        lambda rows: learned.as_authors_say(test_set.protocol, test_set.faces, rows, trained_on),
        work,
        fresh,
        say,
    )


def _opened(method: Method, store: Store, test_set: TestSet | None = None) -> tuple[list[str], Predict, Workspace]:
    """Open a model from elsewhere: its classes, what gives probabilities [N,K] for samples, and its workspace.

    test_set : what it is tested on, which is part of its run's identity; None where no run comes of it.
    Raises UsageError for what is no card, and for one that does not say what the model's scores stand for.
    """
    family = method.family
    if not hasattr(method.recipe, "output"):
        raise UsageError(f"{method.title} is a method to train: `ferbench train`; a card has a [model] and an [output]")
    classes = tuple(label for label in method.recipe.output.labels if label)
    if not classes:
        instead = "" if test_set is None else "; or fit it on each fold with --refit"
        raise UsageError(
            f"the card of {method.title} lacks the line `labels = [...]` under [output]: what each score "
            f"of the model stands for{instead}"
        )
    recogniser = family.recogniser(
        method, TRANSFER, classes
    )  # first, since the identity covers the files that it opens
    tested: dict[str, Any] = (
        {"recipe": {}, "protocol": "", "data": ""}
        if test_set is None
        else {
            "recipe": plain(family.identity(TRANSFER, method, test_set.protocol)),
            "protocol": test_set.protocol.identifier,
            "data": test_set.faces.fingerprint,
            "split": test_set.split,
        }
    )
    identity = Identity(
        kind=TRANSFER, method=method.name, preset=method.preset, seed=0, precision="fp32", code=REVISION, **tested
    )
    work = Workspace(identity, store, store.folder(identity.key), Device(), lambda use: derive_seed(0, use))
    return list(classes), lambda samples: recogniser.predict(samples, work), work


def predictor(
    model: str, preset: str, dataset: str, runs: Path | None, arithmetic: Arithmetic = FP32
) -> tuple[str, list[str], Predict]:
    """Return a model's title, its classes, and what gives probabilities [N,K] for samples.

    model : as for :func:`evaluate`.
    """
    if not model.endswith(".toml"):
        record, source = chosen(model, preset, runs)
        return record.key, record.classes, lambda samples: _scores(record, source, samples, arithmetic)
    arithmetic.check_default(model)
    method = resolve(model, "", dataset)
    classes, predict, _ = _opened(method, Store(runs_home(runs)))
    return method.title, classes, predict


def predictions(
    file: Path,
    name: str,
    trained_on: tuple[str, ...],
    dataset: str,
    runs: Path | None,
    home: Path | None,
    fresh: bool = False,
    say: Say = lambda line: None,
) -> Record:
    """Judge predictions that were made elsewhere: a CSV with the column ``id`` and ``prediction`` or ``p_<class>``
    columns, or both, which then have to agree. A column ``label`` or ``truth`` has to be that of the dataset.

    Every sample that the protocol tests has to be there once. Without probabilities nothing is said of calibration.
    fresh, say : as for :func:`evaluate`. Raises DataError naming the file and the row of what is wrong.
    """
    test_set, store, name = TestSet.of(dataset, home), Store(runs_home(runs)), printable(name)
    samples = test_set.faces.samples.iloc[test_set.rows]
    frame, classes, certain = prediction_files.read(file, samples, test_set.protocol)
    identity = Identity(
        kind=TRANSFER,
        method=name,
        preset="",
        recipe={"predictions": sha256_of(file.read_bytes())[:16]},
        protocol=test_set.protocol.identifier,
        data=test_set.faces.fingerprint,
        split=test_set.split,
        seed=0,
        precision="fp32",
        code=REVISION,
    )
    facts: dict[str, Any] = {
        "trained_on": list(trained_on),
        "display": name,
        "trained_as": "elsewhere",
        "parameters": 0,
    }
    facts |= {"uncalibrated": True} if certain else {}
    ids = test_set.faces.samples["id"]
    return _tested(
        identity,
        test_set,
        store,
        classes,
        facts,
        lambda rows: frame.loc[ids.iloc[rows]].to_numpy(),
        lambda rows: learned.as_authors_say(test_set.protocol, test_set.faces, rows, trained_on),
        fresh=fresh,
        say=say,
    )


def _tested(
    identity: Identity,
    test_set: TestSet,
    store: Store,
    classes: list[str],
    facts: dict[str, Any],
    predict: Callable[[np.ndarray], np.ndarray],
    held_out: Callable[[np.ndarray], tuple[HeldOut, np.ndarray]],
    work: Workspace | None = None,
    fresh: bool = False,
    say: Say = lambda line: None,
) -> Record:
    """Predict what the model has classes for, and store it as a run.

    predict : gives probabilities [N,K] for rows. held_out : says of rows whether they were held out, and which were
    learned from. A run that is stored already is reused unless ``fresh``, with what is now known of the training data.
    """
    faces = test_set.faces
    labels = faces.samples["label"].iloc[test_set.rows]
    known = labels.isin(classes).to_numpy()
    if not known.any():
        raise DataError(f"{faces.name} has no image of a class that {facts['display']} knows")
    rows = test_set.rows[known]
    held, seen = held_out(rows)
    if seen.all() or (held.status, held.by) == ("no", "names"):
        raise UsageError(learned.refusal(held, facts["display"], test_set.protocol, test_set.faces))
    facts |= {"held_out": held.model_dump(), "seen": faces.samples["id"].iloc[rows[seen]].tolist()}
    if not fresh and store.checked(identity.key) == "done":
        date = datetime.fromtimestamp((store.folder(identity.key) / "record.json").stat().st_mtime)
        say(f"reused from {identity.key}, tested {date:%Y-%m-%d %H:%M} (--fresh tests again)")
        return learned.corrected(store, store.record(identity.key), facts)
    start = time.perf_counter()
    probabilities = predict(rows)
    store.begin(identity)
    frame = predictions_frame(faces.samples.iloc[rows], classes, probabilities)
    store.write_predictions(identity.key, frame)
    notes = [*test_set.notes, *(work.notes if work else []), *_below_chance(frame)]
    done = Record(
        key=identity.key,
        experiment=identity.experiment,
        identity=identity,
        dataset=faces.name,
        classes=classes,
        environment=describe_device("cpu", identity.precision, identity.engine),
        timings={"prediction": round(time.perf_counter() - start, 3)},
        facts={
            **facts,
            **(work.facts if work else {}),
            "level": test_set.protocol.level,
            "left_out": labels[~known].value_counts().to_dict(),
            "notes": notes,
        },
        result=learned.result(frame, facts["seen"]),
    )
    store.finish(done)
    return done


def _below_chance(frame: pd.DataFrame) -> list[str]:
    """A note where the accuracy is below that of the same predictions in random order, by a one-sided binomial test.

    Expected is Σ_k P(truth = k) · P(prediction = k), as for Cohen's kappa (1960): a model that always predicts a rare
    class is poor, but not below chance.
    """
    from scipy.special import bdtr

    predicted = frame["prediction"].value_counts(normalize=True)
    chance = float(frame["truth"].value_counts(normalize=True).mul(predicted, fill_value=0).sum())
    correct = int(metrics.correct(frame).sum())
    if bdtr(correct, len(frame), chance) >= BELOW_CHANCE:
        return []
    return [
        f"the accuracy of {correct / len(frame):.2%} is below the {chance:.2%} of these predictions in random order "
        f"(p < {BELOW_CHANCE}): the order of the labels, or of the rows, is probably wrong"
    ]


def _scores(record: Record, source: Store, samples: SampleSet, arithmetic: Arithmetic) -> np.ndarray:
    """Probabilities by a finished run: by its network, or by its recogniser where it has none."""
    import torch

    from ferbench.training.checkpoint import unpack

    family = family_of(record)
    try:
        module = network_of(record, source)
    except UsageError:
        stored = record.facts.get("method")
        if stored is None or record.error:
            raise
        arithmetic.check_default(f"run {record.key}")
        method: Method = Method.model_validate({**stored, "recipe": family.recipe.model_validate(stored["recipe"])})
        recogniser = family.recogniser(method, record.identity.kind, tuple(record.classes))
        weights = source.file(record, WEIGHTS)
        try:
            recogniser.load(unpack(weights)[0])
        except (KeyError, IndexError, TypeError, ValueError, RuntimeError):
            raise DataError(f"{weights} does not fit the run's recipe: train it again") from None
        work = Workspace(record.identity, source, source.folder(record.key), Device(), lambda use: 0)
        return recogniser.predict(samples, work)
    logits = arithmetic.prepare(module)(torch.from_numpy(samples.images))[0]
    return torch.softmax(logits, dim=1).numpy()
