"""What runs have learned from: stored by them, or found again in the prepared dataset that they were trained on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ferbench import metrics
from ferbench.data import faces as prepared_sets
from ferbench.data.faces import Faces
from ferbench.errors import DataError, UsageError
from ferbench.execution.views import SEQUENCE, label_counts
from ferbench.methods.interface import FOLD
from ferbench.protocol import protocol as protocols
from ferbench.protocol import splits
from ferbench.protocol.protocol import AttributeProtocol, Protocol
from ferbench.runs import provenance
from ferbench.runs.facts import BY_NAMES, HeldOut
from ferbench.runs.provenance import Pictures
from ferbench.runs.record import Record
from ferbench.runs.store import LEARNED, Store

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Unrecorded:
    """A run of which it is not known which pictures it learned from.

    names : of its dataset and protocol, none where the run itself is missing. data : the fingerprint of its dataset.
    """

    run: str
    names: tuple[str, ...] = ()
    data: str = ""

    def __str__(self) -> str:
        return f"run {self.run}, which did not record it"

    @property
    def why(self) -> str:
        """What is missing, in words."""
        if not self.names:
            return f"run {self.run}, from which it started, is missing"
        return (
            f"run {self.run} did not record which pictures it learned from: prepare {self.names[0]} again, so that "
            "they are found, or train it again"
        )


def pictures(protocol: Protocol | AttributeProtocol, faces: Faces, rows: np.ndarray) -> Pictures | None:
    """Return the pictures of the samples ``rows``, with all frames of each where samples are sequences.

    None where the prepared dataset has no digests of its pictures.
    """
    return provenance.pictures(faces, _frames(protocol, faces, rows)[0])


def held_out(
    protocol: Protocol, faces: Faces, rows: np.ndarray, sources: list[Pictures | Unrecorded], names_do: bool = False
) -> tuple[HeldOut, np.ndarray]:
    """Say whether the samples ``rows`` were held out from all that a model learned from: see :func:`of_run`.

    Returns that, and for each sample whether it was learned from: bool [N]. Where pictures are not known, names can
    tell that a dataset was learned from, but not that it was held out, unless names_do: for the folds of a training,
    whose split shares no people.
    """
    frames, owner = _frames(protocol, faces, rows)
    tested = provenance.pictures(faces, frames)
    unknown: list[Pictures | Unrecorded] = (
        sources if tested is None else [source for source in sources if isinstance(source, Unrecorded)]
    )
    named = by_names(protocol, faces, unknown) if unknown else BY_NAMES
    seen = np.zeros(len(rows), dtype=bool)
    if named.status == "no":
        return named, seen
    why = f"{faces.name} was prepared without digests of its pictures: prepare it again"
    if tested is not None:
        verdict, marks = provenance.held_out(tested, [source for source in sources if isinstance(source, Pictures)])
        np.logical_or.at(seen, owner, marks)
        verdict = verdict.model_copy(update={"images": int(seen.sum()), "tested": len(rows)})
        if verdict.status == "no":
            return verdict.model_copy(update={"repeated": not (seen & ~repeated(protocol, faces, rows)).any()}), seen
        if verdict.status == "unknown" or not unknown:
            return verdict, seen
        why = next(source.why for source in unknown if isinstance(source, Unrecorded))
    return named if names_do and named.status == "yes" else HeldOut(status="unknown", why=why), seen


def by_names(protocol: Protocol, faces: Faces, sources: Sequence[Pictures | Unrecorded]) -> HeldOut:
    """Say whether a dataset was held out by the names of all that was learned from."""
    names: list[str] = []
    for source in sources:
        if isinstance(source, Pictures):
            names.append(source.family or source.dataset)
        elif source.data == faces.fingerprint:
            return HeldOut(status="no", by="names")
        else:
            names += source.names or [f"of run {source.run}"]
    tested = (protocol.name, protocol.dataset, faces.name)
    return provenance.by_names(names, tested, provenance.of_set(faces.card), authors=False)


def as_authors_say(
    protocol: Protocol, faces: Faces, rows: np.ndarray, trained_on: tuple[str, ...]
) -> tuple[HeldOut, np.ndarray]:
    """:func:`held_out` for an external model, of which only names are known."""
    tested = (protocol.name, protocol.dataset, faces.name)
    return provenance.by_names(trained_on, tested, provenance.of_set(faces.card)), np.zeros(len(rows), dtype=bool)


def with_weights(
    verdict: HeldOut, facts: dict[str, Any], protocol: Protocol, faces: Faces, rows: np.ndarray
) -> HeldOut:
    """Say whether the samples ``rows`` were held out from a run that started from external weights as well, of which
    only names are known. verdict : on its own training set. facts : of the run, which name its weights if it had any.
    """
    if "weights" not in facts:
        return verdict
    names = tuple(name for name in (facts["weights"]["trained_on"],) if name != "unknown")
    return HeldOut.of_all([verdict, as_authors_say(protocol, faces, rows, names)[0]])


def refusal(held: HeldOut, model: str, protocol: Protocol, faces: Faces) -> str:
    """Return why nothing of a test set is left to evaluate a model on."""
    if held.by == "names":
        return (
            f"{model} has learned from images of {faces.name} and did not record from which: prepare the dataset that "
            "it was trained on again, so that they are found, or train it again"
        )
    people = f" ({held.people:,} people)" if held.people else ""
    return (
        f"{model} has learned from all {held.tested:,} {protocol.level}s{people} that {protocol.identifier} tests: "
        "evaluate it on others; the accuracy of a training on its own test set is in `ferbench report`"
    )


def result(frame: pd.DataFrame, seen: list[str]) -> dict[str, Any]:
    """Return the accuracy and, if some samples were learned from, the accuracy of the others."""
    figures: dict[str, Any] = {"accuracy": metrics.share_correct(frame), "images": len(frame)}
    if seen:
        unseen = frame[~frame["id"].isin(seen)]
        figures |= {"held_out_accuracy": metrics.share_correct(unseen), "held_out_images": len(unseen)}
    return figures


def corrected(store: Store, record: Record, facts: dict[str, Any]) -> Record:
    """Return a stored evaluation with the present facts of its training data; its predictions stay."""
    known: dict[str, Any] = {
        name: facts[name] for name in ("trained_on", "held_out", "seen", "method") if name in facts
    }
    if all(record.facts.get(name) == value for name, value in known.items()):
        return record
    note = "what was known of the training data was corrected after the predictions had been made"
    known["notes"] = list(dict.fromkeys([*record.facts.get("notes", []), note]))
    figures = result(store.predictions(record.key, record), facts["seen"])
    record = record.model_copy(update={"facts": record.facts | known, "result": figures})
    store.finish(record)
    return record


def repeated(protocol: Protocol, faces: Faces, rows: np.ndarray) -> np.ndarray:
    """Say for each sample of the test set whether the training set of the official split holds a copy: bool [N]."""
    copied = np.zeros(len(rows), dtype=bool)
    if protocol.official is None:
        return copied
    try:
        train = pictures(protocol, faces, splits.training_sets(protocol, faces)[0])
    except DataError:  # a dataset with a test set alone
        return copied
    frames, owner = _frames(protocol, faces, rows)
    tested = provenance.pictures(faces, frames)
    if train is not None and tested is not None:
        np.logical_or.at(copied, owner, provenance.copies(tested, train))
    return copied


def of_run(key: str, store: Store, home: Path | None = None) -> list[Pictures | Unrecorded]:
    """Return what a run and all runs before it learned from.

    home : of prepared datasets, in which the training sets of runs that did not record theirs are looked up.
    """
    sources: list[Pictures | Unrecorded] = []
    waiting, seen = [key], set()
    while waiting:
        run = waiting.pop(0)
        holder = store.holder(run)
        if run in seen:
            continue
        seen.add(run)
        if holder.state(run) != "done":
            sources.append(Unrecorded(run))
            continue
        record = holder.record(run)
        names = (record.dataset, record.identity.protocol)
        sources.append(_of_one(record, holder, home) or Unrecorded(run, names, record.identity.data))
        waiting += record.identity.parents.values()
    return sources


def train_labels(record: Record, home: Path | None) -> dict[str, int]:
    """Return how many samples of each class a run learned from, those of its parents not counted; {} where unknown.

    home : of prepared datasets, in which the training sets of runs that did not count theirs are looked up.
    """
    counted = record.facts.get("train_labels")
    if counted is None and (found := _training_set(record, home)) is not None:
        _, faces, rows = found
        counted = label_counts(faces, rows, record.classes)
    return counted or {}


def _of_one(record: Record, store: Store, home: Path | None) -> Pictures | None:
    if LEARNED in record.files:
        return provenance.unpack(store.file(record, LEARNED))
    found = _training_set(record, home)
    return None if found is None else pictures(*found)


def _training_set(record: Record, home: Path | None) -> tuple[Protocol | AttributeProtocol, Faces, np.ndarray] | None:
    """The protocol, the prepared dataset and the training rows of a run that did not record them, where they are
    there."""
    name, _, _ = record.identity.protocol.partition("@")
    if home is None or record.dataset not in prepared_sets.prepared(home) or name not in protocols.names():
        return None
    protocol = protocols.load_any(name)
    if prepared_sets.load_card(record.dataset, home).fingerprint != record.identity.data:
        return None
    faces = prepared_sets.load(record.dataset, home)
    rows = _rows(record, protocol, faces) if protocol.identifier == record.identity.protocol else None
    return None if rows is None else (protocol, faces, rows)


def _rows(record: Record, protocol: Protocol | AttributeProtocol, faces: Faces) -> np.ndarray | None:
    """Return the training set of a run that did not record it; None if the run's identity does not determine it."""
    if isinstance(protocol, AttributeProtocol):
        return np.arange(len(faces))
    try:
        if record.identity.kind != FOLD:
            return splits.training_sets(protocol, faces)[0]
        folds = splits.make(protocol, faces)
    except (DataError, UsageError):
        return None
    return next(
        (s.train for s in folds.folds if (folds.hash, s.fold) == (record.identity.split, record.identity.fold)), None
    )


def _frames(protocol: Protocol | AttributeProtocol, faces: Faces, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows of all pictures of some samples, and for each picture the position of its sample."""
    if isinstance(protocol, AttributeProtocol) or protocol.level != SEQUENCE:
        return rows, np.arange(len(rows))
    members = [faces.frames(int(row)) for row in rows]
    return np.concatenate(members), np.repeat(np.arange(len(rows)), [len(frames) for frames in members])
