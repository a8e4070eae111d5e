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
from ferbench.report.table import Section, Spread, Table, Value, table
from ferbench.report.tested_runs import Lineage, TestedRun, changes, dataset_of, epochs, in_report, in_words, lineage
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
        identity = record.identity
        if (identity.kind, identity.selection, record.error) != ("fold", "best-val", "") or identity.leaks:
            continue
        if in_report(identity, dataset):
            alike = {**_comparable(lineage(identity, records)), "seed": identity.seed}
            groups[canonical_json(alike)][record.experiment].append(record)
    return [_trials(store, list(group.values()), records) for group in groups.values() if len(group) > 1]


def _comparable(line: Lineage) -> Lineage:
    """What has to agree: all but recipes and the pixels of prepared sets. Who is held out follows from the split."""
    return {
        name: _comparable(value) if isinstance(value, dict) else value
        for name, value in line.items()
        if name not in ("recipe", "data")
    }


def _trials(store: Store, trainings: list[list[Record]], records: dict[str, Record]) -> Trials:
    lines = [lineage(folds[0].identity, records) for folds in trainings]
    distance = np.zeros((len(lines), len(lines)), dtype=int)
    for a, b in combinations(range(len(lines)), 2):
        distance[a, b] = distance[b, a] = len(changes(lines[a], lines[b]))
    # Of two at the same distance, the one with the shorter command.
    words = [len(folds[0].facts.get("command", "")) for folds in trainings]
    centre = min(range(len(lines)), key=lambda place: (distance[place].sum(), words[place]))
    validations = [_validation(store, folds) for folds in trainings]
    rows = [
        _row(folds, changes(lines[centre], line), here, None if here is validations[centre] else validations[centre])
        for folds, line, here in zip(trainings, lines, validations, strict=True)
    ]
    first = trainings[centre][0]
    return Trials(
        dataset_of(first.identity.protocol),
        first.identity.protocol,
        TestedRun.of(first, records).method,
        first.identity.preset,
        first.identity.precision,
        first.identity.seed,
        list(dict.fromkeys(record.environment["device"] for folds in trainings for record in folds)),
        _notes([record for folds in trainings for record in folds]),
        sorted(rows, key=lambda row: (bool(row.changed), -row.accuracy)),
    )


def _notes(records: list[Record]) -> list[str]:
    """The notes of the trainings; with the prepared dataset, where a note is not about all of them."""
    notes: dict[str, dict[str, None]] = defaultdict(dict)
    for record in records:
        for note in record.facts.get("notes", ()):
            notes[note][record.identity.data[:12]] = None
    everywhere = len({record.identity.data for record in records})
    return [
        f"Note: {note}" if len(of) == everywhere else f"Note on {', '.join(of)}: {note}" for note, of in notes.items()
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
    gap = None
    if reference is not None and here.index.equals(reference.index):
        gap = here["accuracy"] - reference["accuracy"]
    return Trial(
        folds[0].experiment,
        changed,
        len(here),
        int(here["images"].sum()),
        epochs(folds[0].identity),
        float(np.average(here["accuracy"], weights=here["images"])),
        None if gap is None else float(gap.mean()),
        None if gap is None or len(gap) < 2 else float(gap.std(ddof=1)),
        0 if gap is None else int((gap > 0).sum()),
        0 if gap is None else int((gap < 0).sum()),
    )


def section(trials: Trials) -> Section:
    """Return trials as they are shown: a row for each, the reference first."""
    return Section(f"{trials.dataset}: hyperparameter trials", heading(trials), tables(trials))


def heading(trials: Trials) -> list[str]:
    """What must be known to read the table."""
    return [
        f"{trials.method}, preset {trials.preset}, under {trials.protocol}; {trials.precision}, seed {trials.seed}; "
        f"{'; '.join(trials.devices)}.",
        "About a tenth of the subjects in each fold's training set are held out and tested after the last epoch. "
        "No test set was used, so hyperparameters may be chosen by these figures.",
        "What varies is the recipe or the prepared data (a fingerprint): the field that is named, from the reference's "
        "value to the trial's. Folds, seeds and held-out subjects are the same.",
        "Differences are in points: mean ± standard deviation (ddof 1) over folds, whose training sets overlap.",
        *trials.notes,
    ]


def tables(trials: Trials) -> list[Table]:
    """One row for each trial, the reference first."""

    def difference(trial: Trial) -> Value:
        if trial.difference is None or trial.std is None:
            return trial.difference and 100 * trial.difference
        return Spread(100 * trial.difference, 100 * trial.std)

    return [
        table(
            f"Hyperparameter trials of {trials.method} ({trials.preset}) on held-out training subjects of "
            f"{trials.dataset}, percent",
            trials.rows,
            ("Trial", "text", lambda trial: in_words(trial.changed) or "reference"),
            ("Validation accuracy", "percent", lambda trial: 100 * trial.accuracy),
            ("Difference", "points", difference),
            (
                "Folds better / worse",
                "text",
                lambda trial: None if trial.difference is None else f"{trial.better} / {trial.worse}",
            ),
            ("Epochs", "number", lambda trial: trial.epochs),
            ("Folds", "number", lambda trial: trial.folds),
            ("n", "count", lambda trial: trial.images),
            ("From", "text", lambda trial: trial.experiment),
        )
    ]
