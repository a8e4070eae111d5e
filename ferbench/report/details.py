"""The tables behind the comparison: what is measured of each training, its matrix, its folds, what it starts from."""

from collections.abc import Mapping

import numpy as np

from ferbench import metrics
from ferbench.labels import ABBREVIATIONS
from ferbench.report import comparison
from ferbench.report.cells import OURS, WITHOUT, Grid, done, listed, percent, reach, without_empty, without_seen
from ferbench.report.model import Hole, Report, Seeds, Stage, Together, Training, Transfer
from ferbench.report.published import PublishedMatrix
from ferbench.report.told import Level


def measured(report: Report, mine: list[Training], names: Mapping[str, str], level: Level) -> Grid:
    """Ours of one level, with all that is measured of each."""
    printed = {row.method: row for row in report.published}
    header = [
        "Training",
        "Images",
        "Subjects",
        "Folds",
        "Mean ± std of folds",
        "Balanced",
        "Macro F1",
        "Without seen",
        "Sequences",
        "Worst class",
        "Worst subject",
        "Against published",
        "Parameters",
        "Precision",
        "Device",
    ]
    rows = [
        [
            f"{OURS} {names[t.experiment]}",
            f"{t.images:,}" if t.images else "",
            str(t.subjects or "unknown"),
            done(t),
            f"{percent(t.fold_mean)} ± {percent(t.fold_std)}" if len(t.folds) > 1 else "one fold",
            percent(t.balanced_accuracy),
            percent(t.macro_f1),
            f"{percent(t.unseen_accuracy)} of {t.tested - t.seen:,}" if t.seen else "",
            f"{percent(t.sequence_accuracy)} of {t.sequences:,}" if t.sequences else "unknown",
            _lowest(t.worst_class),
            _lowest(t.worst_subject),
            comparison.against(t, printed.get(t.published)),
            f"{t.parameters:,}" if t.parameters else "–",
            t.precision,
            "; ".join(t.devices),
        ]
        for t in mine
    ]
    of = (
        ("Ours in detail, percent", "sequences by the mean of their frames' probabilities")
        if level == "image"
        else ("Ours of whole sequences in detail, percent", "every figure is of sequences")
    )
    return without_empty(
        (
            f"{of[0]}: std over folds (ddof 1); balanced accuracy and macro F1 over classes present; "
            + (
                "without seen: accuracy without test images that the audit counts; "
                if any(t.seen for t in mine)
                else ""
            )
            + f"{of[1]}; "
            "difference to the published figure in points",
            header,
            rows,
        )
    )


def _lowest(worst: tuple[str, float, int]) -> str:
    name, share, images = worst
    return f"{name} {percent(share)} of {images:,}" if images else "unknown"


def _by(level: Level) -> str:
    """What a figure is of, where it is not of images."""
    return "" if level == "image" else ", whole sequences"


def seeds(found: list[Seeds], level: Level) -> Grid:
    """Trainings of one recipe over their seeds."""
    rows = [
        [
            f"{OURS} {s.method} ({s.preset})",
            f"{percent(s.mean)} ± {percent(s.std)}",
            str(len(s.seeds)),
            f"{percent(s.ensemble)} ({reach(s.ensemble_interval, level)})",
            _always_wrong(s),
            f"{s.wrong_with_some:,}",
            listed([str(seed) for seed in s.seeds]),
            " ".join(s.experiments),
        ]
        for s in found
    ]
    return (
        f"Over seeds{_by(level)}: mean ± standard deviation (ddof 1) of the pooled accuracy of whole trainings, "
        "percent; what varies is the seed alone; their ensemble, the mean of their probabilities, takes n networks "
        f"{'an image' if level == 'image' else 'a sequence'}",
        [
            "Training",
            "Accuracy",
            "n",
            "Ensemble (95 % interval)",
            "Wrong with every seed",
            "Wrong with some seed",
            "Seeds",
            "Experiments",
        ],
        rows,
    )


def _always_wrong(found: Seeds) -> str:
    of = f"{found.wrong_with_all:,} of {found.tested:,} {found.level}s"
    return f"{of} ({listed(found.wrong_subjects)})" if found.wrong_subjects else of


def together(found: list[Together], level: Level) -> Grid:
    """Presets of one method as an ensemble."""
    rows = [
        [
            f"{OURS} {one.method} ({' + '.join(one.presets)})",
            percent(one.mean) + (f" ± {percent(one.std)}" if len(one.seeds) > 1 else ""),
            str(len(one.seeds)),
            "; ".join(
                f"{seed}: {percent(share)} ({reach(interval, level)})"
                for seed, share, interval in zip(one.seeds, one.accuracies, one.intervals, strict=True)
            ),
        ]
        for one in found
    ]
    return (
        f"Presets together{_by(level)}: for each seed the ensemble of all presets above, one network of each; mean "
        "± standard deviation (ddof 1) over seeds, percent",
        ["Training", "Accuracy", "n", "Seed: accuracy (95 % interval)"],
        rows,
    )


def matrices(name: str, t: Training) -> list[Grid]:
    """A training's confusion matrix, in percent and in counts."""
    short, units = [ABBREVIATIONS[name] for name in t.classes], f"{t.level}s"
    return [
        (
            f"{name}: confusion in percent of the row; truth down, prediction across; n = {t.matrix.sum():,}",
            ["", *short, units],
            _rows(short, metrics.row_percent(t.matrix), t.matrix.sum(axis=1).tolist()),
        ),
        (f"{name}: confusion in {units}", ["", *short], _count_rows(short, t.matrix)),
    ]


def published_matrices(matrix: PublishedMatrix) -> list[Grid]:
    """The printed confusion matrix, and the counts behind it."""
    short = [ABBREVIATIONS[name] for name in matrix.classes]
    counts = matrix.counts()
    return [
        (
            f"Published ({matrix.table}): confusion in percent, as printed; it comes to {np.trace(counts):,} of "
            f"{counts.sum():,} images, {percent(metrics.accuracy(counts))} %",
            ["", *short, "images"],
            _rows(short, matrix.percent, list(matrix.images)),
        ),
        (f"Published ({matrix.table}): the images behind the percentages", ["", *short], _count_rows(short, counts)),
    ]


def _rows(short: list[str], percent: np.ndarray, sizes: list[int]) -> list[list[str]]:
    return [
        [name, *(_cell(value) for value in row), f"{size:,}"]
        for name, row, size in zip(short, percent, sizes, strict=True)
    ]


def _count_rows(short: list[str], counts: np.ndarray) -> list[list[str]]:
    return [[name, *(f"{count:,}" for count in row)] for name, row in zip(short, counts, strict=True)]


def folds(t: Training, name: str) -> Grid:
    """One row for each fold."""
    units = f"{t.level}s"
    rows = [
        [
            fold.fold,
            f"{fold.images:,}",
            str(fold.subjects or "unknown"),
            percent(fold.accuracy),
            " ".join(fold.absent),
            f"{fold.seconds:.0f}",
            fold.run,
        ]
        for fold in t.folds
    ]
    return (
        f"{name}: {done(t)} folds, accuracy in percent; what varies is who is tested",
        ["Fold", units.capitalize(), "Subjects", "Accuracy", f"No {units} of", "Seconds", "Run"],
        rows,
    )


def stages(found: list[Stage]) -> Grid:
    """What the folds start from."""
    rows = []
    for stage in found:
        parts = [(name, facts) for name, facts in stage.result.items() if isinstance(facts, dict)]
        said = "; ".join(
            f"{name} {percent(facts['validation_accuracy'])} of {facts['validation_images']:,}".strip()
            + _pointed(facts)
            for name, facts in parts or [("", stage.result)]
            if "validation_accuracy" in facts
        )
        run = stage.run + (" (comes with ferbench)" if stage.shipped else "")
        rows.append(
            [
                stage.kind,
                stage.protocol,
                str(stage.seed),
                f"{stage.images:,}" if stage.images else "–",
                str(stage.epochs or "–"),
                said,
                f"{stage.seconds:.0f}",
                stage.device,
                run,
            ]
        )
    return (
        "What the folds start from: validation accuracy in percent, never used to choose anything",
        ["Stage", "Protocol", "Seed", "Images", "Epochs", "Validation", "Seconds", "Device", "Run"],
        rows,
    )


def _pointed(facts: dict) -> str:
    """How often the maximum of a map lies on its part, against a maximum anywhere."""
    if "pointing" not in facts:
        return ""
    return f", maximum on the part {percent(facts['pointing'])} (chance {percent(facts['pointing_chance'])})"


def transfers(found: list[Transfer], level: Level) -> Grid:
    """Networks of one level that were tested here and trained elsewhere."""
    rows = [
        [
            f"{OURS} {one.method} ({one.preset}, seed {one.seed})"
            + (" that comes with ferbench" if one.shipped else ""),
            ", ".join(one.trained_on),
            percent(one.accuracy),
            reach(one.interval, level),
            percent(one.balanced_accuracy),
            percent(one.macro_f1),
            f"{one.images:,}",
            ", ".join(f"{count} {name}" for name, count in one.left_out.items()) or "none",
            str(one.held_out),
            without_seen(one.held_out_accuracy, one.held_out_count),
            one.run,
        ]
        for one in found
    ]
    caption = (
        f"Networks that were not trained here, accuracy in percent: all their classes in play, {level}s of classes "
        "that they never learned left out"
    )
    header = [
        "Network",
        "Trained on",
        "Accuracy",
        "95 % interval",
        "Balanced",
        "Macro F1",
        f"{level.capitalize()}s",
        "Left out",
        "Held out",
        WITHOUT,
        "Run",
    ]
    return without_empty((caption, header, rows))


def holes(found: list[Hole]) -> Grid:
    """Folds that are missing, and how to fill them."""
    rows = [
        [
            f"{hole.method} ({hole.preset}, seed {hole.seed})",
            hole.fold,
            hole.reason,
            f"`{hole.command}`" if hole.command else "the same command again",
        ]
        for hole in found
    ]
    return ("Missing folds, and the commands that train them", ["Training", "Fold", "Why", "Command"], rows)


def _cell(value: float) -> str:
    return "–" if np.isnan(value) else "0" if value == 0 else f"{value:.1f}"
