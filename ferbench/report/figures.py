"""The figures of a report: their data, and each as PNG and SVG; readable in grey and by colour-blind eyes (Okabe &
Ito's colours)."""

import io
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ferbench import metrics
from ferbench.files import write_bytes
from ferbench.labels import ABBREVIATIONS
from ferbench.report.results import Report, Training, by_variant, named
from ferbench.report.speed import Timing
from ferbench.report.tested_runs import LEVELS, Level, predictions
from ferbench.runs.speed import SpeedRecord, stored
from ferbench.runs.store import Store

_COLOURS = ("#8a939d", "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
_HATCHES = ("", "//", "..", "xx", "\\\\", "oo", "++")
MOST = 6  # series that can be distinguished by colour

Series = tuple[str, dict[str, float]]  # its name, then percent by class; NaN for a class without anything to test


@dataclass(frozen=True)
class Chart:
    """Recalls of several trainings of one level. left_out : how many others are not shown."""

    classes: list[str]
    series: list[Series]
    left_out: int


def recalls_by_level(report: Report, names: Mapping[str, str]) -> dict[Level, Chart]:
    """Return a chart for each level that something was tested at. The published matrix is of images.

    Where there are too many trainings for one, it shows those of the highest accuracy: one of each recipe first, and
    trainings that lack folds or are not known to be held out only if no others are left.
    """
    charts: dict[Level, Chart] = {}
    for level in LEVELS:
        series: list[Series] = []
        if report.published_matrix is not None and level == "image":
            printed = report.published_matrix
            recalls = dict(zip(printed.classes, map(float, np.diag(printed.percent)), strict=True))
            series.append((f"published ({printed.table})", recalls))
        trainings = [t for t in report.trainings if t.level == level]
        ranked = sorted(trainings, key=lambda t: -t.accuracy)
        first = {t.variant: t.experiment for t in reversed(ranked)}  # the best of each recipe
        ranked.sort(key=lambda t: (not t.comparable, first[t.variant] != t.experiment))
        best = {t.experiment for t in ranked[: MOST - len(series)]}
        for t in trainings:
            if t.experiment in best:
                recalls = {
                    name: float(100 * value) for name, value in zip(t.classes, t.metrics["recalls"], strict=True)
                }
                series.append((names[t.experiment], recalls))
        if trainings:
            charts[level] = Chart(trainings[0].classes, series, len(trainings) - len(best))
    return charts


@dataclass(frozen=True)
class Point:
    """Trainings that differ in nothing but their seeds: accuracy (fractions) and the median latency of one image."""

    name: str
    protocol: str
    n: str  # what each training was tested on: 70 images
    latency_ms: float
    accuracy: float  # mean over seeds
    low: float  # lowest and highest end of the 95 % intervals of all seeds
    high: float
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
        names = named(report.trainings)
        for group in by_variant(t for t in report.trainings if t.whole and (t.name, t.preset) in fastest):
            first = group[0]
            latency, machine = fastest[first.name, first.preset]
            seeds = f"seeds {', '.join(str(t.seed) for t in group)}" if len(group) > 1 else f"seed {first.seed}"
            points.append(
                Point(
                    name=names[first.experiment].replace(f"seed {first.seed}", seeds),
                    protocol=first.protocol,
                    n=first.n,
                    latency_ms=latency,
                    accuracy=sum(t.accuracy for t in group) / len(group),
                    low=min(t.interval.low for t in group),
                    high=max(t.interval.high for t in group),
                    machine=machine,
                )
            )
    return points


def draw(reports: list[Report], store: Store, folder: Path) -> list[Path]:
    """Draw every figure of the reports into ``folder`` and return the files, two for each."""
    written: list[Path] = []
    for report in reports:
        names = named(report.trainings)
        figures: dict[str, Callable[[Any], None]] = {}
        for training in report.trainings:
            name, frame = names[training.experiment], _pooled(store, training)
            slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
            title = f"{name}: percent of the row, n = {training.n}"
            percent = metrics.row_percent(training.matrix)
            figures[f"confusion-{slug}"] = partial(_confusion, title=title, classes=training.classes, percent=percent)
            if not training.uncalibrated:
                figures[f"reliability-{slug}"] = partial(_reliability, name=name, classes=training.classes, frame=frame)
            if curves := _losses(training, store):
                figures[f"curves-{slug}"] = partial(_curves, name=name, curves=curves)
        if report.published_matrix is not None:
            printed = report.published_matrix
            title = f"published ({printed.table}): percent of the row"
            figures["confusion-published"] = partial(
                _confusion, title=title, classes=list(printed.classes), percent=printed.percent
            )
        for level, chart in recalls_by_level(report, names).items():
            end = "" if level == "image" else "-sequences"
            figures[f"classes{end}"] = partial(_classes, classes=chart.classes, series=chart.series)
            trainings = [training for training in report.trainings if training.level == level]
            figures[f"folds{end}"] = partial(_folds, trainings=trainings, names=names)
        for name, work in figures.items():
            tall = 0.35 * len(report.trainings) if name.startswith("folds") else 0.0
            written += _written(work, folder / f"{report.dataset}-{name}", (6.4, max(4.4, tall)))
    if points := accuracy_over_latency(stored(store.home), reports):
        written += draw_latency(points, folder / "latency")
    return written


def draw_latency(points: list[Point], stem: Path) -> list[Path]:
    """Draw accuracy over latency and return the files, PNG and SVG."""
    return _written(partial(_latency, points=points), stem)


def draw_speed(slug: str, timings: list[Timing], stem: Path) -> list[Path]:
    """Draw the timings of one question (see :mod:`ferbench.report.speed`) and return the files, PNG and SVG."""
    rows = {t.line for t in timings}
    work = partial(_speed, timings=timings, latency=slug == "one-image")
    return _written(work, stem, (7.5, 1.6 + 0.42 * len(rows)))


def _written(work: Callable[[Any], None], stem: Path, size: tuple[float, float] = (6.4, 4.4)) -> list[Path]:
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    # Equal figures are equal bytes: no random identifiers, no date.
    # Names come from records: no text is a formula.
    with matplotlib.rc_context({"svg.hashsalt": "ferbench", "font.size": 9, "text.parse_math": False}):
        figure = Figure(figsize=size, layout="constrained")
        FigureCanvasAgg(figure)
        work(figure.add_subplot())
        paths = []
        for suffix, metadata in (("png", {"Software": None}), ("svg", {"Date": None})):
            content = io.BytesIO()
            figure.savefig(content, format=suffix, dpi=150, metadata=metadata)
            paths.append(stem.with_name(f"{stem.name}.{suffix}"))
            write_bytes(paths[-1], content.getvalue())
    return paths


def draw_maps(shown: Mapping[str, list[tuple[np.ndarray, np.ndarray]]], stem: Path) -> list[Path]:
    """Draw faces with their attention maps, in the manner of Figure 6, and return the files, PNG and SVG.

    shown : by expression, some faces: uint8 [48,48] with maps [2,H,W] in [0,1], of the eyes and of the mouth. Each
        face is shown as it is, under its eyes' map and under its mouth's.
    """
    columns, gap = 3 * max(len(faces) for faces in shown.values()), 1.35

    def work(axes: Any) -> None:
        from matplotlib.colors import Normalize

        for row, faces in enumerate(shown.values()):
            for number, (face, maps) in enumerate(faces):
                for column, over in enumerate((None, *maps)):
                    left = number * (3 + gap - 1) + column
                    place = (left, left + 0.97, row + 0.97, row)
                    axes.imshow(face, cmap="gray", vmin=0, vmax=255, extent=place)
                    if over is not None:
                        axes.imshow(
                            over, cmap="jet", norm=Normalize(0, 1), alpha=0.45, extent=place, interpolation="bilinear"
                        )
        width = (columns // 3) * (3 + gap - 1)
        axes.set(xlim=(-0.05, width - gap + 1), ylim=(len(shown), -0.05), aspect="equal", xticks=[])
        axes.set_yticks([row + 0.5 for row in range(len(shown))], list(shown))
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        axes.set_title("face, eyes' map, mouth's map", fontsize=9)

    return _written(work, stem, (1.1 * columns + 1, 1.1 * len(shown) + 0.5))


def _pooled(store: Store, training: Training) -> pd.DataFrame:
    return pd.concat([predictions(store, store.record(fold.run)) for fold in training.folds], ignore_index=True)


def _confusion(axes: Any, title: str, classes: list[str], percent: np.ndarray) -> None:
    short = [ABBREVIATIONS[name] for name in classes]
    axes.imshow(np.nan_to_num(percent), cmap="Blues", vmin=0, vmax=100)
    for row, column in np.ndindex(percent.shape):
        value = percent[row, column]
        if value > 0:
            axes.text(column, row, f"{value:.1f}", ha="center", va="center", color="white" if value > 55 else "black")
    axes.set_xticks(range(len(short)), short)
    axes.set_yticks(range(len(short)), short)
    axes.set_xlabel("predicted")
    axes.set_ylabel("truth")
    axes.set_title(title, fontsize=10)


def _classes(axes: Any, classes: list[str], series: list[Series]) -> None:
    width = 0.8 / len(series)
    for place, (name, values) in enumerate(series):
        axes.bar(
            np.arange(len(classes)) + (place - (len(series) - 1) / 2) * width,
            [values.get(label, np.nan) for label in classes],
            width,
            label=name,
            color=_COLOURS[place % len(_COLOURS)],
            hatch=_HATCHES[place % len(_HATCHES)],
            edgecolor="white",
            linewidth=0.5,
        )
    axes.set_xticks(range(len(classes)), classes)
    axes.set_ylabel("recall, %")
    axes.set_ylim(0, 100)
    columns = 3 if max(len(name) for name, _ in series) < 26 else 2
    axes.legend(fontsize=8, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=columns, frameon=False)


def _folds(axes: Any, trainings: list[Training], names: Mapping[str, str]) -> None:
    for place, training in enumerate(trainings):
        values = [100 * fold.accuracy for fold in training.folds]
        sizes = [fold.images for fold in training.folds]
        axes.scatter(values, [place] * len(values), s=sizes, alpha=0.5, color=_COLOURS[1], edgecolor="black")
        axes.plot([100 * training.accuracy] * 2, [place - 0.25, place + 0.25], color=_COLOURS[2], linewidth=3)
    axes.set_yticks(range(len(trainings)), [names[t.experiment] for t in trainings])
    axes.set_ylim(len(trainings) - 0.5, -0.5)
    sizes = [fold.images for training in trainings for fold in training.folds]
    reach = f"{min(sizes)} to {max(sizes)} {trainings[0].level}s"
    axes.set_xlabel(f"accuracy of each fold, %; bar: pooled\n(a dot's area is its n, {reach})")
    axes.grid(axis="x", alpha=0.3)


def _reliability(axes: Any, name: str, classes: list[str], frame: pd.DataFrame) -> None:
    confidence = frame[[f"p_{label}" for label in classes]].to_numpy().max(axis=1)
    bins, error = metrics.reliability(confidence, metrics.correct(frame))
    edges = np.arange(len(bins)) / len(bins)
    axes.plot([0, 1], [0, 1], color="black", linestyle="--", linewidth=1, label="calibrated")
    axes.bar(
        edges,
        np.nan_to_num(bins[:, 2]),
        1 / len(bins),
        align="edge",
        color=_COLOURS[1],
        edgecolor="white",
        label="accuracy",
    )
    for edge, (count, _, accuracy) in zip(edges, bins, strict=True):
        if count:
            axes.text(edge + 0.5 / len(bins), accuracy + 0.01, f"{count:.0f}", ha="center", fontsize=7)
    axes.set_xlabel(f"probability of the predicted class ({len(bins)} bins, images above each)")
    axes.set_ylabel("accuracy")
    axes.set_ylim(0, 1.06)
    axes.legend(fontsize=8, loc="upper left")
    axes.set_title(f"{name}: ECE {100 * error:.2f} points, n = {len(frame):,}", fontsize=10)


def _losses(training: Training, store: Store) -> dict[str, pd.DataFrame]:
    """By fold its epochs and its loss, as columns; empty where a method does not learn by epochs."""
    losses = {}
    for fold in training.folds:
        history = store.history(store.record(fold.run)).apply(pd.to_numeric, errors="coerce")
        columns = sorted((name for name in history if name.startswith("loss")), key="loss_total".__ne__)
        if "epoch" in history and columns:
            losses[fold.fold] = history[["epoch", columns[0]]]
    return losses


def _curves(axes: Any, name: str, curves: Mapping[str, pd.DataFrame]) -> None:
    for fold, history in curves.items():
        axes.plot(history.iloc[:, 0], history.iloc[:, 1], linewidth=1, alpha=0.8, label=fold)
    axes.set_yscale("log")
    axes.set_xlabel("epoch")
    axes.set_ylabel("loss, training set")
    axes.set_title(f"{name}: {len(curves)} folds", fontsize=10)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=7, ncols=2, title="fold")


def _speed(axes: Any, timings: list[Timing], latency: bool) -> None:
    """A line for each network and record, with a mark for each engine (colour) and precision (shape)."""
    engines = list(dict.fromkeys(t.engine for t in timings))
    precisions = list(dict.fromkeys(t.row.precision for t in timings))
    lines = list(dict.fromkeys(t.line for t in timings))
    peaks = {}
    for t in timings:
        place = lines.index(t.line)
        value = t.row.p50_ms if latency else t.row.images_per_s
        if value is None or not t.row.valid:
            continue
        axes.plot(
            value,
            place,
            "os^D"[precisions.index(t.row.precision) % 4],
            color=_COLOURS[1 + engines.index(t.engine) % (len(_COLOURS) - 1)],
            label=f"{t.engine}, {t.row.precision}",
            markersize=7,
            alpha=0.9,
        )
        if t.peak and not latency:
            peaks[place, t.row.precision] = t.peak
    for (place, precision), peak in peaks.items():
        axes.plot(peak, place, "|", color=_COLOURS[0], markersize=16, markeredgewidth=2)
        axes.annotate(f"peak {precision}", (peak, place), (0, 9), textcoords="offset points", ha="center", fontsize=7)
    axes.set_yticks(range(len(lines)), lines, fontsize=8)
    axes.set_ylim(len(lines) - 0.5, -0.6)
    axes.set_xscale("log")
    axes.margins(x=0.08)
    axes.tick_params(axis="x", which="both", length=4, labelsize=9)
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter(lambda x, _: f"{x:g}" if f"{x:e}"[0] in "25" else "")
    axes.set_xlabel("median time of one prediction, ms" if latency else "images per second")
    axes.grid(axis="x", which="both", alpha=0.25)
    legend = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    axes.legend(
        legend.values(), legend, fontsize=8, loc="lower center", bbox_to_anchor=(0.4, 1.0), ncols=3, frameon=False
    )


def _latency(axes: Any, points: list[Point]) -> None:
    for place, point in enumerate(points):
        spread = [[100 * (point.accuracy - point.low)], [100 * (point.high - point.accuracy)]]
        axes.errorbar(
            point.latency_ms,
            100 * point.accuracy,
            yerr=spread,
            fmt="osD^v"[place % 5],
            capsize=3,
            color=_COLOURS[1 + place % (len(_COLOURS) - 1)],
            label=f"{point.name}, {point.protocol}, n = {point.n}",
        )
    axes.set_xlabel("median latency of one image, ms: " + "; ".join(dict.fromkeys(point.machine for point in points)))
    axes.set_ylabel("pooled accuracy, % (bar: 95 % intervals)")
    axes.set_xlim(left=0)
    axes.margins(x=0.3)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, frameon=False)
