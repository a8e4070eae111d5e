"""What ``ferbench report`` and ``ferbench runs`` do."""

import json
from pathlib import Path

from ferbench.errors import DataError, UsageError
from ferbench.files import runs_home, write_text
from ferbench.report import render, tables
from ferbench.runs.store import Store

FORMATS = ("console", "markdown", "json")
_FIRST = "ferbench train wslgan --dataset synth"


def write_report(dataset: str | None, format: str, out: Path | None, runs: Path | None) -> None:
    """Build the report of a store and print it, or write it to ``out``.

    Raises DataError where a dataset is asked for that has no runs, with the command that makes some.
    """
    if format not in FORMATS:
        raise UsageError(f"unknown format {format!r}: it is {', '.join(FORMATS)}")
    if out is not None and format == "console":
        raise UsageError("--out takes --format markdown or json")
    home = runs_home(runs)
    reports = tables.build(Store(home), dataset)
    if not reports and dataset is not None:
        raise DataError(f"no fold of {dataset} has been trained in {home}: `ferbench train wslgan --dataset {dataset}`")
    if format == "json":
        text = render.document(reports) + "\n"
    elif format == "markdown":
        text = render.markdown(reports)
    elif not reports:
        print(f"no folds have been trained in {home} yet: `{_FIRST}` needs no dataset")
        return
    else:
        render.console(reports)
        return
    if out is None:
        print(text, end="")
    else:
        write_text(out, text)


def list_runs(runs: Path | None, format: str) -> None:
    """Print one row for each run: what it is, its state, and its figure."""
    store = Store(runs_home(runs))
    rows = []
    for record in store.records():
        identity = record.identity
        figure = record.result.get("accuracy", record.result.get("validation_accuracy"))
        rows.append({
            "key": record.key, "experiment": record.experiment, "kind": identity.kind, "method": identity.method,
            "preset": identity.preset, "protocol": identity.protocol, "fold": identity.fold, "seed": identity.seed,
            "state": "failed" if record.error else "done", "accuracy": figure,
            "seconds": round(sum(record.timings.values()), 1), "error": record.error,
        })  # fmt: skip
    for identity in store.unfinished():
        rows.append({
            "key": identity.key, "experiment": identity.experiment, "kind": identity.kind, "method": identity.method,
            "preset": identity.preset, "protocol": identity.protocol, "fold": identity.fold, "seed": identity.seed,
            "state": "partial", "accuracy": None, "seconds": None, "error": "",
        })  # fmt: skip
    rows.sort(key=lambda row: (row["protocol"], row["method"], row["kind"], row["seed"], row["fold"]))
    if format == "json":
        print(json.dumps(rows, indent=2))
        return
    if format != "console":
        raise UsageError(f"unknown format {format!r}: it is console or json")
    if not rows:
        print(f"no runs in {store.home} yet: `{_FIRST}` needs no dataset")
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for name in rows[0]:
        table.add_column(name, justify="right" if name in ("accuracy", "seconds", "seed") else "left")
    for row in rows:
        shown = {**row, "accuracy": "" if row["accuracy"] is None else f"{row['accuracy']:.2%}"}
        table.add_row(*("" if value is None else str(value) for value in shown.values()))
    Console().print(table)
