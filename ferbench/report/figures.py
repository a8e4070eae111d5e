"""Figures, as PNG and SVG. matplotlib is loaded only here, and only when something is drawn."""

import io
from dataclasses import dataclass
from pathlib import Path

from ferbench.files import write_bytes
from ferbench.report.tables import Report
from ferbench.runs.speed import SpeedRecord


@dataclass(frozen=True)
class Point:
    """One method with its accuracy (a fraction, with its interval) and the median latency of one image."""

    name: str
    latency_ms: float
    accuracy: float
    low: float
    high: float
    protocol: str
    machine: str  # device, backend, precision and threads that the latency is of


def accuracy_over_latency(records: list[SpeedRecord], reports: list[Report]) -> list[Point]:
    """Join whole trainings with the fastest single-stream inference of their method and preset."""
    fastest: dict[tuple[str, str], tuple[float, str]] = {}
    for record in records:
        for row in record.rows:
            if (row.what, row.scenario) != ("inference", "single-stream") or row.p50_ms is None or not row.valid:
                continue
            machine = f"{record.environment['device']}; {row.backend}, {row.precision}"
            key = row.method, row.preset
            if key not in fastest or row.p50_ms < fastest[key][0]:
                fastest[key] = row.p50_ms, machine
    return [
        Point(f"{t.method} ({t.preset}, seed {t.seed})", *fastest[t.name, t.preset][:1], t.accuracy, t.interval.low,
              t.interval.high, report.protocol, fastest[t.name, t.preset][1])
        for report in reports for t in report.trainings if t.whole and (t.name, t.preset) in fastest
    ]  # fmt: skip


def draw_points(points: list[Point], path: Path) -> None:
    """Draw accuracy in percent over latency in milliseconds, one marker for each method."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for point in points:
        spread = [[100 * (point.accuracy - point.low)], [100 * (point.high - point.accuracy)]]
        axes.errorbar(point.latency_ms, 100 * point.accuracy, yerr=spread, fmt="o", capsize=3)
        axes.annotate(f"{point.name}\n{point.protocol}", (point.latency_ms, 100 * point.accuracy),
                      xytext=(6, 4), textcoords="offset points", fontsize=8)  # fmt: skip
    axes.set_xlabel(
        "median latency of one image, ms\n" + "\n".join(dict.fromkeys(p.machine for p in points)), fontsize=8
    )
    axes.set_ylabel("pooled accuracy, %, with 95 % interval")
    axes.set_xlim(left=0)
    axes.margins(x=0.3)
    axes.grid(alpha=0.3)
    content = io.BytesIO()
    figure.savefig(content, format=path.suffix[1:], dpi=150)
    write_bytes(path, content.getvalue())
