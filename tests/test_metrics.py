"""Metrics against formulas written out, and the published matrices through the project's own code."""

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ferbench import metrics
from ferbench.errors import DataError
from ferbench.report import published

NAMES = ["anger", "fear", "happiness"]


def frame(truth: list[str], prediction: list[str], subjects: list[str] | None = None) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "id": [str(i) for i in range(len(truth))],
            "subject": subjects or [f"S{i}" for i in range(len(truth))],
            "sequence": "",
            "truth": truth,
            "prediction": prediction,
        }
    )


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(NAMES), st.sampled_from(NAMES)), min_size=1, max_size=50))
def test_metrics_are_their_definitions(pairs):
    truth, prediction = pd.Series([t for t, _ in pairs]), pd.Series([p for _, p in pairs])
    matrix = metrics.confusion(truth, prediction, NAMES)
    assert matrix.sum() == len(pairs)
    assert metrics.accuracy(matrix) == pytest.approx(sum(t == p for t, p in pairs) / len(pairs))
    present = [name for name in NAMES if name in set(truth)]
    recalls, scores = [], []
    for name in present:
        hits = sum(t == p == name for t, p in pairs)
        recalls.append(hits / sum(t == name for t, _ in pairs))
        precision = hits / max(1, sum(p == name for _, p in pairs))
        scores.append(0 if hits == 0 else 2 * precision * recalls[-1] / (precision + recalls[-1]))
    assert metrics.balanced_accuracy(matrix) == pytest.approx(np.mean(recalls))
    assert metrics.macro_f1(matrix) == pytest.approx(np.mean(scores))


def test_absent_classes_have_no_recall_and_do_not_count():
    matrix = metrics.confusion(pd.Series(["anger", "anger"]), pd.Series(["anger", "fear"]), NAMES)
    assert math.isnan(metrics.recalls(matrix)[1])
    assert metrics.balanced_accuracy(matrix) == 0.5
    assert np.isnan(metrics.row_percent(matrix)[2]).all()


@pytest.mark.parametrize(
    ("dataset", "right", "images", "percent"),
    [("ckplus", 962, 981, 98.06), ("oulu", 1271, 1440, 88.26), ("rafdb", 2610, 3068, 85.07)],
)
def test_published_matrices_give_the_published_accuracies(dataset, right, images, percent):
    printed = published.matrix(dataset)
    counts = printed.counts()
    assert (np.trace(counts), counts.sum()) == (right, images)
    assert round(100 * metrics.accuracy(counts), 2) == percent
    assert (counts.sum(axis=1) == printed.images).all()
    assert (counts >= 0).all()
    assert np.abs(metrics.row_percent(counts) - printed.percent).max() <= 0.15  # printed rows miss 100 by as much
    ours = next(row for row in published.rows(dataset) if row.method == "WS-LGAN")
    assert ours.accuracy == percent


def test_the_copied_table_10_is_left_out():
    assert "never published" in published.errata("ckplus")[0]
    assert "WS-LGAN-WCL" not in {row.method for row in published.rows("ckplus")}
    assert {"GFNet", "LFNet", "WS-LGAN-Sum", "WS-LGAN-Concat"} <= {row.method for row in published.rows("ckplus")}


def test_interval_contains_the_estimate_and_draws_whole_people():
    rng = np.random.default_rng(0)
    truth = ["anger"] * 300
    alone = frame(truth, list(np.where(rng.random(300) < 0.8, "anger", "fear")))
    interval = metrics.subject_interval(alone)
    accuracy = (alone["truth"] == alone["prediction"]).mean()
    assert interval.low < accuracy < interval.high
    assert (interval.over, interval.units) == ("subjects", 300)
    # Thirty images that stand and fall together say as little as one.
    together = frame(
        truth,
        list(np.repeat(np.where(rng.random(10) < 0.8, "anger", "fear"), 30)),
        list(np.repeat([f"S{i}" for i in range(10)], 30)),
    )
    wide = metrics.subject_interval(together)
    assert wide.high - wide.low > 2 * (interval.high - interval.low)
    assert metrics.subject_interval(alone) == interval


def test_interval_against_the_normal_approximation():
    hits = np.arange(2000) % 5 > 0  # 80 %
    interval = metrics.subject_interval(frame(["anger"] * 2000, list(np.where(hits, "anger", "fear"))))
    half = 1.96 * math.sqrt(0.8 * 0.2 / 2000)
    assert interval.low == pytest.approx(0.8 - half, abs=0.004)
    assert interval.high == pytest.approx(0.8 + half, abs=0.004)


def test_unknown_subjects_fall_back_to_images_and_one_subject_to_a_point():
    one = frame(["anger", "fear"], ["anger", "anger"], ["S1", "S1"])
    assert metrics.subject_interval(one) == metrics.Interval(0.5, 0.5, "subjects", 1)
    assert metrics.subject_interval(frame(["anger"] * 4, ["anger"] * 4, [""] * 4)).over == "images"


def test_a_sequence_is_judged_by_its_mean_probabilities():
    table = pd.DataFrame(
        {
            "sequence": ["a", "a", "a", "b"],
            "truth": ["anger"] * 3 + ["fear"],
            "prediction": ["fear", "fear", "anger", "fear"],
            "p_anger": [0.45, 0.4, 0.9, 0.1],
            "p_fear": [0.55, 0.6, 0.1, 0.9],
        }
    )
    assert metrics.sequence_accuracy(table, ["anger", "fear"]) == (1.0, 2)  # two of three frames are wrong
    table["sequence"] = ""
    assert math.isnan(metrics.sequence_accuracy(table, ["anger", "fear"])[0])


def test_an_ensemble_is_the_mean_of_probabilities_image_by_image():
    rng = np.random.default_rng(0)
    frames, by_id = [], []
    for order in ("cab", "abc", "bca"):
        values = rng.dirichlet(np.ones(3), 3)
        table = frame(["fear"] * 3, ["anger"] * 3).assign(id=list(order))
        table[[f"p_{name}" for name in NAMES]] = values
        frames.append(table)
        by_id.append(dict(zip(order, values, strict=True)))
    together = metrics.ensemble(frames, NAMES)
    assert list(together["id"]) == ["c", "a", "b"]
    for image, row in together.set_index("id").iterrows():
        expected = sum(values[image] for values in by_id) / 3
        assert list(row[[f"p_{name}" for name in NAMES]]) == pytest.approx(list(expected), rel=1e-12)
        assert row["prediction"] == NAMES[expected.argmax()]
    assert list(frames[0]["prediction"]) == ["anger"] * 3  # what was given stays as it was
    with pytest.raises(DataError, match="different images"):
        metrics.ensemble([frames[0], frames[1].iloc[:2]], NAMES)
    with pytest.raises(DataError, match="different images"):
        metrics.ensemble([frames[0], frames[1].assign(id=["a", "b", "b"])], NAMES)


def test_spread_is_the_sample_deviation():
    assert metrics.spread([1.0, 2.0, 4.0]) == (pytest.approx(7 / 3), pytest.approx(np.std([1, 2, 4], ddof=1)))
    assert metrics.spread([0.5]) == (0.5, 0.0)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(NAMES), st.sampled_from(NAMES)), min_size=1, max_size=50))
def test_metrics_are_those_of_scikit_learn(pairs):
    from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, recall_score

    truth, prediction = [t for t, _ in pairs], [p for _, p in pairs]
    present = sorted(set(truth))
    matrix = metrics.confusion(pd.Series(truth), pd.Series(prediction), NAMES)
    assert (matrix == confusion_matrix(truth, prediction, labels=NAMES)).all()
    assert metrics.accuracy(matrix) == pytest.approx(accuracy_score(truth, prediction))
    scores = {"labels": present, "average": "macro", "zero_division": 0}
    assert metrics.balanced_accuracy(matrix) == pytest.approx(recall_score(truth, prediction, **scores))
    assert metrics.macro_f1(matrix) == pytest.approx(f1_score(truth, prediction, **scores))


@settings(max_examples=50, deadline=None)
@given(st.integers(2, 8), st.integers(0, 2**32 - 1))
def test_printing_with_one_decimal_loses_no_count_below_1000(classes, seed):
    rng = np.random.default_rng(seed)
    counts = rng.integers(0, 990 // classes, (classes, classes)) * (rng.random((classes, classes)) < 0.6)
    counts += np.diag(rng.integers(1, 5, classes))
    printed = np.round(metrics.row_percent(counts), 1)
    assert (metrics.counts_from_percent(printed, counts.sum(axis=1).tolist()) == counts).all()


@settings(max_examples=50, deadline=None)
@given(st.integers(2, 8), st.integers(0, 2**32 - 1))
def test_undone_printing_keeps_the_sizes_and_the_empty_cells(classes, seed):
    rng = np.random.default_rng(seed)
    counts = rng.integers(0, 5000, (classes, classes)) * (rng.random((classes, classes)) < 0.5)
    counts += np.diag(rng.integers(1, 9000, classes))
    printed = np.round(metrics.row_percent(counts), 0)
    undone = metrics.counts_from_percent(printed, counts.sum(axis=1).tolist())
    assert (undone.sum(axis=1) == counts.sum(axis=1)).all()
    assert (undone >= 0).all()
    assert (undone[(printed == 0) & ~np.eye(classes, dtype=bool)] == 0).all()


def test_a_printed_row_that_contradicts_its_size_gives_no_negative_count():
    undone = metrics.counts_from_percent(np.array([[150.0, 40.0], [0.0, 100.0]]), [1, 1])
    assert undone.tolist() == [[1, 0], [0, 1]]


def test_a_class_that_the_run_does_not_know_is_named():
    with pytest.raises(DataError, match="'joy' is none of the classes anger, fear, happiness"):
        metrics.confusion(pd.Series(["anger", "joy"]), pd.Series(["anger", "anger"]), NAMES)


def test_one_subject_is_no_sample_of_people():
    one = frame(["anger", "fear"], ["anger", "anger"], ["S1", "S1"])
    assert metrics.subject_interval(one).degenerate
    assert not metrics.subject_interval(frame(["anger", "fear"], ["anger", "anger"])).degenerate


def test_the_interval_does_not_depend_on_index_or_order():
    """The interval depends on who did what, not on the frame's index or on the order within a subject."""
    truth = ["anger"] * 12
    rng = np.random.default_rng(1)
    table = frame(truth, list(np.where(rng.random(12) < 0.6, "anger", "fear")), ["S1", "S2", "S3"] * 4)
    moved = table.set_index(pd.Index(range(100, 112)))
    assert metrics.subject_interval(moved) == metrics.subject_interval(table)
    within = table.sort_values("subject", kind="stable")
    assert metrics.subject_interval(within) == metrics.subject_interval(table)


def test_a_wider_level_gives_a_wider_interval():
    table = frame(["anger"] * 40, ["anger", "fear", "anger", "anger"] * 10)
    narrow, wide = (metrics.subject_interval(table, level) for level in (0.5, 0.99))
    assert wide.low < narrow.low < narrow.high < wide.high


def test_reliability_is_guos_sum_over_bins():
    rng = np.random.default_rng(3)
    confidence = np.append(rng.random(200), [0.0, 1.0])
    correct = rng.random(202) < confidence**2
    bins, error = metrics.reliability(confidence, correct, 10)
    wanted = 0.0
    for b in range(10):
        inside = (confidence >= b / 10) & ((confidence < (b + 1) / 10) | (b == 9))
        assert bins[b, 0] == inside.sum()
        wanted += inside.sum() / 202 * abs(correct[inside].mean() - confidence[inside].mean())
    assert error == pytest.approx(wanted)
    assert metrics.reliability(np.array([0.95]), np.array([True]))[1] == pytest.approx(0.05)


def test_a_sequence_keeps_its_person_and_truth_and_has_the_mean_of_its_images():
    table = pd.DataFrame(
        {
            "id": ["1", "2", "3", "4"],
            "subject": ["S", "S", "T", "T"],
            "sequence": ["b", "b", "a", ""],
            "truth": ["fear", "fear", "anger", "anger"],
            "prediction": ["anger", "fear", "anger", "anger"],
            "p_anger": [0.6, 0.2, 0.9, 0.9],
            "p_fear": [0.4, 0.8, 0.1, 0.1],
        }
    )
    found = metrics.by_sequence(table, ["anger", "fear"])
    assert found[["id", "subject", "truth", "prediction"]].to_numpy().tolist() == [
        ["a", "T", "anger", "anger"],
        ["b", "S", "fear", "fear"],
    ]
    assert found["p_fear"].tolist() == pytest.approx([0.1, 0.6])
    assert list(found.columns) == list(table.columns)
    assert metrics.by_sequence(table.assign(sequence=""), ["anger", "fear"]).empty


def test_how_many_trainings_are_wrong_follows_the_first_ones_order():
    first = pd.DataFrame({"id": ["a", "b", "c"], "truth": ["fear"] * 3, "prediction": ["fear", "anger", "anger"]})
    second = pd.DataFrame({"id": ["c", "a", "b"], "truth": ["fear"] * 3, "prediction": ["anger", "anger", "fear"]})
    assert metrics.times_wrong([first, second]).tolist() == [1, 1, 2]
    with pytest.raises(DataError, match="different images"):
        metrics.times_wrong([first, second.iloc[:2]])
