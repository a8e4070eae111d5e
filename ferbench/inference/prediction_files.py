"""A CSV of predictions that another program made, compared with itself and with the dataset."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from ferbench import metrics, tables
from ferbench.errors import DataError
from ferbench.execution.views import TestSet
from ferbench.files import sha256_of
from ferbench.inference.models import ExternalModel, evaluation_on
from ferbench.labels import EMOTIONS, emotion, in_order
from ferbench.protocol.protocol import Protocol
from ferbench.runs.record import Identity
from ferbench.text import printable

TRUTH = ("label", "truth")  # columns that say what is right


class PredictionFile(ExternalModel):
    """A model of which only a file with its predictions of a test set is known.

    The file is a CSV with the column ``id`` and ``prediction`` or ``p_<class>`` columns, or both, which then have to
    agree. A column ``label`` or ``truth`` has to be that of the dataset. Every sample of the test set has to be there
    once. Without probabilities nothing is said of calibration.

    trained_on : what its authors say. Raises DataError naming the file and the row of what is wrong.
    """

    def __init__(self, file: Path, title: str, trained_on: tuple[str, ...], test_set: TestSet):
        super().__init__(printable(title), trained_on)
        self.probabilities, self.classes, decisions_only = read(file, test_set.table, test_set.protocol)
        self.digest = sha256_of(file.read_bytes())[:16]
        if decisions_only:
            self._prediction_facts["uncalibrated"] = True

    def identity(self, test_set: TestSet) -> Identity:
        recipe = {"predictions": self.digest}
        return Identity(method=self.title, preset="", recipe=recipe, seed=0, **evaluation_on(test_set))

    def test(self, test_set: TestSet) -> np.ndarray:
        return self.probabilities.loc[test_set.table["id"]].to_numpy()


def read(file: Path, samples: pd.DataFrame, protocol: Protocol) -> tuple[pd.DataFrame, list[str], bool]:
    """Return probabilities of all samples in their order, the classes, and whether the file has decisions only.

    samples : rows of a prepared dataset that the protocol tests. Raises DataError naming the file and the wrong row.
    """
    frame = tables.frame(file, (), ("id", "prediction", *TRUTH))
    columns = {name: name[2:] for name in frame.columns if name.startswith("p_")}
    if odd := [name for name, word in columns.items() if _emotion_or_none(word) is None]:
        raise DataError(f"{file}: the column {odd[0]!r} should be p_ and an emotion: {', '.join(EMOTIONS)}")
    columns = {name: emotion(word) for name, word in columns.items()}
    if len(set(columns.values())) < len(columns):
        raise DataError(f"{file} has two columns for one emotion: {', '.join(columns)}")
    if "id" not in frame or not (columns or "prediction" in frame):
        raise DataError(
            f"{file} needs the columns id and prediction, or id and p_<class> for each class; it has "
            f"{', '.join(frame.columns)}"
        )
    wanted = samples["id"]

    def refuse(bad: pd.Series, what: str) -> None:
        if bad.any():
            row = int(np.flatnonzero(bad.to_numpy())[0])
            raise DataError(
                f"{file}, line {frame.index[row]}: {frame['id'].iloc[row]!r} {what} ({int(bad.sum())} such rows)"
            )

    refuse(~frame["id"].isin(wanted), f"is not tested by {protocol.identifier}")
    refuse(frame["id"].duplicated(), "is there twice")
    if len(frame) < len(wanted):
        missing = wanted[~wanted.isin(frame["id"])]
        raise DataError(f"{file} lacks {len(missing)} of {len(wanted)} samples, such as {missing.iloc[0]}")
    _check_truth(frame, samples, refuse)
    if "prediction" in frame:
        decided = frame["prediction"].map(_emotion_or_none)
        refuse(decided.isna(), "has a prediction that is no emotion")
    if columns:
        numbers = frame[list(columns)].apply(pd.to_numeric, errors="coerce")
        refuse(numbers.isna().any(axis=1), "has a probability that is no number")
        refuse(
            (numbers < 0).any(axis=1) | ~metrics.sums_to_one(numbers.to_numpy()),
            "has probabilities that do not sum to 1",
        )
        classes = [name for name in EMOTIONS if name in columns.values()]
        numbers.columns = [columns[name] for name in columns]
        table = numbers[classes].div(numbers[classes].sum(axis=1), axis=0)
        if "prediction" in frame:
            named = pd.DataFrame({name: decided == name for name in classes}, index=table.index)
            highest = table.eq(table.max(axis=1), axis=0)
            refuse(
                ~(named & highest).any(axis=1),
                "has a prediction that is not the class with the highest probability: delete the column that is wrong",
            )
            # Of several classes with the highest probability the named one counts: it gets the next larger number.
            tied = named & (highest.sum(axis=1) > 1).to_numpy()[:, None]
            table = table.mask(tied, np.nextafter(table, 2))
    else:
        classes = in_order({*decided, *protocol.classes})
        table = pd.DataFrame({name: (decided == name).astype(float) for name in classes})
    table.index = pd.Index(frame["id"])
    return table.loc[wanted], classes, not columns


def _check_truth(frame: pd.DataFrame, samples: pd.DataFrame, refuse: Callable[[pd.Series, str], None]) -> None:
    """Refuse rows whose label is not that of the dataset. A column without any emotion, as of numbers, says nothing."""
    truth = samples.set_index("id")["label"].loc[frame["id"]].to_numpy()
    for column in set(TRUTH) & set(frame):
        given = frame[column].map(_emotion_or_none)
        if given.notna().any():
            refuse(
                given != truth, f"has a {column} that is not the one of the dataset: its rows may be in another order"
            )


def _emotion_or_none(word: str) -> str | None:
    try:
        return emotion(word)
    except DataError:
        return None
