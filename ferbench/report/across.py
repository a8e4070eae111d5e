"""What several trainings say together: seeds of one recipe, presets of one method."""

from collections import defaultdict
from collections.abc import Mapping

import pandas as pd

from ferbench import metrics
from ferbench.report.model import Seeds, Together, Training
from ferbench.report.told import Level


def across_seeds(trainings: list[Training], pooled: Mapping[str, pd.DataFrame]) -> list[Seeds]:
    """Return what whole trainings of equal variant say together, where there are two or more.

    pooled : by experiment the predictions of all its folds.
    """
    groups: dict[str, list[Training]] = defaultdict(list)
    for training in trainings:
        if training.whole:
            groups[training.variant].append(training)
    return [_seeds(group, pooled) for group in groups.values() if len(group) > 1]


def across_presets(trainings: list[Training], pooled: Mapping[str, pd.DataFrame]) -> list[Together]:
    """Return what all presets of a method give together, by the seeds that each of them has, where there are two or
    more presets. A method with several recipes for one preset is left out: nothing says which of them to take.

    pooled : by experiment the predictions of all its folds.
    """
    methods: dict[tuple[str, Level, str, str, str], dict[tuple[str, str], dict[int, Training]]]
    methods = defaultdict(lambda: defaultdict(dict))
    for t in trainings:
        if t.whole:
            methods[t.method, t.level, t.selection, t.split_hash, t.data][t.preset, t.variant][t.seed] = t
    found = []
    for (method, level, *_), recipes in methods.items():
        presets = [preset for preset, _ in recipes]
        seeds = sorted(set.intersection(*map(set, recipes.values())))
        if len(presets) == len(set(presets)) > 1 and seeds:
            figures = [_ensemble([one[seed] for one in recipes.values()], pooled) for seed in seeds]
            shares = [accuracy for accuracy, _ in figures]
            found.append(
                Together(
                    method,
                    level,
                    presets,
                    seeds,
                    shares,
                    [interval for _, interval in figures],
                    *metrics.spread(shares),
                )
            )
    return found


def _ensemble(group: list[Training], pooled: Mapping[str, pd.DataFrame]) -> tuple[float, metrics.Interval]:
    """The accuracy of some trainings' mean probabilities, with its interval."""
    classes = group[0].classes
    together = metrics.ensemble([pooled[t.experiment] for t in group], classes)
    matrix = metrics.confusion(together["truth"], together["prediction"], classes)
    return metrics.accuracy(matrix), metrics.subject_interval(together)


def _seeds(group: list[Training], pooled: Mapping[str, pd.DataFrame]) -> Seeds:
    first, frames = group[0], [pooled[t.experiment] for t in group]
    times = metrics.times_wrong(frames)
    always = frames[0]["subject"].to_numpy()[times == len(frames)]
    return Seeds(
        first.variant,
        first.method,
        first.preset,
        first.level,
        [t.seed for t in group],
        [t.experiment for t in group],
        *metrics.spread([t.accuracy for t in group]),
        *_ensemble(group, pooled),
        len(times),
        int((times > 0).sum()),
        len(always),
        sorted({*always} - {""}),
    )
