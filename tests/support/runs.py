"""Runs written by hand, as training stores them, for the tests of what reads them."""

from collections.abc import Iterable
from typing import Any

import pandas as pd

from ferbench.report.table import Table
from ferbench.runs.record import Identity, Record
from ferbench.runs.store import Store

CLASSES = ["anger", "contempt", "disgust", "fear", "happiness", "sadness", "surprise"]
DEVICE = "cpu: test, 1 thread"

Row = tuple[str, str, str]  # subject, truth, prediction


def store_stage(store: Store, kind: str, seed: int = 0, epochs: int = 3, **more: Any) -> str:
    """Store an attention or pre-training run and return its key."""
    result: dict[str, Any] = {"validation_accuracy": 0.5, "validation_images": 40}
    facts: dict[str, Any] = {"train_images": 400, "notes": []}
    if kind == "attention":
        result = {part: {**result, "train_images": 200} for part in ("eyes", "mouth")}
        del facts["train_images"]
    fields = {
        "method": "wslgan",
        "preset": "tiny",
        "recipe": {"stage": {"epochs": epochs}},
        "data": "a" * 64,
        "protocol": "celeba@1" if kind == "attention" else "fer2013@1",
    }
    identity = Identity(kind=kind, seed=seed, precision="fp32", code=1, **fields | more)
    return _finish(store, identity, facts, result=result)


def store_fold(
    store: Store,
    fold: str,
    rows: Iterable[Row],
    seed: int = 0,
    error: str = "",
    folds: tuple[str, ...] = ("01", "02"),
    facts: dict[str, Any] | None = None,
    **more: Any,
) -> str:
    """Store one fold of WS-LGAN and return its key; with ``error``, a failed one.

    A subject shows each emotion in one sequence; a predicted class has probability 0.9. facts and more:
    other facts, other fields of the identity.
    """
    fields = {
        "method": "wslgan",
        "preset": "tiny",
        "protocol": "ckplus@1",
        "recipe": {"stage": {"epochs": 3}},
        "data": "d" * 64,
        "split": "f" * 64,
        "precision": "fp32",
        "code": 1,
    }
    identity = Identity(kind="fold", fold=fold, seed=seed, **fields | more)
    if error:
        return _finish(store, identity, {}, error)
    others = 0.1 / (len(CLASSES) - 1)
    frame = pd.DataFrame(
        [
            {
                "id": f"{fold}-{i:03d}",
                "subject": s,
                "sequence": s and f"{s}-{t}",
                "truth": t,
                "prediction": p,
                **{f"p_{name}": 0.9 if name == p else others for name in CLASSES},
            }
            for i, (s, t, p) in enumerate(rows)
        ]
    )
    store.write_predictions(identity.key, frame)
    told = {
        "display": "WS-LGAN",
        "published": "WS-LGAN",
        "folds": list(folds),
        "split_hash": identity.split,
        "command": f"ferbench train wslgan --dataset {identity.protocol.partition('@')[0]} --seed {seed}",
        "rule": f"step, {len(folds)} folds by subject",
        "parameters": 1234567,
        "notes": [],
        "train_images": 100,
        "test_images": len(frame),
        "train_subjects": 10,
        "test_subjects": 1,
    }
    hits = float((frame["truth"] == frame["prediction"]).mean())
    return _finish(store, identity, told | (facts or {}), result={"accuracy": hits, "images": len(frame)})


def _finish(
    store: Store, identity: Identity, facts: dict[str, Any], error: str = "", result: dict[str, Any] | None = None
) -> str:
    store.begin(identity)
    store.finish(
        Record(
            key=identity.key,
            experiment=identity.experiment,
            identity=identity,
            dataset="ckplus",
            classes=CLASSES,
            environment={"device": DEVICE},
            facts=facts,
            timings={"training": 2.0},
            result=result or {},
            error=error,
        )
    )
    return identity.key


def grids(tables: Iterable[Table]) -> list[tuple[str, list[str], list[list[str]]]]:
    """Return tables as text: caption, header and rows."""
    return [(table.caption, table.header, table.texts()) for table in tables]
