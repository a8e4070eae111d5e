"""A finished run's predictions, held to what every report relies on."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
import pandas as pd

from ferbench.errors import DataError
from ferbench.labels import EMOTIONS
from ferbench.runs.record import Record
from ferbench.runs.store import Store


def predictions(store: Store, record: Record) -> pd.DataFrame:
    """Return a run's predictions, with every column that the metrics read and names that the record knows.

    Raises DataError where they are not of that kind.
    """
    frame = store.predictions(record.key, record)
    if problem := _problem(frame, record):
        raise DataError(
            f"the predictions of run {record.key} {problem}: delete {store.folder(record.key)} and train again"
        )
    return frame


def pooled(store: Store, trainings: Mapping[str, Sequence[Record]]) -> dict[str, pd.DataFrame]:
    """Return the :func:`predictions` of all folds of each training, with the fold of each row as the column ``fold``.

    trainings : the runs of each, under any name. Raises DataError as :func:`predictions` does.
    """
    found, kinds = dict[str, pd.DataFrame](), defaultdict[tuple[str, ...], list[str]](list)
    for name, records in trainings.items():
        kinds[tuple(records[0].classes)].append(name)
    for names in kinds.values():
        records = [record for name in names for record in trainings[name]]
        whole, sizes = store.pooled(records)
        if 0 in sizes or _problem(whole, records[0]):
            whole = pd.concat([predictions(store, record) for record in records], ignore_index=True)
        folds = np.array([record.identity.fold for record in records], dtype=object)
        whole.columns = whole.columns.astype(
            object
        )  # looked up fifty times a training; Arrow's texts take thrice as long
        whole["fold"] = pd.Series(np.repeat(folds, sizes), dtype=object)
        ends = np.cumsum([0, *sizes])[np.cumsum([0, *(len(trainings[name]) for name in names)])]
        for name, (start, end) in zip(names, pairwise(ends), strict=True):
            found[name] = whole.iloc[start:end].reset_index(drop=True)
    return {name: found[name] for name in trainings}


def _problem(frame: pd.DataFrame, record: Record) -> str:
    """What is wrong with predictions, in words that follow "the predictions"; empty where nothing is."""
    scores = [f"p_{name}" for name in record.classes]
    missing = [name for name in ("id", "subject", "sequence", "truth", "prediction", *scores) if name not in frame]
    named = {*record.classes} if missing else {*record.classes, *frame["truth"], *frame["prediction"]}
    strange = sorted((named - {*EMOTIONS}) | (named - {*record.classes}))
    return (
        f"name the class {strange[0]!r}"
        if strange
        else f"lack the column {missing[0]}"
        if missing
        else "are empty"
        if frame.empty
        else f"have what is no number under {odd[0]}"
        if (odd := [name for name in scores if not _numbers(frame[name])])
        else "have a class twice"
        if len({*record.classes}) < len(record.classes)
        else ""
    )


def together(records: Sequence[Record]) -> None:
    """Raise DataError unless runs of one experiment are folds of one training: of the same classes and folds."""
    first = records[0]
    for one in records[1:]:
        if one.classes != first.classes or one.facts.get("folds") != first.facts.get("folds"):
            raise DataError(
                f"runs {first.key} and {one.key} claim to be folds of one training, and have other classes "
                "or folds: delete their folders and train again"
            )


def _numbers(column: pd.Series) -> bool:
    return column.dtype.kind in "fi" and bool(np.isfinite(column).all())
