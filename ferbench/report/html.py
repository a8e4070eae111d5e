"""The report as one HTML file that needs nothing else: no network, no script from elsewhere."""

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
from ferbench.labels import ABBREVIATIONS
from ferbench.reading import read_array, read_csv
from ferbench.report.cells import SELECTIONS, Grid, named, numeric
from ferbench.report.charts import recalls_by_level
from ferbench.report.latency import accuracy_over_latency
from ferbench.report.model import Report, Training
from ferbench.report.predictions import predictions
from ferbench.report.render import grids, heading, leading
from ferbench.report.summary import overview
from ferbench.report.told import Level
from ferbench.runs.speed import stored
from ferbench.runs.store import Store

HEADS = 12  # trainings with a headline each: of more, the first table says it better


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
        from the prepared sets in ``home``; 0 embeds no picture.
    Raises DataError where pictures are asked for and their set is not the one that was tested.
    """
    shown = []
    for report in reports:
        names = named(report.trainings)
        shown.append({
            "report": report, "lines": heading(report), "tables": [_table(grid) for grid in grids(report)],
            "leading": len(leading(report)),
            "trainings": [_facts(training, names[training.experiment]) for training in report.trainings],
            "charts": _charts(report, names), "few": len(report.trainings) <= HEADS,
            "galleries": [
                (names[training.experiment], _mistakes(training, store, errors, home))
                for training in report.trainings if errors
            ],
        })  # fmt: skip
    table = overview(reports)
    return _template().render(
        reports=shown, overview=table and _table(table), latency=_latency(reports, store), version=__version__,
        short=ABBREVIATIONS,
    )  # fmt: skip


def _table(grid: Grid) -> Mapping[str, Any]:
    caption, header, rows = grid
    return {
        "caption": caption, "header": header, "rows": rows,
        "matrix": "confusion" in caption or "images behind" in caption,
        "numeric": [i > 0 and numeric(rows, i) for i in range(len(header))],
    }  # fmt: skip


@cache
def _template() -> Any:
    from jinja2 import Environment, StrictUndefined

    text = resources.files("ferbench.report").joinpath("page.html").read_text(encoding="utf-8")
    return Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True).from_string(
        text
    )


def _facts(training: Training, name: str) -> Mapping[str, Any]:
    """What stands on top of a report: the headline with all that it takes to read it."""
    return {
        "name": name, "accuracy": training.accuracy, "interval": training.interval, "n": training.n,
        "apart": "" if training.apart == "drawn faces" else training.apart, "level": training.level,
        "done": f"{len(training.folds)}/{len(training.expected)}",
        "selection": SELECTIONS.get(training.selection, training.selection), "protocol": training.protocol,
        "folds": [(fold.fold, fold.accuracy, fold.images) for fold in training.folds],
    }  # fmt: skip


def _charts(report: Report, names: Mapping[str, str]) -> list[Mapping[str, Any]]:
    """For each level its recalls (by class a value for each series, or None) and its trainings with their folds."""
    found: list[Mapping[str, Any]] = []
    for level, chart in recalls_by_level(report, names).items():
        values = [(name, [values.get(name, np.nan) for _, values in chart.series]) for name in chart.classes]
        rows = [(name, [None if np.isnan(value) else value for value in row]) for name, row in values]
        found.append({
            "level": level, "series": [name for name, _ in chart.series], "rows": rows, "left_out": chart.left_out,
            "low": _low(report, level),
        })  # fmt: skip
    return found


def _low(report: Report, level: Level) -> int:
    """Where the axis of the folds begins: a round figure below all of them, at most 80."""
    worst = min(fold.accuracy for training in report.trainings if training.level == level for fold in training.folds)
    return min(80, int(10 * worst) * 10)


def _latency(reports: list[Report], store: Store) -> Mapping[str, Any] | None:
    """Accuracy over latency: the points, and where the axes end; None where no such method has been timed."""
    points = accuracy_over_latency(stored(store.home), reports)
    if not points:
        return None
    slowest, worst = max(point.latency_ms for point in points), min(point.low for point in points)
    return {"points": points, "slowest": 5 * math.ceil(slowest * 1.1 / 5), "low": min(80, int(10 * worst) * 10)}


def _mistakes(training: Training, store: Store, count: int, home: Path | None) -> list[Mistake]:
    frames = [predictions(store, store.record(fold.run)) for fold in training.folds]
    frame = pd.concat(frames, ignore_index=True)
    sure = frame[[f"p_{name}" for name in training.classes]].max(axis=1)
    wrong = frame.assign(sure=sure)[frame["truth"] != frame["prediction"]].nlargest(count, "sure")
    dataset = store.record(training.folds[0].run).dataset
    pictures = _pictures(dataset, training.data, list(wrong["id"]), home)
    return [
        Mistake(row.id, row.truth, row.prediction, None if training.uncalibrated else row.sure, pictures[row.id])
        for row in wrong.itertuples(index=False)
    ]


def _damaged(path: Path, dataset: str) -> str:
    return f"{path} is damaged (it is not what was prepared): prepare {dataset} again"


def _pictures(dataset: str, fingerprint: str, ids: list[str], home: Path | None) -> dict[str, str]:
    """Read images of a prepared set as PNG data URIs, by id."""
    from PIL import Image

    from ferbench.files import data_home, sha256_of
    from ferbench.schema import Card, read_sealed

    folder = data_home(home) / dataset
    try:
        card = read_sealed(Card, folder / "card.json", "prepare the set again")
        if changed := card.changed(folder):
            raise DataError(_damaged(folder / changed[0], dataset))
        samples = read_csv(folder / "samples.csv", dtype=str)
        images = read_array(folder / "images.npy")
    except OSError as error:
        raise DataError(f"the pictures of {dataset} cannot be read ({error}): `ferbench data prepare {dataset} …`, or "
                        "name the folder by --data-home") from None  # fmt: skip
    if card.fingerprint != fingerprint:
        raise DataError(f"{folder} is not the set that was tested: its fingerprint is {card.fingerprint[:12]}, "
                        f"theirs {fingerprint[:12]}")  # fmt: skip
    if (
        images.ndim != 3
        or images.dtype != np.uint8
        or len(images) != len(samples)
        or not {"id", "sequence", "sha256"} <= {*samples}
    ):
        raise DataError(f"{folder} is damaged: prepare it again")
    # Of a sequence its last frame is shown.
    places = {name: place for column in ("sequence", "id") for place, name in enumerate(samples[column])}
    found = {}
    for name in ids:
        place = places.get(name)
        if place is None or sha256_of(images[place].tobytes()) != samples["sha256"].iloc[place]:
            raise DataError(_damaged(folder, dataset))
        content = io.BytesIO()
        Image.fromarray(np.array(images[place])).save(content, "png")
        found[name] = "data:image/png;base64," + base64.b64encode(content.getvalue()).decode()
    return found
