"""Stored runs as what is compared: one method under one protocol, by seed."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

import pandas as pd

from ferbench import metrics
from ferbench.errors import DataError, UsageError
from ferbench.files import runs_home
from ferbench.report.lineage import Lineage, lineage, variant
from ferbench.report.predictions import pooled, together
from ferbench.report.told import Level, told
from ferbench.runs.facts import BY_NAMES, HeldOut
from ferbench.runs.record import Record
from ferbench.runs.store import Store


@dataclass(frozen=True)
class Result:
    """Trainings that differ in their seeds alone, all folds of each put together; or the evaluation of one network.

    frames : the predictions of each seed, in the order of ``seeds``, with the ``fold`` that tested each.
    evaluation : nothing was learned, so that the same code gives the same predictions. level, trained_on, held_out,
    uncalibrated, changed : see :class:`ferbench.report.told.Told`. made : the recipes and data of all stages.
    """

    method: str
    title: str
    preset: str
    protocol: str
    split: str  # hash of the fold file
    data: str  # fingerprint of the prepared dataset
    selection: str
    variant: str
    classes: list[str]
    seeds: list[int]
    frames: list[pd.DataFrame]
    evaluation: bool
    level: Level = "image"
    trained_on: list[str] = field(default_factory=list)
    held_out: HeldOut = BY_NAMES
    uncalibrated: bool = False
    changed: list[str] = field(default_factory=list)
    made: Lineage = field(default_factory=dict)

    @property
    def name(self) -> str:
        changed = f" with {', '.join(self.changed)}" if self.changed else ""
        return self.named(self.title, self.preset, self.protocol, self.evaluation) + changed

    @staticmethod
    def named(title: str, preset: str, protocol: str, evaluation: bool) -> str:
        """What a person calls a method under a protocol."""
        scale = f" ({preset})" if preset else ""
        return f"{title}{scale} {'evaluated on' if evaluation else 'under'} {protocol}"


class Tested(Protocol):
    """What says on which images something was tested; a result, or an accepted one."""

    @property
    def protocol(self) -> str: ...
    @property
    def split(self) -> str: ...


def results(store: Store, prefix: str = "") -> list[Result]:
    """Return what a store holds, of runs or experiments that begin with ``prefix`` only."""
    records = store.known()
    groups: dict[str, dict[str, list[Record]]] = defaultdict(lambda: defaultdict(list))
    for record in records.values():
        tested = record.identity.kind in ("fold", "transfer") and not (record.error or record.identity.leaks)
        if tested and (record.experiment.startswith(prefix) or record.key.startswith(prefix)):
            groups[variant(lineage(record.identity, records))][record.experiment].append(record)
    return [_result(store, key, trainings, records) for key, trainings in groups.items()]


def _result(store: Store, key: str, trainings: dict[str, list[Record]], known: Mapping[str, Record]) -> Result:
    by_seed = sorted(trainings.values(), key=lambda records: records[0].identity.seed)
    first = by_seed[0][0]
    together([one for records in by_seed for one in records])
    identity, about, made = first.identity, told(first, known), lineage(first.identity, known)
    frames = list(pooled(store, {records[0].experiment: records for records in by_seed}).values())
    return Result(
        identity.method,
        about.title,
        identity.preset,
        identity.protocol,
        identity.split,
        identity.data,
        identity.selection,
        key,
        first.classes,
        [records[0].identity.seed for records in by_seed],
        frames,
        identity.kind == "transfer",
        about.level,
        about.trained_on,
        HeldOut.of_all([told(record, known).held_out for records in by_seed for record in records]),
        about.uncalibrated,
        about.changed,
        made,
    )


def chosen(text: str, runs: Path | None) -> Result:
    """Return the result that a user names: a folder of runs, or how a run or an experiment of the store begins.

    Raises UsageError where it is none or more than one.
    """
    folder = Path(text)
    found = results(Store(folder)) if folder.is_dir() else results(Store(runs_home(runs)), text)
    if not found:
        raise UsageError(f"{text} is neither a folder of runs nor the beginning of a tested run: see `ferbench runs`")
    if len(found) > 1:
        names = ", ".join(f"{result.name} ({result.variant})" for result in found)
        raise UsageError(f"{text} has {len(found)} methods: {names}; name one run or experiment of them")
    return found[0]


def comparable(first: Tested, second: Tested) -> None:
    """Raise DataError unless both were tested under one protocol, by one fold file, which tells the tested images."""
    agree("protocols", first.protocol, second.protocol)
    agree("fold files", first.split[:12], second.split[:12])


def agree(what: str, one: str, other: str) -> None:
    """Raise DataError where two results differ in what both must have."""
    if one != other:
        raise DataError(f"different {what}, so nothing can be compared: {one} and {other}")


def at_one_level(first: Result, second: Result) -> tuple[Result, Result]:
    """Return both results as they may be compared: as they are where both predict images or both predict sequences,
    else both by sequences, each sequence of images predicted by the mean of its images' probabilities.

    Raises DataError, in one line, where they cannot be compared: not tested on the same, in the same folds, or one was
    tested on people that it learned from.
    """
    for one in (first, second):
        if one.held_out.status == "no" and not one.held_out.comparable:
            raise DataError(f"{one.name} was tested on people that it learned from, so nothing can be compared")
    if first.level == second.level:
        comparable(first, second)
        return first, second
    first, second = _of_sequences(first), _of_sequences(second)
    folds = [one.frames[0].set_index("id")[["truth", "fold"]].sort_index() for one in (first, second)]
    if strange := sorted({*folds[0].index} ^ {*folds[1].index}):
        raise DataError(
            f"{first.protocol} and {second.protocol} test different sequences ({len(strange)} are in one "
            f"alone, such as {strange[0]}), so nothing can be compared"
        )
    for what in ("truth", "fold"):
        if (other := folds[0][what] != folds[1][what]).any():
            name = other.idxmax()
            raise DataError(
                f"{first.protocol} and {second.protocol} differ in the {what} of {int(other.sum())} "
                f"sequences, such as {name} ({folds[0][what][name]} and {folds[1][what][name]}), so "
                "nothing can be compared"
            )
    return first, second


def _of_sequences(result: Result) -> Result:
    """A result by sequences; the name of a sequence is its ``id``."""
    if result.level == "image":
        frames = [metrics.by_sequence(frame, result.classes) for frame in result.frames]
    else:
        frames = [
            frame.assign(id=frame["sequence"].where(frame["sequence"] != "", frame["id"])) for frame in result.frames
        ]
    if any(frame.empty for frame in frames):
        raise DataError(
            f"{result.name} was tested on images of no known sequence, so nothing can be compared with sequences"
        )
    return replace(result, frames=frames, level="sequence")
