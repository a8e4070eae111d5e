"""What ``ferbench report`` and ``ferbench runs`` do."""

import json
import sys
from pathlib import Path
from typing import Any

from ferbench import DEFAULT_METHOD
from ferbench.errors import DataError, UsageError
from ferbench.files import runs_home, write_text
from ferbench.report import formats, render, speed, tables
from ferbench.report.latency import accuracy_over_latency
from ferbench.report.summary import all_sections, concluded
from ferbench.report.trackers import TRACKERS, write_tracker
from ferbench.runs.record import Identity
from ferbench.runs.speed import stored
from ferbench.runs.store import Store

TABLES = ("console", "markdown", "latex", "csv", "json")
FORMATS = (*TABLES, "html", "model-card", *TRACKERS)

_WRITERS = {"markdown": render.markdown_sections, "latex": formats.latex, "csv": formats.long_csv}


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
    training : what the model card is of, by how its experiment or a run of its begins.
    Raises DataError where a dataset is asked for that has no runs, with the command that makes some.
    """
    check_format(format, out, FORMATS)
    if errors and format != "html":
        raise UsageError("--errors takes --format html")
    if training and format != "model-card":
        raise UsageError("--training takes --format model-card")
    if format in TRACKERS and out is None:
        raise UsageError(f"--format {format} takes --out, a new {'folder' if format == 'tensorboard' else 'database'}")
    store = Store(runs_home(runs))
    reports = tables.build(store, dataset)
    if not reports and dataset is not None:
        raise DataError(
            f"no fold of {dataset} has been trained in {store.home}: "
            f"`ferbench train {DEFAULT_METHOD} --dataset {dataset}`"
        )
    if pictures is not None:
        from ferbench.report.drawings import draw

        drawn = draw(reports, store, pictures)
        print(f"drew {len(drawn)} files in {pictures}", file=sys.stderr)
    if format in TRACKERS and out is not None:
        if not reports:
            raise DataError(_nothing("folds have been trained", store.home).strip())
        print(f"wrote {write_tracker(format, reports, store, out)} runs to {out}", file=sys.stderr)
        return
    if format == "console" and reports:
        render.console_sections([*concluded(reports), *all_sections(reports, brief=True)])
        return
    if format == "html":
        from ferbench.report.html import page

        text = page(reports, store, errors, home)
    elif format == "model-card":
        from ferbench.report.modelcard import model_card

        text = model_card(reports, training)
    elif format == "json":
        text = render.document(reports) + "\n"
    elif not reports:
        text = _nothing("folds have been trained", store.home)
    else:
        before = concluded(reports) if format == "markdown" else []
        text = _WRITERS[format]([*before, *all_sections(reports)])
    _put(text, out)


def check_format(format: str, out: Path | None, formats: tuple[str, ...] = TABLES) -> None:
    """Refuse an unknown format, and a file of what is meant for a terminal."""
    if format not in formats:
        raise UsageError(f"unknown format {format!r}: it is {', '.join(formats)}")
    if out is not None and format == "console":
        raise UsageError(f"--out takes --format {', '.join(formats[1:])}")


def _put(text: str, out: Path | None) -> None:
    if out is None:
        sys.stdout.write(text)
    else:
        write_text(out, text)


def write_ablation(
    dataset: str | None, format: str, out: Path | None, runs: Path | None, experiments: list[str] | None = None
) -> None:
    """Print what each part of WS-LGAN is worth and how much data leakage inflates it, or write it to ``out``.

    experiments : of these trainings only; of all that are stored when left out.
    Raises DataError where there is neither, with the command that makes it.
    """
    from dataclasses import asdict

    from ferbench.report import ablation, leakage

    check_format(format, out)
    store = Store(runs_home(runs))
    ablations = ablation.build(store, dataset, experiments)
    measured = leakage.build(store, dataset, experiments)
    if not ablations and not measured:
        raise DataError(
            f"no variants of WS-LGAN with the same folds and seeds are in {store.home}: `ferbench ablate"
            f"{f' --dataset {dataset}' if dataset else ''}`"
        )
    sections = [(f"{one.dataset}: ablation", ablation.heading(one), ablation.grids(one)) for one in ablations]
    sections += [(f"{one.dataset}: data leakage", leakage.heading(one), leakage.grids(one)) for one in measured]
    found = {"ablations": [asdict(one) for one in ablations], "habits": [asdict(one) for one in measured]}
    _put_sections(sections, found, format, out)


def _put_sections(sections: list[render.Section], found: Any, format: str, out: Path | None) -> None:
    """Print sections, or write them to ``out``; ``found`` is what they show, as JSON has it."""
    if format == "json":
        _put(json.dumps(found, indent=2, ensure_ascii=False, allow_nan=False) + "\n", out)
    elif format == "console":
        render.console_sections(sections)
    else:
        _put(_WRITERS[format](sections), out)


def write_trials(dataset: str | None, format: str, out: Path | None, runs: Path | None) -> None:
    """Print what hyperparameter trials came to on held-out training subjects, or write it to ``out``.

    Raises DataError where there are none to compare, with the command that makes some.
    """
    from dataclasses import asdict

    from ferbench.report import trials

    check_format(format, out)
    store = Store(runs_home(runs))
    found = trials.build(store, dataset)
    if not found:
        raise DataError(
            f"no hyperparameter trials are stored in {store.home}: `ferbench ablate"
            f"{f' --dataset {dataset}' if dataset else ''} --trial finetune.lr=0.02`"
        )
    sections = [(f"{one.dataset}: hyperparameter trials", trials.heading(one), trials.grids(one)) for one in found]
    _put_sections(sections, [asdict(one) for one in found], format, out)


def write_paper(number: str, format: str, out: Path | None) -> None:
    """Print the published tables, or write them to ``out``, and check their arithmetic.

    Raises CheckFailed, after all is printed, where a table contradicts itself and no erratum says so.
    """
    from ferbench.report import paper

    check_format(format, out)
    found = paper.audits(number)
    tables_of = [
        {"title": a.section[0], "facts": a.section[1], "tables": a.section[2], "problems": a.problems} for a in found
    ]
    _put_sections([audit.section for audit in found], tables_of, format, out)
    paper.check(found)


def write_speed_report(dataset: str | None, format: str, out: Path | None, runs: Path | None) -> None:
    """Print all stored speed records, or write them to ``out``; markdown gets a plot of accuracy over latency
    beside it where there are runs of the same methods and presets (of ``dataset`` only, when given).

    Raises DataError where nothing has been timed.
    """
    speed.check_format(format, out)
    home = runs_home(runs)
    records = stored(home)
    if not records:
        raise DataError(f"nothing has been timed in {home}: `ferbench bench`")
    speed.write_speed(records, format, out)
    if out is None or format != "markdown":
        return
    if points := accuracy_over_latency(records, tables.build(Store(home), dataset, contrasting=False)):
        from ferbench.report.drawings import draw_latency

        draw_latency(points, out.with_suffix(""))


def list_runs(runs: Path | None, format: str) -> None:
    """Print one row for each run: what it is, its state, and its figure (as a fraction in JSON)."""
    if format not in ("console", "json"):
        raise UsageError(f"unknown format {format!r}: it is console or json")
    store = Store(runs_home(runs))
    rows = [
        _row(
            record.key,
            record.experiment,
            record.identity,
            "failed" if record.error else "done",
            record.result.get("accuracy", record.result.get("validation_accuracy")),
            round(sum(record.timings.values()), 1),
            record.error,
        )
        for record in store.records()
    ] + [_row(one.key, one.experiment, one, "partial") for one in store.unfinished()]
    rows.sort(
        key=lambda row: (row["protocol"], row["method"], row["kind"], row["seed"], row["experiment"], row["fold"])
    )
    if format == "json":
        print(json.dumps(rows, indent=2, ensure_ascii=False))
    elif rows:
        _print_table(rows)
    else:
        sys.stdout.write(_nothing("runs", store.home))


def _nothing(what: str, home: Path) -> str:
    return f"no {what} in {home} yet: `ferbench train {DEFAULT_METHOD} --dataset synth` needs no dataset\n"


def _row(
    key: str,
    experiment: str,
    identity: Identity,
    state: str,
    accuracy: float | None = None,
    seconds: float | None = None,
    error: str = "",
) -> dict[str, Any]:
    return {
        "key": key,
        "experiment": experiment,
        "kind": identity.kind,
        "method": identity.method,
        "preset": identity.preset,
        "protocol": identity.protocol,
        "fold": identity.fold,
        "selection": identity.selection if identity.kind == "fold" else "",
        "seed": identity.seed,
        "state": state,
        "accuracy": accuracy,
        "seconds": seconds,
        "error": error,
    }


def _print_table(rows: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    shown = [name for name in rows[0] if name != "error" or any(row["error"] for row in rows)]
    table = Table(box=None, pad_edge=False)
    for name in shown:
        table.add_column(
            name,
            justify="right" if name in ("accuracy", "seconds", "seed") else "left",
            overflow="fold",
            no_wrap=name in ("key", "experiment"),
        )
    for row in rows:
        percent = "" if row["accuracy"] is None else f"{row['accuracy']:.2%}"
        cells = {**row, "accuracy": percent}
        table.add_row(*(Text("" if cells[name] is None else str(cells[name])) for name in shown))
    Console(width=None if sys.stdout.isatty() else render.WIDE).print(table)
