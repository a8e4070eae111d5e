"""The report as one self-contained HTML file: it loads nothing from the network."""

import base64
import io
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ferbench import __version__
from ferbench.errors import DataError
from ferbench.report import details, tables
from ferbench.report.conclusions import conclude, heading, unfit
from ferbench.report.figures import accuracy_over_latency, recalls_by_level
from ferbench.report.published import PublishedRow
from ferbench.report.results import Report, Training, named
from ferbench.report.table import Table, Value, limits_text, parts, percent
from ferbench.report.tested_runs import predictions
from ferbench.runs.record import Record
from ferbench.runs.speed import stored
from ferbench.runs.store import Store

FEW = 3  # up to this number of trainings, all tables are open
ROWS = 24  # trainings in a chart; the tables show the others


@dataclass(frozen=True)
class Mistake:
    """One confidently wrong image of the gallery, as a data URI."""

    id: str
    truth: str
    prediction: str
    probability: float | None  # None where scores are no probabilities
    picture: str


def page(reports: list[Report], store: Store, errors: int = 0, home: Path | None = None) -> str:
    """Return the document.

    errors : so many of the most confident errors of each training are shown with their pictures, which are read
        from the prepared datasets in ``home``; 0 embeds no picture.
    Raises DataError where pictures are asked for and their set is not the one that was tested.
    """
    overview = tables.overview(reports)
    return _template().render(
        reports=[_shown(report, store, errors, home) for report in reports],
        overview=overview and _table(overview),
        latency=_latency(reports, store),
        version=__version__,
    )


def _shown(report: Report, store: Store, errors: int, home: Path | None) -> Mapping[str, Any]:
    """A report as the template reads it."""
    names = named(report.trainings)
    groups = {"Published: confusion": report.published_matrix.tables()} if report.published_matrix else {}
    for t in report.trainings:
        name = names[t.experiment]
        groups[f"{name}: confusion, folds"] = [*details.matrices(name, t), details.folds(t, name)]
    behind = [*tables.measured(report, report.trainings), *tables.remaining(report)]
    return {
        "report": report,
        "lines": heading(report),
        "conclusions": conclude(report),
        "leading": list(map(_table, tables.leading(report))),
        "behind": list(map(_table, behind)),
        "each": [(name, list(map(_table, group))) for name, group in groups.items()],
        "charts": _charts(report, names),
        "few": len(report.trainings) <= FEW,
        "galleries": [(names[t.experiment], _mistakes(t, store, errors, home)) for t in report.trainings if errors],
    }


def _table(table: Table) -> Mapping[str, Any]:
    """A table with the texts and numbers of its cells, the class of each column and, of a matrix, how strong each
    cell's colour is."""
    texts = table.texts()
    return {
        "caption": table.caption,
        "header": table.header,
        "rows": [
            [(text, _number(value)) for text, value in zip(*row, strict=True)]
            for row in zip(texts, table.rows, strict=True)
        ],
        "matrix": table.matrix,
        "kinds": ["n" if right else _width([row[place] for row in texts]) for place, right in enumerate(table.right)],
        "heat": [_heat(row[1 : table.matrix + 1]) for row in table.rows] if table.matrix else [],
    }


def _number(value: Value) -> float | None:
    """The number by which a cell is sorted, None for a text."""
    return next((content for _, content in parts(value) if not isinstance(content, str)), None)


def _width(texts: list[str]) -> str:
    """The class of a text column: long texts and groups of words break into lines, short texts do not."""
    longest = max(map(len, texts), default=0)
    return "text" if longest > 40 else "words" if longest > 24 else ""


def _heat(cells: list[float]) -> list[str]:
    """The share of its row that each cell of a matrix is."""
    counts = np.nan_to_num(np.array(cells, dtype=np.float64))
    return [f"{count / (counts.sum() or 1.0):.3f}" for count in counts]


@cache
def _template() -> Any:
    from jinja2 import Environment, StrictUndefined

    text = resources.files("ferbench.report.formats").joinpath("page.html").read_text(encoding="utf-8")
    return Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True).from_string(
        text
    )


def _charts(report: Report, names: Mapping[str, str]) -> list[Mapping[str, Any]]:
    """For each level its recalls (by class a value for each series, or None), and its trainings with their folds as
    places on an axis, in percent of its length."""
    charts: list[Mapping[str, Any]] = []
    printed = {row.method: row for row in report.published}
    for level, chart in recalls_by_level(report, names).items():
        values = [(name, [values.get(name, np.nan) for _, values in chart.series]) for name in chart.classes]
        recalls = [(name, [None if np.isnan(value) else value for value in row]) for name, row in values]
        trainings = [t for t in report.trainings if t.level == level]
        best = sorted(trainings, key=lambda t: (not t.comparable, -t.accuracy))[:ROWS]
        beside = {
            t.experiment: row
            for t in best
            if (row := printed.get(t.published)) and row.level == level and not unfit([t], row)
        }
        shares = [fold.accuracy for t in best for fold in t.folds] + [t.interval.low for t in best]
        low = _low([*shares, *(row.figure / 100 for row in beside.values())])
        rows = [_row(t, names[t.experiment], beside.get(t.experiment), low) for t in best]
        charts.append(
            {
                "level": level,
                "series": [name for name, _ in chart.series],
                "recalls": recalls,
                "rows": rows,
                "colour": int(
                    not chart.series[0][0].startswith("published")
                ),  # the first colour is for published figures
                "left_out": chart.left_out,
                "rows_left_out": len(trainings) - len(best),
                "printed": bool(beside),
                "marks": _marks(0),
                "folds_marks": _marks(low),
            }
        )
    return charts


def _row(t: Training, name: str, printed: PublishedRow | None, low: int) -> Mapping[str, Any]:
    """A training as places on an axis that begins at ``low`` percent, with the label of each."""

    def place(share: float) -> str:
        return f"{100 * (100 * share - low) / (100 - low):.2f}"

    why = "" if t.not_comparable_reason in ("", "drawn faces") else f": {t.not_comparable_reason}"
    return {
        "name": name + why,
        "pooled": place(t.accuracy),
        "low": place(t.interval.low),
        "high": place(t.interval.high),
        "label": f"pooled: {percent(t.accuracy)} % ({limits_text(t.interval, t.level)}), n = {t.n}",
        "folds": [
            (place(fold.accuracy), f"fold {fold.fold}: {percent(fold.accuracy)} % of {fold.images:,} {t.level}s")
            for fold in t.folds
        ],
        "printed": printed and (place(printed.figure / 100), f"published ({printed.table}): {printed.figure:.2f} %"),
    }


def _low(shares: list[float]) -> int:
    """Where an axis of accuracies begins: a round figure below all of them, at most 80."""
    return min(80, int(10 * min(shares)) * 10)


def _marks(low: int) -> list[tuple[str, int]]:
    """The round figures along an axis from ``low`` to 100, and where they stand, in percent of its length."""
    step = 25 if low == 0 else 20 if low < 50 else 10 if low < 80 else 5
    return [(f"{100 * (mark - low) / (100 - low):.2f}", mark) for mark in range(-(-low // step) * step, 101, step)]


def _latency(reports: list[Report], store: Store) -> Mapping[str, Any] | None:
    """Accuracy over latency as places on two axes, and where these end; None where no such method has been timed."""
    points = accuracy_over_latency(stored(store.home), reports)
    if not points:
        return None
    slowest, low = 5 * math.ceil(max(point.latency_ms for point in points) * 1.1 / 5), _low([p.low for p in points])

    def height(share: float) -> str:
        return f"{230 - 220 * (100 * share - low) / (100 - low):.1f}"

    shown = [
        {
            "name": f"{point.name}, {point.protocol}, n = {point.n}",
            "x": f"{100 * point.latency_ms / slowest:.2f}",
            "y": height(point.accuracy),
            "bottom": height(point.low),
            "top": height(point.high),
            "label": f"{point.name}, {point.protocol}: {percent(point.accuracy)} % ({percent(point.low)}–"
            f"{percent(point.high)}), {point.latency_ms:.2f} ms; {point.machine}",
        }
        for point in points
    ]
    machines = list(dict.fromkeys(point.machine for point in points))
    return {"points": shown, "machines": machines, "slowest": slowest, "low": low}


def _mistakes(training: Training, store: Store, count: int, home: Path | None) -> list[Mistake]:
    frames = [predictions(store, store.record(fold.run)) for fold in training.folds]
    frame = pd.concat(frames, ignore_index=True)
    sure = frame[[f"p_{name}" for name in training.classes]].max(axis=1)
    wrong = frame.assign(sure=sure)[frame["truth"] != frame["prediction"]].nlargest(count, "sure")
    pictures = _pictures(store.record(training.folds[0].run), list(wrong["id"]), home)
    return [
        Mistake(row.id, row.truth, row.prediction, None if training.uncalibrated else row.sure, pictures[row.id])
        for row in wrong.itertuples(index=False)
    ]


def _pictures(record: Record, ids: list[str], home: Path | None) -> dict[str, str]:
    """Read what a model saw of samples of a prepared dataset as data URIs, by id."""
    from PIL import Image

    from ferbench.data import faces as prepared_sets
    from ferbench.data import views
    from ferbench.files import data_home

    faces = prepared_sets.load(record.dataset, data_home(home))
    if faces.fingerprint != record.identity.data:
        raise DataError(
            f"{faces.folder} is not the dataset that was tested: its fingerprint is {faces.fingerprint[:12]}, that of "
            f"the runs is {record.identity.data[:12]}"
        )
    view = views.View.model_validate(record.facts.get("view", {}))
    # Of a sequence its last frame is shown.
    places = {name: place for column in ("sequence", "id") for place, name in enumerate(faces.samples[column])}
    if missing := [name for name in ids if name not in places]:
        raise DataError(f"{faces.folder} is damaged (it has no sample {missing[0]}): prepare {faces.name} again")
    uris, kind = {}, "png" if view.is_default else "jpeg"
    rows = np.array([places[name] for name in ids], dtype=np.int64)
    for name, image in zip(ids, views.images(faces, rows, view)[:], strict=True):
        content = io.BytesIO()
        Image.fromarray(image).save(content, kind, quality=90)
        uris[name] = f"data:image/{kind};base64," + base64.b64encode(content.getvalue()).decode()
    return uris
