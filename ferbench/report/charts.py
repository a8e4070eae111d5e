"""What the charts of a report show, on a page and as files: recall of each class, published and ours."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ferbench import metrics
from ferbench.report.model import Report, Training
from ferbench.report.told import LEVELS, Level

MOST = 6  # series that colours tell apart

Series = tuple[str, dict[str, float]]  # its name, then percent by class; NaN for a class without anything to test


@dataclass(frozen=True)
class Chart:
    """Recalls of several trainings of one level. left_out : trainings that have no place in it."""

    classes: list[str]
    series: list[Series]
    left_out: int


def recalls_by_level(report: Report, names: Mapping[str, str]) -> dict[Level, Chart]:
    """Return a chart for each level that something was tested at. The published matrix is of images.

    Where there are too many trainings for one, those of the highest accuracy stand in it: one of each recipe first, and
    none that lacks folds or is not known to be held out as long as there are others.
    """
    found: dict[Level, Chart] = {}
    for level in LEVELS:
        mine = [t for t in report.trainings if t.level == level]
        if not mine:
            continue
        series: list[Series] = []
        if report.published_matrix is not None and level == "image":
            printed = report.published_matrix
            diagonal = [float(value) for value in np.diag(printed.percent)]
            series.append((f"published ({printed.table})", dict(zip(printed.classes, diagonal, strict=True))))
        best = _best(mine, MOST - len(series))
        for t in mine:
            if any(t is one for one in best):
                recalls = [float(100 * value) for value in metrics.recalls(t.matrix)]
                series.append((names[t.experiment], dict(zip(t.classes, recalls, strict=True))))
        found[level] = Chart(mine[0].classes, series, len(mine) - len(best))
    return found


def _best(trainings: list[Training], count: int) -> list[Training]:
    ordered = sorted(trainings, key=lambda t: -t.accuracy)
    first = {t.variant: t.experiment for t in reversed(ordered)}  # the best of each recipe
    return sorted(ordered, key=lambda t: (not t.comparable, first[t.variant] != t.experiment))[:count]
