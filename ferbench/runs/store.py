"""The store of runs: one folder for each, its state read off the files in it.

runs/<key>/identity.json      begun: the identity, written first
runs/<key>/checkpoint/        where an interrupted training goes on
runs/<key>/epochs/            weights after each epoch, until a best-test run has been made of them
runs/<key>/history.csv        one row an epoch
runs/<key>/weights.safetensors
runs/<key>/predictions.csv    id,subject,sequence,truth,prediction,p_<class>…
runs/<key>/traceback.txt      of a failed run
runs/<key>/record.json        written last: done, or failed where it carries an error
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from ferbench.errors import DataError, UsageError
from ferbench.files import shipped, write_json, write_text
from ferbench.reading import read_csv
from ferbench.runs.record import Identity, Record
from ferbench.schema import read_json, validated
from ferbench.text import SUSPECT, printable

State = Literal["absent", "partial", "failed", "done"]
EPOCHS = "epochs"  # the folder of a run that keeps the weights of every epoch for a while


@dataclass(frozen=True)
class Store:
    """The folder that holds all runs."""

    home: Path

    def folder(self, key: str) -> Path:
        return self.home / key

    def file(self, key: str, name: str) -> Path:
        """Return the path of a run's file. Raises DataError where a link in its place leads out of the store."""
        path = self.folder(key) / name
        if path.is_symlink() and not path.resolve().is_relative_to(self.home.resolve()):
            raise DataError(f"{path} is a link out of {self.home}: put the file itself there")
        return path

    def holder(self, key: str) -> "Store":
        """Return the store that has this finished run: this one, or that of the package."""
        given = shipped_runs()
        here = (self.folder(key) / "record.json").is_file() or not (given.folder(key) / "record.json").is_file()
        return self if here else given

    def state(self, key: str) -> State:
        """Say what the files of a run mean; nothing else knows."""
        if (self.folder(key) / "record.json").is_file():
            return "failed" if self.record(key).error else "done"
        return "partial" if (self.folder(key) / "identity.json").is_file() else "absent"

    def begin(self, identity: Identity) -> Path:
        """Make (or go on in) the run's folder and return it. An old failure is forgotten."""
        folder = self.folder(identity.key)
        write_json(folder / "identity.json", identity.model_dump())
        (folder / "record.json").unlink(missing_ok=True)
        return folder

    def finish(self, record: Record) -> None:
        """Store the record: from here on the run is done, or failed."""
        write_json(self.folder(record.key) / "record.json", record.model_dump())

    def record(self, key: str) -> Record:
        """Read a run's record; DataError when it is missing or not a record."""
        path = self.file(key, "record.json")
        missing = f"there is no run {key} in {self.home}: see `ferbench runs`"
        record = validated(Record, read_json(path, missing, "delete the folder and train again"), path)
        if not key == record.key == record.identity.key or record.experiment != record.identity.experiment:
            raise DataError(f"{path} is of another run than its folder is named after: a run lies in the folder of its "
                            f"key, {record.identity.key}")  # fmt: skip
        return record

    def records(self) -> list[Record]:
        """Read all finished runs (done and failed), sorted by key."""
        return [self.record(path.parent.name) for path in sorted(self.home.glob("*/record.json"))]

    def known(self) -> dict[str, Record]:
        """Read all finished runs by key, those of the package among them."""
        return {record.key: record for record in [*shipped_runs().records(), *self.records()]}

    def unfinished(self) -> list[Identity]:
        """Read the identities of runs that were begun and have no record yet."""
        return [
            validated(Identity, read_json(self.file(path.parent.name, path.name)), path)
            for path in sorted(self.home.glob("*/identity.json"))
            if not (path.parent / "record.json").exists()
        ]

    def find(self, prefix: str) -> Record:
        """Return the one finished run whose key begins with ``prefix``; UsageError otherwise."""
        keys = [name for path in self.home.glob("*/record.json") if (name := path.parent.name).startswith(prefix)]
        if len(keys) != 1:
            problem = f"{len(keys)} runs begin with" if keys else "no finished run begins with"
            raise UsageError(f"{problem} {prefix!r} in {self.home}: see `ferbench runs`")
        return self.record(keys[0])

    def write_predictions(self, key: str, frame: pd.DataFrame) -> None:
        """Store predictions; probabilities keep nine significant digits (all of a float32)."""
        write_text(
            self.folder(key) / "predictions.csv",
            frame.to_csv(index=False, float_format="%.9g", lineterminator="\n"),
        )

    def predictions(self, key: str) -> pd.DataFrame:
        """Read a run's predictions: id, subject, sequence, truth, prediction as text, p_<class> as floats."""
        path = self.file(key, "predictions.csv")
        text = ["id", "subject", "sequence", "truth", "prediction"]
        try:
            frame = read_csv(path, dtype=dict.fromkeys(text, str))
        except (FileNotFoundError, DataError) as error:
            raise DataError(f"{path} cannot be read ({error}): delete the run's folder and train again") from None
        for name in set(text) & set(frame):
            if SUSPECT.search("".join(frame[name])):
                frame[name] = frame[name].map(printable)
        return frame


def predictions_frame(samples: pd.DataFrame, classes: list[str], probabilities: np.ndarray) -> pd.DataFrame:
    """Return what :meth:`Store.write_predictions` takes, of rows of a prepared set and their probabilities [N,K]."""
    frame = samples[["id", "subject", "sequence"]].reset_index(drop=True)
    frame["truth"] = samples["label"].to_numpy()
    frame["prediction"] = [classes[index] for index in probabilities.argmax(axis=1)]
    for index, name in enumerate(classes):
        frame[f"p_{name}"] = probabilities[:, index]
    return frame


def shipped_runs() -> Store:
    """The attention and pre-training runs that come with the package; there to be read only."""
    return Store(shipped("baselines") / "weights")


def shipped_with(**identity: Any) -> list[Record]:
    """Return the runs of the package whose identity has these values, e.g. ``kind="attention"``."""
    return [record for record in shipped_runs().records()
            if all(getattr(record.identity, name) == value for name, value in identity.items())]  # fmt: skip


def shipped_run(**identity: Any) -> Record | None:
    """Return the first of :func:`shipped_with`, None where there is none."""
    return next(iter(shipped_with(**identity)), None)
