"""A finished run's predictions, held to what every report relies on."""

import pandas as pd

from ferbench.errors import DataError
from ferbench.runs.record import Record
from ferbench.runs.store import Store


def predictions(store: Store, record: Record) -> pd.DataFrame:
    """Return a run's predictions, with every column that the metrics read and names that the record knows.

    Raises DataError where they are not of that kind.
    """
    frame = store.predictions(record.key, record)
    columns = ["id", "subject", "sequence", "truth", "prediction", *(f"p_{name}" for name in record.classes)]
    missing = [name for name in columns if name not in frame]
    strange = [] if missing else sorted({*frame["truth"], *frame["prediction"]} - {*record.classes})
    problem = (
        f"lack the column {missing[0]}" if missing else "are empty" if frame.empty
        else f"name the class {strange[0]!r}" if strange else ""
    )  # fmt: skip
    if problem:
        raise DataError(f"the predictions of run {record.key} {problem}: delete {store.folder(record.key)} and "
                        "train again")  # fmt: skip
    return frame
