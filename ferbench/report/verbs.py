"""What ``ferbench report``, ``paper``, ``compare`` and ``runs`` do."""

import sys
from pathlib import Path
from typing import Any

from ferbench import DEFAULT_METHOD
from ferbench.errors import DataError, UsageError
from ferbench.files import runs_home
from ferbench.report import figures, formats
from ferbench.report.build import build
from ferbench.report.conclusions import concluded, sections
from ferbench.report.formats import check_format, text
from ferbench.report.results import Report
from ferbench.report.table import Column, Section, Table
from ferbench.runs.record import Identity, Record
from ferbench.runs.store import Store

FORMATS = formats.names("tables", "report", "tracker")


def write_report(
    dataset: str | None,
    format: str,
    out: Path | None,
    runs: Path | None,
    errors: int = 0,
    home: Path | None = None,
    pictures: Path | None = None,
    training: str = "",
) -> None:
    """Build the report of a store and print it, or write it to ``out``.

    errors : how many of the most confident errors the HTML page shows, with pictures from the data home ``home``.
    pictures : a folder for all figures, as PNG and SVG.
    training : the training of the model card, by the beginning of its experiment or of one of its runs.
    Raises DataError for a dataset without runs, with the command that makes some.
    """
    check_format(format, out, FORMATS)
    trackers = formats.names("tracker")
    if errors and format != "html":
        raise UsageError("--errors takes --format html")
    if training and format != "model-card":
        raise UsageError("--training takes --format model-card")
    if format in trackers and out is None:
        raise UsageError(f"--format {format} takes --out, a new {'folder' if format == 'tensorboard' else 'database'}")
    store = Store(runs_home(runs))
    reports = build(store, dataset)
    if not reports and dataset is not None:
        raise DataError(
            f"no fold of {dataset} has been trained in {store.home}: "
            f"`ferbench train {DEFAULT_METHOD} --dataset {dataset}`"
        )
    if pictures is not None:
        print(f"drew {len(figures.draw(reports, store, pictures))} files in {pictures}", file=sys.stderr)
    if format == "html":
        text.put(formats.renderer(format)(reports, store, errors, home), out)
    elif format == "model-card":
        text.put(formats.renderer(format)(reports, training), out)
    elif format in trackers:
        if not reports:
            raise DataError(_nothing("folds have been trained", store.home).strip())
        print(f"wrote {formats.renderer(format)(reports, store, out)} runs to {out}", file=sys.stderr)
    elif reports or format == "json":
        _write_tables(reports, format, out)
    else:
        text.put(_nothing("folds have been trained", store.home), None if format == "console" else out)


def _write_tables(reports: list[Report], format: str, out: Path | None) -> None:
    """Write reports as tables; those that a person reads at once begin with what may be concluded."""
    if format == "json":
        text.put(text.json(reports), out)
        return
    first = concluded(reports) if format in ("console", "markdown") else []
    text.write([*first, *sections(reports, brief=format == "console")], reports, format, out)


def list_runs(runs: Path | None, format: str) -> None:
    """Print one row for each run: what it is, its state, and its figure (as a fraction in JSON)."""
    check_format(format, formats=formats.PLAIN)
    store = Store(runs_home(runs))
    rows = [_row(record.identity, record) for record in store.records()]
    rows += [_row(identity) for identity in store.unfinished()]
    order = ("protocol", "method", "kind", "seed", "experiment", "fold")
    rows.sort(key=lambda row: tuple(row[name] for name in order))
    if format == "json":
        text.put(text.json(rows), None)
    elif rows:
        kinds = {"key": "key", "experiment": "key", "accuracy": "accuracy", "seconds": "tenths", "seed": "number"}
        shown = [name for name in rows[0] if name != "error" or any(row["error"] for row in rows)]
        columns = [Column(name, kinds.get(name, "text")) for name in shown]
        text.console([Section("", [], [Table("", columns, [[row[name] for name in shown] for row in rows])])])
    else:
        text.put(_nothing("runs", store.home), None)


def _row(identity: Identity, record: Record | None = None) -> dict[str, Any]:
    """A run as it is listed. record : of one that has ended."""
    result = record.result if record else {}
    return {
        **{name: getattr(identity, name) for name in ("key", "experiment", "kind", "method", "preset")},
        **{name: getattr(identity, name) for name in ("protocol", "fold")},
        "selection": identity.selection if identity.kind == "fold" else "",
        "seed": identity.seed,
        "state": "partial" if record is None else "failed" if record.error else "done",
        "accuracy": result.get("accuracy", result.get("validation_accuracy")),
        "seconds": round(sum(record.timings.values()), 1) if record else None,
        "error": record.error if record else "",
    }


def _nothing(what: str, home: Path) -> str:
    return f"no {what} in {home} yet: `ferbench train {DEFAULT_METHOD} --dataset synth` needs no dataset\n"
