"""Speed records as one table for each question: training, one image, many images, preparation. No torch."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ferbench.errors import DataError
from ferbench.files import runs_home
from ferbench.report.formats import check_format, names
from ferbench.report.formats.text import console, put, rows_csv, write
from ferbench.report.table import ColumnOf, Estimate, Noted, Section, Table, Value, table
from ferbench.runs.speed import SpeedRecord, SpeedRow, stored
from ferbench.runs.store import Store

FORMATS = names("tables")
PARTS = {"fe": "both feature extractors", "amg": "attention maps", "epoch": "whole epoch"}


@dataclass(frozen=True)
class Timing:
    """A row with the record that it was measured in, and the plain fp32 path of the same network in that record."""

    record: SpeedRecord
    row: SpeedRow
    plain: SpeedRow | None

    @property
    def machine(self) -> str:
        return self.record.environment["device"].removeprefix("cpu: ").partition(", ")[0]

    @property
    def network(self) -> str:
        return f"{self.row.method} {self.row.preset}"

    @property
    def line(self) -> str:
        """What a chart calls the rows of this network, part, machine and record."""
        network = ", ".join(filter(None, (self.network, PARTS.get(self.row.what))))
        threads = f", {self.row.threads} {'thread' if self.row.threads == 1 else 'threads'}"
        return f"{network}\n{self.machine[:28]}{threads if self.row.device == 'cpu' else ''}, {self.record.key[:8]}"

    @property
    def engine(self) -> str:
        return f"{self.row.backend} {self.row.engine}"

    @property
    def peak(self) -> float | None:
        """Images per second at the floating-point peak of this precision that was measured in the same run."""
        if self.row.share_of_flops:
            return self.row.images_per_s / self.row.share_of_flops
        ceiling = self.record.ceilings.get(self.row.precision)
        return (
            ceiling["flops_per_s"] / (1e9 * self.row.gflop_per_image) if ceiling and self.row.gflop_per_image else None
        )


def _estimate(name: str) -> Callable[[Timing], Value]:
    def cell(timing: Timing) -> Value:
        value, low, high = (getattr(timing.row, name + end) for end in ("", "_low", "_high"))
        return None if value is None or low is None or high is None else Estimate(value, low, high)

    return cell


def _error(timing: Timing) -> Value:
    return timing.row.error if timing.row.valid else Noted(timing.row.error, " !")


FIRST: list[ColumnOf] = [
    ("Network", "text", lambda t: t.network if t.row.what != "prepare" else None),
    ("Machine", "text", lambda t: t.machine),
    ("Threads", "number", lambda t: t.row.threads if t.row.device == "cpu" else None),
    ("Part", "text", lambda t: PARTS.get(t.row.what)),
    ("Engine", "text", lambda t: t.engine),
    ("Precision", "text", lambda t: t.row.precision),
]
BATCH: ColumnOf = ("Batch", "number", lambda t: t.row.batch)
RATE: ColumnOf = ("Images/s", "rate", _estimate("images_per_s"))
OF_PLAIN: ColumnOf = ("× plain", "ratio", lambda t: t.row.images_per_s / t.plain.images_per_s if t.plain else None)
OF_PEAK: ColumnOf = (
    "Of peak",
    "fraction",
    lambda t: t.row.share_of_flops or (t.row.images_per_s / t.peak if t.peak else None),
)
LAST: list[ColumnOf] = [
    ("Start s", "hundredths", lambda t: t.row.cold_start_s),
    ("Memory MB", "megabytes", lambda t: t.row.peak_mb),
    ("Error", "error", _error),
    ("Record", "key", lambda t: t.record.key[:8]),
]


@dataclass(frozen=True)
class Question:
    """What a table answers: the scenarios that belong to it (none: all others), its columns, and how to read them."""

    title: str
    slug: str
    scenarios: tuple[str, ...]
    columns: list[ColumnOf]
    lines: list[str]


_PEAK = "Of peak: share of the floating-point speed that a matrix product of this precision reached in the same run."
_PLAIN = "× plain: speed relative to PyTorch as written (torch plain, fp32) on the same network in the same run."
QUESTIONS = [
    Question(
        "Training: how many images per second?",
        "training",
        ("training",),
        [*FIRST, BATCH, RATE, ("× naive", "ratio", _estimate("ratio_naive"))]
        + [("× strong", "ratio", _estimate("ratio_strong")), OF_PEAK, *LAST],
        [
            "× naive, × strong: speed relative to two ordinary training loops in the same run. The naive one uses a "
            "DataLoader, rotates images with PIL and computes attention maps at every step. The strong one adds bf16, "
            "channels_last and torch.compile.",
            _PEAK,
            "Error: largest relative difference of 20 losses from the plain fp32 path, in bf16 of the first five and "
            "of their mean.",
        ],
    ),
    Question(
        "One image: how long does a prediction take?",
        "one-image",
        ("single-stream",),
        [*FIRST, ("Median ms", "milliseconds", lambda t: t.row.p50_ms)]
        + [("90 % within ms", "milliseconds", lambda t: t.row.p90_ms), OF_PLAIN, OF_PEAK, *LAST],
        [_PLAIN, _PEAK, "Error: largest relative difference from float64 logits, of 64 images."],
    ),
    Question(
        "Many images: how many images per second?",
        "many-images",
        (),
        [
            *FIRST,
            ("Measured", "text", lambda t: "ferbench evaluate" if t.row.scenario == "evaluate" else "network alone"),
        ]
        + [BATCH, RATE, ("× naive", "ratio", _estimate("ratio_naive")), OF_PLAIN]
        + [("Images/s at peak", "rate", lambda t: t.peak), OF_PEAK, *LAST],
        [
            "× naive: speed relative to an ordinary evaluation loop in the same run, in a process of its own: eager "
            "PyTorch in fp32, in batches of 128 images on a CPU, with memory returned to the system.",
            _PLAIN,
            _PEAK,
            "Error: largest relative difference from float64 logits, of 64 images.",
        ],
    ),
    Question(
        "Preparation: how many images per second?", "preparation", ("preparation",), [*FIRST, BATCH, RATE, *LAST], []
    ),
]
_ACCURACY: list[ColumnOf] = [
    *FIRST,
    ("Accuracy", "percent", lambda t: None if t.row.accuracy is None else 100 * t.row.accuracy),
    ("Weights", "key", lambda t: t.row.accuracy_run),
    ("Record", "key", lambda t: t.record.key[:8]),
]


def write_speed(records: list[SpeedRecord], format: str, out: Path | None) -> None:
    """Print speed records, or write them to ``out``; markdown in a file gets its charts beside it.

    JSON is a list of the rows of all records, each with the key of its record; CSV is the same as a table.
    """
    check_format(format, out, FORMATS)
    rows = [{"record": record.key, **row.model_dump()} for record in records for row in record.rows]
    if format == "csv":
        put(rows_csv(rows, ["record", *SpeedRow.model_fields]), out)
    elif format == "console":
        console(sections(records), wide=200)
    elif format == "markdown" and out is not None:
        from ferbench.report.figures import draw_speed

        stem = out.with_suffix("")
        for question, timings in by_question(records):
            draw_speed(question.slug, timings, stem.with_name(f"{stem.name}-{question.slug}"))
        write(sections(records, stem.name), rows, format, out)
    else:
        write(sections(records), rows, format, out)


def write_speed_report(dataset: str | None, format: str, out: Path | None, runs: Path | None) -> None:
    """Print all stored speed records, or write them to ``out``; markdown gets a plot of accuracy over latency
    beside it where there are runs of the same methods and presets (of ``dataset`` only, when given).

    Raises DataError where nothing has been timed.
    """
    from ferbench.report.build import build
    from ferbench.report.figures import accuracy_over_latency, draw_latency

    check_format(format, out)
    home = runs_home(runs)
    records = stored(home)
    if not records:
        raise DataError(f"nothing has been timed in {home}: `ferbench bench`")
    write_speed(records, format, out)
    if out is None or format != "markdown":
        return
    if points := accuracy_over_latency(records, build(Store(home), dataset, contrasting=False)):
        draw_latency(points, out.with_suffix(""))


def by_question(records: Iterable[SpeedRecord]) -> list[tuple[Question, list[Timing]]]:
    """Return the questions that records answer, each with its timings: small networks first, then by machine."""
    scenarios = {scenario for question in QUESTIONS for scenario in question.scenarios}
    timings = [Timing(record, row, _plain(record, row)) for record in records for row in record.rows]
    timings.sort(key=lambda t: (t.row.what, t.row.gflop_per_image or 0, t.network, t.machine, t.record.key))
    return [
        (question, chosen)
        for question in QUESTIONS
        if (chosen := [t for t in timings if t.row.scenario in (question.scenarios or {t.row.scenario} - scenarios)])
    ]


def _plain(record: SpeedRecord, row: SpeedRow) -> SpeedRow | None:
    """The plain fp32 path of PyTorch on the same network, at the same batch size where there are several."""
    same = ("what", "method", "preset", "scenario", "device", "threads")
    plain = [
        r
        for r in record.rows
        if (r.engine, r.precision, r.backend) == ("plain", "fp32", "torch")
        and all(getattr(r, name) == getattr(row, name) for name in same)
    ]
    return next((r for r in plain if r.batch == row.batch), plain[0] if len(plain) == 1 else None)


def sections(records: Iterable[SpeedRecord], charts: str = "") -> list[Section]:
    """Return a section for each question, then what was measured where. charts : how the charts' names begin."""
    records = list(records)
    shown = [
        Section(
            "Speed",
            [
                "Rows with the same record were timed in one run, in turns and in shuffled order. Compare only such "
                "rows with each other.",
                "Images/s is the median over blocks of calls, with its 95 % interval in brackets (bootstrap over "
                "blocks). Start s is the time until the first result. Memory MB is the largest memory of the process.",
                "A row marked ! exceeds the permitted error, so its speed does not count.",
            ],
        )
    ]
    for question, timings in by_question(records):
        pictures = [(question.title, f"{charts}-{question.slug}.svg")] if charts else []
        shown.append(Section(question.title, question.lines, [table("", timings, *question.columns)], pictures))
        if tested := [t for t in timings if t.row.accuracy is not None]:
            caption = (
                f"Does a lower precision cost accuracy? Percent of the {tested[0].row.accuracy_images or 0:,} images "
                "of FER2013's PublicTest, with the pre-trained weights of the package. What is timed has random "
                "weights, on which speed does not depend."
            )
            shown[-1].tables.append(table(caption, tested, *_ACCURACY))
    return [*shown, Section("Records: what was measured where", [], [_records(records)])]


def _records(records: list[SpeedRecord]) -> Table:
    def fact(name: str) -> Callable[[SpeedRecord], Value]:
        return lambda record: str(record.environment.get(name) or "unknown")

    def torch(record: SpeedRecord) -> Value:
        packages: Any = record.environment.get("packages")
        return packages.get("torch") if isinstance(packages, Mapping) else None

    def peaks(record: SpeedRecord) -> Value:
        return "; ".join(
            f"{precision} {ceiling['flops_per_s'] / 1e9:,.0f} GFLOP/s, {ceiling['bytes_per_s'] / 1e9:,.1f} GB/s"
            for precision, ceiling in record.ceilings.items()
        )

    return table(
        "Same code: by how much the speed of one workload differed when it was compared with itself",
        records,
        ("Record", "key", lambda record: record.key),
        ("Device", "text", fact("device")),
        ("Peak in this run", "text", peaks),
        ("Same code", "text", lambda record: f"± {record.noise:.1%}"),
        ("Mode", "text", lambda record: record.mode),
        ("Blocks", "number", lambda record: record.rows[0].blocks),
        ("Loader processes", "number", lambda record: record.environment.get("peer_loaders")),
        ("Seed", "number", lambda record: record.seed),
        ("torch", "text", torch),
        ("Commit", "text", fact("commit")),
    )
