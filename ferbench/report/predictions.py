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
    scores = [f"p_{name}" for name in record.classes]
    missing = [name for name in ("id", "subject", "sequence", "truth", "prediction", *scores) if name not in frame]
    named = record.classes if missing else [*record.classes, *frame["truth"].unique(), *frame["prediction"].unique()]
    strange = sorted(({*named} - {*EMOTIONS}) | ({*named} - {*record.classes}))
    problem = (
        f"name the class {strange[0]!r}" if strange
        else f"lack the column {missing[0]}" if missing
        else "are empty" if frame.empty
        else f"have what is no number under {odd[0]}" if (odd := [name for name in scores if not _numbers(frame[name])])
        else "have a class twice" if len({*record.classes}) < len(record.classes)
        else ""
    )  # fmt: skip
    if problem:
        raise DataError(f"the predictions of run {record.key} {problem}: delete {store.folder(record.key)} and "
                        "train again")  # fmt: skip
    return frame


def together(records: Sequence[Record]) -> None:
    """Raise DataError unless runs of one experiment are folds of one training: of the same classes and folds."""
    first = records[0]
    for one in records[1:]:
        if one.classes != first.classes or one.facts.get("folds") != first.facts.get("folds"):
            raise DataError(f"runs {first.key} and {one.key} claim to be folds of one training, and have other classes "
                            "or folds: delete their folders and train again")  # fmt: skip


def _numbers(column: pd.Series) -> bool:
    return column.dtype.kind in "fi" and bool(np.isfinite(column).all())
