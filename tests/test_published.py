"""The paper's tables as data: complete, consistent, and applied to its own datasets alone."""

import pytest

from ferbench.labels import ABBREVIATIONS, EMOTIONS
from ferbench.report import published


@pytest.mark.parametrize(
    ("dataset", "table", "count", "first", "last"),
    [
        ("ckplus", "Table 2", 16, "HOG 3D", "WS-LGAN"),
        ("oulu", "Table 4", 10, "HOG 3D", "WS-LGAN"),
        ("rafdb", "Table 6", 7, "FSN", "WS-LGAN"),
    ],
)
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
        ("GFNet", "Table 8"),
        ("LFNet", "Table 8"),
        ("WS-LGAN-Sum", "Table 9"),
        ("WS-LGAN-Concat", "Table 9"),
    ]
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


def test_what_is_known_of_a_figure_belongs_to_it_and_agrees_with_it():
    for table, _ in published.all_tables():
        methods = {method for method, *_ in table.get("rows", [])}
        assert {*table.get("about", {})} <= methods
        assert table["id"] in ("table8", "table9", "table10") or {*table.get("about", {})} == methods
    rows = [row for dataset in ("ckplus", "oulu", "rafdb") for row in published.rows(dataset)]
    for row in rows:
        assert row.level in ("image", "sequence", "unknown")
        assert row.average in ("pooled", "fold mean", "unknown")
        assert row.level == "sequence" or row.feature == "static"
        if row.average == "pooled":  # some k/n, printed with one or two decimals and at times cut off
            digits = 0.051 if row.figure == round(row.figure, 1) else 0.011
            assert min(abs(100 * k / row.n - row.figure) for k in range(row.n + 1)) < digits, row.method
        else:
            assert row.level == "image" or not row.n
    assert {(row.method, row.accuracy, row.correct) for row in rows if row.correct} == {("DTAGN", 81.86, 81.46)}


def test_what_nobody_read_is_unknown():
    rows = {row.method: row for row in published.rows("ckplus")}
    assert (rows["IACNN"].level, rows["IACNN"].n, rows["IACNN"].folds) == ("unknown", 0, "unknown")
    assert (rows["Cov3D"].folds, rows["Cov3D"].tested) == ("5", "sequences, n unknown")
    assert (rows["WS-LGAN"].tested, rows["IL-CNN"].tested) == ("981 images", "level unknown")
