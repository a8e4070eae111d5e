"""Several trainings together: seeds of one recipe, presets of one method, and the leading methods compared."""

from collections import defaultdict
from collections.abc import Mapping
from contextlib import suppress

import numpy as np
import pandas as pd

from ferbench import metrics
from ferbench.errors import DataError
from ferbench.report.compare import Result, paired_results
from ferbench.report.results import Contrast, PresetEnsemble, Seeds, Training, by_variant
from ferbench.report.table import SIGNIFICANCE
from ferbench.report.tested_runs import LEVELS, Level

Frames = Mapping[str, pd.DataFrame]  # by experiment, the predictions of all its folds


def across_seeds(trainings: list[Training], frames: Frames) -> list[Seeds]:
    """Return what whole trainings of equal variant come to together, where there are two or more."""
    groups = by_variant(t for t in trainings if t.whole)
    return [_seeds(group, frames) for group in groups if len(group) > 1]


def _seeds(group: list[Training], frames: Frames) -> Seeds:
    first, predicted = group[0], [frames[t.experiment] for t in group]
    times = metrics.times_wrong(predicted)
    always = predicted[0]["subject"].to_numpy()[times == len(predicted)]
    mean, std = metrics.spread([t.accuracy for t in group])
    ensemble, interval = _ensemble(group, frames)
    return Seeds(
        **{name: getattr(first, name) for name in ("variant", "method", "preset", "level")},
        seeds=[t.seed for t in group],
        experiments=[t.experiment for t in group],
        mean=mean,
        std=std,
        ensemble=ensemble,
        ensemble_interval=interval,
        tested=len(times),
        wrong_with_some=int((times > 0).sum()),
        wrong_with_all=len(always),
        wrong_subjects=sorted({*always} - {""}),
    )


def _ensemble(group: list[Training], frames: Frames) -> tuple[float, metrics.Interval]:
    """The accuracy of the mean of several trainings' probabilities, with its interval."""
    together = metrics.ensemble([frames[t.experiment] for t in group], group[0].classes)
    return metrics.share_correct(together), metrics.subject_interval(together)


def across_presets(trainings: list[Training], frames: Frames) -> list[PresetEnsemble]:
    """Return what all presets of a method give together, by the seeds that each of them has, where there are two or
    more presets. A method with several recipes for one preset is left out: nothing says which of them to take."""
    methods: dict[tuple[str, Level, str, str, str], dict[tuple[str, str], dict[int, Training]]]
    methods = defaultdict(lambda: defaultdict(dict))
    for t in trainings:
        if t.whole:
            methods[t.method, t.level, t.selection, t.split_hash, t.data][t.preset, t.variant][t.seed] = t
    ensembles = []
    for (method, level, *_), recipes in methods.items():
        presets = [preset for preset, _ in recipes]
        seeds = sorted(set.intersection(*map(set, recipes.values())))
        if len(presets) == len(set(presets)) > 1 and seeds:
            figures = [_ensemble([by_seed[seed] for by_seed in recipes.values()], frames) for seed in seeds]
            shares, intervals = map(list, zip(*figures, strict=True))
            ensembles.append(PresetEnsemble(method, level, presets, seeds, shares, intervals, *metrics.spread(shares)))
    return ensembles


def contrasts(trainings: list[Training], frames: Frames) -> list[Contrast]:
    """Return comparisons of the best two methods that predict images, of the best two that predict sequences, and of
    the best of either kind by sequences. The better one stands first.

    Only whole trainings are compared, tested on the same in the same folds, on people they did not learn from; of a
    method its best recipe, over all of its seeds.
    """
    alike: dict[str, list[Training]] = defaultdict(list)
    for t in trainings:
        if t.comparable:
            alike[t.test_set].append(t)
    comparisons = []
    for group in alike.values():
        ranked = [_ranked([t for t in group if t.level == level]) for level in LEVELS]
        pairs = [(methods[:2], len(methods)) for methods in ranked if len(methods) > 1]
        if all(ranked):
            pairs.append(([methods[0] for methods in ranked], sum(map(len, ranked))))
        for (first, second), among in pairs:
            # Data or fold files may still differ, or sequences be unknown: then there is nothing to say.
            with suppress(DataError):
                comparisons.append(_contrast(first, second, frames, among))
    return comparisons


def _ranked(trainings: list[Training]) -> list[list[Training]]:
    """The best recipe of each method, the best first, each with the trainings of all its seeds."""
    best: dict[str, list[Training]] = {}
    for group in sorted(by_variant(trainings), key=lambda group: -float(np.mean([t.accuracy for t in group]))):
        best.setdefault(group[0].method, group)
    return list(best.values())


def _contrast(first: list[Training], second: list[Training], frames: Frames, among: int) -> Contrast:
    """As ``compare`` does it, without a row for each class and image. Raises DataError as it does."""
    facts, pair, _ = paired_results(_result(first, frames), _result(second, frames))
    if pair.second.mean() > pair.first.mean():  # by sequences another leads than by images
        return _contrast(second, first, frames, among)
    names = {"first": first[0].title, "second": second[0].title}
    return Contrast(**names, **facts, tested=len(pair.ids), shown=facts["p"] <= SIGNIFICANCE, among=among)


def _result(group: list[Training], frames: Frames) -> Result:
    first = group[0]
    return Result(
        method=first.name,
        title=first.method,
        split=first.split_hash,
        seeds=[t.seed for t in group],
        frames=[frames[t.experiment] for t in group],
        evaluation=False,
        **{name: getattr(first, name) for name in ("preset", "protocol", "data", "selection", "variant", "classes")},
        **{name: getattr(first, name) for name in ("level", "trained_on", "held_out", "uncalibrated")},
    )
