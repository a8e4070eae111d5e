"""Stored runs become a report: plain data, whose classes stand in :mod:`ferbench.report.model`."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from ferbench import metrics
from ferbench.errors import DataError
from ferbench.files import sha256_of
from ferbench.labels import ABBREVIATIONS
from ferbench.report import published
from ferbench.report.across import across_presets, across_seeds
from ferbench.report.contrasts import contrasts
from ferbench.report.lineage import lineage, variant, varying
from ferbench.report.model import Compared, Fold, Hole, Report, Stage, Training, Transfer
from ferbench.report.predictions import pooled, predictions, together
from ferbench.report.published import PublishedRow
from ferbench.report.told import SEQUENCES, Told, asked_for, epochs, is_drawn, set_of, told
from ferbench.runs.audit import Audit
from ferbench.runs.facts import HeldOut
from ferbench.runs.record import Identity, Record
from ferbench.runs.store import Store
from ferbench.text import command as pastable


def build(store: Store, dataset: str | None = None, leaking: bool = False, contrasting: bool = True) -> list[Report]:
    """Return one report for each set that something was tested on (of ``dataset`` only, when given).

    dataset : a set, with all protocols that test its people, by images or by sequences; or a protocol of sequences
        (``ckplus-sequences``) alone.
    leaking : runs that measure data leakage take part too (see ``Identity.leaks``); they are no results, and only
        their number is told otherwise.
    contrasting : whether the leading methods are compared with each other, which takes longest of all.
    Raises DataError where a record or predictions are damaged.
    """
    records = store.known()  # of which the package's own are neither folds nor transfers
    groups: dict[str, list[Record]] = defaultdict(list)
    begun: dict[str, list[Identity]] = defaultdict(list)
    transfers: dict[str, list[Transfer]] = defaultdict(list)
    left_out: Counter[str] = Counter()
    for record in records.values():
        kind, name = record.identity.kind, dataset or set_of(record.identity.protocol)
        if not asked_for(record.identity, dataset):
            continue
        if kind == "transfer" and not record.error:
            transfers[name].append(_transfer(store, record, records))
        if kind == "fold" and record.identity.leaks and not leaking:
            left_out[name] += 1
        elif kind == "fold":
            groups[name].append(record)
    for identity in store.unfinished():
        if identity.kind == "fold" and asked_for(identity, dataset) and (leaking or not identity.leaks):
            begun[dataset or set_of(identity.protocol)].append(identity)
    return [
        _report(store, name, groups[name], begun[name], records, transfers[name], left_out[name], contrasting)
        for name in sorted({*groups, *begun, *transfers})
    ]


def trainings(store: Store, keys: Iterable[str]) -> list[Training]:
    """Return the trainings that some finished folds belong to, without a report of their datasets.

    keys : of runs of folds; failed ones, and those that measure leakage, are left out.
    """
    folds: dict[str, list[Record]] = {}
    for key in keys:
        record = store.record(key)
        identity = record.identity
        if record.error or identity.leaks or record.experiment in folds:
            continue
        siblings = [identity.model_copy(update={"fold": fold}).key for fold in record.facts["folds"]]
        folds[record.experiment] = [one for key in siblings if (one := store.ended(key)) and not one.error]
    by_key: dict[str, Record] = {}
    waiting = [record for records in folds.values() for record in records]
    while waiting:
        record = waiting.pop()
        by_key[record.key] = record
        parents = {key for key in record.identity.parents.values() if key not in by_key}
        waiting += [parent for key in parents if (parent := store.holder(key).ended(key))]
    frames = pooled(store, folds)
    return _in_order(_training(records, frames[experiment], by_key) for experiment, records in folds.items())


def _in_order(trainings: Iterable[Training]) -> list[Training]:
    return sorted(trainings, key=lambda t: (t.method, t.preset, t.variant, t.seed, t.experiment))


def published_rows(dataset: str) -> list[PublishedRow]:
    """Return the published figures beside which a report of ``dataset`` puts its own."""
    home = set_of(dataset)
    return [row for row in published.rows(home) if row.feature == "dynamic" or dataset == home]


def _report(
    store: Store,
    name: str,
    records: list[Record],
    begun: list[Identity],
    by_key: Mapping[str, Record],
    transfers: list[Transfer],
    leaking: int,
    contrasting: bool,
) -> Report:
    done: dict[str, list[Record]] = defaultdict(list)
    missed: dict[str, dict[str, tuple[Identity, str]]] = defaultdict(dict)  # by experiment and fold, with the reason
    for record in sorted(records, key=lambda record: record.identity.fold):
        if record.error:
            missed[record.experiment][record.identity.fold] = record.identity, record.error
        else:
            done[record.experiment].append(record)
    for identity in begun:
        missed[identity.experiment][identity.fold] = identity, "begun, not finished"
    for group in done.values():
        together(group)
        group.sort(key=lambda record: record.facts["folds"].index(record.identity.fold))
    frames = pooled(store, done)
    trainings = _in_order(_training(group, frames[experiment], by_key) for experiment, group in done.items())
    commands = {one.experiment: str(one.facts["command"]) for one in records if "command" in one.facts}
    holes = [
        hole for t in trainings for hole in _holes(t, missed.pop(t.experiment, {}), commands.get(t.experiment, ""))
    ]
    for experiment, folds in missed.items():
        holes += [_hole(*folds[fold], commands.get(experiment, "")) for fold in sorted(folds)]
    used = dict.fromkeys(key for t in trainings for key in t.parents.values())
    made = [(group[0].identity, lineage(group[0].identity, by_key)) for group in done.values()]
    everything = [*(r.identity for r in records), *begun]
    protocols = sorted({*(one.protocol for one in everything), *(one.protocol for one in transfers)})
    home, alone = set_of(name), name != set_of(name)  # of sequences alone, methods of images are left out
    printed = published_rows(name)
    return Report(
        name,
        protocols[0],
        protocols,
        is_drawn(home),
        printed,
        _compared(printed, [] if alone or not printed else published.compared(), trainings, name),
        None if alone else published.matrix(home),
        published.errata(home),
        varying(made),
        trainings,
        across_seeds(trainings, frames),
        across_presets(trainings, frames),
        [_stage(by_key[key], store.holder(key) != store) for key in used if key in by_key and not by_key[key].error],
        holes,
        transfers,
        leaking,
        contrasts(trainings, frames) if contrasting else [],
    )


def _compared(
    printed: list[PublishedRow], others: list[str], trainings: list[Training], dataset: str
) -> list[Compared]:
    """Every method with a row of its own or among ``others``, with ours or the reason why there is none."""
    methods = dict.fromkeys([row.method for row in printed] + others)
    if not methods:
        return []
    figures, found = {row.method for row in printed}, []
    shipped, dynamic = published.reproducing(), published.dynamic()
    for method in methods:
        ours = [t for t in trainings if t.published == method]
        why, command = "", ""
        if ours and all(t.apart for t in ours) and method in figures:
            why = f"ours is not comparable: {', '.join(dict.fromkeys(t.apart for t in ours))}"
        elif not ours and (reason := published.reason(method, set_of(dataset))):
            why = f"not run here: {reason}"
        elif not ours:
            why = "not run here"
            kind = SEQUENCES if method in dynamic and dataset == set_of(dataset) else ""
            command = f"ferbench train {shipped[method]} --dataset {dataset}{kind}" if method in shipped else ""
        found.append(Compared(method, [t.experiment for t in ours], why, command))
    return found


def _training(records: list[Record], frame: pd.DataFrame, by_key: Mapping[str, Record]) -> Training:
    first = records[0]
    identity, facts, classes, about = first.identity, first.facts, first.classes, told(first, by_key)
    if not frame["id"].is_unique:
        twice = frame.loc[frame["id"].duplicated(), "id"].iloc[0]
        raise DataError(
            f"experiment {first.experiment} tests {twice} more than once: its runs were mixed up; delete "
            "their folders and train again"
        )
    matrix, right = metrics.confusion(frame["truth"], frame["prediction"], classes), metrics.hits(frame)
    folds = [_fold(record, frame, right) for record in records]
    mean, std = metrics.spread([fold.accuracy for fold in folds])
    whole = frame if about.level == "sequence" else metrics.by_sequence(frame, classes)
    audits = [Audit.model_validate(record.facts["audit"]) for record in records if "audit" in record.facts]
    audit = Audit.together(audits) if len(audits) == len(records) else None
    unseen = frame[~frame["id"].isin(audit.seen if audit else ())]
    return Training(
        experiment=first.experiment,
        variant=variant(lineage(identity, by_key)),
        name=identity.method,
        method=about.title,
        published=about.published,
        level=about.level,
        sees=about.sees,
        trained_on=about.trained_on,
        **_held_out([told(record, by_key) for record in records], frame),
        uncalibrated=about.uncalibrated,
        differs=about.differs,
        changed=about.changed,
        preset=identity.preset,
        protocol=identity.protocol,
        selection=identity.selection,
        seed=identity.seed,
        devices=list(dict.fromkeys(record.environment["device"] for record in records)),
        precision=identity.precision,
        rule=facts["rule"],
        split_hash=facts["split_hash"],
        test_side=_test_side(whole if len(whole) else frame),
        data=identity.data,
        parameters=facts.get("parameters", 0),
        classes=classes,
        folds=folds,
        expected=facts["folds"],
        matrix=matrix,
        accuracy=metrics.accuracy(matrix),
        interval=metrics.subject_interval(frame),
        fold_mean=mean,
        fold_std=std,
        balanced_accuracy=metrics.balanced_accuracy(matrix),
        macro_f1=metrics.macro_f1(matrix),
        worst_subject=_worst(frame, "subject", right),
        worst_class=_worst(frame, "truth", right),
        sequence_accuracy=metrics.hit_rate(whole) if len(whole) else float("nan"),
        sequence_interval=None if whole.empty else metrics.subject_interval(whole),
        sequences=len(whole),
        images=len(frame) if about.level == "image" else 0,
        subjects=_subjects(frame),
        parents=identity.parents,
        audit=str(audit or ""),
        seen=len(frame) - len(unseen),
        unseen_accuracy=metrics.hit_rate(unseen) if len(unseen) else float("nan"),
        notes=list(dict.fromkeys(note for record in records for note in record.facts.get("notes", []))),
    )


def _held_out(found: list[Told], frame: pd.DataFrame) -> dict[str, Any]:
    """Whether the test sets of some folds were held out, and the accuracy without the samples that were not."""
    seen = {name for about in found for name in about.seen}
    others = frame[~frame["id"].isin(seen)]
    known = seen and len(others)
    return {
        "held_out": HeldOut.of_all([about.held_out for about in found]),
        "held_out_accuracy": metrics.hit_rate(others) if known else None,
        "held_out_count": len(others),
    }


def _test_side(frame: pd.DataFrame) -> str:
    names = np.where(frame["sequence"] != "", frame["sequence"], frame["id"])
    rows = sorted(map("\t".join, zip(frame["fold"], names, frame["truth"], strict=True)))
    return sha256_of("\n".join(rows).encode())[:8]


def _transfer(store: Store, record: Record, by_key: Mapping[str, Record]) -> Transfer:
    identity, frame, about = record.identity, predictions(store, record), told(record, by_key)
    matrix = metrics.confusion(frame["truth"], frame["prediction"], record.classes)
    network = identity.parents.get("network", "")
    return Transfer(
        run=record.key,
        method=about.title,
        preset=identity.preset,
        seed=identity.seed,
        protocol=identity.protocol,
        level=about.level,
        sees=about.sees,
        trained_on=about.trained_on,
        **_held_out([about], frame),
        uncalibrated=about.uncalibrated,
        classes=record.classes,
        matrix=matrix,
        images=len(frame),
        left_out=record.facts.get("left_out", {}),
        accuracy=metrics.accuracy(matrix),
        interval=metrics.subject_interval(frame),
        balanced_accuracy=metrics.balanced_accuracy(matrix),
        macro_f1=metrics.macro_f1(matrix),
        shipped=bool(network) and store.holder(network) != store,
    )


def _fold(record: Record, frame: pd.DataFrame, right: np.ndarray) -> Fold:
    """The figures of one fold, of the predictions of all folds and of which are right."""
    mine = np.flatnonzero(frame["fold"].to_numpy() == record.identity.fold)
    present, subjects = ({*frame[name].to_numpy()[mine]} for name in ("truth", "subject"))
    return Fold(
        record.identity.fold,
        len(mine),
        len(subjects - {""}),
        float(right[mine].mean()),
        [ABBREVIATIONS[name] for name in record.classes if name not in present],
        sum(record.timings.values()),
        record.key,
    )


def _worst(frame: pd.DataFrame, by: str, right: np.ndarray) -> tuple[str, float, int]:
    """The group with the lowest accuracy, the larger of equals, with its accuracy and images; the nameless left out."""
    groups = frame[by].to_numpy()
    codes, names = pd.factorize(groups[groups != ""], sort=True)
    if not len(names):
        return "", float("nan"), 0
    sizes = np.bincount(codes)
    shares = np.bincount(codes, weights=right[groups != ""]) / sizes
    place = np.lexsort((-sizes, shares))[0]
    return str(names[place]), float(shares[place]), int(sizes[place])


def _subjects(frame: pd.DataFrame) -> int:
    return len({*frame["subject"]} - {""})


def _holes(t: Training, missed: dict[str, tuple[Identity, str]], command: str) -> list[Hole]:
    there = {fold.fold for fold in t.folds}
    return [
        Hole(
            t.experiment,
            t.method,
            t.preset,
            t.seed,
            fold,
            missed[fold][1] if fold in missed else "not begun",
            _filling(command, fold),
        )
        for fold in t.expected
        if fold not in there
    ]


def _hole(identity: Identity, reason: str, command: str) -> Hole:
    """A missing fold of a training without any fold that is done."""
    return Hole(
        identity.experiment,
        identity.method,
        identity.preset,
        identity.seed,
        identity.fold,
        reason,
        _filling(command, identity.fold),
    )


def _filling(command: str, fold: str) -> str:
    """The command that trains a missing fold, of the one that trained the others; empty where none is known."""
    safe = pastable(command)
    return f"{safe} --folds {fold}" if safe else ""


def _stage(record: Record, shipped: bool) -> Stage:
    identity = record.identity
    parts = [part for part in record.result.values() if isinstance(part, dict)]
    images = record.facts.get("train_images") or sum(part.get("train_images", 0) for part in parts)
    return Stage(
        record.key,
        identity.kind,
        identity.protocol,
        identity.seed,
        record.result,
        epochs(identity),
        images,
        record.environment["device"],
        sum(record.timings.values()),
        shipped,
    )
