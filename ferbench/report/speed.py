"""Speed records as tables: console, markdown, JSON, CSV. No torch."""

import csv
import io
import json
import sys
from pathlib import Path
from typing import Any

from ferbench.errors import UsageError
from ferbench.files import write_text
from ferbench.runs.speed import SpeedRecord, SpeedRow
from ferbench.text import markdown as markdown_text
from ferbench.text import spreadsheet

FORMATS = ("console", "markdown", "json", "csv")
HEADER = (
    "What",
    "Method",
    "Engine",
    "Batch",
    "Scenario",
    "Images/s",
    "p50 ms",
    "p90 ms",
    "p99 ms",
    "× naive",
    "× strong",
    "FLOP share",
    "Byte share",
    "Error",
    "PublicTest %",
    "Cold s",
    "Peak MB",
)


def check_format(format: str, out: Path | None) -> None:
    """Raise UsageError for a format that does not exist, before anything is timed."""
    if format not in FORMATS:
        raise UsageError(f"unknown format {format!r}: it is {', '.join(FORMATS)}")
    if out is not None and format == "console":
        raise UsageError("--out takes --format markdown, json or csv")


def write_speed(records: list[SpeedRecord], format: str, out: Path | None) -> None:
    """Print speed records, or write them to ``out``.

    JSON is a list of the rows of all records, each with the key of its record; CSV is the same as a table.
    """
    check_format(format, out)
    if format == "console":
        _console(records)
        return
    text = markdown(records)
    if format in ("json", "csv"):
        rows = [{"record": record.key, **row.model_dump()} for record in records for row in record.rows]
        text = json.dumps(rows, indent=2) + "\n" if format == "json" else _csv(rows)
    if out is None:
        sys.stdout.write(text)
    else:
        write_text(out, text)


def _csv(rows: list[dict[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, ["record", *SpeedRow.model_fields], lineterminator="\n")
    writer.writeheader()
    writer.writerows(
        {name: spreadsheet(value) if isinstance(value, str) else value for name, value in row.items()} for row in rows
    )
    return text.getvalue()


def markdown(records: list[SpeedRecord]) -> str:
    """Return a document with one table for each record."""
    from tabulate import tabulate

    parts = ["# Speed\n"]
    for record in records:
        parts.append("\n".join(f"- {markdown_text(line)}" for line in heading(record)))
        align = ["left"] * 3 + ["right"] * (len(HEADER) - 3)
        cells = [[markdown_text(cell, cell=True) for cell in row] for row in table(record)]
        parts.append(tabulate(cells, HEADER, "github", colalign=align, disable_numparse=True) + "\n")
    return "\n\n".join(parts)


def heading(record: SpeedRecord) -> list[str]:
    """Return what must be known to read the table of a record, a sentence or two each."""
    facts, first = record.environment, record.rows[0]
    packages = facts.get("packages")
    torch = packages.get("torch", "unknown") if isinstance(packages, dict) else "unknown"
    tops = "; ".join(
        f"{precision} {found['flops_per_s'] / 1e9:,.0f} GFLOP/s, {found['bytes_per_s'] / 1e9:,.1f} GB/s"
        for precision, found in record.ceilings.items()
    )
    loaders = facts.get("peer_loaders")
    peers = "" if loaders is None else f" (with {loaders} loader processes each)"
    return [
        f"{facts['device']}; torch {torch}; commit {facts.get('commit') or 'unknown'}; "
        f"record {record.key}, seed {record.seed}.",
        f"Mode {record.mode}: {first.blocks} blocks each, baselines{peers} in turns with ours in shuffled order; "
        f"median, 95 % interval by bootstrap over blocks. The same code compared with itself shows "
        f"± {record.noise:.1%}.",
        f"Ceilings measured in the same run: {tops}.",
        "Error: largest difference to float64 logits, relative (inference, 64 fresh images); of 20 losses to the plain "
        "fp32 path (step, epoch; in bf16 of the first five and of their mean). A row marked ! exceeds its bound: its "
        "speed counts for nothing.",
        *_tested(record.rows),
    ]


def _tested(rows: list[SpeedRow]) -> list[str]:
    """Where accuracy was tested, what was."""
    runs = list(dict.fromkeys(f"{row.method} {row.preset} {row.accuracy_run}" for row in rows if row.accuracy_run))
    images = next((row.accuracy_images for row in rows if row.accuracy_run), 0)
    return (
        [
            f"PublicTest: accuracy on the {images:,} images of FER2013's PublicTest in a row's precision and backend, "
            f"with the pre-trained weights of the package (runs {', '.join(runs)}). What is timed has random weights, "
            "on which speed does not depend."
        ]
        if runs
        else []
    )


def table(record: SpeedRecord) -> list[list[str]]:
    """Return the rows of a record as text cells, in the order of :data:`HEADER`."""
    return [_cells(row) for row in record.rows]


def _cells(row: SpeedRow) -> list[str]:
    engine = f"{row.backend} {row.engine}, {row.precision}"
    if row.device == "cpu":
        engine += f", {row.threads} thread{'s' if row.threads > 1 else ''}"
    spread = f"{row.images_per_s:,.1f} [{row.images_per_s_low:,.1f}, {row.images_per_s_high:,.1f}]"
    return [
        row.what,
        f"{row.method} {row.preset}",
        engine,
        str(row.batch),
        row.scenario + (f" ≤ {row.bound_ms:g} ms" if row.bound_ms else ""),
        spread,
        _number(row.p50_ms),
        _number(row.p90_ms),
        _number(row.p99_ms),
        _ratio(row.ratio_naive, row.ratio_naive_low, row.ratio_naive_high),
        _ratio(row.ratio_strong, row.ratio_strong_low, row.ratio_strong_high),
        _share(row.share_of_flops),
        _share(row.share_of_bytes),
        ("" if row.error is None else f"{row.error:.0e}") + ("" if row.valid else " !"),
        "" if row.accuracy is None else f"{100 * row.accuracy:.2f}",
        f"{row.cold_start_s:.2f}",
        f"{row.peak_mb:,.0f}",
    ]


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.0%}"


def _ratio(value: float | None, low: float | None, high: float | None) -> str:
    return "" if value is None or low is None or high is None else f"{value:.2f} [{low:.2f}, {high:.2f}]"


def _console(records: list[SpeedRecord]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from ferbench.report.render import WIDE

    screen = Console(width=None if sys.stdout.isatty() else max(WIDE, 200))
    for record in records:
        for line in heading(record):
            screen.print(Text(line, style="dim"))
        cells = table(record)
        kept = [i for i in range(len(HEADER)) if any(row[i] for row in cells)]
        shown = Table(box=None, pad_edge=False)
        for i in kept:
            shown.add_column(HEADER[i], justify="left" if i in (0, 1, 2, 4) else "right")
        for row in cells:
            shown.add_row(*(Text(row[i]) for i in kept))
        screen.print(shown)
