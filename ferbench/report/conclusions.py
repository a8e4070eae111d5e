"""What a reader may conclude from a report, and what not: sentences, each from figures that the tables show too."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from ferbench import metrics
from ferbench.report.cells import SELECTIONS, listed, named, percent
from ferbench.report.model import Contrast, Report, Training
from ferbench.report.published import UNKNOWN, PublishedRow
from ferbench.report.told import LEVELS, Level

FEWEST = (
    6  # subjects, or images for want of them: of fewer no flip of signs is rarer than one in twenty, whatever they show
)


@dataclass(frozen=True)
class Reach:
    """The accuracy of one recipe at one level, mean over its seeds, and how far the intervals of all of them reach."""

    mean: float
    low: float
    high: float
    units: int  # subjects that were drawn, or images or sequences for want of them
    over: str
    degenerate: bool
    seeds: int

    @property
    def interval(self) -> str:
        """In words, in percent."""
        if self.degenerate:
            return f"no interval: one {self.over[:-1]}"
        name = "95 % interval" if self.seeds == 1 else "95 % intervals of all seeds reach"
        return f"{name} {percent(self.low)}–{percent(self.high)} over {self.units:,} {self.over}"


@dataclass(frozen=True)
class Leader:
    """The recipe of ours that has the highest accuracy of one level.

    facts : what it takes to read the figure, a few words each.
    """

    name: str
    level: Level
    reach: Reach
    facts: list[str]


@dataclass(frozen=True)
class Conclusions:
    """One set's leaders, and what may be said of them: a question each, with its answers. Never empty."""

    leaders: list[Leader]
    points: list[tuple[str, list[str]]]


def conclude(report: Report) -> Conclusions:
    """Return what may be concluded from a report."""
    variants = defaultdict[str, list[Training]](list)
    for t in report.trainings:
        if t.comparable:
            variants[t.variant].append(t)
    groups = list(variants.values())
    best = [
        max(mine, key=lambda group: reached(group, level).mean)
        for level in LEVELS
        if (mine := [group for group in groups if group[0].level == level])
    ]
    points = [
        ("What was measured", _measured(report, groups)),
        ("Compared with published figures", _against(report, groups, best)),
        ("Between our methods: is the difference real?", _between(report, groups)),
        ("What these figures do not show", _limits(report, groups)),
    ]
    return Conclusions(
        [_leader(group, groups) for group in best], [(question, said) for question, said in points if said]
    )


def lines(found: Conclusions) -> list[str]:
    """Return conclusions as lines of text: one for each leader, one for each question."""
    said = []
    for leader in found.leaders:
        what = ", whole sequences" if leader.level == "sequence" else ""
        said.append(
            f"Our best{what}: {leader.name}, {percent(leader.reach.mean)} % ({leader.reach.interval}); "
            f"{'; '.join(leader.facts)}."
        )
    for question, answers in found.points:
        mark = "" if question.endswith("?") else ":"
        said.append(f"{question}{mark} {' '.join(answers)}")
    return said


def reached(group: list[Training], level: Level) -> Reach:
    """Figures of a recipe by images, or by sequences as every published figure of sequences is."""
    if level == group[0].level:
        values, intervals = [t.accuracy for t in group], [t.interval for t in group]
    else:
        values = [t.sequence_accuracy for t in group]
        intervals = [t.sequence_interval for t in group if t.sequence_interval is not None]
    first = intervals[0]
    over = "subjects" if first.over == "subjects" else f"{level}s"
    return Reach(
        float(np.mean(values)),
        min(one.low for one in intervals),
        max(one.high for one in intervals),
        first.units,
        over,
        any(one.degenerate for one in intervals),
        len(group),
    )


def titled(group: list[Training]) -> str:
    """What a recipe is called."""
    first = group[0]
    return f"{first.method} ({first.preset})" if first.preset else first.method


def over_seeds(group: list[Training]) -> str:
    """Which seeds a recipe has, and how far they are apart."""
    seeds = listed([str(t.seed) for t in group])
    if len(group) == 1:
        return f"one seed ({seeds})"
    _, std = metrics.spread([t.accuracy for t in group])
    return f"mean of {len(group)} seeds ({seeds}), standard deviation {percent(std)}"


def _leader(group: list[Training], groups: list[list[Training]]) -> Leader:
    first = group[0]
    methods = len({one[0].method for one in groups if one[0].level == first.level})
    facts = [
        f"n = {first.n}" + (f" of {first.subjects:,} people" if first.subjects else ", people unknown"),
        f"{first.protocol}, {len(first.folds)} folds" if len(first.folds) > 1 else f"{first.protocol}, one split",
        SELECTIONS.get(first.selection, first.selection),
        over_seeds(group),
        *([f"changed from the preset: {listed(first.changed)}"] if first.changed else []),
        f"the highest of {methods} methods" if methods > 1 else "the only method",
    ]
    return Leader(titled(group), first.level, reached(group, first.level), facts)


def _measured(report: Report, groups: list[list[Training]]) -> list[str]:
    """What there is, and how much of it counts."""
    trainings = report.trainings
    if not trainings:
        count = len(report.transfers)
        models = "1 finished model was" if count == 1 else f"{count} finished models were"
        return [f"Nothing was trained here; {models} tested." if count else "No fold is done yet."]
    methods = len({t.method for t in trainings})
    said = [
        f"{_count(len(trainings), 'training')} of {_count(methods, 'method')}"
        + (", on faces that ferbench has drawn." if report.drawn else ".")
    ]
    for protocol, level, folds, subjects in dict.fromkeys(
        (t.protocol, t.level, len(t.expected), t.subjects > 0) for t in trainings
    ):
        how = f"{folds} folds" if folds > 1 else "one split"
        people = (
            "no person is in both training and test set"
            if subjects
            else "subjects are unknown, so the same people may be in training and test sets"
        )
        said.append(f"{protocol} tests {level}s: {how}, {people}.")
    if not groups:
        why = listed(sorted({t.apart for t in trainings}))
        said.append(
            f"No training is complete and known to be tested on held-out subjects ({why}), so nothing is concluded."
        )
    return said


def _against(report: Report, groups: list[list[Training]], best: list[list[Training]]) -> list[str]:
    if report.drawn:
        return ["Nothing: no published figure is about drawn faces."]
    printed = {row.method: row for row in report.published}
    said = [f"{titled(group)}: {beside(group, printed.get(group[0].published))}" for group in best]
    verdicts = [
        place
        for group in groups
        if (row := printed.get(group[0].published)) and not unfit(group, row) and (place := _place(group, row))
    ]
    if len(verdicts) > 1:
        below, within, above = map(verdicts.count, ("below", "within", "above"))
        said.append(
            f"Of {len(verdicts)} recipes of ours with a comparable published figure, this figure lies within "
            f"the 95 % interval of {within}, above that of {above} and below that of {below}."
        )
    return said


def beside(group: list[Training], row: PublishedRow | None) -> str:
    """Compare a recipe with the published figure of what it reproduces, in a sentence or two."""
    if row is None:
        return "no figure was published for this dataset, so there is nothing to compare it with."
    average = f", {row.average}" if row.average not in (UNKNOWN, "pooled") else ""
    told = f"{row.shown} % was published ({row.table}, {row.tested}{average})"
    if why := unfit(group, row):
        return f"{told}, which is not comparable with ours: {why}."
    level: Level = "sequence" if row.level == "sequence" else "image"
    reach = reached(group, level)
    tested = group[0].sequences if level == "sequence" else group[0].images
    ours = (
        f"{told}; ours is {percent(reach.mean)} % of {tested:,} {level}s, {100 * reach.mean - row.figure:+.2f} points"
    )
    if row.n not in (0, tested):
        ours += " (n differs: not tested on the same)"
    place = _place(group, row)
    if not place:
        return f"{ours}, with no interval: nothing is concluded."
    if place == "within":
        return f"{ours}. The published figure lies within our interval: no difference shown."
    return (
        f"{ours}. The published figure lies {place} our interval: chance over whom we tested does not "
        "explain the difference. The uncertainty of the published figure is unknown."
    )


def unfit(group: list[Training], row: PublishedRow) -> str:
    """Why a published figure is not comparable with a recipe; empty where it does."""
    first = group[0]
    if first.apart:
        return first.apart
    if row.level == UNKNOWN:
        return "it is unknown whether it is of images or of sequences"
    if row.level == "sequence" and not first.sequences:
        return "which images are of one sequence is unknown here"
    return "it is of images, ours of sequences" if row.level == "image" and first.level == "sequence" else ""


def _place(group: list[Training], row: PublishedRow) -> str:
    """Where a published figure lies against a recipe's interval; empty where that is none."""
    reach = reached(group, "sequence" if row.level == "sequence" else "image")
    share = row.figure / 100
    if reach.degenerate:
        return ""
    # A printed figure is rounded to two decimals.
    return "below" if share < reach.low - 5e-5 else "above" if share > reach.high + 5e-5 else "within"


def _between(report: Report, groups: list[list[Training]]) -> list[str]:
    if report.contrasts:
        return [said for one in report.contrasts for said in between(one)]
    methods = {group[0].method for group in groups}
    if len(methods) > 1:
        return ["The leading methods were not tested on the same images in the same folds, so they are not compared."]
    return ["There is one method, and no other to compare it with."] if methods else []


def between(one: Contrast) -> list[str]:
    """Say what may be said between two methods: the answer first, then what it must be read with."""
    gap = one.difference
    over = gap.over if gap.over == "subjects" else f"{one.level}s"
    answer, chance = ("Difference shown", "does not") if one.shown else ("No difference shown", "may")
    said = (
        f"{answer}: {one.first} is {abs(100 * gap.value):.2f} points above {one.second} on the same {one.tested:,} "
        f"{one.level}s; 95 % interval of the difference {0 - 100 * gap.high:+.2f} to {0 - 100 * gap.low:+.2f} over "
        f"{gap.units:,} {over}, p = {one.p:.4f} by permutation. Chance over who was tested {chance} explain it."
    )
    remarks = []
    if gap.units < FEWEST:
        remarks.append(f"With {gap.units} {over} no difference can be shown, however large.")
    if 1 in one.seeds:
        remarks.append("What another seed would do is not in this: not both have several.")
    if one.among > 2:
        remarks.append(f"These two lead {one.among} methods by the same figures, which is why they were taken.")
    return [said, *filter(None, [" ".join(remarks + one.remarks)])]


def _limits(report: Report, groups: list[list[Training]]) -> list[str]:
    """What a reader might take from the figures, and should not."""
    names = named(report.trainings)

    def these(found: Iterable[Training]) -> str:
        return listed([names[t.experiment] for t in found], 3)

    said = []
    if report.drawn:
        said.append("How well people's expressions are recognised, since the faces are drawn.")
    if parts := [t for t in report.trainings if not t.whole]:
        said.append(f"How {these(parts)} would do over all folds, since folds are missing.")
    if known := [t for t in report.trainings if not t.held_out.comparable]:
        said.append(
            f"How {these(known)} would do on other people ({', '.join(dict.fromkeys(t.apart for t in known))})."
        )
    if any(not t.subjects for t in report.trainings):
        said.append(
            "How people differ, where subjects are unknown: intervals treat images as independent, and "
            "are too narrow if they are not."
        )
    if groups and all(len(group) == 1 for group in groups):
        said.append("What another seed would give, since each recipe has one.")
    if report.habits:
        said.append(f"What the {report.habits} folds give that measure data leakage, since they are no results.")
    if report.trainings:
        said.append("How groups of people differ (age, sex, origin), since the data do not state them.")
    return said


def _count(number: int, word: str) -> str:
    return f"{number:,} {word}{'' if number == 1 else 's'}"
