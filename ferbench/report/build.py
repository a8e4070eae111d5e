"""Stored runs become a report (:mod:`ferbench.report.results`)."""

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
from ferbench.report.published import PublishedRow
from ferbench.report.results import (
    Compared,
    Fold,
    MissingFold,
    Report,
    Stage,
    Training,
    Transfer,
    across_presets,
    across_seeds,
    contrasts,
)
from ferbench.report.tested_runs import (
    SEQUENCES,
    TestedRun,
    check_one_training,
    dataset_of,
    epochs,
    in_report,
    is_synthetic,
    lineage,
    pooled,
    predictions,
    variant_of,
    varying,
)
from ferbench.runs.facts import Audit, HeldOut
from ferbench.runs.record import Identity, Record
from ferbench.runs.store import Store
from ferbench.text import command as pastable


def build(store: Store, dataset: str | None = None, leaking: bool = False, contrasting: bool = True) -> list[Report]:
    """Return one report for each dataset that something was tested on (of ``dataset`` only, when given).

    dataset : a dataset, with all protocols that test its people, by images or by sequences; or a protocol of sequences
        (``ckplus-sequences``) alone.
    leaking : include runs that measure data leakage (see ``Identity.leaks``); they are no results, and without this
        only their number is reported.
    contrasting : whether the leading methods are compared with each other, which takes longest of all.
    Raises DataError where a record or predictions are damaged.
    """
    records = store.known()  # of which those of the package are neither folds nor transfers
    groups: dict[str, list[Record]] = defaultdict(list)
    begun: dict[str, list[Identity]] = defaultdict(list)
    transfers: dict[str, list[Transfer]] = defaultdict(list)
    left_out: Counter[str] = Counter()
    for record in records.values():
        kind, name = record.identity.kind, dataset or dataset_of(record.identity.protocol)
        if not in_report(record.identity, dataset):
            continue
        if kind == "transfer" and not record.error:
            transfers[name].append(_transfer(store, record, records))
        if kind == "fold" and record.identity.leaks and not leaking:
            left_out[name] += 1
        elif kind == "fold":
            groups[name].append(record)
    for identity in store.unfinished():
        if identity.kind == "fold" and in_report(identity, dataset) and (leaking or not identity.leaks):
            begun[dataset or dataset_of(identity.protocol)].append(identity)
    for evaluations in transfers.values():  # adjusted scores stand below the run that has the scores
        evaluations.sort(key=lambda t: (t.source or t.run, t.source))
    return [
        _report(store, name, groups[name], begun[name], records, transfers[name], left_out[name], contrasting)
        for name in sorted({*groups, *begun, *transfers})
    ]


def trainings_of(store: Store, keys: Iterable[str]) -> list[Training]:
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
        ended = [store.ended(sibling) for sibling in siblings]
        folds[record.experiment] = [fold for fold in ended if fold and not fold.error]
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
    """Return the published figures that a report of ``dataset`` shows beside ours."""
    home = dataset_of(dataset)
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
    missing: dict[str, dict[str, tuple[Identity, str]]] = defaultdict(dict)  # by experiment and fold, with the reason
    for record in sorted(records, key=lambda record: record.identity.fold):
        if record.error:
            missing[record.experiment][record.identity.fold] = record.identity, record.error
        else:
            done[record.experiment].append(record)
    for identity in begun:
        missing[identity.experiment][identity.fold] = identity, "begun, not finished"
    for group in done.values():
        check_one_training(group)
        group.sort(key=lambda record: record.facts["folds"].index(record.identity.fold))
    frames = pooled(store, done)
    trainings = _in_order(_training(group, frames[experiment], by_key) for experiment, group in done.items())
    commands = {record.experiment: str(record.facts["command"]) for record in records if "command" in record.facts}
    used = dict.fromkeys(key for t in trainings for key in t.parents.values())
    protocols = {identity.protocol for identity in (*(record.identity for record in records), *begun)}
    protocols |= {t.protocol for t in transfers}
    home, alone = dataset_of(name), name != dataset_of(name)  # of sequences alone, methods of images are left out
    printed = published_rows(name)
    return Report(
        dataset=name,
        protocol=min(protocols),
        protocols=sorted(protocols),
        synthetic=is_synthetic(home),
        published=printed,
        compared=_compared(printed, [] if alone or not printed else published.compared(), trainings, name),
        published_matrix=None if alone else published.matrix(home),
        errata=published.errata(home),
        varying=varying([(group[0].identity, lineage(group[0].identity, by_key)) for group in done.values()]),
        trainings=trainings,
        seeds=across_seeds(trainings, frames),
        preset_ensembles=across_presets(trainings, frames),
        stages=[
            _stage(by_key[key], store.holder(key) != store) for key in used if key in by_key and not by_key[key].error
        ],
        missing_folds=_missing_folds(trainings, missing, commands),
        transfers=transfers,
        leakage_folds=leaking,
        contrasts=contrasts(trainings, frames) if contrasting else [],
    )


def _compared(
    printed: list[PublishedRow], others: list[str], trainings: list[Training], dataset: str
) -> list[Compared]:
    """Every method with a published row or among ``others``, with our trainings or the reason why there is none."""
    rows, figures = [], {row.method for row in printed}
    shipped, dynamic = published.reproducing(), published.dynamic()
    for method in dict.fromkeys([*(row.method for row in printed), *others]):
        ours = [t for t in trainings if t.published == method]
        why, command = "", ""
        if ours and all(t.not_comparable_reason for t in ours) and method in figures:
            why = f"ours is not comparable: {', '.join(dict.fromkeys(t.not_comparable_reason for t in ours))}"
        elif not ours and (reason := published.reason(method, dataset_of(dataset))):
            why = f"not run here: {reason}"
        elif not ours:
            why = "not run here"
            kind = SEQUENCES if method in dynamic and dataset == dataset_of(dataset) else ""
            command = f"ferbench train {shipped[method]} --dataset {dataset}{kind}" if method in shipped else ""
        rows.append(Compared(method, [t.experiment for t in ours], why, command))
    return rows


def _measured(
    records: list[Record], frame: pd.DataFrame, whole: pd.DataFrame, by_key: Mapping[str, Record]
) -> dict[str, Any]:
    """The fields that a training and a transfer share. whole : the predictions by sequence."""
    record, runs = records[0], [TestedRun.of(record, by_key) for record in records]
    identity, run = record.identity, runs[0]
    matrix = metrics.confusion(frame["truth"], frame["prediction"], record.classes)
    learned = {name for record in records for name in record.facts.get("seen", [])}
    others = frame[~frame["id"].isin(learned)]
    return {
        **vars(run),
        "held_out": HeldOut.of_all([run.held_out for run in runs]),
        "held_out_accuracy": metrics.share_correct(others) if learned and len(others) else None,
        "held_out_count": len(others),
        **{name: getattr(identity, name) for name in ("preset", "protocol", "seed")},
        "classes": record.classes,
        "matrix": matrix,
        "metrics": metrics.measure(frame, record.classes, matrix, whole, not run.uncalibrated),
        "interval": metrics.subject_interval(frame),
    }


def _by_sequence(record: Record, frame: pd.DataFrame) -> pd.DataFrame:
    return frame if record.facts.get("level") == "sequence" else metrics.by_sequence(frame, record.classes)


def _training(records: list[Record], frame: pd.DataFrame, by_key: Mapping[str, Record]) -> Training:
    first = records[0]
    identity, facts = first.identity, first.facts
    if not frame["id"].is_unique:
        twice = frame.loc[frame["id"].duplicated(), "id"].iloc[0]
        raise DataError(
            f"experiment {first.experiment} tests {twice} more than once: its runs were mixed up; delete "
            "their folders and train again"
        )
    whole = _by_sequence(first, frame)
    folds = [_fold(record, frame) for record in records]
    mean, std = metrics.spread([fold.accuracy for fold in folds])
    audits = [Audit.model_validate(record.facts["audit"]) for record in records if "audit" in record.facts]
    audit = Audit.together(audits) if len(audits) == len(records) else None
    unseen = frame[~frame["id"].isin(audit.seen if audit else ())]
    return Training(
        **_measured(records, frame, whole, by_key),
        experiment=first.experiment,
        variant=variant_of(lineage(identity, by_key)),
        name=identity.method,
        **{name: getattr(identity, name) for name in ("selection", "precision", "data", "parents")},
        devices=list(dict.fromkeys(record.environment["device"] for record in records)),
        rule=facts["rule"],
        split_hash=facts["split_hash"],
        test_set=_test_set(whole if len(whole) else frame),
        parameters=facts.get("parameters", 0),
        folds=folds,
        expected=facts["folds"],
        fold_mean=mean,
        fold_std=std,
        sequence_interval=None if whole.empty else metrics.subject_interval(whole),
        sequences=len(whole),
        images=0 if facts.get("level") == "sequence" else len(frame),
        subjects=len({*frame["subject"]} - {""}),
        audit=str(audit or ""),
        seen=len(frame) - len(unseen),
        unseen_accuracy=metrics.share_correct(unseen) if len(unseen) else float("nan"),
        notes=list(dict.fromkeys(note for record in records for note in record.facts.get("notes", []))),
    )


def _test_set(frame: pd.DataFrame) -> str:
    names = np.where(frame["sequence"] != "", frame["sequence"], frame["id"])
    rows = sorted(map("\t".join, zip(frame["fold"], names, frame["truth"], strict=True)))
    return sha256_of("\n".join(rows).encode())[:8]


def _transfer(store: Store, record: Record, by_key: Mapping[str, Record]) -> Transfer:
    frame, network = predictions(store, record), record.identity.parents.get("network", "")
    return Transfer(
        **_measured([record], frame, _by_sequence(record, frame), by_key),
        run=record.key,
        images=len(frame),
        source=record.identity.parents.get("predictions", ""),
        left_out=record.facts.get("left_out", {}),
        shipped=bool(network) and store.holder(network) != store,
    )


def _fold(record: Record, frame: pd.DataFrame) -> Fold:
    """The figures of one fold. frame : the predictions of all folds."""
    tested = frame[(frame["fold"] == record.identity.fold).to_numpy()]
    return Fold(
        fold=record.identity.fold,
        images=len(tested),
        subjects=len({*tested["subject"]} - {""}),
        accuracy=metrics.share_correct(tested),
        absent=[ABBREVIATIONS[name] for name in record.classes if name not in {*tested["truth"]}],
        seconds=sum(record.timings.values()),
        run=record.key,
    )


def _missing_folds(
    trainings: list[Training], missing: dict[str, dict[str, tuple[Identity, str]]], commands: Mapping[str, str]
) -> list[MissingFold]:
    """Every missing fold: first those of trainings with folds that are done, then those of trainings without any."""
    rows = []
    for t in trainings:
        reasons = {fold: reason for fold, (_, reason) in missing.pop(t.experiment, {}).items()}
        for fold in t.expected:
            if fold not in {done.fold for done in t.folds}:
                rows.append((t.experiment, t.method, t.preset, t.seed, fold, reasons.get(fold, "not begun")))
    for experiment, folds in missing.items():
        for fold, (identity, reason) in sorted(folds.items()):
            rows.append((experiment, identity.method, identity.preset, identity.seed, fold, reason))
    safe = {experiment: pastable(command) for experiment, command in commands.items()}
    return [MissingFold(*row, f"{safe[row[0]]} --folds {row[4]}" if safe.get(row[0]) else "") for row in rows]


def _stage(record: Record, shipped: bool) -> Stage:
    identity = record.identity
    parts = [part for part in record.result.values() if isinstance(part, dict)]
    return Stage(
        **{name: getattr(identity, name) for name in ("kind", "protocol", "seed")},
        run=record.key,
        result=record.result,
        epochs=epochs(identity),
        images=record.facts.get("train_images") or sum(part.get("train_images", 0) for part in parts),
        device=record.environment["device"],
        seconds=sum(record.timings.values()),
        shipped=shipped,
    )
