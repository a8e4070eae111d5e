"""Tables as text: console (rich), markdown, JSON. Accuracy in percent with two decimals, as the paper prints it."""

import json
import re
import sys
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

import numpy as np

from ferbench import metrics
from ferbench.labels import ABBREVIATIONS
from ferbench.report.published import PublishedMatrix
from ferbench.report.tables import Hole, Report, Seeds, Stage, Together, Training, Transfer, build
from ferbench.runs.store import Store

OURS = "▸"  # marks our own rows among the published ones
SELECTIONS = {"last": "last epoch", "best-val": "best epoch on held-out training subjects"}
KEY = re.compile("[0-9a-f]{8,16}")  # an experiment or a run
WIDE = 160  # columns of a console that is a file or a pipe: nothing is cut off

Grid = tuple[str, list[str], list[list[str]]]  # caption, header, rows
Section = tuple[str, list[str], list[Grid]]  # title, what must be known to read the tables, the tables


def grids(report: Report) -> list[Grid]:
    """Return the tables of a report in reading order, as text cells."""
    names = named(report.trainings)
    found = [_accuracy(report, names)] if report.trainings or report.published else []
    if report.trainings:
        found.append(_details(report, names))
    if report.seeds:
        found.append(_seeds(report.seeds))
    if report.together:
        found.append(_together(report.together))
    for training in report.trainings:
        found += _matrices(names[training.experiment], training.classes, training.matrix)
    if report.published_matrix is not None:
        found += _published_matrices(report.published_matrix)
    found += [_folds(training, names[training.experiment]) for training in report.trainings]
    if report.transfers:
        found.append(_transfers(report.transfers))
    if report.stages:
        found.append(_stages(report.stages))
    if report.holes:
        found.append(_holes(report.holes))
    return found


def heading(report: Report) -> list[str]:
    """Return what must be known to read the tables, a sentence or two each."""
    lines = []
    groups = dict.fromkeys((t.rule, t.split_hash, t.data, t.subjects > 0) for t in report.trainings)
    for rule, split_hash, data, people in groups:
        disjoint = ("no subject is on both sides, every image of the test side is tested once" if people
                    else "subjects are unknown, so nobody can tell whether people are on both sides")  # fmt: skip
        lines.append(f"Protocol {report.protocol}: {rule}; {disjoint}. "
                     f"Fold file {split_hash[:12]}, data {data[:12]}.")  # fmt: skip
    for selection in dict.fromkeys(t.selection for t in report.trainings):
        lines.append(f"Weights tested: {SELECTIONS[selection]}. The test images choose nothing.")
    if report.varying:
        facts = "; ".join(f"{name} ({_listed(values)})" for name, values in report.varying.items())
        lines.append(f"What varies between ours: {facts}.")
    elif report.trainings:
        lines.append("What varies between ours: nothing, it is one training.")
    lines.append("Accuracy is pooled over all test images of all folds, the paper's own measure, computed from stored "
                 "predictions. Intervals are 95 %, by bootstrap over subjects where they are known.")  # fmt: skip
    if any(not t.whole for t in report.trainings):
        lines.append("A training that lacks folds is marked with their number: its figures are of other images, "
                     "so they are not compared.")  # fmt: skip
    if report.habits:
        lines.append(f"Left out: {report.habits} folds that follow habits of the literature (best test epoch, subjects "
                     "on both sides) and are no results; `ferbench report --ablation` measures them.")  # fmt: skip
    lines += [f"Published: {erratum}." for erratum in report.errata]
    lines += list(dict.fromkeys(f"Note: {note.rstrip('.')}." for t in report.trainings for note in t.notes))
    return lines


def headlines(store: Store, dataset: str, experiments: Iterable[str]) -> list[str]:
    """Return a line for each of these trainings that is whole: its pooled accuracy with all it takes to read it."""
    chosen, lines = set(experiments), []
    for report in build(store, dataset):
        printed = {row.method: row.accuracy for row in report.published}
        for t in report.trainings:
            if t.whole and t.experiment in chosen:
                beside = f"; published {printed[t.published]:.2f} %" if t.published in printed else ""
                lines.append(f"{t.method} ({t.preset}, seed {t.seed}): {_percent(t.accuracy)} % of {t.images:,} images "
                             f"(95 % interval {_interval(t.interval)}); {t.protocol}, {SELECTIONS[t.selection]}"
                             f"{beside}")  # fmt: skip
    return lines


def sections(reports: list[Report]) -> list[Section]:
    """Return each report as a section."""
    return [(report.dataset, heading(report), grids(report)) for report in reports]


def markdown_sections(found: list[Section]) -> str:
    """Return a GitHub-flavoured document of sections."""
    from tabulate import tabulate

    parts = []
    for title, lines, tables in found:
        parts.append(f"# {title}\n\n" + "\n".join(f"- {line}" for line in lines))
        for caption, header, rows in tables:
            align = ["left"] + ["right" if numeric(rows, i) else "left" for i in range(1, len(header))]
            cells = [[cell.replace("|", "\\|") for cell in row] for row in rows]
            table = tabulate(cells, header, "github", colalign=align, disable_numparse=True)
            parts.append(f"**{caption}**\n\n{table}")
    return "\n\n".join(parts) + "\n"


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
            table = Table(box=None, pad_edge=False)
            for i, name in enumerate(header):
                table.add_column(name, justify="right" if i and numeric(rows, i) else "left", overflow="fold")
            for row in rows:
                style = "bold" if row[0].startswith(OURS) else ""
                table.add_row(*(Text(cell.strip("`"), style=style) for cell in row))
            screen.print(table)


def document(reports: list[Report]) -> str:
    """Return one JSON document: a list with the fields of ``tables.Report`` for each protocol.

    Arrays are lists; a figure that does not exist (of sequences that are unknown) is null.
    """
    return json.dumps([_plain(asdict(report)) for report in reports], indent=2, ensure_ascii=False, allow_nan=False)


def named(trainings: list[Training]) -> dict[str, str]:
    """What the tables call each training, by experiment: the experiment is named where the rest leaves a doubt."""
    plain = {t.experiment: f"{t.method} ({t.preset}, seed {t.seed})" for t in trainings}
    shared = Counter(plain.values())
    return {key: name if shared[name] == 1 else f"{name[:-1]}, {key})" for key, name in plain.items()}


def _accuracy(report: Report, names: dict[str, str]) -> Grid:
    rows = [[row.method, row.feature, f"{row.accuracy:.2f}", "", row.table] for row in report.published]
    for t in report.trainings:
        mark = "" if t.whole else f" ({_done(t)} folds)"
        rows.append([
            f"{OURS} {names[t.experiment]}", "static", f"{_percent(t.accuracy)}{mark}", _interval(t.interval),
            f"ours, n = {t.images:,}; {SELECTIONS[t.selection]}; {t.protocol}; {t.experiment}",
        ])  # fmt: skip
    published = "published rows as printed, then ours" if report.published else "ours; nothing is published for it"
    return (f"Accuracy on {report.dataset}, percent: {published} ({OURS})",
            ["Method", "Feature", "Accuracy", "95 % interval", "From"], rows)  # fmt: skip


def _details(report: Report, names: dict[str, str]) -> Grid:
    printed = {row.method: row.accuracy for row in report.published}
    header = ["Training", "Images", "Subjects", "Folds", "Mean ± std of folds", "Balanced", "Macro F1", "Sequences",
              "Worst class", "Worst subject", "Against published", "Parameters", "Precision", "Device"]  # fmt: skip
    rows = [[
        f"{OURS} {names[t.experiment]}", f"{t.images:,}", str(t.subjects or "unknown"), _done(t),
        f"{_percent(t.fold_mean)} ± {_percent(t.fold_std)}" if len(t.folds) > 1 else "one fold",
        _percent(t.balanced_accuracy), _percent(t.macro_f1),
        f"{_percent(t.sequence_accuracy)} of {t.sequences:,}" if t.sequences else "unknown",
        _lowest(t.worst_class), _lowest(t.worst_subject),
        _against(t, printed.get(t.published)), f"{t.parameters:,}", t.precision, "; ".join(t.devices),
    ] for t in report.trainings]  # fmt: skip
    return ("Ours in detail, percent: std over folds (ddof 1); balanced accuracy and macro F1 over classes present; "
            "sequences by the mean of their frames' probabilities; difference to the published figure in points",
            header, rows)  # fmt: skip


def _lowest(worst: tuple[str, float, int]) -> str:
    name, share, images = worst
    return f"{name} {_percent(share)} of {images:,}" if images else "unknown"


def _against(t: Training, printed: float | None) -> str:
    if printed is None:
        return "never published"
    return f"{printed:.2f}: {100 * t.accuracy - printed:+.2f}" if t.whole else f"{printed:.2f}: folds missing"


def _seeds(found: list[Seeds]) -> Grid:
    rows = [
        [f"{OURS} {s.method} ({s.preset})", f"{_percent(s.mean)} ± {_percent(s.std)}", str(len(s.seeds)),
         f"{_percent(s.ensemble)} ({_interval(s.ensemble_interval)})",
         _listed([str(seed) for seed in s.seeds]), " ".join(s.experiments)]
        for s in found
    ]  # fmt: skip
    return ("Over seeds: mean ± standard deviation (ddof 1) of the pooled accuracy of whole trainings, percent; "
            "what varies is the seed alone; their ensemble, the mean of their probabilities, takes n networks an image",
            ["Training", "Accuracy", "n", "Ensemble (95 % interval)", "Seeds", "Experiments"], rows)  # fmt: skip


def _together(found: list[Together]) -> Grid:
    rows = [
        [f"{OURS} {one.method} ({' + '.join(one.presets)})",
         _percent(one.mean) + (f" ± {_percent(one.std)}" if len(one.seeds) > 1 else ""),
         str(len(one.seeds)),
         "; ".join(f"{seed}: {_percent(share)} ({_interval(interval)})"
                   for seed, share, interval in zip(one.seeds, one.accuracies, one.intervals, strict=True))]
        for one in found
    ]  # fmt: skip
    return ("Presets together: for each seed the ensemble of all presets above, one network of each; mean ± standard "
            "deviation (ddof 1) over seeds, percent",
            ["Training", "Accuracy", "n", "Seed: accuracy (95 % interval)"], rows)  # fmt: skip


def _matrices(name: str, classes: list[str], matrix: np.ndarray) -> list[Grid]:
    short = [ABBREVIATIONS[name] for name in classes]
    return [
        (f"{name}: confusion in percent of the row; truth down, prediction across; n = {matrix.sum():,}",
         ["", *short, "images"], _rows(short, metrics.row_percent(matrix), matrix.sum(axis=1).tolist())),
        (f"{name}: confusion in images", ["", *short], _count_rows(short, matrix)),
    ]  # fmt: skip


def _published_matrices(matrix: PublishedMatrix) -> list[Grid]:
    short = [ABBREVIATIONS[name] for name in matrix.classes]
    counts = matrix.counts()
    return [
        (f"Published ({matrix.table}): confusion in percent, as printed; it comes to {np.trace(counts):,} of "
         f"{counts.sum():,} images, {_percent(metrics.accuracy(counts))} %",
         ["", *short, "images"], _rows(short, matrix.percent, list(matrix.images))),
        (f"Published ({matrix.table}): the images behind the percentages", ["", *short], _count_rows(short, counts)),
    ]  # fmt: skip


def _rows(short: list[str], percent: np.ndarray, sizes: list[int]) -> list[list[str]]:
    return [
        [name, *(_cell(value) for value in row), f"{size:,}"]
        for name, row, size in zip(short, percent, sizes, strict=True)
    ]


def _count_rows(short: list[str], counts: np.ndarray) -> list[list[str]]:
    return [[name, *(f"{count:,}" for count in row)] for name, row in zip(short, counts, strict=True)]


def _folds(t: Training, name: str) -> Grid:
    rows = [
        [fold.fold, f"{fold.images:,}", str(fold.subjects or "unknown"), _percent(fold.accuracy),
         " ".join(fold.absent), f"{fold.seconds:.0f}", fold.run]
        for fold in t.folds
    ]  # fmt: skip
    return (f"{name}: {_done(t)} folds, accuracy in percent; what varies is who is tested",
            ["Fold", "Images", "Subjects", "Accuracy", "No images of", "Seconds", "Run"], rows)  # fmt: skip


def _stages(stages: list[Stage]) -> Grid:
    rows = []
    for stage in stages:
        parts = stage.result.items() if stage.kind == "attention" else [("", stage.result)]
        said = "; ".join(
            f"{name} {_percent(facts['validation_accuracy'])} of {facts['validation_images']:,}".strip()
            + _pointed(facts)
            for name, facts in parts if facts
        )  # fmt: skip
        run = stage.run + (" (comes with ferbench)" if stage.shipped else "")
        rows.append([stage.kind, stage.protocol, str(stage.seed), f"{stage.images:,}", str(stage.epochs), said,
                     f"{stage.seconds:.0f}", stage.device, run])  # fmt: skip
    return ("What the folds start from: validation accuracy in percent, never used to choose anything",
            ["Stage", "Protocol", "Seed", "Images", "Epochs", "Validation", "Seconds", "Device", "Run"],
            rows)  # fmt: skip


def _pointed(facts: dict) -> str:
    """How often the maximum of a map lies on its part, against a maximum anywhere."""
    if "pointing" not in facts:
        return ""
    return f", maximum on the part {_percent(facts['pointing'])} (chance {_percent(facts['pointing_chance'])})"


def _transfers(transfers: list[Transfer]) -> Grid:
    rows = [
        [f"{OURS} {one.method} ({one.preset}, seed {one.seed})" + (" that comes with ferbench" if one.shipped else ""),
         one.trained_on, _percent(one.accuracy), _interval(one.interval), _percent(one.balanced_accuracy),
         _percent(one.macro_f1), f"{one.images:,}",
         ", ".join(f"{count} {name}" for name, count in one.left_out.items()) or "none", one.run]
        for one in transfers
    ]  # fmt: skip
    return ("Networks that learned nothing here, accuracy in percent: all their classes in play, images of classes "
            "that they never learned left out", ["Network", "Trained on", "Accuracy", "95 % interval", "Balanced",
            "Macro F1", "Images", "Left out", "Run"], rows)  # fmt: skip


def _holes(holes: list[Hole]) -> Grid:
    rows = [
        [f"{hole.method} ({hole.preset}, seed {hole.seed})", hole.fold, hole.reason,
         f"`{hole.command}`" if hole.command else "the same command again"]
        for hole in holes
    ]  # fmt: skip
    return ("Holes: folds that the tables above lack, and the commands that fill them",
            ["Training", "Fold", "Why", "Command"], rows)  # fmt: skip


def _interval(interval: metrics.Interval) -> str:
    if interval.degenerate:
        return f"none: one {interval.over[:-1]}"
    over = "" if interval.over == "subjects" else " over images"
    return f"{_percent(interval.low)}–{_percent(interval.high)}{over}"


def _done(t: Training) -> str:
    return f"{len(t.folds)}/{len(t.expected)}"


def _listed(values: list[str], most: int = 6) -> str:
    return ", ".join(values[:most]) + (f" and {len(values) - most} more" if len(values) > most else "")


def _percent(share: float) -> str:
    return f"{100 * share:.2f}"


def _cell(value: float) -> str:
    return "–" if np.isnan(value) else "0" if value == 0 else f"{value:.1f}"


def numeric(rows: list[list[str]], column: int) -> bool:
    """Whether a column is to be aligned as numbers: all begin with a digit and none is a run's key."""
    cells = [row[column] for row in rows if row[column] not in ("", "–")]
    return all(cell[0].isdigit() and not KEY.fullmatch(cell) for cell in cells)


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
