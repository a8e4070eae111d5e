"""Tables as text: console (rich), markdown, JSON. Percent with two decimals, as the paper prints accuracy."""

import json
from dataclasses import asdict
from typing import Any

import numpy as np

from ferbench import metrics
from ferbench.labels import ABBREVIATIONS
from ferbench.report.published import PublishedMatrix
from ferbench.report.tables import Report, Stage, Training, across_seeds

OURS = "▸"  # marks our own rows among the published ones

Grid = tuple[str, list[str], list[list[str]]]  # caption, header, rows


def grids(report: Report) -> list[Grid]:
    """Return the tables of a report in reading order, as text cells."""
    found = [_accuracy(report)]
    if report.trainings:
        found.append(_details(report))
    if seeds := across_seeds(report.trainings):
        found.append((
            "Over seeds: mean ± standard deviation (ddof 1) of the pooled accuracy; what varies is the one seed",
            ["Method", "Preset", "Seeds", "Accuracy"],
            [[t.method, t.preset, str(n), f"{_percent(mean)} ± {_percent(std)}"] for t, n, mean, std in seeds],
        ))  # fmt: skip
    for training in report.trainings:
        found += [_matrix(training), _folds(training)]
    if report.published_matrix is not None:
        found.append(_published_matrix(report.published_matrix))
    if report.stages:
        found.append(_stages(report.stages))
    if report.holes:
        found.append((
            "Holes: folds that the tables above lack, and the commands that fill them",
            ["Method", "Fold", "Why", "Command"],
            [[h.method, h.fold, h.reason, f"`{h.command}`" if h.command else ""] for h in report.holes],
        ))  # fmt: skip
    return found


def heading(report: Report) -> list[str]:
    """Return what must be known to read the tables, a sentence each."""
    lines = []
    for rule in dict.fromkeys((t.rule, t.split_hash, t.data) for t in report.trainings):
        lines.append(f"Protocol {report.protocol}: {rule[0]}; no subject in both sides of a fold, every sample tested "
                     f"once; fold file {rule[1][:12]}, data {rule[2][:12]}.")  # fmt: skip
    lines.append("Accuracy is pooled over all test images of all folds, the paper's own measure, computed from stored "
                 "predictions. Intervals are 95 %, by bootstrap over subjects where they are known.")  # fmt: skip
    lines += [f"Published: {erratum}." for erratum in report.errata]
    lines += list(dict.fromkeys(f"Note: {note}." for t in report.trainings for note in t.notes))
    return lines


def markdown(reports: list[Report]) -> str:
    """Return a GitHub-flavoured document."""
    from tabulate import tabulate

    parts = []
    for report in reports:
        parts.append(f"# {report.dataset}\n\n" + "\n".join(f"- {line}" for line in heading(report)))
        for caption, header, rows in grids(report):
            align = ["left"] + ["right" if _numeric(rows, i) else "left" for i in range(1, len(header))]
            table = tabulate(rows, header, "github", colalign=align, disable_numparse=True)
            parts.append(f"**{caption}**\n\n{table}")
    return "\n\n".join(parts) + "\n"


def console(reports: list[Report]) -> None:
    """Print the tables on the terminal."""
    from rich.console import Console
    from rich.table import Table

    screen = Console()
    for report in reports:
        screen.print(f"[bold]{report.dataset}[/bold]")
        for line in heading(report):
            screen.print(line, style="dim", highlight=False)
        for caption, header, rows in grids(report):
            table = Table(title=f"\n{caption}", title_justify="left", title_style="italic", box=None, pad_edge=False)
            for i, name in enumerate(header):
                table.add_column(name, justify="right" if i and _numeric(rows, i) else "left", overflow="fold")
            for row in rows:
                table.add_row(*(cell.strip("`") for cell in row), style="bold" if row[0].startswith(OURS) else "")
            screen.print(table)


def document(reports: list[Report]) -> str:
    """Return one JSON document: a list of reports with the fields of ``tables.Report``, fractions not percent.

    Arrays are lists; a figure that does not exist (a recall of an absent class) is null.
    """
    return json.dumps([_plain(asdict(report)) for report in reports], indent=2, ensure_ascii=False, allow_nan=False)


def _accuracy(report: Report) -> Grid:
    rows = [[row.method, row.feature, f"{row.accuracy:.2f}", "", row.table] for row in report.published]
    for t in report.trainings:
        folds = "" if t.whole else f"; {len(t.folds)}/{len(t.expected)} folds"
        low, high = _percent(t.interval.low), _percent(t.interval.high)
        rows.append([
            f"{OURS} {t.method} ({t.preset}, seed {t.seed})", "static", _percent(t.accuracy), f"{low}–{high}",
            f"ours, n = {t.images:,}{folds}; {t.selection} epoch; {t.protocol}; {t.experiment}"
            if t.selection == "last" else f"ours, n = {t.images:,}{folds}; {t.selection}; {t.protocol}; {t.experiment}",
        ])  # fmt: skip
    caption = f"Accuracy on {report.dataset}, percent: published rows as printed, then ours ({OURS})"
    return caption, ["Method", "Feature", "Accuracy", "95 % interval", "From"], rows


def _details(report: Report) -> Grid:
    header = ["Training", "Images", "Subjects", "Folds", "Mean ± std of folds", "Balanced", "Macro F1", "Sequences",
              "Precision", "Device"]  # fmt: skip
    rows = [[
        f"{OURS} {t.method} ({t.preset}, seed {t.seed})", f"{t.images:,}", str(t.subjects),
        f"{len(t.folds)}/{len(t.expected)}", f"{_percent(t.fold_mean)} ± {_percent(t.fold_std)}",
        _percent(t.balanced_accuracy), _percent(t.macro_f1),
        f"{_percent(t.sequence_accuracy)} of {t.sequences}" if t.sequences else "unknown", t.precision, t.device,
    ] for t in report.trainings]  # fmt: skip
    return ("Ours in detail, percent: std over folds (ddof 1); balanced accuracy and macro F1 over classes present; "
            "sequences by the mean of their frames' probabilities"), header, rows  # fmt: skip


def _matrix(t: Training) -> Grid:
    names = [ABBREVIATIONS[name] for name in t.classes]
    sizes = t.matrix.sum(axis=1)
    rows = [
        [name, *(_cell(value) for value in row), str(size)]
        for name, row, size in zip(names, metrics.row_percent(t.matrix), sizes, strict=True)
    ]
    caption = f"{t.method} ({t.preset}, seed {t.seed}): confusion in percent of the row, truth down, predicted across"
    return caption, ["", *names, "images"], rows


def _published_matrix(matrix: PublishedMatrix) -> Grid:
    names = [ABBREVIATIONS[name] for name in matrix.classes]
    counts = matrix.counts()
    rows = [
        [name, *(_cell(value) for value in row), str(size)]
        for name, row, size in zip(names, matrix.percent, matrix.images, strict=True)
    ]
    right = int(np.trace(counts))
    caption = (f"Published ({matrix.table}): confusion in percent; it comes to {right:,} of {counts.sum():,} images, "
               f"{100 * metrics.accuracy(counts):.2f} %")  # fmt: skip
    return caption, ["", *names, "images"], rows


def _folds(t: Training) -> Grid:
    rows = [
        [fold.fold, str(fold.images), str(fold.subjects), _percent(fold.accuracy), " ".join(fold.absent),
         f"{fold.seconds:.0f}", fold.run]
        for fold in t.folds
    ]  # fmt: skip
    return (f"{t.method} ({t.preset}, seed {t.seed}): by fold; what varies is who is tested",
            ["Fold", "Images", "Subjects", "Accuracy", "No images of", "Seconds", "Run"], rows)  # fmt: skip


def _stages(stages: list[Stage]) -> Grid:
    rows = []
    for stage in stages:
        parts = stage.result.items() if stage.kind == "attention" else [("", stage.result)]
        said = "; ".join(
            f"{name} {_percent(facts['validation_accuracy'])} of {facts['validation_images']:,}".strip()
            for name, facts in parts if facts
        )  # fmt: skip
        rows.append([stage.kind, stage.protocol, f"{stage.images:,}", str(stage.epochs), said, f"{stage.seconds:.0f}",
                     stage.device, stage.run])  # fmt: skip
    return ("What the folds start from: validation accuracy in percent, never used to choose anything",
            ["Stage", "Protocol", "Images", "Epochs", "Validation", "Seconds", "Device", "Run"], rows)  # fmt: skip


def _percent(share: float) -> str:
    return f"{100 * share:.2f}"


def _cell(value: float) -> str:
    return "–" if np.isnan(value) else "0" if value == 0 else f"{value:.1f}"


def _numeric(rows: list[list[str]], column: int) -> bool:
    return all(row[column] == "" or row[column][0].isdigit() or row[column] == "–" for row in rows)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, float) and np.isnan(value):
        return None
    return value
