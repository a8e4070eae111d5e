"""A report as text: console (rich), markdown, JSON."""

import json
import sys
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

import numpy as np

from ferbench.report import comparison, details
from ferbench.report.cells import OURS, SELECTIONS, Grid, Section, before_seed, listed, named, numeric, percent, reach
from ferbench.report.model import Report, Training
from ferbench.report.tables import published_rows, trainings
from ferbench.report.told import FEW, LEVELS
from ferbench.runs.facts import HeldOut
from ferbench.runs.store import Store
from ferbench.text import markdown

MOST = 20  # trainings of a set of which a terminal shows more than a row each
WIDE = 160  # columns of a console that is a file or a pipe: nothing is cut off


def grids(report: Report, brief: bool = False) -> list[Grid]:
    """Return the tables of a report in reading order, as text cells.

    brief : without the further figures, confusion matrices and folds of each training where there are more than
        ``MOST`` trainings.
    """
    names, detailed = named(report.trainings), [] if brief and _many(report) else report.trainings
    found = leading(report) + measured(report, detailed)
    for training in detailed:
        found += details.matrices(names[training.experiment], training)
    if report.published_matrix is not None:
        found += details.published_matrices(report.published_matrix)
    found += [details.folds(training, names[training.experiment]) for training in detailed]
    return found + remaining(report)


def _many(report: Report) -> bool:
    return len(report.trainings) > MOST


def leading(report: Report) -> list[Grid]:
    """Return the tables that show methods beside each other, which a reader looks for first."""
    found = []
    if report.trainings or report.published:
        found.append(comparison.accuracy(report, named(report.trainings)))
    found += comparison.same_training_data(report)
    if report.trainings:
        found.append(comparison.learned(report))
    return found


def measured(report: Report, trainings: list[Training]) -> list[Grid]:
    """Return the tables of all that is measured of each of these trainings, and of several together, and known of
    what was published."""
    names, found = named(report.trainings), list[Grid]()
    for level in LEVELS:
        if mine := [t for t in trainings if t.level == level]:
            found.append(details.measured(report, mine, names, level))
    if report.published:
        found.append(comparison.about(report.published, "What is known of the published figures"))
    if (differences := comparison.differences(report)) is not None:
        found.append(differences)
    for level in LEVELS:
        if seeds := [one for one in report.seeds if one.level == level]:
            found.append(details.seeds(seeds, level))
        if together := [one for one in report.together if one.level == level]:
            found.append(details.together(together, level))
    return found


def remaining(report: Report) -> list[Grid]:
    """Return the tables of what was tested without a training, of what trainings start from, and of what is missing."""
    found = list[Grid]()
    for level in LEVELS:
        if transfers := [one for one in report.transfers if one.level == level]:
            found.append(details.transfers(transfers, level))
    if report.stages:
        found.append(details.stages(report.stages))
    if report.holes:
        found.append(details.holes(report.holes))
    return found


def heading(report: Report, brief: bool = False) -> list[str]:
    """Return what must be known to read the tables, a sentence or two each; ``brief`` as for :func:`grids`."""
    lines, names = [], named(report.trainings)
    if report.drawn:
        lines.append(
            "The faces are drawn by ferbench. No published figure is comparable, and these figures say "
            "nothing about how well people's expressions are recognised."
        )
    groups = dict.fromkeys(
        (t.protocol, t.level, t.rule, t.split_hash, t.data, t.subjects > 0) for t in report.trainings
    )
    for protocol, level, rule, split_hash, data, people in groups:
        disjoint = (
            f"no subject is in both training and test set, every {level} of the test set is tested once"
            if people
            else "subjects are unknown, so the same people may be in training and test sets"
        )
        lines.append(f"Protocol {protocol}: {rule}; {disjoint}. Fold file {split_hash[:12]}, data {data[:12]}.")
    lines += dict.fromkeys(f"Audit of {t.protocol}: {t.audit}." for t in report.trainings if t.audit)
    for selection in dict.fromkeys(t.selection for t in report.trainings):
        lines.append(f"Weights tested: {SELECTIONS.get(selection, selection)}. No test image was used to choose them.")
    if report.varying:
        facts = "; ".join(f"{name} ({listed(values)})" for name, values in report.varying.items())
        lines.append(f"Our trainings differ in: {facts}.")
    elif report.trainings:
        lines.append("Our trainings differ in nothing: there is one.")
    lines.append(
        "Accuracy is pooled over all test images of all folds, the paper's own measure, computed from stored "
        "predictions. Intervals are 95 %, with subjects as clusters where they are known."
    )
    if any(t.level == "sequence" for t in report.trainings):
        lines.append(
            "Under a protocol of sequences there is one prediction for each sequence, so n differs. "
            "Methods that predict images have an accuracy on sequences too, from the mean of their "
            "images' probabilities. The two kinds are compared by that accuracy only."
        )
    if any(t.sees.startswith(FEW) for t in report.trainings):
        lines.append(
            f"({FEW}) marks a method of sequences that was given three frames of each. It is compared with "
            "no published figure."
        )
    if apart := [t for t in report.trainings if not t.held_out.comparable]:
        lines.append(
            f"Trained on test subjects, or this is unknown: {listed([names[t.experiment] for t in apart])}. "
            "Such a figure is compared with no other."
        )
    if any(not t.whole for t in report.trainings):
        lines.append(
            "A training with missing folds is marked with the number of its folds. Its figures are of "
            "other images, so they are not compared."
        )
    if report.habits:
        lines.append(
            f"Left out: {report.habits} folds that measure data leakage (best test epoch, subjects in "
            "training and test set) and are no results; `ferbench report --ablation` shows them."
        )
    if brief and _many(report):
        lines.append(
            f"Further figures, confusion matrices and folds of the {len(report.trainings)} trainings are left "
            "out here: every other --format has them."
        )
    lines += [f"Published: {erratum}." for erratum in report.errata]
    lines += list(dict.fromkeys(f"Note: {note.rstrip('.')}." for t in report.trainings for note in t.notes))
    return lines


def headlines(store: Store, dataset: str, keys: Iterable[str]) -> list[str]:
    """Return a line for each complete training: its pooled accuracy, and what it takes to read that.

    keys : of folds that have ended, whose protocol is ``dataset``.
    """
    rows, lines = {row.method: row for row in published_rows(dataset)}, []
    for t in trainings(store, keys):
        if t.whole:
            row = None if t.apart else rows.get(t.published)
            figure = f"; published {row.figure:.2f} %" if row else ""
            lines.append(
                f"{t.method} ({before_seed(t)}seed {t.seed}): {percent(t.accuracy)} % of {t.n} "
                f"(95 % interval {reach(t.interval, t.level)}); {t.protocol}, "
                f"{SELECTIONS.get(t.selection, t.selection)}{figure}"
            )
    return lines


def sections(reports: list[Report], brief: bool = False) -> list[Section]:
    """Return each report as a section; ``brief`` as for :func:`grids`."""
    return [(report.dataset, heading(report, brief), grids(report, brief)) for report in reports]


def markdown_sections(found: list[Section]) -> str:
    """Return a GitHub-flavoured document of sections."""
    parts = []
    for title, lines, tables in found:
        parts.append(f"# {markdown(title)}\n\n" + "\n".join(f"- {markdown(line)}" for line in lines))
        parts += map(markdown_grid, tables)
    return "\n\n".join(parts) + "\n"


def markdown_grid(grid: Grid) -> str:
    """Return a table for GitHub with its caption above it."""
    from tabulate import tabulate

    caption, header, rows = grid
    align = ["left"] + ["right" if numeric(rows, i) else "left" for i in range(1, len(header))]
    head, *cells = [[markdown(cell, cell=True) for cell in row] for row in (header, *rows)]
    table = tabulate(cells, head, "github", colalign=align, disable_numparse=True)
    return f"**{markdown(caption)}**\n\n{table}"


def console_sections(found: list[Section]) -> None:
    """Print sections on the terminal."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    screen = Console(width=None if sys.stdout.isatty() else WIDE)
    for title, lines, tables in found:
        screen.print(Text(title, style="bold"))
        for line in lines:
            screen.print(Text(line, style="dim"))
        for caption, header, rows in tables:
            screen.print(Text(f"\n{caption}", style="italic"))
            shown = [[cell.strip("`") for cell in row] for row in rows]
            right = [i > 0 and numeric(rows, i) for i in range(len(header))]
            styles = ["bold" if row[0].startswith(OURS) else "" for row in rows]
            if (fitting := _aligned([header, *shown], right, screen.width)) is not None:
                texts = (Text(line, style=style) for line, style in zip(fitting, ["bold", *styles], strict=True))
                screen.print(Text("\n", no_wrap=True).join(texts))
                continue
            table = Table(box=None, pad_edge=False)
            for name, number in zip(header, right, strict=True):
                table.add_column(Text(name), justify="right" if number else "left", overflow="fold")
            for row, style in zip(shown, styles, strict=True):
                table.add_row(*(Text(cell, style=style) for cell in row))
            screen.print(table)


def _aligned(rows: list[list[str]], right: list[bool], width: int) -> list[str] | None:
    """The lines of a table that needs no folding; None where it is wider. Of hundreds of rows, rich takes a second."""
    from rich.cells import cell_len

    sizes = [[cell_len(cell) for cell in row] for row in rows]
    widths = [max(column) for column in zip(*sizes, strict=True)]
    if sum(widths) + 2 * (len(widths) - 1) > width:
        return None
    lines = []
    for row, lengths in zip(rows, sizes, strict=True):
        cells = zip(row, lengths, widths, right, strict=True)
        padded = (
            f"{' ' * (widest - own)}{cell}" if end else f"{cell}{' ' * (widest - own)}"
            for cell, own, widest, end in cells
        )
        lines.append("  ".join(padded).rstrip())
    return lines


def document(reports: list[Report]) -> str:
    """Return one JSON document: a list with the fields of ``tables.Report`` for each protocol.

    Arrays are lists; a figure that does not exist (of sequences that are unknown) is null.
    """
    return json.dumps([_plain(asdict(report)) for report in reports], indent=2, ensure_ascii=False, allow_nan=False)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, HeldOut):
        return str(value)
    if isinstance(value, float) and np.isnan(value):
        return None
    return value
