"""The sentences of a report: how to read its tables, and what may be concluded from their figures."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from ferbench import metrics
from ferbench.report import tables
from ferbench.report.build import published_rows, trainings_of
from ferbench.report.published import UNKNOWN, PublishedRow
from ferbench.report.results import SELECTIONS, Contrast, Report, Training, by_variant, named
from ferbench.report.table import Section, limits_text, listed, percent, text
from ferbench.report.tested_runs import FEW, LEVELS, Level
from ferbench.runs.store import Store

FEWEST = 6  # subjects: with fewer, a permutation of signs cannot reach p ≤ 0.05 (2 / 2^5 = 0.0625)
UNKNOWN_PEOPLE = "subjects are unknown, so the same people may be in training and test sets"
DRAWN = (
    "The faces are drawn by ferbench. No published figure is comparable, and these figures say nothing about how well "
    "people's expressions are recognised."
)


@dataclass(frozen=True)
class Reach:
    """The accuracy of one recipe at one level, mean over its seeds, and the ends of the intervals of all of them."""

    mean: float
    low: float
    high: float
    units: int  # subjects that were resampled, or images or sequences where subjects are unknown
    over: str
    degenerate: bool
    seeds: int

    @property
    def interval(self) -> str:
        """As text, in percent."""
        if self.degenerate:
            return f"no interval: one {self.over[:-1]}"
        name = "95 % interval" if self.seeds == 1 else "95 % intervals of all seeds reach"
        return f"{name} {percent(self.low)}–{percent(self.high)} over {self.units:,} {self.over}"


@dataclass(frozen=True)
class Leader:
    """The recipe of ours that has the highest accuracy of one level. facts : the conditions of its figure."""

    name: str
    level: Level
    reach: Reach
    facts: list[str]


@dataclass(frozen=True)
class Conclusions:
    """The leaders of a dataset, and questions about them, each with its answers. Never empty."""

    leaders: list[Leader]
    points: list[tuple[str, list[str]]]


def conclude(report: Report) -> Conclusions:
    """Return what may be concluded from a report."""
    groups = by_variant(t for t in report.trainings if t.comparable)
    best = [
        max(of_level, key=lambda group: reached(group, level).mean)
        for level in LEVELS
        if (of_level := [group for group in groups if group[0].level == level])
    ]
    points = [
        ("What was measured", _measured(report, groups)),
        ("Compared with published figures", _against(report, groups, best)),
        ("Between our methods: is the difference real?", _between(report, groups)),
        ("What these figures do not show", _limits(report, groups)),
    ]
    return Conclusions(
        [_leader(group, groups) for group in best], [(question, answers) for question, answers in points if answers]
    )


def lines(conclusions: Conclusions) -> list[str]:
    """Return conclusions as lines of text: one for each leader, one for each question."""
    shown = []
    for leader in conclusions.leaders:
        what = ", whole sequences" if leader.level == "sequence" else ""
        shown.append(
            f"Our best{what}: {leader.name}, {percent(leader.reach.mean)} % ({leader.reach.interval}); "
            f"{'; '.join(leader.facts)}."
        )
    ends = (
        (question if question.endswith("?") else f"{question}:", answers) for question, answers in conclusions.points
    )
    return shown + [f"{question} {' '.join(answers)}" for question, answers in ends]


def reached(group: list[Training], level: Level) -> Reach:
    """Return the accuracy of a recipe by images or by sequences."""
    if level == group[0].level:
        values, intervals = [t.accuracy for t in group], [t.interval for t in group]
    else:
        values = [t.sequence_accuracy for t in group]
        intervals = [t.sequence_interval for t in group if t.sequence_interval is not None]
    first = intervals[0]
    return Reach(
        float(np.mean(values)),
        min(interval.low for interval in intervals),
        max(interval.high for interval in intervals),
        first.units,
        "subjects" if first.over == "subjects" else f"{level}s",
        any(interval.degenerate for interval in intervals),
        len(group),
    )


def over_seeds(group: list[Training]) -> str:
    """Which seeds a recipe has, and the standard deviation over them."""
    seeds = listed([str(t.seed) for t in group])
    if len(group) == 1:
        return f"one seed ({seeds})"
    _, std = metrics.spread([t.accuracy for t in group])
    return f"mean of {len(group)} seeds ({seeds}), standard deviation {percent(std)}"


def _leader(group: list[Training], groups: list[list[Training]]) -> Leader:
    first = group[0]
    methods = len({g[0].method for g in groups if g[0].level == first.level})
    facts = [
        f"n = {first.n}" + (f" of {first.subjects:,} people" if first.subjects else ", people unknown"),
        f"{first.protocol}, {len(first.folds)} folds" if len(first.folds) > 1 else f"{first.protocol}, one split",
        first.weights,
        over_seeds(group),
        *([f"changed from the preset: {listed(first.changed)}"] if first.changed else []),
        f"the highest of {methods} methods" if methods > 1 else "the only method",
    ]
    return Leader(group[0].title, first.level, reached(group, first.level), facts)


def _measured(report: Report, groups: list[list[Training]]) -> list[str]:
    """What was measured, and whether it is complete and held out."""
    trainings = report.trainings
    if not trainings:
        count = len(report.transfers)
        models = "1 finished model was" if count == 1 else f"{count} finished models were"
        return [f"Nothing was trained here; {models} tested." if count else "No fold is done yet."]
    methods = len({t.method for t in trainings})
    shown = [
        f"{_count(len(trainings), 'training')} of {_count(methods, 'method')}"
        + (", on faces that ferbench has drawn." if report.synthetic else ".")
    ]
    for protocol, level, folds, known in dict.fromkeys(
        (t.protocol, t.level, len(t.expected), t.subjects > 0) for t in trainings
    ):
        people = "no person is in both training and test set" if known else UNKNOWN_PEOPLE
        shown.append(f"{protocol} tests {level}s: {f'{folds} folds' if folds > 1 else 'one split'}, {people}.")
    if not groups:
        why = listed(sorted({t.not_comparable_reason for t in trainings}))
        shown.append(
            f"No training is complete and known to be tested on held-out subjects ({why}), so nothing is concluded."
        )
    return shown


def _against(report: Report, groups: list[list[Training]], best: list[list[Training]]) -> list[str]:
    if report.synthetic:
        return ["Nothing: no published figure is about drawn faces."]
    printed = {row.method: row for row in report.published}
    shown = [f"{group[0].title}: {beside(group, printed.get(group[0].published))}" for group in best]
    places = [
        place
        for group in groups
        if (row := printed.get(group[0].published)) and not unfit(group, row) and (place := _place(group, row))
    ]
    if len(places) > 1:
        below, within, above = map(places.count, ("below", "within", "above"))
        shown.append(
            f"For {len(places)} recipes of ours there is a comparable published figure. It lies within our 95 % "
            f"interval for {within}, above it for {above} and below it for {below}."
        )
    return shown


def beside(group: list[Training], row: PublishedRow | None) -> str:
    """Compare a recipe with the published figure of what it reproduces, in a sentence or two."""
    if row is None:
        return "no figure was published for this dataset, so there is nothing to compare it with."
    average = f", {row.average}" if row.average not in (UNKNOWN, "pooled") else ""
    published = f"{text(row.cell, 'percent')} % was published ({row.table}, {row.tested}{average})"
    if why := unfit(group, row):
        return f"{published}, which is not comparable with ours: {why}."
    level: Level = "sequence" if row.level == "sequence" else "image"
    reach, place = reached(group, level), _place(group, row)
    tested = group[0].sequences if level == "sequence" else group[0].images
    points = 100 * reach.mean - row.figure
    ours = f"{published}; ours is {percent(reach.mean)} % of {tested:,} {level}s, {points:+.2f} points"
    if row.n not in (0, tested):
        ours += " (n differs: the test sets are not the same)"
    if not place:
        return f"{ours}, with no interval: nothing is concluded."
    if place == "within":
        return f"{ours}. The published figure lies within our interval: no difference shown."
    return (
        f"{ours}. The published figure lies {place} our interval: chance in the choice of people whom we tested does "
        "not explain the difference. The uncertainty of the published figure is unknown."
    )


def unfit(group: list[Training], row: PublishedRow) -> str:
    """Why a published figure is not comparable with a recipe; empty where it is."""
    first = group[0]
    if first.not_comparable_reason:
        return first.not_comparable_reason
    if row.level == UNKNOWN:
        return "it is unknown whether it is of images or of sequences"
    if row.level == "sequence" and not first.sequences:
        return "which images belong to one sequence is unknown here"
    return "it is of images, ours of sequences" if row.level == "image" and first.level == "sequence" else ""


def _place(group: list[Training], row: PublishedRow) -> str:
    """Where a published figure lies relative to a recipe's interval; empty where there is no interval."""
    reach = reached(group, "sequence" if row.level == "sequence" else "image")
    share = row.figure / 100
    if reach.degenerate:
        return ""
    # A printed figure is rounded to two decimals.
    return "below" if share < reach.low - 5e-5 else "above" if share > reach.high + 5e-5 else "within"


def _between(report: Report, groups: list[list[Training]]) -> list[str]:
    if report.contrasts:
        return [sentence for contrast in report.contrasts for sentence in between(contrast)]
    methods = {group[0].method for group in groups}
    if len(methods) > 1:
        return ["The leading methods were not tested on the same images in the same folds, so they are not compared."]
    return ["There is one method, and no other to compare it with."] if methods else []


def between(contrast: Contrast) -> list[str]:
    """Return whether two methods differ, then the conditions of this comparison."""
    gap = contrast.difference
    over = gap.over if gap.over == "subjects" else f"{contrast.level}s"
    answer, chance = ("Difference shown", "does not") if contrast.shown else ("No difference shown", "may")
    sentence = (
        f"{answer}: {contrast.first} is {abs(100 * gap.value):.2f} points above {contrast.second} on the same "
        f"{contrast.tested:,} {contrast.level}s; 95 % interval of the difference {0 - 100 * gap.high:+.2f} to "
        f"{0 - 100 * gap.low:+.2f} over {gap.units:,} {over}, p = {contrast.p:.4f} by permutation. "
        f"Chance in the choice of tested people {chance} explain it."
    )
    remarks = []
    if gap.units < FEWEST:
        remarks.append(f"With {gap.units} {over} no difference can be shown, however large.")
    if 1 in contrast.seeds:
        remarks.append("How much another seed would change is not included: at least one of the two has one seed only.")
    if contrast.among > 2:
        remarks.append(f"The two were chosen as the best of {contrast.among} methods by these same figures.")
    return [sentence, *filter(None, [" ".join(remarks + contrast.remarks)])]


def _limits(report: Report, groups: list[list[Training]]) -> list[str]:
    """What must not be concluded from the figures."""
    names = named(report.trainings)

    def these(trainings: Iterable[Training]) -> str:
        return listed([names[t.experiment] for t in trainings], 3)

    shown = []
    if report.synthetic:
        shown.append("How well people's expressions are recognised, since the faces are drawn.")
    if incomplete := [t for t in report.trainings if not t.whole]:
        shown.append(f"How {these(incomplete)} would do over all folds, since folds are missing.")
    if seen := [t for t in report.trainings if not t.held_out.comparable]:
        why = ", ".join(dict.fromkeys(t.not_comparable_reason for t in seen))
        shown.append(f"How {these(seen)} would do on other people ({why}).")
    if any(not t.subjects for t in report.trainings):
        shown.append(
            "How people differ, where subjects are unknown: intervals treat images as independent, and "
            "are too narrow if they are not."
        )
    if groups and all(len(group) == 1 for group in groups):
        shown.append("How much another seed would change, since each recipe has one.")
    if report.leakage_folds:
        shown.append(f"The accuracy of {report.leakage_folds} folds that measure data leakage: they are no results.")
    if report.trainings:
        shown.append("How groups of people differ (age, sex, origin), since the data do not state them.")
    return shown


def _count(number: int, word: str) -> str:
    return f"{number:,} {word}{'' if number == 1 else 's'}"


# The sections of a report


def concluded(reports: list[Report]) -> list[Section]:
    """Return for each report a section without tables: what may be concluded, as the HTML page has it on top."""
    return [Section(f"{report.dataset}: what may be concluded", lines(conclude(report))) for report in reports]


def sections(reports: list[Report], brief: bool = False) -> list[Section]:
    """Return each report as a section, after the overview where there is one. brief : see :func:`tables.tables`."""
    overview = tables.overview(reports)
    sentence = "Trainings that lack folds are left out, as are those that are not known to be held out."
    first = [Section("all protocols", [sentence], [overview])] if overview else []
    return first + [Section(report.dataset, heading(report, brief), tables.tables(report, brief)) for report in reports]


def heading(report: Report, brief: bool = False) -> list[str]:
    """Return what must be known to read the tables, a sentence or two each; ``brief`` as for :func:`tables.tables`."""
    shown, names, trainings = [], named(report.trainings), report.trainings
    if report.synthetic:
        shown.append(DRAWN)
    for protocol, level, rule, split_hash, data, known in dict.fromkeys(
        (t.protocol, t.level, t.rule, t.split_hash, t.data, t.subjects > 0) for t in trainings
    ):
        disjoint = (
            f"no subject is in both training and test set, every {level} of the test set is tested once"
            if known
            else UNKNOWN_PEOPLE
        )
        shown.append(f"Protocol {protocol}: {rule}; {disjoint}. Fold file {split_hash[:12]}, data {data[:12]}.")
    shown += dict.fromkeys(f"Audit of {t.protocol}: {t.audit}." for t in trainings if t.audit)
    for selection in dict.fromkeys(t.selection for t in trainings):
        shown.append(f"Weights tested: {SELECTIONS.get(selection, selection)}. No test image was used to choose them.")
    if report.varying:
        facts = "; ".join(f"{name} ({listed(values)})" for name, values in report.varying.items())
        shown.append(f"Our trainings differ in: {facts}.")
    elif trainings:
        shown.append("There is one training.")
    shown.append(
        "Accuracy is pooled over all test images of all folds, as in the paper, and computed from stored predictions. "
        "Intervals are 95 %, with subjects as clusters where they are known."
    )
    if any(t.level == "sequence" for t in trainings):
        shown.append(
            "Under a protocol of sequences there is one prediction for each sequence, so n differs. Methods that "
            "predict images also have an accuracy on sequences, from the mean of their images' probabilities. Methods "
            "of images and methods of sequences are compared by this accuracy only."
        )
    if any(t.sees.startswith(FEW) for t in trainings):
        shown.append(
            f"({FEW}) marks a method of sequences that was given three frames of each. It is not compared with "
            "published figures."
        )
    if others := [t for t in trainings if not t.held_out.comparable]:
        shown.append(
            f"Trained on test subjects, or not known to be held out: {listed([names[t.experiment] for t in others])}. "
            "These figures are not compared with others."
        )
    if any(not t.whole for t in trainings):
        shown.append(
            "A training with missing folds is marked with the number of its folds. It was tested on other images, so "
            "it is not compared."
        )
    if report.leakage_folds:
        shown.append(
            f"Left out: {report.leakage_folds} folds that measure data leakage (best test epoch, subjects in training "
            "and test set). They are no results; `ferbench report --ablation` shows them."
        )
    if brief and tables.many(report):
        shown.append(
            f"Further figures, confusion matrices and folds of the {len(trainings)} trainings are left out here. Every "
            "other --format has them."
        )
    shown += [f"Published: {erratum}." for erratum in report.errata]
    return shown + list(dict.fromkeys(f"Note: {note.rstrip('.')}." for t in trainings for note in t.notes))


def headlines(store: Store, dataset: str, keys: Iterable[str]) -> list[str]:
    """Return a line for each complete training: its pooled accuracy with its conditions.

    keys : of folds that have ended, whose protocol is ``dataset``.
    """
    rows, lines = {row.method: row for row in published_rows(dataset)}, []
    for t in trainings_of(store, keys):
        if t.whole:
            row = None if t.not_comparable_reason else rows.get(t.published)
            figure = f"; published {row.figure:.2f} %" if row else ""
            lines.append(
                f"{t.seeded}: {percent(t.accuracy)} % of {t.n} "
                f"(95 % interval {limits_text(t.interval, t.level)}); {t.protocol}, "
                f"{t.weights}{figure}"
            )
    return lines
