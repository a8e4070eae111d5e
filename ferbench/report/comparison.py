"""The tables that show methods beside each other: published figures and ours, and ours with the same training data."""

from collections import defaultdict
from collections.abc import Mapping

import numpy as np

from ferbench.report.cells import OURS, SELECTIONS, WITHOUT, Grid, done, percent, reach, without_empty, without_seen
from ferbench.report.model import Report, Training
from ferbench.report.published import UNKNOWN, PublishedRow

IMAGES, SEQUENCES = "95 % interval", "95 %, sequences"


def accuracy(report: Report, names: Mapping[str, str]) -> Grid:
    """Each compared method with its published figure and ours below it, lowest published figure first; methods without
    one stand where ours puts them, those with neither at the end. Images and sequences have columns of their own."""
    printed, ours = {row.method: row for row in report.published}, {t.experiment: t for t in report.trainings}
    groups: list[tuple[float, str, list[list[str]]]] = []
    for one in report.compared:
        row, mine = printed.get(one.method), [ours.pop(key) for key in one.experiments]
        figure = row.figure if row else max((100 * t.accuracy for t in mine), default=np.inf)
        said = [f"{row.table}: {row.tested}" if row else "", one.why + (f": {one.command}" if one.command else "")]
        head = [[one.method, row.shown if row else "", "", "", "", "", "; ".join(filter(None, said))]]
        groups.append((figure, one.method, (head if row or not mine else []) + [_ours(t, names, row) for t in mine]))
    others: dict[str, list[Training]] = defaultdict(list)
    for t in ours.values():
        others[t.method].append(t)
    for method, mine in others.items():
        groups.append((max(100 * t.accuracy for t in mine), method, [_ours(t, names, None) for t in mine]))
    rows = [row for *_, group in sorted(groups, key=lambda group: group[:2]) for row in group]
    source = (
        "published as printed, ours beside it"
        if report.published
        else "ours, on drawn faces, for which nothing is published"
        if report.drawn
        else "ours; nothing is published for it"
    )
    caption = f"Accuracy on {report.dataset}, percent: {source} ({OURS})"
    return without_empty((caption, ["Method", "Published", "Images", IMAGES, "Sequences", SEQUENCES, "From"], rows))


def _ours(t: Training, names: Mapping[str, str], row: PublishedRow | None) -> list[str]:
    mark = "" if t.whole else f" ({done(t)} folds)"
    images = [f"{percent(t.accuracy)}{mark}", reach(t.interval)] if t.level == "image" else ["", ""]
    sequences = ["", ""]
    if t.sequence_interval is not None:
        sequences = [f"{percent(t.sequence_accuracy)}{mark}", reach(t.sequence_interval, "sequence")]
    n = t.n + (f", {t.sequences:,} sequences" if t.level == "image" and t.sequences else "")
    said = [f"n = {n}", t.protocol, t.experiment, *t.changed]
    said += [] if t.selection == "last" else [SELECTIONS.get(t.selection, t.selection)]
    said += [] if t.held_out.comparable else [t.apart]
    return [
        f"{OURS} {names[t.experiment]}",
        f"{row.figure:.2f}" if row and not t.apart else "",
        *images,
        *sequences,
        "; ".join(said),
    ]


def against(t: Training, row: PublishedRow | None) -> str:
    """The published figure of what a training reproduces, and ours minus it in points where they are of one kind."""
    if row is None:
        return "never published"
    if t.apart:
        return f"{row.figure:.2f}: {t.apart}"
    share = t.sequence_accuracy if row.level == "sequence" else t.accuracy
    if np.isnan(share) or (row.level == "image" and t.level == "sequence"):
        return f"{row.figure:.2f}: of {row.level}s"
    return f"{row.figure:.2f}: {100 * share - row.figure:+.2f}"


def same_training_data(report: Report) -> list[Grid]:
    """For each preset that several methods share, these methods side by side, over their seeds, best first.

    Whole trainings alone, tested on the same in the same folds, on people they did not learn from: trainings of two
    presets differ in their training data.
    """
    presets: dict[tuple[str, str], dict[str, list[Training]]] = defaultdict(lambda: defaultdict(list))
    for t in report.trainings:
        if t.comparable:
            presets[t.preset, t.test_side][t.variant].append(t)
    header = ["Training", "Images", "Sequences", "Seeds", "Sees", "Trained on"]
    found = []
    for (preset, _), variants in presets.items():
        if len({group[0].method for group in variants.values()}) > 1:
            ordered = sorted(variants.values(), key=lambda group: -mean(_comparable(t) for t in group))
            rows = [
                [
                    f"{OURS} {group[0].method}",
                    _spread(t.accuracy for t in group if t.level == "image"),
                    _spread(t.sequence_accuracy for t in group if t.sequences),
                    str(len(group)),
                    group[0].sees,
                    ", ".join(group[0].trained_on),
                ]
                for group in ordered
            ]
            caption = (
                f"Same training data, preset {preset or 'none'}: only such trainings may be compared with each "
                "other, and methods of images with methods of sequences by sequences only; percent, mean ± "
                "standard deviation (ddof 1) over seeds, best first by sequences where known"
            )
            found.append(without_empty((caption, header, rows)))
    return found


def _comparable(t: Training) -> float:
    """The accuracy that puts a training in order: of sequences wherever they are known."""
    return t.sequence_accuracy if t.sequences else t.accuracy


def mean(values) -> float:
    """The mean of some figures."""
    return float(np.mean(list(values)))


def _spread(values) -> str:
    shares = [100 * value for value in values]
    if not shares:
        return ""
    return f"{np.mean(shares):.2f}" + (f" ± {np.std(shares, ddof=1):.2f}" if len(shares) > 1 else "")


def learned(report: Report) -> Grid:
    """What each training saw and learned from, once for all its seeds, and whether the tested people were kept out."""
    groups: dict[str, list[Training]] = defaultdict(list)
    for t in report.trainings:
        groups[t.variant].append(t)
    rows = [
        [
            f"{OURS} {t.method}",
            t.preset,
            ", ".join(t.changed),
            t.sees,
            ", ".join(t.trained_on),
            str(t.held_out),
            without_seen(t.held_out_accuracy, t.held_out_count),
            "uncalibrated" if t.uncalibrated else "",
            ", ".join(str(one.seed) for one in group),
            t.protocol,
        ]
        for group in groups.values()
        for t in group[:1]
    ]
    return without_empty(
        (
            "Input and training data of each: what it sees, the protocols that it was trained on, first to last, and "
            "whether all test subjects were held out",
            [
                "Training",
                "Preset",
                "Changed from it",
                "Sees",
                "Trained on",
                "Held out",
                WITHOUT,
                "Scores",
                "Seeds",
                "Tested under",
            ],
            rows,
        )
    )


def differences(report: Report) -> Grid | None:
    """What is not as in the originals; None where nothing is told."""
    rows = list(dict.fromkeys((t.method, one) for t in report.trainings for one in t.differs))
    if not rows:
        return None
    return ("What differs from the original methods, and why", ["Method", "Difference"], [list(row) for row in rows])


def about(rows: list[PublishedRow], caption: str) -> Grid:
    """What is known of published figures."""
    cells = [
        [
            row.method,
            row.shown,
            row.feature,
            row.level,
            f"{row.n:,}" if row.n else UNKNOWN,
            row.folds,
            row.average,
            str(row.classes or UNKNOWN),
            row.source,
            row.note,
        ]
        for row in rows
    ]
    header = ["Method", "Accuracy", "Feature", "Level", "n", "Folds", "Average", "Classes", "Source", "Note"]
    return without_empty((caption, header, cells))
