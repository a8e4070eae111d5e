"""Speed records as sections with a table each. No torch."""

from collections.abc import Callable, Iterable
from pathlib import Path

from ferbench.report.formats import check_format, names
from ferbench.report.formats.text import console, put, rows_csv, write
from ferbench.report.table import Estimate, Noted, Section, Table, Value, table
from ferbench.runs.speed import SpeedRecord, SpeedRow

FORMATS = names("tables")


def write_speed(records: list[SpeedRecord], format: str, out: Path | None) -> None:
    """Print speed records, or write them to ``out``.

    JSON is a list of the rows of all records, each with the key of its record; CSV is the same as a table.
    """
    check_format(format, out, FORMATS)
    rows = [{"record": record.key, **row.model_dump()} for record in records for row in record.rows]
    if format == "csv":
        put(rows_csv(rows, ["record", *SpeedRow.model_fields]), out)
    elif format == "console":
        console(sections(records), wide=200)
    else:
        write(sections(records), rows, format, out)


def sections(records: Iterable[SpeedRecord]) -> list[Section]:
    """Return one section for each record, below a title."""
    return [Section("Speed"), *(Section("", heading(record), [rows_table(record)]) for record in records)]


def heading(record: SpeedRecord) -> list[str]:
    """Return what must be known to read the table of a record, a sentence or two each."""
    facts, first = record.environment, record.rows[0]
    packages = facts.get("packages")
    torch = packages.get("torch", "unknown") if isinstance(packages, dict) else "unknown"
    tops = "; ".join(
        f"{precision} {ceiling['flops_per_s'] / 1e9:,.0f} GFLOP/s, {ceiling['bytes_per_s'] / 1e9:,.1f} GB/s"
        for precision, ceiling in record.ceilings.items()
    )
    count = facts.get("peer_loaders")
    loaders = "" if count is None else f" (with {count} loader processes each)"
    return [
        f"{facts['device']}; torch {torch}; commit {facts.get('commit') or 'unknown'}; "
        f"record {record.key}, seed {record.seed}.",
        f"Mode {record.mode}: {first.blocks} blocks each, baselines{loaders} in turns with ours in shuffled order; "
        f"median, 95 % interval by bootstrap over blocks. The same code compared with itself shows "
        f"± {record.noise:.1%}.",
        f"Ceilings measured in the same run: {tops}.",
        "Error: largest difference to float64 logits, relative (inference, 64 fresh images); of 20 losses to the plain "
        "fp32 path (step, epoch; in bf16 of the first five and of their mean). A row marked ! exceeds its bound: its "
        "speed counts for nothing.",
        *_tested(record.rows),
    ]


def _tested(rows: list[SpeedRow]) -> list[str]:
    """Which images and weights an accuracy is of, where there is one."""
    runs = list(dict.fromkeys(f"{row.method} {row.preset} {row.accuracy_run}" for row in rows if row.accuracy_run))
    images = next((row.accuracy_images or 0 for row in rows if row.accuracy_run), 0)
    return (
        [
            f"PublicTest: accuracy on the {images:,} images of FER2013's PublicTest in a row's precision and backend, "
            f"with the pre-trained weights of the package (runs {', '.join(runs)}). What is timed has random weights, "
            "on which speed does not depend."
        ]
        if runs
        else []
    )


def rows_table(record: SpeedRecord) -> Table:
    """The rows of a record."""
    return table(
        "",
        record.rows,
        ("What", "text", lambda row: row.what),
        ("Method", "text", lambda row: f"{row.method} {row.preset}"),
        ("Engine", "text", _engine),
        ("Batch", "number", lambda row: row.batch),
        ("Scenario", "text", lambda row: row.scenario + (f" ≤ {row.bound_ms:g} ms" if row.bound_ms else "")),
        ("Images/s", "rate", lambda row: Estimate(row.images_per_s, row.images_per_s_low, row.images_per_s_high)),
        ("p50 ms", "milliseconds", lambda row: row.p50_ms),
        ("p90 ms", "milliseconds", lambda row: row.p90_ms),
        ("p99 ms", "milliseconds", lambda row: row.p99_ms),
        ("× naive", "ratio", _ratio("naive")),
        ("× strong", "ratio", _ratio("strong")),
        ("FLOP share", "fraction", lambda row: row.share_of_flops),
        ("Byte share", "fraction", lambda row: row.share_of_bytes),
        ("Error", "error", lambda row: row.error if row.valid else Noted(row.error, " !")),
        ("PublicTest %", "percent", lambda row: None if row.accuracy is None else 100 * row.accuracy),
        ("Cold s", "hundredths", lambda row: row.cold_start_s),
        ("Peak MB", "megabytes", lambda row: row.peak_mb),
    )


def _engine(row: SpeedRow) -> str:
    engine = f"{row.backend} {row.engine}, {row.precision}"
    return engine if row.device != "cpu" else f"{engine}, {row.threads} thread{'s' if row.threads > 1 else ''}"


def _ratio(baseline: str) -> Callable[[SpeedRow], Value]:
    def ratio(row: SpeedRow) -> Value:
        value, low, high = (getattr(row, f"ratio_{baseline}{end}") for end in ("", "_low", "_high"))
        return None if value is None or low is None or high is None else Estimate(value, low, high)

    return ratio
