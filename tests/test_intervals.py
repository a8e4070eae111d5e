"""Confidence intervals: their formulas, their limits, and how often they cover the truth."""

import numpy as np
import pandas as pd
import pytest
from scipy.special import betaincinv, expit, logit, ndtr, stdtrit

from ferbench import metrics
from ferbench.statistics import Paired, difference

# Sequences of three images by subject in CK+48: 21 subjects have one sequence, 22 have two, …; 118 subjects, 981 images.
SUBJECTS = {1: 21, 2: 22, 3: 47, 4: 20, 5: 7, 6: 1}
SIZES = 3 * np.repeat(list(SUBJECTS), list(SUBJECTS.values()))
CORRELATION = 0.2  # of two images of one subject being correct
DRAWS, SEED = 4000, 0
ACCURACIES = (0.98, 0.97, 0.95, 0.88)
PAIRS = ((0.98, 0.98), (0.97, 0.98), (0.95, 0.97), (0.88, 0.95))


def accuracies(accuracy: float, normal: np.ndarray) -> np.ndarray:
    """Accuracies of subjects, Beta with this mean, so that correct images are beta-binomial with CORRELATION."""
    both = 1 / CORRELATION - 1
    return betaincinv(accuracy * both, (1 - accuracy) * both, ndtr(normal))


def bootstrap(correct: np.ndarray) -> np.ndarray:
    """The interval of earlier versions for comparison: percentiles of 2,000 resamples. correct [D,U] → [2,D]."""
    times = np.random.default_rng(0).multinomial(len(SIZES), np.full(len(SIZES), 1 / len(SIZES)), 2000).astype(float)
    return np.quantile(correct @ times.T / (times @ SIZES), [0.025, 0.975], axis=1)


def logit_t(correct: np.ndarray) -> np.ndarray:
    """Cluster logit-t for comparison, a linearised variance on the logit (Dean & Pagano 2015). [D,U] → [2,D]."""
    clusters, images = len(SIZES), SIZES.sum()
    p = correct.sum(axis=1) / images
    variance = clusters / (clusters - 1) * ((correct - p[:, None] * SIZES) ** 2).sum(axis=1) / images**2
    half = stdtrit(clusters - 1, 0.975) * np.sqrt(variance) / (p * (1 - p))
    return expit(logit(p) + [-half, half])


def ours(correct: np.ndarray) -> np.ndarray:
    return np.transpose([metrics.proportion_interval(one, SIZES) for one in correct])


def misses(truth: float, ends: np.ndarray) -> tuple[float, float]:
    """Shares in percent of the intervals [2,D] above the truth and below it."""
    return 100 * float((truth < ends[0]).mean()), 100 * float((truth > ends[1]).mean())


@pytest.mark.slow
def test_intervals_of_accuracies_cover_the_truth():
    """Simulated with the subjects of CK+48: at least 94 %, and the truth is as rarely below as above the interval."""
    print(f"\n{DRAWS} draws, seed {SEED}: coverage in % (truth below, above the interval)")
    print("accuracy | percentile bootstrap | cluster logit-t | cluster Wilson-t")
    for accuracy in ACCURACIES:
        rng = np.random.default_rng(SEED)
        correct = rng.binomial(SIZES, accuracies(accuracy, rng.normal(size=(DRAWS, len(SIZES))))).astype(float)
        found = [misses(accuracy, method(correct)) for method in (bootstrap, logit_t, ours)]
        print(f"{accuracy:.2f} | " + " | ".join(f"{100 - a - b:.1f} ({a:.1f}, {b:.1f})" for a, b in found))
        below, above = found[-1]
        assert below + above <= 6
        assert max(below, above) <= 3.5


@pytest.mark.slow
def test_intervals_of_paired_differences_cover_the_truth():
    """Two methods that find the same subjects and images difficult: normal copulas with a correlation of 0.6."""
    print(f"\n{DRAWS // 2} draws, seed {SEED}: coverage in % (truth below, above the interval)")
    subject, units = np.repeat(np.arange(len(SIZES)), SIZES), len(SIZES)
    for pair in PAIRS:
        rng, missed = np.random.default_rng(SEED), np.zeros(2)
        for _ in range(DRAWS // 2):
            people, images = (0.6**0.5 * rng.normal(size=n) + 0.4**0.5 * rng.normal(size=(2, n)) for n in (units, 981))
            first, second = (
                (ndtr(image) < accuracies(accuracy, normal)[subject]).astype(float)
                for accuracy, normal, image in zip(pair, people, images, strict=True)
            )
            found = difference(Paired([], first, second, subject, "subjects"))
            truth = pair[1] - pair[0]
            missed += [truth < found.low, truth > found.high]
        below, above = 200 * missed / DRAWS
        print(f"{pair[0]:.2f} and {pair[1]:.2f} | {100 - below - above:.1f} ({below:.1f}, {above:.1f})")
        assert below + above <= 6
        assert max(below, above) <= 4.5


def test_independent_images_have_wilsons_interval():
    """With one image in each cluster, it is the score interval of Wilson (1927) with Student's t, as solved here."""
    correct, n = np.repeat([1.0, 0.0], [470, 30]), 500
    p, t = 0.94, stdtrit(n - 1, 0.975)
    wanted = np.roots([1 + t**2 / n, -(2 * p + t**2 / n), p**2])  # (p − x)² = t² x (1 − x) / n
    assert metrics.proportion_interval(correct, np.ones(n)) == pytest.approx(sorted(wanted), abs=1e-5)


def test_copies_of_images_add_nothing():
    """Ten identical images of each subject say as much as one, whatever their number."""
    correct = np.repeat([1.0, 0.0], [80, 20])
    once = metrics.proportion_interval(correct, np.ones(100))
    assert metrics.proportion_interval(10 * correct, np.full(100, 10.0)) == pytest.approx(once, abs=2e-3)


@pytest.mark.parametrize("clusters", [2, 5, 118])
def test_without_a_single_error_the_interval_ends_at_1_and_reaches_further_with_fewer_subjects(clusters):
    low, high = metrics.proportion_interval(np.full(clusters, 9.0), np.full(clusters, 9.0))
    assert high == 1
    # For 118 subjects as far as Clopper & Pearson's exact interval of 118 to 2 × 118 independent units.
    exact = [0.025 ** (1 / (times * clusters)) for times in (1, 2)]
    assert low < exact[1]
    assert clusters < 100 or exact[0] < low
    none = metrics.proportion_interval(np.zeros(clusters), np.full(clusters, 9.0))
    assert none == pytest.approx((0, 1 - low))
    assert none[0] == 0


def test_more_errors_lower_both_ends():
    """From 0 to 981 errors in CK+48, subject by subject: the accuracy lies between both ends, and they fall with it.

    The first error shows a subject who does not err in all images, so that the lower end may rise by a
    little, and the last one likewise.
    """
    before = np.cumsum(SIZES) - SIZES
    last = (1.0, 1.0)
    for errors in (0, 1, 2, 3, 10, 19, 50, 200, 700, 980, 981):
        low, high = metrics.proportion_interval(SIZES - np.clip(errors - before, 0, SIZES), SIZES)
        assert 0 <= low <= 1 - errors / 981 <= high <= 1
        assert low < last[0] + 0.001
        assert high < last[1] + 0.001
        last = (low, high)


def test_intervals_are_symmetric_in_errors_and_do_not_depend_on_the_order_of_subjects():
    rng = np.random.default_rng(3)
    correct = rng.binomial(SIZES, 0.9)
    low, high = metrics.proportion_interval(correct, SIZES)
    assert metrics.proportion_interval(SIZES - correct, SIZES) == pytest.approx((1 - high, 1 - low))
    order = rng.permutation(len(SIZES))
    assert metrics.proportion_interval(correct[order], SIZES[order]) == pytest.approx((low, high))


def test_a_dominant_subject_widens_the_interval():
    """One subject with half of the images is half of the evidence."""
    even, uneven = np.full(10, 20), np.array([100, *[12] * 8, 4])
    rates = np.array([0.6, *[0.95] * 9])
    widths = [np.ptp(metrics.proportion_interval(rates * sizes, sizes)) for sizes in (even, uneven)]
    assert widths[1] > 1.5 * widths[0]


def test_images_of_unknown_people_that_several_seeds_test_are_still_one_image_each():
    once = pd.DataFrame({"id": list("abcdefgh"), "subject": "", "truth": "x", "prediction": list("xxxyxxyx")})
    thrice = metrics.subject_interval(pd.concat([once] * 3, ignore_index=True))
    alone = metrics.subject_interval(once)
    assert (thrice.units, alone.units) == (8, 8)
    assert (thrice.low, thrice.high) == pytest.approx((alone.low, alone.high), abs=0.03)


def test_a_difference_has_students_t_over_subjects():
    """Against the jackknife as its definition says: one subject left out at a time, the added one among them."""
    rng = np.random.default_rng(5)
    subject = np.repeat(np.arange(6), [3, 5, 2, 4, 4, 6])
    first, second = rng.integers(0, 2, (2, 24)).astype(float)
    found = difference(Paired([], first, second, subject, "subjects"))
    rows = [(float((second - first)[subject == s].sum()), float((subject == s).sum())) for s in range(6)]
    rows += [(1.0, 1.0), (0.0, 1.0), (0.0, 1.0), (-1.0, 1.0)]  # a mean subject has four images
    whole = [sum(column) for column in zip(*rows, strict=True)]
    changes = [(whole[0] - gain) / (whole[1] - size) - whole[0] / whole[1] for gain, size in rows]
    half = stdtrit(5, 0.975) * np.sqrt(5 / 6 * sum(change**2 for change in changes))
    value = (second - first).mean()
    assert (found.value, found.low, found.high) == pytest.approx((value, value - half, value + half))


def test_equal_predictions_do_not_prove_equality():
    same = Paired([], np.ones(90), np.ones(90), np.repeat(np.arange(30), 3), "subjects")
    found = difference(same)
    assert found.value == 0
    assert found.low == -found.high
    assert 0.01 < found.high < 0.1


def test_a_difference_stays_within_100_points_and_one_subject_gives_a_point():
    subject = np.array([0, 0, 1])
    found = difference(Paired([], np.zeros(3), np.ones(3), subject, "subjects"))
    assert (found.value, found.high) == (1, 1)
    assert found.low >= -1
    one = difference(Paired([], np.zeros(3), np.ones(3), np.zeros(3, dtype=int), "subjects"))
    assert (one.low, one.value, one.high) == (1, 1, 1)
