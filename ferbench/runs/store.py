"""The store of runs: one folder for each, its state read off the files in it.

runs/<key>/identity.json      begun: the identity, written first
runs/<key>/checkpoint/        where an interrupted training goes on
runs/<key>/epochs/            weights after each epoch, until a best-test run has been made of them
runs/<key>/history.csv        one row an epoch
runs/<key>/weights.safetensors
runs/<key>/learned_from.safetensors   which pictures and people (see runs.provenance)
runs/<key>/predictions.csv    id,subject,sequence,truth,prediction,p_<class>…
runs/<key>/traceback.txt      of a failed run
runs/<key>/record.json        written last: done, or failed where it carries an error

The record carries the SHA-256 of the other files and of itself. Reading one of them returns what was stored or
raises DataError. Older records have no checksums and are not verified.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ferbench.errors import DataError, UsageError, refusal
from ferbench.files import read_bytes, seal, sha256_of, sha256_of_file, shipped, write_json, write_text
from ferbench.runs.record import Identity, Record
from ferbench.schema import read_sealed
from ferbench.tables import read_csv
from ferbench.text import SUSPECT, printable

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

State = Literal["absent", "partial", "failed", "done", "damaged"]
_TEXT = ("id", "subject", "sequence", "truth", "prediction")  # columns of predictions that are no numbers
WEIGHTS, PREDICTIONS, HISTORY = "weights.safetensors", "predictions.csv", "history.csv"
LEARNED = "learned_from.safetensors"  # in a folder ``learned_from`` of the store where several runs share it
EPOCHS = "epochs"  # the folder of a run that keeps the weights of every epoch for a while
_AGAIN = "delete the run's folder and train again"
_ANEW = "delete it, and the command that trained this goes on"


@dataclass(frozen=True)
class Store:
    """The folder that holds all runs."""

    home: Path

    def folder(self, key: str) -> Path:
        return self.home / key

    def holder(self, key: str) -> Store:
        """Return the store that has this finished run: this one, or that of the package."""
        given = shipped_runs()
        here = (self.folder(key) / "record.json").is_file() or not (given.folder(key) / "record.json").is_file()
        return self if here else given

    def state(self, key: str) -> State:
        """Say what the files of a run mean; nothing else knows."""
        if record := self.ended(key):
            return "failed" if record.error else "done"
        return "partial" if (self.folder(key) / "identity.json").is_file() else "absent"

    def ended(self, key: str) -> Record | None:
        """Read the record of a run that is done or has failed; None for any other."""
        return self.record(key) if (self.folder(key) / "record.json").is_file() else None

    def checked(self, key: str) -> State:
        """:meth:`state`, or "damaged" where a run that has ended is not what was stored. Reads all its files."""
        return "damaged" if self.damage(key) else self.state(key)

    def damage(self, key: str) -> str:
        """Say what is wrong with a run that has ended, naming the file; empty where nothing is."""
        if not (self.folder(key) / "record.json").is_file():
            return ""
        try:
            record = self.record(key)
            for name in record.files:
                self.file(record, name)
        except DataError as error:
            return str(error)
        return ""

    def begin(self, identity: Identity) -> Path:
        """Make (or go on in) the run's folder and return it. An old failure is forgotten."""
        folder = self.folder(identity.key)
        write_json(folder / "identity.json", identity.model_dump())
        (folder / "record.json").unlink(missing_ok=True)
        return folder

    def finish(self, record: Record) -> None:
        """Store the record: from here on the run is done, or failed."""
        folder = self.folder(record.key)
        there = (
            []
            if record.error
            else [name for name in (WEIGHTS, PREDICTIONS, HISTORY, LEARNED) if (folder / name).is_file()]
        )
        stored = record.model_copy(update={"files": {name: sha256_of_file(folder / name) for name in there}})
        write_json(folder / "record.json", seal(stored.model_dump(exclude={"digest"})))

    def add_tested(self, identity: Identity, predictions: pd.DataFrame, **fields: Any) -> Record:
        """Store predictions as a finished run and return its record, whose result is their accuracy.

        fields : the other fields of :class:`Record`.
        """
        from ferbench import metrics

        self.begin(identity)
        self.write_predictions(identity.key, predictions)
        result = {"accuracy": metrics.share_correct(predictions), "images": len(predictions)}
        record = Record.of(identity, result=result, **fields)
        self.finish(record)
        return record

    def record(self, key: str) -> Record:
        """Read a run's record; DataError when it is missing or not a record."""
        path = self._inside(key, "record.json")
        try:
            record = read_sealed(Record, path, _AGAIN)
        except FileNotFoundError:
            raise DataError(f"there is no run {key} in {self.home}: see `ferbench runs`") from None
        if not key == record.key == record.identity.key or record.experiment != record.identity.experiment:
            raise DataError(f"{path} is damaged (it is not of the run {key}): {_AGAIN}")
        return record

    def file(self, record: Record, name: str) -> Path:
        """Return the path of a file of a finished run; DataError when it is missing or is not what was stored."""
        path = self._inside(record.key, name)
        if name == LEARNED and not path.exists() and name in record.files:
            path = self.home / "learned_from" / f"{record.files[name][:16]}.safetensors"
        try:
            if path.exists() and not path.is_file():
                raise DataError(f"{path} is no file: {_AGAIN}")
            if record.files.get(name) not in (None, sha256_of_file(path)):
                raise DataError(_not_stored(path))
        except OSError as error:
            raise DataError(refusal(error, path) or f"{path} cannot be read ({error.strerror}): {_AGAIN}") from None
        return path

    def _inside(self, key: str, name: str) -> Path:
        """The path of a run's file. Raises DataError where a link in its place leads out of the store."""
        path = self.folder(key) / name
        if path.is_symlink() and not path.resolve().is_relative_to(self.home.resolve()):
            raise DataError(f"{path} is a link out of {self.home}: put the file itself there")
        return path

    def records(self) -> list[Record]:
        """Read all finished runs (done and failed), sorted by key."""
        return [self.record(path.parent.name) for path in sorted(self.home.glob("*/record.json"))]

    def known(self) -> dict[str, Record]:
        """Read all finished runs by key, those of the package among them."""
        return {record.key: record for record in [*shipped_runs().records(), *self.records()]}

    def unfinished(self) -> list[Identity]:
        """Read the identities of runs that were begun and have no record yet."""
        identities = []
        for path in sorted(self.home.glob("*/identity.json")):
            key = path.parent.name
            if (path.parent / "record.json").exists():
                continue
            identity = read_sealed(Identity, self._inside(key, path.name), _ANEW)
            if identity.key != key:
                raise DataError(f"{path} is damaged (it is not of the run {key}): {_ANEW}")
            identities.append(identity)
        return identities

    def find(self, prefix: str) -> Record:
        """Return the one finished run whose key begins with ``prefix``, one that comes with the package where none is
        here (:meth:`holder` says which); UsageError otherwise."""
        for store in (self, shipped_runs()):
            keys = [name for path in store.home.glob("*/record.json") if (name := path.parent.name).startswith(prefix)]
            if len(keys) == 1:
                return store.record(keys[0])
            if keys:
                raise UsageError(f"{len(keys)} runs begin with {prefix!r} in {store.home}: see `ferbench runs`")
        raise UsageError(f"no finished run begins with {prefix!r} in {self.home}: see `ferbench runs`")

    def write_predictions(self, key: str, frame: pd.DataFrame) -> None:
        """Store predictions; probabilities keep nine significant digits (all of a float32)."""
        write_text(
            self.folder(key) / "predictions.csv", frame.to_csv(index=False, float_format="%.9g", lineterminator="\n")
        )

    def predictions(self, key: str, record: Record | None = None) -> pd.DataFrame:
        """Read a run's predictions: id, subject, sequence, truth, prediction as text, p_<class> as floats.

        record : the run's, where it has been read already.
        """
        record = record or self.record(key)
        return self._predictions(record, self._content(record, PREDICTIONS))

    def pooled(self, records: Sequence[Record]) -> tuple[pd.DataFrame, list[int]]:
        """Read the predictions of several runs (see :meth:`predictions`) as one table, and the rows of each.

        Small tables cost most by their number, so those with one header are read as one.
        """
        import pandas as pd

        contents = [self._content(record, PREDICTIONS) for record in records]
        heads, bodies = zip(
            *((head, body) for head, _, body in (content.partition(b"\n") for content in contents)), strict=True
        )
        if len(set(heads)) == 1 and all(body.endswith(b"\n") for body in bodies):
            with suppress(DataError):  # the file is named below
                whole = self._predictions(records[0], b"\n".join([heads[0], b"".join(bodies)]))
                sizes = [body.count(b"\n") for body in bodies]
                if len(whole) == sum(sizes):
                    return whole, sizes
        frames = [self._predictions(record, content) for record, content in zip(records, contents, strict=True)]
        return pd.concat(frames, ignore_index=True), [len(frame) for frame in frames]

    def _predictions(self, record: Record, content: bytes) -> pd.DataFrame:
        frame = self._read(record, PREDICTIONS, content, dtype=dict.fromkeys(_TEXT, object))
        for name in set(_TEXT) & set(frame):
            if SUSPECT.search("".join(frame[name])):
                frame[name] = frame[name].map(printable)
        return frame

    def history(self, record: Record) -> pd.DataFrame:
        """Read a run's history, one row an epoch; empty where its method does not learn by epochs."""
        import pandas as pd

        if HISTORY not in record.files and not (self.folder(record.key) / HISTORY).is_file():
            return pd.DataFrame()
        return self._read(record, HISTORY, self._content(record, HISTORY))

    def _content(self, record: Record, name: str) -> bytes:
        """A file of a run, as it was stored."""
        path = self._inside(record.key, name)
        try:
            content = read_bytes(path)
        except OSError as error:
            raise DataError(refusal(error, path) or f"{path} cannot be read ({error.strerror}): {_AGAIN}") from None
        if record.files.get(name) not in (None, sha256_of(content)):
            raise DataError(_not_stored(path))
        return content

    def _read(self, record: Record, name: str, content: bytes, **options: Any) -> pd.DataFrame:
        import pandas as pd

        return read_csv(self.folder(record.key) / name, content, **options) if content.strip() else pd.DataFrame()


def _not_stored(path: Path) -> str:
    return f"{path} is damaged (it is not what was stored): {_AGAIN}"


def predictions_frame(samples: pd.DataFrame, classes: list[str], probabilities: np.ndarray) -> pd.DataFrame:
    """Return what :meth:`Store.write_predictions` takes: rows of a prepared dataset with their probabilities [N,K]."""
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
    return [
        record
        for record in shipped_runs().records()
        if all(getattr(record.identity, name) == value for name, value in identity.items())
    ]


def shipped_by_training(**identity: Any) -> dict[str, Record]:
    """Return :func:`shipped_with` by the names of the protocols that they were trained under."""
    return {record.identity.protocol.partition("@")[0]: record for record in shipped_with(**identity)}


def shipped_run(**identity: Any) -> Record | None:
    """Return the first of :func:`shipped_with`, None where there is none."""
    return next(iter(shipped_with(**identity)), None)
