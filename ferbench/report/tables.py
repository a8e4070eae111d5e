"""The tables of a report in reading order, and those that compare methods."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from functools import partial
from operator import itemgetter
from typing import Any

import numpy as np

from ferbench.report import details
from ferbench.report.published import PublishedRow, about
from ferbench.report.results import SELECTIONS, Report, Training, by_variant, named
from ferbench.report.table import OURS, Noted, Table, Value, limits, table
from ferbench.report.tested_runs import LEVELS, Level

MOST = 20  # trainings of a dataset of which a terminal shows more than a row each


def tables(report: Report, brief: bool = False) -> list[Table]:
    """Return the tables of a report in reading order.

    brief : without the further figures, confusion matrices and folds of each training where there are :func:`many`.
    """
    names, detailed = named(report.trainings), [] if brief and many(report) else report.trainings
    shown = leading(report) + measured(report, detailed)
    for t in detailed:
        shown += details.matrices(names[t.experiment], t)
    if report.published_matrix is not None:
        shown += report.published_matrix.tables()
    return shown + [details.folds(t, names[t.experiment]) for t in detailed] + remaining(report)


def many(report: Report) -> bool:
    """Whether a report has too many trainings for a terminal to show all of each."""
    return len(report.trainings) > MOST


def leading(report: Report) -> list[Table]:
    """Return the tables that compare methods, which a reader looks for first."""
    shown = [accuracy(report)] if report.trainings or report.published else []
    return [*shown, *same_training_data(report), *([inputs(report)] if report.trainings else [])]


def measured(report: Report, trainings: list[Training]) -> list[Table]:
    """Return the tables of all that is measured of each of these trainings, and of several together, and known of
    what was published."""
    shown = [details.trainings(report, group, level) for level, group in _by_level(trainings)]
    if report.published:
        shown.append(about(report.published, "What is known of the published figures"))
    if rows := list(dict.fromkeys((t.method, sentence) for t in report.trainings for sentence in t.differs)):
        columns = ("Method", "text", itemgetter(0)), ("Difference", "text", itemgetter(1))
        shown.append(table("What differs from the original methods, and why", rows, *columns))
    seeds, presets = dict(_by_level(report.seeds)), dict(_by_level(report.preset_ensembles))
    for level in LEVELS:
        shown += [details.over_seeds(seeds[level], level)] if level in seeds else []
        shown += [details.preset_ensembles(presets[level], level)] if level in presets else []
    return shown


def remaining(report: Report) -> list[Table]:
    """Return the tables of what was tested without a training, of what trainings start from, and of what is missing."""
    shown = [details.transfers(group, level) for level, group in _by_level(report.transfers)]
    shown += [details.stages(report.stages)] if report.stages else []
    return [*shown, *([details.missing_folds(report.missing_folds)] if report.missing_folds else [])]


def _by_level(items: Iterable[Any]) -> list[tuple[Level, list[Any]]]:
    items = list(items)
    groups = [(level, [item for item in items if item.level == level]) for level in LEVELS]
    return [(level, group) for level, group in groups if group]


def overview(reports: list[Report]) -> Table | None:
    """Return whole trainings of several datasets as one table, a column for each protocol; None where there are fewer
    than two datasets. A protocol is of images or of sequences, and so is its column.

    A cell is the pooled accuracy, mean ± standard deviation (ddof 1) over seeds where there are several; recipes that
    differ in more than the seed stand in it side by side.
    """
    rows: dict[tuple[str, str, str, str], dict[str, list[Training]]] = defaultdict(lambda: defaultdict(list))
    trainings = [t for report in reports for t in report.trainings if t.comparable]
    for t in trainings:
        view = t.sees if t.sees.startswith("image, ") else ""
        rows[t.method, t.preset, t.selection, view][t.protocol].append(t)
    shown = [[name for name in report.protocols if any(name in row for row in rows.values())] for report in reports]
    if sum(map(bool, shown)) < 2:
        return None

    def cell(protocol: str, row: tuple[Any, dict[str, list[Training]]]) -> Value:
        recipes = [[100 * t.accuracy for t in group] for group in by_variant(row[1].get(protocol, []))]
        return tuple(Noted(details.spread(shares), f" ({len(shares)} seeds)" * (len(shares) > 1)) for shares in recipes)

    return table(
        "Pooled accuracy of complete trainings, percent: mean ± standard deviation over seeds; a row for each method, "
        "a column for each protocol",
        rows.items(),
        ("Training", "text", lambda row: f"{OURS} {row[0][0]} ({row[0][1]})"),
        ("Weights tested", "text", lambda row: SELECTIONS.get(row[0][2], row[0][2])),
        *([("Input", "text", lambda row: row[0][3] or None)] if details.input_column(trainings) else []),
        *((name, "percent", partial(cell, name)) for names in shown for name in names),
    )


def accuracy(report: Report) -> Table:
    """Each compared method with its published figure and ours below it, lowest published figure first; methods without
    one stand where ours puts them, those with neither at the end. Images and sequences have columns of their own."""
    names, printed = named(report.trainings), {row.method: row for row in report.published}
    ours, groups = {t.experiment: t for t in report.trainings}, list[tuple[float, str, list[list[Value]]]]()
    for method in report.compared:
        row, reproductions = printed.get(method.method), [ours.pop(key) for key in method.experiments]
        figure = row.figure if row else max((100 * t.accuracy for t in reproductions), default=np.inf)
        known = [f"{row.table}: {row.tested}"] if row else []
        known += [method.why + (f": {method.command}" if method.command else "")] if method.why else []
        head: list[Value] = [method.method, row.cell if row else None, *[None] * 4, "; ".join(known), None]
        cells = [_ours(t, names, row) for t in reproductions]
        groups.append((figure, method.method, [head, *cells] if row or not cells else cells))
    others: dict[str, list[Training]] = defaultdict(list)
    for t in ours.values():
        others[t.method].append(t)
    for name, trainings in others.items():
        groups.append((max(100 * t.accuracy for t in trainings), name, [_ours(t, names, None) for t in trainings]))
    source = (
        "published as printed, ours beside it"
        if report.published
        else "ours, on drawn faces, for which nothing is published"
        if report.synthetic
        else "ours; nothing is published for it"
    )
    columns = [
        "Method",
        "Published",
        "By image",
        "95 % interval",
        "By sequence",
        "95 %, by sequence",
        "Details",
        "Input",
    ]
    kinds = ["text", *["percent"] * 5, "text", "text"]
    shown = len(columns) - (not details.input_column(report.trainings))
    return table(
        f"Accuracy on {report.dataset}, percent: {source} ({OURS})",
        [row for *_, group in sorted(groups, key=itemgetter(0, 1)) for row in group],
        *((columns[place], kinds[place], itemgetter(place)) for place in range(shown)),
    )


def _ours(t: Training, names: Mapping[str, str], row: PublishedRow | None) -> list[Value]:
    mark = "" if t.whole else f" ({t.done} folds)"
    images = [Noted(100 * t.accuracy, mark), limits(t.interval)] if t.level == "image" else [None, None]
    sequences: list[Value] = [None, None]
    if t.sequence_interval is not None:
        sequences = [Noted(100 * t.sequence_accuracy, mark), limits(t.sequence_interval, "sequence")]
    n = t.n + (f", {t.sequences:,} sequences" if t.level == "image" and t.sequences else "")
    known = [f"n = {n}", t.protocol, t.experiment, *t.changed]
    known += [] if t.selection == "last" else [t.weights]
    known += [] if t.held_out.comparable else [t.not_comparable_reason]
    published = row.figure if row and not t.not_comparable_reason else None
    return [f"{OURS} {names[t.experiment]}", published, *images, *sequences, "; ".join(known), details.seen(t)]


def same_training_data(report: Report) -> list[Table]:
    """For each preset that several methods share, these methods side by side, over their seeds, best first.

    Only whole trainings, tested on the same in the same folds, on people they did not learn from: trainings of two
    presets differ in their training data.
    """
    presets: dict[tuple[str, str], list[Training]] = defaultdict(list)
    for t in report.trainings:
        if t.comparable:
            presets[t.preset, t.test_set].append(t)
    shown = []
    for (preset, _), trainings in presets.items():
        if len({t.method for t in trainings}) > 1:
            groups = by_variant(trainings)
            groups.sort(key=lambda group: -np.mean([t.sequence_accuracy if t.sequences else t.accuracy for t in group]))
            shown.append(
                table(
                    f"Same training data, preset {preset or 'none'}: percent, mean ± standard deviation (ddof 1) over "
                    "seeds, best first. Compare methods of images with methods of sequences by sequences only",
                    groups,
                    ("Training", "text", lambda group: f"{OURS} {group[0].method}"),
                    ("By image", "percent", lambda group: details.spread(100 * t.accuracy for t in group if t.images)),
                    (
                        "By sequence",
                        "percent",
                        lambda group: details.spread(100 * t.sequence_accuracy for t in group if t.sequences),
                    ),
                    ("Seeds", "count", len),
                    ("Input", "text", lambda group: group[0].sees),
                    ("Trained on", "text", lambda group: ", ".join(group[0].trained_on)),
                )
            )
    return shown


def inputs(report: Report) -> Table:
    """The input and the training data of each training, once for all its seeds, and whether it is held out."""
    seeds = {group[0].experiment: [str(t.seed) for t in group] for group in by_variant(report.trainings)}
    return table(
        "Input and training data of each method: the protocols that it was trained on, first to last, and whether all "
        "test subjects were held out",
        [t for t in report.trainings if t.experiment in seeds],
        ("Training", "text", lambda t: f"{OURS} {t.method}"),
        ("Preset", "text", lambda t: t.preset),
        ("Changed from the preset", "text", lambda t: ", ".join(t.changed)),
        ("Input", "text", lambda t: t.sees),
        details.TRAINED_ON,
        *details.HELD_OUT,
        ("Scores", "text", lambda t: "uncalibrated" if t.uncalibrated else None),
        ("Seed", "text", lambda t: ", ".join(seeds[t.experiment])),
        ("Tested under", "text", lambda t: t.protocol),
    )
