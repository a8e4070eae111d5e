"""A trained network on another set than its own, with nothing learned there: cross-dataset accuracy, or zero-shot."""

import time
from pathlib import Path

import numpy as np
import torch

from ferbench.data import drawn
from ferbench.data import faces as prepared_sets
from ferbench.environment import describe_device
from ferbench.errors import DataError, UsageError
from ferbench.files import data_home, runs_home
from ferbench.methods.recipes import family_of, resolve
from ferbench.predict import chosen
from ferbench.protocol import protocol as protocols
from ferbench.protocol import splits
from ferbench.runs.record import Record
from ferbench.runs.store import Store, predictions_frame

REVISION = 1  # raised when a change of code changes what an evaluation gives
BATCH = 128


def evaluate(run: str, preset: str, dataset: str, runs: Path | None, home: Path | None) -> Record:
    """Test a finished run, or the shipped weights of ``preset``, on all test images of another protocol.

    All classes of the network stay in play: one that the protocol lacks is an error wherever it is predicted.
    Images of classes that the network never learned are left out, and counted. The result is a run of kind
    "transfer" in the store ``runs``; one that is there already is not made again.
    Raises UsageError for a run that was trained on images of that set, DataError where no image is left.
    """
    record, source = chosen(run, preset, runs)
    protocol = protocols.load(dataset)
    drawn.ensure(protocol.dataset, data_home(home), lambda *_: None)
    faces = prepared_sets.load(protocol.dataset, data_home(home))
    if record.identity.data == faces.fingerprint:
        raise UsageError(f"run {record.key} was trained on images of {faces.name}: its own test side is in "
                         "`ferbench report`; evaluate is for sets that it has not seen")  # fmt: skip
    made = splits.make(protocol, faces)
    store = Store(runs_home(runs))
    identity = record.identity.model_copy(update={
        "kind": "transfer", "protocol": protocol.identifier, "data": faces.fingerprint, "split": made.hash, "fold": "",
        "precision": "fp32", "engine": "plain", "code": REVISION, "parents": {"network": record.key},
    })  # fmt: skip
    if store.state(identity.key) == "done":
        return store.record(identity.key)
    rows = np.sort(np.concatenate([fold.test for fold in made.folds]))
    labels = faces.samples["label"].iloc[rows]
    known = labels.isin(record.classes).to_numpy()
    if not known.any():
        raise DataError(f"{faces.name} has no image of a class that run {record.key} knows")
    store.begin(identity)
    start = time.perf_counter()
    images = torch.from_numpy(faces.images[rows[known]]).unsqueeze(1)
    module = family_of(record).module(record, source)
    with torch.inference_mode():
        logits = torch.cat([module(batch)[0] for batch in images.split(BATCH)])
    frame = predictions_frame(faces.samples.iloc[rows[known]], record.classes, torch.softmax(logits, dim=1).numpy())
    store.write_predictions(identity.key, frame)
    done = Record(
        key=identity.key, experiment=identity.experiment, identity=identity, dataset=faces.name, classes=record.classes,
        environment=describe_device("cpu", "fp32", "plain"),
        timings={"prediction": round(time.perf_counter() - start, 3)},
        facts={"trained_on": record.identity.protocol, "trained_as": record.identity.kind,
               "left_out": labels[~known].value_counts().to_dict(), "parameters": record.facts["parameters"],
               "display": record.facts.get("display", resolve(identity.method, identity.preset, dataset).title)},
        result={"accuracy": float((frame["truth"] == frame["prediction"]).mean()), "images": len(frame)},
    )  # fmt: skip
    store.finish(done)
    return done
