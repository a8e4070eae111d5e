"""All protocols at a glance: one row for each method and preset, one column for each protocol."""

from collections import defaultdict

import numpy as np

from ferbench.report.cells import OURS, SELECTIONS, Grid, Section
from ferbench.report.conclusions import conclude, lines
from ferbench.report.model import Report, Training
from ferbench.report.render import sections


def overview(reports: list[Report]) -> Grid | None:
    """Return whole trainings of several sets as one table, a column for each protocol; None where there are fewer than
    two sets. A protocol is of images or of sequences, and so is its column.

    A cell is the pooled accuracy in percent, mean ± standard deviation (ddof 1) over seeds where there are
    several; recipes that differ in more than the seed stand in it side by side.
    """
    rows: dict[tuple[str, str, str], dict[str, list[Training]]] = defaultdict(lambda: defaultdict(list))
    for report in reports:
        for training in report.trainings:
            if training.comparable:
                rows[training.method, training.preset, training.selection][training.protocol].append(training)
    shown = [[name for name in report.protocols if any(name in row for row in rows.values())] for report in reports]
    if sum(map(bool, shown)) < 2:
        return None
    protocols = [name for names in shown for name in names]
    cells = [
        [
            f"{OURS} {method} ({preset})",
            SELECTIONS.get(selection, selection),
            *(_cell(row.get(name, [])) for name in protocols),
        ]
        for (method, preset, selection), row in rows.items()
    ]
    return (
        "Pooled accuracy, percent, of whole trainings: mean ± standard deviation over n seeds; what varies down is "
        "the method, across the protocol",
        ["Training", "Weights tested", *protocols],
        cells,
    )


def _cell(trainings: list[Training]) -> str:
    recipes: dict[str, list[float]] = defaultdict(list)
    for one in trainings:
        recipes[one.variant].append(100 * one.accuracy)
    return "; ".join(
        f"{np.mean(found):.2f} ± {np.std(found, ddof=1):.2f}, n = {len(found)}" if len(found) > 1 else f"{found[0]:.2f}"
        for found in recipes.values()
    )


def concluded(reports: list[Report]) -> list[Section]:
    """Return for each report a section without tables: what may be concluded, as the HTML page has it on top."""
    return [(f"{report.dataset}: what may be concluded", lines(conclude(report)), []) for report in reports]


def all_sections(reports: list[Report], brief: bool = False) -> list[Section]:
    """Return each report as a section, the overview before them where there is one; ``brief`` as for a terminal."""
    table = overview(reports)
    first: list[Section] = (
        [
            (
                "all protocols",
                ["Trainings that lack folds are left out, as are those that are not known to be held out."],
                [table],
            )
        ]
        if table
        else []
    )
    return first + sections(reports, brief)
