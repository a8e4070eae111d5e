"""All protocols at a glance: one row for each method and preset, one column for each protocol."""

from collections import defaultdict

import numpy as np

from ferbench.report.render import OURS, SELECTIONS, Grid, Section, sections
from ferbench.report.tables import Report, Training


def overview(reports: list[Report]) -> Grid | None:
    """Return whole trainings of several protocols as one table; None where there are fewer than two protocols.

    A cell is the pooled accuracy in percent, mean ± standard deviation (ddof 1) over seeds where there are
    several; recipes that differ in more than the seed stand in it side by side.
    """
    rows: dict[tuple[str, str, str], dict[str, list[Training]]] = defaultdict(lambda: defaultdict(list))
    for report in reports:
        for training in report.trainings:
            if training.whole:
                rows[training.method, training.preset, training.selection][report.protocol].append(training)
    protocols = [report.protocol for report in reports if any(report.protocol in row for row in rows.values())]
    if len(protocols) < 2:
        return None
    cells = [
        [f"{OURS} {method} ({preset})", SELECTIONS[selection], *(_cell(row.get(name, [])) for name in protocols)]
        for (method, preset, selection), row in rows.items()
    ]
    return ("Pooled accuracy, percent, of whole trainings: mean ± standard deviation over n seeds; what varies down is "
            "the method, across the protocol", ["Training", "Weights tested", *protocols], cells)  # fmt: skip


def _cell(trainings: list[Training]) -> str:
    recipes: dict[str, list[float]] = defaultdict(list)
    for one in trainings:
        recipes[one.variant].append(100 * one.accuracy)
    return "; ".join(
        f"{np.mean(found):.2f} ± {np.std(found, ddof=1):.2f}, n = {len(found)}" if len(found) > 1 else f"{found[0]:.2f}"
        for found in recipes.values()
    )


def all_sections(reports: list[Report]) -> list[Section]:
    """Return each report as a section, the overview before them where there is one."""
    table = overview(reports)
    first: list[Section] = [("all protocols", ["Trainings that lack folds are left out."], [table])] if table else []
    return first + sections(reports)
