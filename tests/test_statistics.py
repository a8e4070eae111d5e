"""Paired statistics against their formulas, and their false alarms on simulated predictions that change in nothing."""

import itertools
import tracemalloc
from math import comb, erfc

import numpy as np
import pytest
from support.predictions import frame, reseeded

from ferbench.errors import DataError
from ferbench.statistics import Paired, difference, holm, mcnemar, paired, permutation


def test_images_are_joined_by_id_whatever_their_order():
    first = frame([1, 0, 1, 1], ["a", "a", "b", "b"])
    second = frame([0, 0, 1, 1], ["a", "a", "b", "b"]).sample(frac=1, random_state=3)
    pair = paired([first], [second])
    assert list(pair.second - pair.first) == [-1, 0, 0, 0]
    assert (pair.over, pair.units) == ("subjects", 2)
    assert paired([first.assign(subject="")], [second]).over == "images"


def test_several_seeds_of_a_method_are_averaged():
    subjects = ["a", "b"]
    pair = paired([frame([1, 0], subjects)], [frame([1, 1], subjects), frame([0, 1], subjects)])
    assert list(pair.second) == [0.5, 1.0]


def test_different_images_or_truths_are_refused():
    one = frame([1, 1], ["a", "b"])
    with pytest.raises(DataError, match="different images"):
        paired([one], [one.iloc[:1]])
    with pytest.raises(DataError, match="truth"):
        paired([one], [one.assign(truth="fear")])


def test_many_images_of_unknown_people_take_little_memory():
    """Each image is a unit then; 5,000 at once would take 400 MB of signs (10,000 × 5,000 float64)."""
    rng = np.random.default_rng(1)
    first, second = (rng.random(5000) for _ in range(2))
    pair = Paired([str(n) for n in range(5000)], first, second, np.arange(5000), "images")
    tracemalloc.start()
    gap, p = difference(pair), permutation(pair)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100e6
    gains, deviation = second - first, (second - first).std() / np.sqrt(5000)
    assert (gap.low, gap.high) == pytest.approx(gains.mean() + np.array([-1.96, 1.96]) * deviation, abs=deviation / 8)
    assert p == pytest.approx(erfc(abs(gains.mean()) / deviation / np.sqrt(2)), abs=0.03)  # by the central limit


def test_the_permutation_test_is_near_the_one_over_all_signs():
    gains = [3, 1, -1, 2, 2, 0, 1, -1, 1]
    subjects = [str(s) for s in range(9) for _ in range(3)]
    hits = [(int(gain < -n), int(gain > n)) for gain in gains for n in range(3)]
    pair = paired([frame([a for a, _ in hits], subjects)], [frame([b for _, b in hits], subjects)])
    every = [sum(s * g for s, g in zip(signs, gains, strict=True)) for signs in itertools.product((-1, 1), repeat=9)]
    assert permutation(pair) == pytest.approx(np.mean([abs(one) >= sum(gains) for one in every]), abs=0.01)
    assert permutation(pair, side="worse") == pytest.approx(np.mean([one <= sum(gains) for one in every]), abs=0.01)


@pytest.mark.parametrize(("b", "c"), [(0, 0), (5, 1), (2, 9), (4, 4)])
def test_mcnemar_is_the_binomial_of_what_differs(b, c):
    first, second = [1] * b + [0] * c + [1, 0], [0] * b + [1] * c + [1, 0]
    pair = paired([frame(first, ["a"] * len(first))], [frame(second, ["a"] * len(first))])
    tail = sum(comb(b + c, k) for k in range(min(b, c) + 1)) / 2 ** (b + c)
    assert mcnemar(pair) == pytest.approx(min(1, 2 * tail))


def test_holm_multiplies_by_what_is_left():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


@pytest.mark.slow
def test_two_hundred_pairs_that_differ_by_luck_alone_raise_no_more_alarms_than_stated():
    rng = np.random.default_rng(11)
    pairs = [paired(*([one] for one in reseeded(rng, 2))) for _ in range(200)]
    # 200 trials at a rate of 5 % give 10, and more than 17 in one of 100 simulations: 10 + 2.33·sqrt(200·0.05·0.95)
    assert sum(permutation(pair) <= 0.05 for pair in pairs) <= 17
    assert sum(permutation(pair, side="worse") <= 0.05 for pair in pairs) <= 17
    assert sum(not found.low <= 0 <= found.high for found in map(difference, pairs)) <= 17


def test_a_loss_that_is_there_is_found():
    rng = np.random.default_rng(2)
    before, after = reseeded(rng, 2)
    worse = after.assign(prediction=after["prediction"].where(rng.random(len(after)) > 0.08, "fear"))
    pair = paired([before], [worse])
    assert permutation(pair, side="worse") < 0.01
    assert difference(pair).high < 0
