"""Stored runs as what is held against something else: one method under one protocol, by seed."""

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import pandas as pd

from ferbench.errors import DataError, UsageError
from ferbench.files import runs_home
from ferbench.report.lineage import lineage, variant
from ferbench.report.predictions import predictions
from ferbench.runs.record import Record
from ferbench.runs.store import Store


@dataclass(frozen=True)
class Side:
    """Trainings that differ in their seeds alone, all folds of each put together; or the evaluation of one network.

    frames : the predictions of each seed, in the order of ``seeds``. evaluation : nothing was learned, so that the
    same code gives the same predictions.
    """

    method: str
    title: str
    preset: str
    protocol: str
    split: str  # hash of the fold file
    data: str  # fingerprint of the prepared set
    selection: str
    variant: str
    classes: list[str]
    seeds: list[int]
    frames: list[pd.DataFrame]
    evaluation: bool

    @property
    def name(self) -> str:
        return self.named(self.title, self.preset, self.protocol, self.evaluation)

    @staticmethod
    def named(title: str, preset: str, protocol: str, evaluation: bool) -> str:
        """What a person calls a method under a protocol."""
        return f"{title} ({preset}) {'evaluated on' if evaluation else 'under'} {protocol}"


class Tested(Protocol):
    """What says on which images something was tested; a side, or an accepted one."""

    @property
    def protocol(self) -> str: ...
    @property
    def data(self) -> str: ...
    @property
    def split(self) -> str: ...


def sides(store: Store, prefix: str = "") -> list[Side]:
    """Return what a store holds, of runs or experiments that begin with ``prefix`` only."""
    records = store.known()
    groups: dict[str, dict[str, list[Record]]] = defaultdict(lambda: defaultdict(list))
    for record in records.values():
        tested = record.identity.kind in ("fold", "transfer") and not (record.error or record.identity.is_habit)
        if tested and (record.experiment.startswith(prefix) or record.key.startswith(prefix)):
            groups[variant(lineage(record.identity, records))][record.experiment].append(record)
    return [_side(store, key, trainings) for key, trainings in groups.items()]


def _side(store: Store, key: str, trainings: dict[str, list[Record]]) -> Side:
    by_seed = sorted(trainings.values(), key=lambda records: records[0].identity.seed)
    first = by_seed[0][0]
    identity = first.identity
    frames = [pd.concat([predictions(store, record) for record in records], ignore_index=True) for records in by_seed]
    return Side(
        identity.method, first.facts["display"], identity.preset, identity.protocol, identity.split, identity.data,
        identity.selection, key, first.classes, [records[0].identity.seed for records in by_seed], frames,
        identity.kind == "transfer",
    )  # fmt: skip


def chosen(text: str, runs: Path | None) -> Side:
    """Return the side that a user names: a folder of runs, or how a run or an experiment of the store begins.

    Raises UsageError where it is none or more than one.
    """
    folder = Path(text)
    found = sides(Store(folder)) if folder.is_dir() else sides(Store(runs_home(runs)), text)
    if not found:
        raise UsageError(f"{text} is neither a folder of runs nor the beginning of a tested run: see `ferbench runs`")
    if len(found) > 1:
        names = ", ".join(f"{side.name} ({side.variant})" for side in found)
        raise UsageError(f"{text} holds {len(found)} methods: {names}; name one run or experiment of them")
    return found[0]


def comparable(first: Tested, second: Tested) -> None:
    """Raise DataError unless both were tested under one protocol, on one set, by one fold file."""
    for what, one, other in (
        ("protocols", first.protocol, second.protocol),
        ("data fingerprints", first.data[:12], second.data[:12]),
        ("fold files", first.split[:12], second.split[:12]),
    ):
        if one != other:
            raise DataError(f"different {what}, so nothing can be compared: {one} and {other}")
