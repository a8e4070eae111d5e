"""The tables of what is measured of each training: its figures, its matrix, its folds, what it starts from."""

from collections.abc import Iterable, Sequence
from functools import partial

import numpy as np

from ferbench import metrics
from ferbench.report.published import PublishedRow
from ferbench.report.results import MissingFold, PresetEnsemble, Report, Seeds, Stage, Tested, Training, Transfer, named
from ferbench.report.table import (
    OURS,
    Code,
    ColumnOf,
    Noted,
    Spread,
    Table,
    Value,
    limits,
    limits_text,
    listed,
    matrix_table,
    percent,
    table,
)
from ferbench.report.tested_runs import Level


def _of(share: float, count: int) -> Value:
    return Noted(100 * share, f" of {count:,}")


HELD_OUT: list[ColumnOf] = [
    ("Held out", "text", lambda t: str(t.held_out)),
    (
        "Held-out accuracy",
        "percent",
        lambda t: None if t.held_out_accuracy is None else _of(t.held_out_accuracy, t.held_out_count),
    ),
]
TRAINED_ON: ColumnOf = ("Trained on", "text", lambda t: ", ".join(t.trained_on))


def spread(values: Iterable[float]) -> Value:
    """The mean of figures with their standard deviation (ddof 1), or the only one; None where there is none."""
    values = list(values)
    if len(values) < 2:
        return values[0] if values else None
    return Spread(*metrics.spread(values))


def metric_columns(*kinds: str) -> list[ColumnOf]:
    """Return the columns of all metrics of these kinds, but for the accuracy, which has a column of its own."""
    return [
        (metric.title, "percent", partial(_metric, metric))
        for metric in metrics.METRICS
        if metric.kind in kinds and metric.name != "accuracy"
    ]


def _metric(metric: metrics.Metric, t: Tested) -> Value:
    value = t.metrics[metric.name]
    if metric.kind == "group":
        name, share, n = value
        return Noted(100 * share, f" of {n:,}", f"{name} ") if n else "unknown"
    if metric.kind == "of sequences" and isinstance(t, Training):
        return _of(value, t.sequences) if t.sequences else "unknown"
    return 100 * value


def trainings(report: Report, rows: list[Training], level: Level) -> Table:
    """Ours of one level, with all that is measured of each."""
    names, printed = named(report.trainings), {row.method: row for row in report.published}
    notes = ["std over folds (ddof 1)", "balanced accuracy and macro F1 over classes present"]
    if not all(t.uncalibrated for t in rows):
        notes.append("ECE: expected calibration error, 15 bins")
    if any(t.seen for t in rows):
        notes.append("without duplicates: accuracy without the test images that the audit finds in the training data")
    if level == "image":
        notes.append("sequences by the mean of their frames' probabilities")
    if report.published:
        notes.append("difference to the published figure in points")
    return table(
        f"Ours{_by(level, ' of whole sequences')} in detail, percent: {'; '.join(notes)}",
        rows,
        ("Training", "text", lambda t: f"{OURS} {names[t.experiment]}"),
        ("Images", "count", lambda t: t.images or None),
        ("Subjects", "number", lambda t: t.subjects or "unknown"),
        ("Folds", "text", lambda t: t.done),
        (
            "Mean ± std of folds",
            "percent",
            lambda t: Spread(100 * t.fold_mean, 100 * t.fold_std) if len(t.folds) > 1 else "one fold",
        ),
        *metric_columns("percent"),
        ("Without duplicates", "percent", lambda t: _of(t.unseen_accuracy, t.tested - t.seen) if t.seen else None),
        *metric_columns("of sequences", "group"),
        ("Published: difference", "percent", lambda t: _against(printed.get(t.published), t)),
        ("Parameters", "count", lambda t: t.parameters or "–"),
        ("Precision", "text", lambda t: t.precision),
        ("Device", "text", lambda t: "; ".join(t.devices)),
    )


def _against(row: PublishedRow | None, t: Training) -> Value:
    """The published figure of what a training reproduces, and ours minus it in points where they are of one kind."""
    if row is None:
        return "never published"
    share = t.sequence_accuracy if row.level == "sequence" else t.accuracy
    why = t.not_comparable_reason
    if not why and (np.isnan(share) or (row.level == "image" and t.level == "sequence")):
        why = f"of {row.level}s"
    return Noted(row.figure, f": {why or f'{100 * share - row.figure:+.2f}'}")


def _by(level: Level, words: str = ", whole sequences") -> str:
    return "" if level == "image" else words


def over_seeds(rows: list[Seeds], level: Level) -> Table:
    """Trainings of one recipe over their seeds."""

    def always_wrong(s: Seeds) -> str:
        of = f"{s.wrong_with_all:,} of {s.tested:,} {s.level}s"
        return f"{of} ({listed(s.wrong_subjects)})" if s.wrong_subjects else of

    return table(
        f"Over seeds{_by(level)}: mean ± standard deviation (ddof 1) of the pooled accuracy of complete trainings that "
        "differ in their seeds only, percent; the ensemble averages the probabilities of the networks of all seeds",
        rows,
        ("Training", "text", lambda s: f"{OURS} {s.method} ({s.preset})"),
        ("Accuracy", "percent", lambda s: Spread(100 * s.mean, 100 * s.std)),
        ("Seeds", "count", lambda s: len(s.seeds)),
        (
            "Ensemble (95 % interval)",
            "percent",
            lambda s: Noted(100 * s.ensemble, f" ({limits_text(s.ensemble_interval, level)})"),
        ),
        ("Wrong with every seed", "text", always_wrong),
        ("Wrong with some seed", "count", lambda s: s.wrong_with_some),
        ("Seed", "text", lambda s: listed([str(seed) for seed in s.seeds])),
        ("Experiments", "text", lambda s: " ".join(s.experiments)),
    )


def preset_ensembles(rows: list[PresetEnsemble], level: Level) -> Table:
    """Presets of one method as an ensemble."""
    return table(
        f"Presets together{_by(level)}: for each seed an ensemble of one network of each preset; mean ± standard "
        "deviation (ddof 1) over seeds, percent",
        rows,
        ("Training", "text", lambda e: f"{OURS} {e.method} ({' + '.join(e.presets)})"),
        ("Accuracy", "percent", lambda e: spread(100 * share for share in e.accuracies)),
        ("Seeds", "count", lambda e: len(e.seeds)),
        (
            "Seed: accuracy (95 % interval)",
            "percent",
            lambda e: tuple(
                Noted(100 * share, f" ({limits_text(interval, level)})", f"{seed}: ")
                for seed, share, interval in zip(e.seeds, e.accuracies, e.intervals, strict=True)
            ),
        ),
    )


def matrices(name: str, t: Training) -> list[Table]:
    """A training's confusion matrix, in percent and in counts."""
    units, sizes = f"{t.level}s", t.matrix.sum(axis=1).tolist()
    caption = f"{name}: confusion in percent of the row; truth down, prediction across; n = {t.matrix.sum():,}"
    return [
        matrix_table(caption, t.classes, metrics.row_percent(t.matrix), "row percent", (units, sizes)),
        matrix_table(f"{name}: confusion in {units}", t.classes, t.matrix, "count"),
    ]


def folds(t: Training, name: str) -> Table:
    """One row for each fold."""
    return table(
        f"{name}: {t.done} folds, accuracy in percent; each fold tests other people",
        t.folds,
        ("Fold", "text", lambda fold: fold.fold),
        (f"{t.level.capitalize()}s", "count", lambda fold: fold.images),
        ("Subjects", "number", lambda fold: fold.subjects or "unknown"),
        ("Accuracy", "percent", lambda fold: 100 * fold.accuracy),
        ("Missing classes", "text", lambda fold: " ".join(fold.absent)),
        ("Seconds", "seconds", lambda fold: fold.seconds),
        ("Run", "text", lambda fold: fold.run),
    )


def stages(rows: list[Stage]) -> Table:
    """What the folds start from."""

    def validation(stage: Stage) -> tuple[Value, ...]:
        parts = stage.result if any(isinstance(facts, dict) for facts in stage.result.values()) else {"": stage.result}
        shown = []
        for name, facts in parts.items():
            if isinstance(facts, dict) and "validation_accuracy" in facts:
                after = f" of {facts['validation_images']:,}"
                if "pointing" in facts:  # how often the maximum of a map lies on its part of the face
                    pointing, chance = percent(facts["pointing"]), percent(facts["pointing_chance"])
                    after += f", maximum on the part {pointing} (chance {chance})"
                shown.append(Noted(100 * facts["validation_accuracy"], after, f"{name} " if name else ""))
        return tuple(shown)

    return table(
        "What the folds start from: validation accuracy in percent, never used to choose anything",
        rows,
        ("Stage", "text", lambda stage: stage.kind),
        ("Protocol", "text", lambda stage: stage.protocol),
        ("Seed", "number", lambda stage: stage.seed),
        ("Images", "count", lambda stage: stage.images or "–"),
        ("Epochs", "number", lambda stage: stage.epochs or "–"),
        ("Validation", "percent", validation),
        ("Seconds", "seconds", lambda stage: stage.seconds),
        ("Device", "text", lambda stage: stage.device),
        ("Run", "text", lambda stage: stage.run + (" (comes with ferbench)" if stage.shipped else "")),
    )


def input_column(rows: Sequence[Tested]) -> list[ColumnOf]:
    """A column with what each model sees, where not all of them see the images of 48 grey pixels, or sequences."""
    return [("Input", "text", seen)] if any(t.sees.startswith("image, ") for t in rows) else []


def seen(t: Tested) -> str:
    """What a model sees, beside models that see other images."""
    return "image, 48 grey" if t.sees == "image" else t.sees


def transfers(rows: list[Transfer], level: Level) -> Table:
    """Networks of one level that were tested here and trained elsewhere."""

    def name(t: Transfer) -> str:
        return f"{OURS} {t.method} ({t.preset}, seed {t.seed})" + (" that comes with ferbench" if t.shipped else "")

    def scores(t: Transfer) -> Value:
        return f"{', '.join(t.changed)}; of run {t.source}" if t.changed else None

    return table(
        f"Finished networks that were tested without further training, accuracy in percent; {level}s of classes that "
        "a network never learned are left out",
        rows,
        ("Network", "text", name),
        *input_column(rows),
        TRAINED_ON,
        *([("Scores", "text", scores)] if any(t.changed for t in rows) else []),
        ("Accuracy", "percent", lambda t: 100 * t.accuracy),
        ("95 % interval", "percent", lambda t: limits(t.interval, level)),
        *metric_columns("percent"),
        (f"{level.capitalize()}s", "count", lambda t: t.images),
        ("Left out", "text", lambda t: ", ".join(f"{count} {name}" for name, count in t.left_out.items()) or "none"),
        *HELD_OUT,
        ("Run", "text", lambda t: t.run),
    )


def missing_folds(rows: list[MissingFold]) -> Table:
    """Folds that are missing, and the commands that train them."""
    return table(
        "Missing folds, and the commands that train them",
        rows,
        ("Training", "text", lambda missing: f"{missing.method} ({missing.preset}, seed {missing.seed})"),
        ("Fold", "text", lambda missing: missing.fold),
        ("Reason", "text", lambda missing: missing.reason),
        ("Command", "text", lambda missing: Code(missing.command) if missing.command else "the same command again"),
    )
