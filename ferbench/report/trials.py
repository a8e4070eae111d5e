"""Hyperparameter trials on held-out training subjects: what ``best-val`` trainings saw there.

The test set takes no part in these figures. The fields of these classes are the keys of the JSON document.
"""

from collections import defaultdict
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd

from ferbench.errors import DataError
from ferbench.files import canonical_json, runs_home
from ferbench.report.formats import check_format, text
from ferbench.report.table import Section, Spread, Value, table
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
    identity, everything = first.identity, [record for folds in trainings for record in folds]
    return Trials(
        dataset=dataset_of(identity.protocol),
        method=TestedRun.of(first, records).method,
        **{name: getattr(identity, name) for name in ("protocol", "preset", "precision", "seed")},
        devices=list(dict.fromkeys(record.environment["device"] for record in everything)),
        notes=_notes(everything),
        rows=sorted(rows, key=lambda row: (bool(row.changed), -row.accuracy)),
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
            raise DataError(f"{path} has no validation accuracy: delete its folder and train again")
        rows[record.identity.fold] = {"accuracy": accuracy, "images": images}
    return pd.DataFrame.from_dict(rows, orient="index").sort_index()


def _row(
    folds: list[Record], changed: dict[str, tuple[str, str]], here: pd.DataFrame, reference: pd.DataFrame | None
) -> Trial:
    gap = pd.Series(dtype=float)
    if reference is not None and here.index.equals(reference.index):
        gap = here["accuracy"] - reference["accuracy"]
    return Trial(
        experiment=folds[0].experiment,
        changed=changed,
        folds=len(here),
        images=int(here["images"].sum()),
        epochs=epochs(folds[0].identity),
        accuracy=float(np.average(here["accuracy"], weights=here["images"])),
        difference=float(gap.mean()) if len(gap) else None,
        std=float(gap.std(ddof=1)) if len(gap) > 1 else None,
        better=int((gap > 0).sum()),
        worse=int((gap < 0).sum()),
    )


def section(trials: Trials) -> Section:
    """Return trials as they are shown: a row for each, the reference first."""

    def difference(trial: Trial) -> Value:
        if trial.difference is None or trial.std is None:
            return trial.difference and 100 * trial.difference
        return Spread(100 * trial.difference, 100 * trial.std)

    def better(trial: Trial) -> Value:
        return None if trial.difference is None else f"{trial.better} / {trial.worse}"

    lines = [
        f"{trials.method}, preset {trials.preset}, under {trials.protocol}; {trials.precision}, seed {trials.seed}; "
        f"{'; '.join(trials.devices)}.",
        "About a tenth of the subjects in each fold's training set are held out and tested after the last epoch. "
        "No test set was used, so hyperparameters may be chosen by these figures.",
        "Each trial changes the named field of the recipe, or the prepared data (a fingerprint), from the reference's "
        "value to its own. Folds, seeds and held-out subjects are the same.",
        "Differences are in points: mean ± standard deviation (ddof 1) over folds, whose training sets overlap.",
        *trials.notes,
    ]
    rows = table(
        f"Hyperparameter trials of {trials.method} ({trials.preset}) on held-out training subjects of "
        f"{trials.dataset}, percent",
        trials.rows,
        ("Trial", "text", lambda trial: in_words(trial.changed) or "reference"),
        ("Validation accuracy", "percent", lambda trial: 100 * trial.accuracy),
        ("Difference", "points", difference),
        ("Folds better / worse", "text", better),
        ("Epochs", "number", lambda trial: trial.epochs),
        ("Folds", "number", lambda trial: trial.folds),
        ("n", "count", lambda trial: trial.images),
        ("Experiments", "text", lambda trial: trial.experiment),
    )
    return Section(f"{trials.dataset}: hyperparameter trials", lines, [rows])


def write_trials(dataset: str | None, format: str, out: Path | None, runs: Path | None) -> None:
    """Print what hyperparameter trials came to on held-out training subjects, or write it to ``out``.

    Raises DataError where there are none to compare, with the command that makes some.
    """
    check_format(format, out)
    store = Store(runs_home(runs))
    groups = build(store, dataset)
    if not groups:
        raise DataError(
            f"no hyperparameter trials are stored in {store.home}: `ferbench ablate"
            f"{f' --dataset {dataset}' if dataset else ''} --trial finetune.lr=0.02`"
        )
    text.write([section(group) for group in groups], groups, format, out)
