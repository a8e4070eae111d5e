"""A finished model on a protocol's test set, with nothing learned there: cross-dataset accuracy, or zero-shot.

The model is a run of ferbench's, a model from elsewhere with its card, or nothing but a file of predictions.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ferbench import metrics, tables
from ferbench.data import faces as prepared_sets
from ferbench.data import synthetic
from ferbench.data.faces import Faces
from ferbench.environment import describe_device
from ferbench.errors import DataError, UsageError
from ferbench.execution.views import sample_set
from ferbench.files import data_home, runs_home, sha256_of
from ferbench.labels import EMOTIONS, emotion, in_order
from ferbench.methods.interface import SampleSet, Workspace
from ferbench.methods.recipes import Method, family_of, resolve
from ferbench.predict import chosen
from ferbench.protocol import protocol as protocols
from ferbench.protocol import splits
from ferbench.protocol.protocol import Protocol
from ferbench.runs.record import Identity, Record
from ferbench.runs.store import WEIGHTS, Store, predictions_frame
from ferbench.schema import plain
from ferbench.seeds import derive_seed
from ferbench.text import printable
from ferbench.training.device import Device

REVISION = 1  # raised when a change of code changes what an evaluation gives
BATCH = 128
TRANSFER = "transfer"
Predict = Callable[[SampleSet], np.ndarray]


@dataclass(frozen=True)
class Ground:
    """What is to be predicted: rows of a prepared dataset under a protocol. split : hash of the fold file, or empty."""

    protocol: Protocol
    faces: Faces
    rows: np.ndarray
    split: str
    notes: tuple[str, ...] = ()

    @classmethod
    def of(cls, dataset: str, home: Path | None) -> "Ground":
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


def evaluate(model: str, preset: str, dataset: str, runs: Path | None, home: Path | None) -> Record:
    """Test a model on all test samples of a protocol.

    model : the key of a finished run, a card of a model from elsewhere (a path ending in .toml, see
        ``methods.foreign``), or empty for the shipped weights of ``preset``.
    All classes of the model stay in play: one that the protocol lacks is an error wherever it is predicted.
    Images of classes that the model never learned are left out, and counted. The result is a run of kind
    "transfer" in the store ``runs``; one that is there already is not made again.
    Raises UsageError for a run that was trained on images of that set, DataError where no image is left.
    """
    ground, store = Ground.of(dataset, home), Store(runs_home(runs))
    if model.endswith(".toml"):
        return _card(resolve(model, "", ground.protocol.name), ground, store)
    record, source = chosen(model, preset, runs)
    if record.identity.data == ground.faces.fingerprint:
        raise UsageError(
            f"run {record.key} was trained on images of {ground.faces.name}: its test accuracy is in "
            "`ferbench report`; evaluate is for datasets that it was not trained on"
        )
    identity = record.identity.model_copy(
        update={
            "kind": TRANSFER,
            "protocol": ground.protocol.identifier,
            "data": ground.faces.fingerprint,
            "split": ground.split,
            "fold": "",
            "precision": "fp32",
            "engine": "plain",
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
        identity, ground, store, record.classes, facts, lambda rows: _scores(record, source, ground.samples(rows))
    )


def _card(method: Method, ground: Ground, store: Store) -> Record:
    """Test a model from elsewhere as it is."""
    classes, predict, work = _opened(method, store, ground)
    trained_on = method.recipe.trained.on
    facts: dict[str, Any] = {
        "trained_on": list(trained_on),
        "held_out": held_out(trained_on, ground),
        "display": method.title,
        "trained_as": "elsewhere",
        "parameters": 0,
        "method": method.model_dump(mode="json", by_alias=True),
    }
    return _tested(work.identity, ground, store, classes, facts, lambda rows: predict(ground.samples(rows)), work)


def _opened(method: Method, store: Store, ground: Ground | None = None) -> tuple[list[str], Predict, Workspace]:
    """Open a model from elsewhere: its classes, what gives probabilities [N,K] for samples, and its workspace.

    ground : what it is tested on, which is part of its run's identity; None where no run comes of it.
    Raises UsageError for what is no card, and for one that does not say what the model's scores stand for.
    """
    family = method.family
    if not hasattr(method.recipe, "output"):
        raise UsageError(f"{method.title} is a method to train: `ferbench train`; a card has a [model] and an [output]")
    classes = tuple(label for label in method.recipe.output.labels if label)
    if not classes:
        instead = "" if ground is None else "; or fit it on each fold with --refit"
        raise UsageError(
            f"the card of {method.title} lacks the line `labels = [...]` under [output]: what each score "
            f"of the model stands for{instead}"
        )
    tested: dict[str, Any] = (
        {"recipe": {}, "protocol": "", "data": ""}
        if ground is None
        else {
            "recipe": plain(family.identity(TRANSFER, method, ground.protocol)),
            "protocol": ground.protocol.identifier,
            "data": ground.faces.fingerprint,
            "split": ground.split,
        }
    )
    identity = Identity(
        kind=TRANSFER, method=method.name, preset=method.preset, seed=0, precision="fp32", code=REVISION, **tested
    )
    work = Workspace(identity, store, store.folder(identity.key), Device(), lambda use: derive_seed(0, use))
    recogniser = family.recogniser(method, TRANSFER, classes)
    return list(classes), lambda samples: recogniser.predict(samples, work), work


def predictor(model: str, preset: str, dataset: str, runs: Path | None) -> tuple[str, list[str], Predict]:
    """Return a model's title, its classes, and what gives probabilities [N,K] for samples.

    model : as for :func:`evaluate`.
    """
    if not model.endswith(".toml"):
        record, source = chosen(model, preset, runs)
        return record.key, record.classes, lambda samples: _scores(record, source, samples)
    method = resolve(model, "", dataset)
    classes, predict, _ = _opened(method, Store(runs_home(runs)))
    return method.title, classes, predict


def predictions(
    file: Path, name: str, trained_on: tuple[str, ...], dataset: str, runs: Path | None, home: Path | None
) -> Record:
    """Judge predictions that were made elsewhere: a CSV with the column ``id`` and ``prediction`` or ``p_<class>``
    columns, or both.

    Every sample that the protocol tests has to be there once. Without probabilities nothing is said of calibration.
    Raises DataError naming the file and the row of what is wrong.
    """
    ground, store, name = Ground.of(dataset, home), Store(runs_home(runs)), printable(name)
    frame, classes, certain = _theirs(file, ground)
    identity = Identity(
        kind=TRANSFER,
        method=name,
        preset="",
        recipe={"predictions": sha256_of(file.read_bytes())[:16]},
        protocol=ground.protocol.identifier,
        data=ground.faces.fingerprint,
        split=ground.split,
        seed=0,
        precision="fp32",
        code=REVISION,
    )
    facts: dict[str, Any] = {
        "trained_on": list(trained_on),
        "held_out": held_out(trained_on, ground),
        "display": name,
        "trained_as": "elsewhere",
        "parameters": 0,
    }
    facts |= {"uncalibrated": True} if certain else {}
    ids = ground.faces.samples["id"]
    return _tested(identity, ground, store, classes, facts, lambda rows: frame.loc[ids.iloc[rows]].to_numpy())


def held_out(trained_on: tuple[str, ...], ground: Ground) -> bool | str:
    """Say whether the tested set is known not to have been learned from: "unknown" where nobody says on what."""
    if not trained_on:
        return "unknown"
    names = {name.partition("@")[0].lower().replace("+", "plus") for name in trained_on}
    return not names & {ground.protocol.name, ground.protocol.dataset, ground.faces.card.dataset}


def _tested(
    identity: Identity,
    ground: Ground,
    store: Store,
    classes: list[str],
    facts: dict[str, Any],
    predict: Callable[[np.ndarray], np.ndarray],
    work: Workspace | None = None,
) -> Record:
    """Predict what the model has classes for, and store it as a run. predict : gives probabilities [N,K] for rows."""
    if store.checked(identity.key) == "done":
        return store.record(identity.key)
    faces = ground.faces
    labels = faces.samples["label"].iloc[ground.rows]
    known = labels.isin(classes).to_numpy()
    if not known.any():
        raise DataError(f"{faces.name} has no image of a class that {facts['display']} knows")
    rows = ground.rows[known]
    start = time.perf_counter()
    probabilities = predict(rows)
    store.begin(identity)
    frame = predictions_frame(faces.samples.iloc[rows], classes, probabilities)
    store.write_predictions(identity.key, frame)
    done = Record(
        key=identity.key,
        experiment=identity.experiment,
        identity=identity,
        dataset=faces.name,
        classes=classes,
        environment=describe_device("cpu", "fp32", "plain"),
        timings={"prediction": round(time.perf_counter() - start, 3)},
        facts={
            **facts,
            **(work.facts if work else {}),
            "level": ground.protocol.level,
            "left_out": labels[~known].value_counts().to_dict(),
            "notes": list(ground.notes),
        },
        result={"accuracy": metrics.hit_rate(frame), "images": len(frame)},
    )
    store.finish(done)
    return done


def _scores(record: Record, source: Store, samples: SampleSet) -> np.ndarray:
    """Probabilities by a finished run: by its network, or by its recogniser where it has none."""
    import torch

    from ferbench.training.checkpoint import unpack

    family = family_of(record)
    try:
        module = family.module(record, source)
    except UsageError:
        told = record.facts.get("method")
        if told is None or record.error:
            raise
        method = Method.model_validate({**told, "recipe": family.recipe.model_validate(told["recipe"])})
        recogniser = family.recogniser(method, record.identity.kind, tuple(record.classes))
        weights = source.file(record, WEIGHTS)
        try:
            recogniser.load(unpack(weights)[0])
        except (KeyError, IndexError, TypeError, ValueError, RuntimeError):
            raise DataError(f"{weights} does not fit the run's recipe: train it again") from None
        work = Workspace(record.identity, source, source.folder(record.key), Device(), lambda use: 0)
        return recogniser.predict(samples, work)
    images = torch.from_numpy(samples.images).unsqueeze(1)
    with torch.inference_mode():
        logits = torch.cat([module(batch)[0] for batch in images.split(BATCH)])
    return torch.softmax(logits, dim=1).numpy()


def _theirs(file: Path, ground: Ground) -> tuple[pd.DataFrame, list[str], bool]:
    """Probabilities of all tested samples in their order, the classes, and whether they are mere decisions."""
    frame = tables.frame(file, (), ("id", "prediction"))
    columns = {name: name[2:] for name in frame.columns if name.startswith("p_")}
    if odd := [name for name, word in columns.items() if not _is_emotion(word)]:
        raise DataError(f"{file}: the column {odd[0]!r} should be p_ and an emotion: {', '.join(EMOTIONS)}")
    columns = {name: emotion(word) for name, word in columns.items()}
    if len(set(columns.values())) < len(columns):
        raise DataError(f"{file} has two columns for one emotion: {', '.join(columns)}")
    if "id" not in frame or not (columns or "prediction" in frame):
        raise DataError(
            f"{file} needs the columns id and prediction, or id and p_<class> for each class; it has "
            f"{', '.join(frame.columns)}"
        )
    if len(set(columns.values())) < len(columns):
        raise DataError(f"{file} has two columns for one emotion: {', '.join(columns)}")
    wanted = ground.faces.samples["id"].iloc[ground.rows]

    def refuse(bad: pd.Series, what: str) -> None:
        if bad.any():
            row = int(np.flatnonzero(bad.to_numpy())[0])
            raise DataError(
                f"{file}, line {frame.index[row]}: {frame['id'].iloc[row]!r} {what} ({int(bad.sum())} such rows)"
            )

    refuse(~frame["id"].isin(wanted), f"is not tested by {ground.protocol.identifier} on {ground.faces.name}")
    refuse(frame["id"].duplicated(), "is there twice")
    if len(frame) < len(wanted):
        missing = wanted[~wanted.isin(frame["id"])]
        raise DataError(f"{file} lacks {len(missing)} of {len(wanted)} samples, such as {missing.iloc[0]}")
    if columns:
        numbers = frame[list(columns)].apply(pd.to_numeric, errors="coerce")
        refuse(numbers.isna().any(axis=1), "has a probability that is no number")
        refuse(
            (numbers < 0).any(axis=1) | ((numbers.sum(axis=1) - 1).abs() > 0.01),
            "has probabilities that do not sum to 1",
        )
        classes = [name for name in EMOTIONS if name in columns.values()]
        numbers.columns = [columns[name] for name in columns]
        table = numbers[classes].div(numbers[classes].sum(axis=1), axis=0)
    else:
        named = frame["prediction"].map(lambda word: word.strip().lower())
        unknown = ~named.map(_is_emotion)
        refuse(unknown, "has a prediction that is no emotion")
        decided = named.map(emotion)
        classes = in_order({*decided, *ground.protocol.classes})
        table = pd.DataFrame({name: (decided == name).astype(float) for name in classes})
    table.index = pd.Index(frame["id"])
    return table.loc[wanted], classes, not columns


def _is_emotion(word: str) -> bool:
    try:
        emotion(word)
    except DataError:
        return False
    return True
