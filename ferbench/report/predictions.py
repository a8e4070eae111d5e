"""A finished run's predictions, held to what every report relies on."""

from collections.abc import Sequence

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
        raise DataError(f"the predictions of run {record.key} {problem}: delete {store.folder(record.key)} and "
                        "train again")  # fmt: skip
    return frame


def predictions_of(store: Store, records: Sequence[Record]) -> list[pd.DataFrame]:
    """:func:`predictions` of the folds of one training."""
    frames = store.predictions_of(records)
    whole = pd.concat(frames, ignore_index=True)
    if any(frame.empty for frame in frames) or _problem(whole, records[0]):
        return [predictions(store, record) for record in records]  # which tells whose
    return frames


def _problem(frame: pd.DataFrame, record: Record) -> str:
    """What is wrong with predictions, in words that follow "the predictions"; empty where nothing is."""
    scores = [f"p_{name}" for name in record.classes]
    missing = [name for name in ("id", "subject", "sequence", "truth", "prediction", *scores) if name not in frame]
    named = {*record.classes} if missing else {*record.classes, *frame["truth"], *frame["prediction"]}
    strange = sorted((named - {*EMOTIONS}) | (named - {*record.classes}))
    return (
        f"name the class {strange[0]!r}" if strange
        else f"lack the column {missing[0]}" if missing
        else "are empty" if frame.empty
        else f"have what is no number under {odd[0]}" if (odd := [name for name in scores if not _numbers(frame[name])])
        else "have a class twice" if len({*record.classes}) < len(record.classes)
        else ""
    )  # fmt: skip


def together(records: Sequence[Record]) -> None:
    """Raise DataError unless runs of one experiment are folds of one training: of the same classes and folds."""
    first = records[0]
    for one in records[1:]:
        if one.classes != first.classes or one.facts.get("folds") != first.facts.get("folds"):
            raise DataError(f"runs {first.key} and {one.key} claim to be folds of one training, and have other classes "
                            "or folds: delete their folders and train again")  # fmt: skip


def _numbers(column: pd.Series) -> bool:
    return column.dtype.kind in "fi" and bool(np.isfinite(column).all())
