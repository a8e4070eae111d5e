"""Hyperparameter trials on held-out training subjects: what ``best-val`` trainings saw there.

The test set takes no part in these figures. The fields of these classes are the keys of the JSON document.
"""

from collections import defaultdict
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd

from ferbench.errors import DataError
from ferbench.files import canonical_json
from ferbench.report.cells import Grid
from ferbench.report.lineage import Lineage, changes, in_words, lineage
from ferbench.report.told import asked_for, epochs, set_of, told
from ferbench.runs.record import Record
from ferbench.runs.store import HISTORY, Store


@dataclass(frozen=True)
class Trial:
    """One training: accuracy on the held-out subjects of its folds' training sets, after the last epoch."""

    experiment: str
    changed: dict[str, tuple[str, str]]  # field → value of the reference, value here; empty for the reference
    folds: int
    images: int  # validation images of all folds
    epochs: int
    accuracy: float
    difference: float | None  # mean over folds, here minus the reference; None for it, or where folds differ
    std: float | None  # of the folds' differences, ddof 1
    better: int  # folds in which it is better than the reference
    worse: int


@dataclass(frozen=True)
class Trials:
    """Trainings that differ in nothing but their recipes and in how their sets were prepared; first the reference,
    which the others differ least from."""

    dataset: str
    protocol: str
    method: str
    preset: str
    precision: str
    seed: int
    devices: list[str]
    notes: list[str]
    rows: list[Trial]


def build(store: Store, dataset: str | None = None) -> list[Trials]:
    """Return the ``best-val`` trainings of a store side by side, where there are two or more to compare.

    Raises DataError where a run's history is missing or has no validation accuracy.
    """
    records = store.known()
    groups: dict[str, dict[str, list[Record]]] = defaultdict(lambda: defaultdict(list))
    for record in records.values():
        one = record.identity
        if (one.kind, one.selection, record.error) != ("fold", "best-val", "") or one.leaks:
            continue
        if asked_for(one, dataset):
            alike = {**_comparable(lineage(one, records)), "seed": one.seed}
            groups[canonical_json(alike)][record.experiment].append(record)
    return [_trials(store, list(group.values()), records) for group in groups.values() if len(group) > 1]


def _comparable(made: Lineage) -> Lineage:
    """What has to agree: all but recipes and the pixels of prepared sets. Who is held out follows from the split."""
    return {
        name: _comparable(value) if isinstance(value, dict) else value
        for name, value in made.items()
        if name not in ("recipe", "data")
    }


def _trials(store: Store, trainings: list[list[Record]], records: dict[str, Record]) -> Trials:
    made = [lineage(folds[0].identity, records) for folds in trainings]
    apart = np.zeros((len(made), len(made)), dtype=int)
    for a, b in combinations(range(len(made)), 2):
        apart[a, b] = apart[b, a] = len(changes(made[a], made[b]))
    words = [
        len(folds[0].facts.get("command", "")) for folds in trainings
    ]  # of two alike, the one that took fewer words
    centre = min(range(len(made)), key=lambda place: (apart[place].sum(), words[place]))
    seen = [_validation(store, folds) for folds in trainings]
    rows = [
        _row(folds, changes(made[centre], one), here, None if here is seen[centre] else seen[centre])
        for folds, one, here in zip(trainings, made, seen, strict=True)
    ]
    first = trainings[centre][0]
    return Trials(
        set_of(first.identity.protocol),
        first.identity.protocol,
        told(first, records).title,
        first.identity.preset,
        first.identity.precision,
        first.identity.seed,
        list(dict.fromkeys(record.environment["device"] for folds in trainings for record in folds)),
        _notes([record for folds in trainings for record in folds]),
        sorted(rows, key=lambda row: (bool(row.changed), -row.accuracy)),
    )


def _notes(records: list[Record]) -> list[str]:
    """What is said of the trainings; of which prepared set, where it is not said of all."""
    found: dict[str, dict[str, None]] = defaultdict(dict)
    for record in records:
        for note in record.facts.get("notes", ()):
            found[note][record.identity.data[:12]] = None
    everywhere = len({record.identity.data for record in records})
    return [
        f"Note: {note}" if len(of) == everywhere else f"Note on {', '.join(of)}: {note}" for note, of in found.items()
    ]


def _validation(store: Store, folds: list[Record]) -> pd.DataFrame:
    """By fold: ``accuracy`` on the held-out subjects after the last epoch, and their ``images``."""
    rows = {}
    for record in folds:
        images = record.facts.get("validation_images", 0)
        try:
            accuracy = float(store.history(record)["validation_accuracy"].iloc[-1])
        except (KeyError, IndexError, ValueError):
            accuracy = float("nan")
        if not (np.isfinite(accuracy) and images):
            path = store.folder(record.key) / HISTORY
            raise DataError(f"{path} tells no validation accuracy: delete its folder and train again")
        rows[record.identity.fold] = {"accuracy": accuracy, "images": images}
    return pd.DataFrame.from_dict(rows, orient="index").sort_index()


def _row(
    folds: list[Record], changed: dict[str, tuple[str, str]], here: pd.DataFrame, reference: pd.DataFrame | None
) -> Trial:
    apart = None
    if reference is not None and here.index.equals(reference.index):
        apart = here["accuracy"] - reference["accuracy"]
    return Trial(
        folds[0].experiment,
        changed,
        len(here),
        int(here["images"].sum()),
        epochs(folds[0].identity),
        float(np.average(here["accuracy"], weights=here["images"])),
        None if apart is None else float(apart.mean()),
        None if apart is None or len(apart) < 2 else float(apart.std(ddof=1)),
        0 if apart is None else int((apart > 0).sum()),
        0 if apart is None else int((apart < 0).sum()),
    )


def heading(found: Trials) -> list[str]:
    """What must be known to read the table."""
    return [
        f"{found.method}, preset {found.preset}, under {found.protocol}; {found.precision}, seed {found.seed}; "
        f"{'; '.join(found.devices)}.",
        "About a tenth of the subjects in each fold's training set are held out and tested after the last epoch. "
        "No test set was used, so hyperparameters may be chosen by these figures.",
        "What varies is the recipe or the prepared data (a fingerprint): the field that is named, from the reference's "
        "value to its own. Folds, seeds and held-out subjects are the same.",
        "Differences are in points: mean ± standard deviation (ddof 1) over folds, whose training sets overlap.",
        *found.notes,
    ]


def grids(found: Trials) -> list[Grid]:
    """One row for each trial, the reference first."""
    rows = [
        [
            in_words(one.changed) or "reference",
            f"{100 * one.accuracy:.2f}",
            ""
            if one.difference is None
            else f"{100 * one.difference:+.2f}" + ("" if one.std is None else f" ± {100 * one.std:.2f}"),
            "" if one.difference is None else f"{one.better} / {one.worse}",
            str(one.epochs),
            str(one.folds),
            f"{one.images:,}",
            one.experiment,
        ]
        for one in found.rows
    ]
    header = ["Trial", "Validation accuracy", "Difference", "Folds better / worse", "Epochs", "Folds", "n", "From"]
    return [
        (
            f"Hyperparameter trials of {found.method} ({found.preset}) on held-out training subjects of "
            f"{found.dataset}, percent",
            header,
            rows,
        )
    ]
