"""Accuracy against latency: whole trainings joined with what was timed of their method and preset."""

from collections import defaultdict
from dataclasses import dataclass

from ferbench.report.cells import named
from ferbench.report.model import Report
from ferbench.runs.speed import SpeedRecord


@dataclass(frozen=True)
class Point:
    """Trainings that differ in nothing but their seeds: accuracy (fractions) and the median latency of one image."""

    name: str
    protocol: str
    n: str  # what each training was tested on: 70 images
    latency_ms: float
    accuracy: float  # mean over seeds
    low: float  # the 95 % intervals of all seeds reach from here …
    high: float  # … to here
    machine: str  # device with its threads, backend and precision that the latency is of


def accuracy_over_latency(records: list[SpeedRecord], reports: list[Report]) -> list[Point]:
    """Join whole trainings with the fastest valid single-stream inference of their method and preset."""
    fastest: dict[tuple[str, str], tuple[float, str]] = {}
    for record in records:
        for row in record.rows:
            if (row.what, row.scenario) != ("inference", "single-stream") or row.p50_ms is None or not row.valid:
                continue
            machine = f"{record.environment['device']}; {row.backend}, {row.precision}"
            key = row.method, row.preset
            fastest[key] = min(fastest.get(key, (row.p50_ms, machine)), (row.p50_ms, machine))
    points = []
    for report in reports:
        names, alike = named(report.trainings), defaultdict(list)
        for training in report.trainings:
            if training.whole and (training.name, training.preset) in fastest:
                alike[training.variant].append(training)
        for first, *others in alike.values():
            name = names[first.experiment]
            if others:
                seeds = ", ".join(str(training.seed) for training in (first, *others))
                name = name.replace(f"seed {first.seed}", f"seeds {seeds}")
            latency, machine = fastest[first.name, first.preset]
            points.append(
                Point(
                    name,
                    first.protocol,
                    first.n,
                    latency,
                    sum(training.accuracy for training in (first, *others)) / (1 + len(others)),
                    min(training.interval.low for training in (first, *others)),
                    max(training.interval.high for training in (first, *others)),
                    machine,
                )
            )
    return points
