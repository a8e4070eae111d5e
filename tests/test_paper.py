"""``ferbench paper``: the printed tables add up, and one that does not is refused."""

import json

import pytest
from support.command import ferbench

from ferbench.errors import CheckFailed, DataError
from ferbench.report import published


def test_the_papers_matrices_come_to_its_accuracies(tmp_path):
    tables = json.loads(ferbench("paper", "--format", "json", cwd=tmp_path).stdout)
    said = " ".join(line for table in tables for line in table["facts"])
    for right, total, percent in ((962, 981, 98.06), (1271, 1440, 88.26), (2610, 3068, 85.07)):
        assert round(100 * right / total, 2) == percent
        assert f"It comes to {right:,} of {total:,} images: {percent:.2f} % pooled accuracy" in said
    assert "Erratum: printed as a copy of table 9" in said
    assert not any(table["problems"] for table in tables)


def _edited(change):
    tables = [
        ({**table, "matrix": [list(row) for row in table["matrix"]]} if "matrix" in table else table, source)
        for table, source in published.all_tables()
    ]
    change({table["id"]: table for table, _ in tables})
    return lambda: tables


def _row(tables):
    tables["table3"]["matrix"][0][0] = 87.8


def _accuracy(tables):
    tables["table2"]["rows"] = [[m, f, 98.16 if m == "WS-LGAN" else a] for m, f, a in tables["table2"]["rows"]]


@pytest.mark.parametrize(("change", "said"), [(_row, "row An adds up to 90.0"), (_accuracy, "Table 2 prints 98.16")])
def test_a_table_that_contradicts_itself_fails(monkeypatch, change, said):
    monkeypatch.setattr(published, "all_tables", _edited(change))
    with pytest.raises(CheckFailed, match=said):
        published.check(published.audits())


def test_a_recorded_erratum_is_no_failure(monkeypatch):
    def change(tables):
        _row(tables)
        tables["table3"]["erratum"] = "row An is misprinted"

    monkeypatch.setattr(published, "all_tables", _edited(change))
    published.check(published.audits("3"))


def test_one_table_or_none(tmp_path):
    assert "Table 5" in ferbench("paper", "--table", "5", cwd=tmp_path).stdout
    with pytest.raises(DataError, match="there is no table 1: there are 2, 3"):
        published.audits("1")


def test_what_is_known_of_each_figure_stands_beside_it_and_a_slip_is_said(tmp_path):
    told = ferbench("paper", "--table", "4", "--format", "markdown", cwd=tmp_path).stdout
    assert "- Misprint: DTAGN should have 81.46 instead of 81.86: 81.46 stands in its own table" in told
    row = next(line for line in told.splitlines() if line.startswith("| DTAGN"))
    assert [cell.strip() for cell in row.split("|")][1:8] == [
        "DTAGN",
        "81.86 (81.46)",
        "dynamic",
        "sequence",
        "480",
        "10",
        "pooled",
    ]
