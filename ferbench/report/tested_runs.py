"""The facts of a tested run, which runs differ in their seed only, and the predictions of its folds."""

import shlex
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import pandas as pd

from ferbench.errors import DataError
from ferbench.files import canonical_json, sha256_of
from ferbench.labels import EMOTIONS
from ferbench.runs import provenance
from ferbench.runs.facts import HeldOut
from ferbench.runs.record import FORERUNNERS, TABLES, Identity, Record
from ferbench.runs.store import Store

Level = Literal["image", "sequence"]
Lineage = dict[str, Any]

LEVELS: tuple[Level, Level] = ("image", "sequence")
SEQUENCES = "-sequences"  # ends the name of a protocol that tests whole sequences of a dataset
SYNTHETIC = "synth"  # begins the name of every dataset that ferbench draws
FEW = "3 frames"  # begins the input of a sequence method where the dataset has no more frames
_CHANGES = {
    "--set": "{}",
    "--epochs": "epochs={}",
    "--recipe": "recipe={}",
    "--amg": "attention maps of run {}",
    "--pretrained": "pre-trained weights of run {}",
}


@dataclass(frozen=True)
class TestedRun:
    """The facts of one tested run, whatever its method; these fields are keys of ``ferbench report --format json``."""

    __test__ = False  # no test of pytest

    method: str  # as printed in tables
    published: str  # the paper's row that it reproduces, or empty
    level: Level  # what one prediction is about
    sees: str  # the part of it that the method reads: image, 3 frames, whole, whole + landmarks, whole + neutral
    trained_on: list[str]  # protocols of all training data, first to last
    held_out: HeldOut  # whether nothing that is tested was in the training data
    uncalibrated: bool  # the scores are no probabilities, so nothing is said about their calibration
    differs: list[str]  # differences from the original method, a sentence each
    changed: list[
        str
    ]  # hyperparameters that are not the preset's, such as finetune.flip=true, or what scores are adjusted to

    @staticmethod
    def of(record: Record, records: Mapping[str, Record]) -> "TestedRun":
        """Return a record's facts. records : by key, those that it may start from.

        Runs without a fact are trainings of images, tested on held-out people: older records state no more.
        """
        facts, identity = record.facts, record.identity
        level: Level = facts.get("level", "image")
        sees = facts.get("sees") or level
        changed = facts.get("changed")
        return TestedRun(
            method=with_few_frames(facts.get("display") or identity.method, sees),
            published=facts.get("published", ""),
            level=level,
            sees=sees,
            trained_on=_trained_on(facts, identity, records),
            held_out=_held_out(record, records),
            uncalibrated=bool(facts.get("uncalibrated")),
            differs=list(facts.get("differs") or facts.get("method", {}).get("differs", [])),
            changed=_changed(str(facts.get("command", ""))) if changed is None else list(changed),
        )


def _held_out(record: Record, records: Mapping[str, Record]) -> HeldOut:
    """Whether a run's test set was held out. Older records have at most yes, no or "unknown": a training is then held
    out by its subject-disjoint split, and for a finished model the names of datasets are compared."""
    facts, tested = record.facts, record.identity.protocol
    recorded = facts.get("held_out", True)
    if isinstance(recorded, dict):
        return HeldOut.model_validate(recorded)
    authors = facts.get("trained_as") == "elsewhere"
    if recorded is True and record.identity.kind == "transfer":
        names = _trained_on(facts, record.identity, records)
        return provenance.by_names(names, (tested, record.dataset), provenance.dataset_family(tested), authors)
    if recorded == "unknown":
        return HeldOut(status="unknown")
    return HeldOut(status="yes" if recorded else "no", by="authors" if authors else "names")


def _changed(command: str) -> list[str]:
    """What a command line changed of its preset, for records that do not store it."""
    try:
        words = shlex.split(command)
    except ValueError:
        return []
    changes = [_CHANGES[option].format(value) for option, value in pairwise(words) if option in _CHANGES]
    return [*changes, "no pre-training"] if "--no-pretrain" in words else changes


def with_few_frames(title: str, sees: str) -> str:
    """A method's title, marked where it was given only three frames of each sequence."""
    return f"{title} ({FEW})" if sees.startswith(FEW) and not title.endswith(f"({FEW})") else title


def _trained_on(facts: Mapping[str, Any], identity: Identity, records: Mapping[str, Record]) -> list[str]:
    """The protocols that a run recorded, else those of all its parents and, for a training, its own."""
    recorded = facts.get("trained_on")
    if recorded is not None:
        return [recorded] if isinstance(recorded, str) else list(recorded)
    return list(dict.fromkeys(_protocols(identity, records)))


def _protocols(identity: Identity, records: Mapping[str, Record]) -> list[str]:
    before = []
    for key in identity.parents.values():
        before += _protocols(records[key].identity, records) if key in records else [f"run {key}"]
    return before if identity.kind == "transfer" else [*before, identity.protocol]


def epochs(identity: Identity) -> int:
    """Epochs of a training, 0 where it is not counted by epochs."""
    stage = identity.recipe.get("stage")
    return int(stage.get("epochs", 0)) if isinstance(stage, dict) else 0


def dataset_of(protocol: str) -> str:
    """Return the dataset in whose report a protocol belongs: ``ckplus-sequences@1`` beside ``ckplus@1``.

    Both test the same people, by whole sequences or by images. Each synthetic dataset has people of its own, and
    therefore a report of its own.
    """
    name = protocol.partition("@")[0]
    return name if is_synthetic(name) else name.removesuffix(SEQUENCES)


def in_report(identity: Identity, dataset: str | None) -> bool:
    """Whether a run belongs to the report of ``dataset``: a dataset, or a protocol of sequences alone."""
    return dataset in (None, identity.protocol.partition("@")[0], dataset_of(identity.protocol))


def is_synthetic(dataset: str) -> bool:
    """Whether ferbench draws the faces of this dataset."""
    return dataset.startswith(SYNTHETIC)


# Lineages: the identities of all stages of a training, without what is chance


def lineage(identity: Identity, records: Mapping[str, Record]) -> Lineage:
    """Return an identity without fold and seed, its parents' lineages in the place of their keys.

    Trainings of equal lineage differ in nothing but chance. A parent that is no longer stored stays a key.
    """
    content = identity.model_dump(exclude={"fold", "seed", "parents"})
    for kind, key in identity.parents.items():
        content[kind] = lineage(records[key].identity, records) if key in records else {"run": key}
    return content


def variant_of(line: Lineage) -> str:
    """Return 8 hexadecimal digits that trainings of equal lineage share."""
    return sha256_of(canonical_json(line).encode())[:8]


def varying(trainings: list[tuple[Identity, Lineage]]) -> dict[str, list[str]]:
    """Return what differs between trainings: the field's name and its values.

    Method, preset and seed are compared over all trainings. They imply the other fields, which are therefore compared
    within each method and preset only. Fields of a stage that only some trainings have are left out.
    """
    differing: dict[str, set[str]] = {}
    for name in ("method", "preset", "seed"):
        differing[name] = {str(getattr(identity, name)) or "none" for identity, _ in trainings}
    alike: dict[tuple[str, str], list[dict[str, str]]] = defaultdict(list)
    for identity, line in trainings:
        alike[identity.method, identity.preset].append(dict(_flat(line)))
    for group in alike.values():
        for path in sorted(set().union(*group)):
            values = {flat.get(path, "none") for flat in group}
            above = path.rpartition(".")[0]
            if len(values) > 1 and all(above in flat or not above for flat in group):
                differing[path] = differing.get(path, set()) | values
    return {name: sorted(values, key=_numbers_first) for name, values in differing.items() if len(values) > 1}


def changes(before: Lineage, after: Lineage) -> dict[str, tuple[str, str]]:
    """Return the fields of the recipe in which two trainings differ, named as ``--set`` names them, with both values;
    ``finetune.data`` and the like are fingerprints of prepared datasets.

    A field that decides several stages is listed once. A field that only one of the two has is "off" in the other: the
    identity of a schedule leaves out what is beyond the paper and not in use.
    """
    flat = dict(_flat(before)), dict(_flat(after))
    changed = {}
    for path in flat[0].keys() | flat[1].keys():
        stage, recipe, field = path.rpartition("recipe.")
        values = flat[0].get(path, "off"), flat[1].get(path, "off")
        if not recipe and path.rpartition(".")[2] == "data":
            stage, field = path.removesuffix("data"), "stage.data"
        elif not recipe:
            continue
        if values[0] != values[1]:
            table, dot, rest = field.partition(".")
            field = f"{TABLES.get(table, table)}{dot}{rest}"
            part = stage.rstrip(".").rpartition(".")[2] or "finetune"  # the kind of the training that it decides
            changed[field.replace("stage.", f"{part}.")] = values
    return dict(sorted(changed.items()))


def in_words(changed: Mapping[str, tuple[str, str]]) -> str:
    """Return changes as a report shows them: each field with its value before and after."""
    return "; ".join(f"{name} {before} → {after}" for name, (before, after) in changed.items())


def _flat(content: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Give every field's path and value. The attention maps that pre-training and fine-tuning share are listed once;
    the teachers and starting networks of a pre-training are named by its own recipe."""
    for name, value in content.items():
        if isinstance(value, dict):
            yield prefix + name, "used"
            if not (prefix and (name == "attention" or name.startswith(FORERUNNERS))):
                yield from _flat(value, f"{prefix}{name}.")
        else:
            text = ("off", "on")[value] if isinstance(value, bool) else str(value)
            yield prefix + name, text[:12] if name in ("data", "split") else text


def _numbers_first(text: str) -> tuple[float, str]:
    return (float(text) if text.replace(".", "", 1).isdigit() else float("inf"), text)


# Predictions, with every column that reports rely on


def predictions(store: Store, record: Record) -> pd.DataFrame:
    """Return a run's predictions, with every column that the metrics read and class names that the record knows.

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
    frames, by_classes = dict[str, pd.DataFrame](), defaultdict[tuple[str, ...], list[str]](list)
    for name, records in trainings.items():
        by_classes[tuple(records[0].classes)].append(name)
    for names in by_classes.values():
        records = [record for name in names for record in trainings[name]]
        whole, sizes = store.pooled(records)
        if 0 in sizes or _problem(whole, records[0]):
            whole = pd.concat([predictions(store, record) for record in records], ignore_index=True)
        folds = np.array([record.identity.fold for record in records], dtype=object)
        # Columns are looked up fifty times a training, which takes three times as long with Arrow's strings.
        whole.columns = whole.columns.astype(object)
        whole["fold"] = pd.Series(np.repeat(folds, sizes), dtype=object)
        ends = np.cumsum([0, *sizes])[np.cumsum([0, *(len(trainings[name]) for name in names)])]
        for name, (start, end) in zip(names, pairwise(ends), strict=True):
            frames[name] = whole.iloc[start:end].reset_index(drop=True)
    return {name: frames[name] for name in trainings}


def _problem(frame: pd.DataFrame, record: Record) -> str:
    """What is wrong with predictions, in words that follow "the predictions"; empty where nothing is."""
    scores = [f"p_{name}" for name in record.classes]
    if len({*record.classes}) < len(record.classes):
        return "have a class twice"
    missing = [name for name in ("id", "subject", "sequence", "truth", "prediction", *scores) if name not in frame]
    named = {*record.classes} if missing else {*record.classes, *frame["truth"], *frame["prediction"]}
    if unknown := sorted((named - {*EMOTIONS}) | (named - {*record.classes})):
        return f"name the class {unknown[0]!r}"
    if missing:
        return f"lack the column {missing[0]}"
    if frame.empty:
        return "are empty"
    no_numbers = [name for name in scores if not (frame[name].dtype.kind in "fi" and np.isfinite(frame[name]).all())]
    return f"have what is no number under {no_numbers[0]}" if no_numbers else ""


def check_one_training(records: Sequence[Record]) -> None:
    """Raise DataError unless runs of one experiment are folds of one training: of the same classes and folds."""
    first = records[0]
    for record in records[1:]:
        if record.classes != first.classes or record.facts.get("folds") != first.facts.get("folds"):
            raise DataError(
                f"runs {first.key} and {record.key} claim to be folds of one training, and have other classes "
                "or folds: delete their folders and train again"
            )
