"""The paper's tables as data: complete, consistent, and applied to its own datasets alone."""

import pytest

from ferbench.labels import ABBREVIATIONS, EMOTIONS
from ferbench.report import published


@pytest.mark.parametrize(("dataset", "table", "count", "first", "last"), [
    ("ckplus", "Table 2", 16, "HOG 3D", "WS-LGAN"),
    ("oulu", "Table 4", 10, "HOG 3D", "WS-LGAN"),
    ("rafdb", "Table 6", 7, "FSN", "WS-LGAN"),
])  # fmt: skip
def test_comparison_rows_stand_as_printed(dataset, table, count, first, last):
    rows = [row for row in published.rows(dataset) if row.table == table]
    assert (len(rows), rows[0].method, rows[-1].method) == (count, first, last)
    assert {row.feature for row in rows} <= {"static", "dynamic"}
    assert all(50 < row.accuracy < 100 for row in rows)


def test_ablations_follow_the_comparison_and_are_whole_numbers_of_images():
    """Each is k/981; two are printed cut off instead of rounded, so a hundredth is allowed for."""
    rows = published.rows("ckplus")
    ablations = rows[16:]
    assert [(row.method, row.table) for row in ablations] == [
        ("GFNet", "Table 8"), ("LFNet", "Table 8"), ("WS-LGAN-Sum", "Table 9"), ("WS-LGAN-Concat", "Table 9"),
    ]  # fmt: skip
    for row, hits in zip(ablations, (933, 931, 940, 948), strict=True):
        assert 100 * hits / 981 == pytest.approx(row.accuracy, abs=0.01)


@pytest.mark.parametrize("dataset", ["ckplus", "oulu", "rafdb"])
def test_matrices_are_in_the_one_order_and_their_rows_sum_to_a_hundred(dataset):
    matrix = published.matrix(dataset)
    assert list(matrix.classes) == [name for name in EMOTIONS if name in matrix.classes]
    assert [ABBREVIATIONS[name] for name in matrix.classes][:1] == ["An"]
    assert matrix.percent.sum(axis=1) == pytest.approx(100, abs=0.31)  # seven cells, each rounded by up to 0.05


def test_the_paper_says_nothing_about_other_datasets():
    assert published.rows("synth") == []
    assert published.matrix("synth") is None
    assert published.errata("synth") == []
