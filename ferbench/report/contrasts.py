"""The leading methods of a dataset compared on the same people, as ``ferbench compare`` does it."""

from collections import defaultdict
from collections.abc import Mapping
from contextlib import suppress

import numpy as np
import pandas as pd

from ferbench import statistics
from ferbench.errors import DataError
from ferbench.report.compare import SHOWN, remarks_on
from ferbench.report.model import Contrast, Training
from ferbench.report.results import Result, at_one_level
from ferbench.report.told import LEVELS, Level


def contrasts(trainings: list[Training], pooled: Mapping[str, pd.DataFrame]) -> list[Contrast]:
    """Return what may be said between the leading methods: of those that predict images the best two, of those that
    predict sequences the best two, and the best of either kind by sequences. The better one stands first.

    Whole trainings alone, tested on the same in the same folds, on people they did not learn from; of a method its
    best recipe, over all of its seeds. pooled : by experiment the predictions of all its folds.
    """
    alike: dict[str, dict[Level, dict[str, list[Training]]]]
    alike = defaultdict(lambda: {level: defaultdict(list) for level in LEVELS})
    for t in trainings:
        if t.comparable:
            alike[t.test_side][t.level][t.variant].append(t)
    found = []
    for by_level in alike.values():
        ranked = [_ranked(variants.values()) for variants in by_level.values()]
        pairs = [(methods[:2], len(methods)) for methods in ranked if len(methods) > 1]
        if all(ranked):
            pairs.append(([methods[0] for methods in ranked], sum(map(len, ranked))))
        for (first, second), among in pairs:
            # Data or fold files may still differ, or sequences be unknown: then there is nothing to say.
            with suppress(DataError):
                found.append(_contrast(_result(first, pooled), _result(second, pooled), among))
    return found


def _ranked(variants) -> list[list[Training]]:
    """The best recipe of each method, the best first, each with the trainings of all its seeds."""
    ordered = sorted(variants, key=lambda group: -float(np.mean([t.accuracy for t in group])))
    best: dict[str, list[Training]] = {}
    for group in ordered:
        best.setdefault(group[0].method, group)
    return list(best.values())


def _result(group: list[Training], pooled: Mapping[str, pd.DataFrame]) -> Result:
    first = group[0]
    return Result(
        first.name,
        first.method,
        first.preset,
        first.protocol,
        first.split_hash,
        first.data,
        first.selection,
        first.variant,
        first.classes,
        [t.seed for t in group],
        [pooled[t.experiment] for t in group],
        False,
        first.level,
        first.trained_on,
        first.held_out,
        first.uncalibrated,
    )


def _contrast(first: Result, second: Result, among: int) -> Contrast:
    """As ``compare`` does it, without a row for each class and image. Raises DataError as it does."""
    one, other = at_one_level(first, second)
    pair = statistics.paired(one.frames, other.frames)
    if pair.second.mean() > pair.first.mean():  # by sequences another leads than by images
        return _contrast(second, first, among)
    p = statistics.permutation(pair)
    return Contrast(
        _name(one),
        _name(other),
        " and ".join(dict.fromkeys((one.protocol, other.protocol))),
        one.level,
        len(pair.ids),
        (len(one.frames), len(other.frames)),
        (float(pair.first.mean()), float(pair.second.mean())),
        statistics.difference(pair),
        p,
        p <= SHOWN,
        among,
        remarks_on(first, second),
    )


def _name(result: Result) -> str:
    return f"{result.title} ({result.preset})" if result.preset else result.title
