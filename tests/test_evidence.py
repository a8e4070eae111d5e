"""Figures of reports are those of the runs that are stored beside them."""

import re

import pytest
from conftest import ROOT
from support.command import ferbench

PAGE = ROOT / "reports/adjusted-scores.md"
SECTIONS = re.split(r"^## ", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]


def rows(text: str) -> list[list[str]]:
    """The rows of all tables of a page, as cells."""
    cells = [[cell.strip() for cell in line.split("|")] for line in text.splitlines() if line.startswith("|")]
    return [row for row in cells if any(set(cell) - set(":-") for cell in row)]


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.partition("\n")[0])
def test_a_page_has_the_tables_of_its_runs(section, tmp_path):
    name, _, text = section.partition("\n")
    words = ["report", "-d", name, "--runs", str(ROOT / "reports/runs"), "--format", "markdown", "--out", "page.md"]
    ferbench(*words, cwd=tmp_path)
    computed, quoted = rows((tmp_path / "page.md").read_text(encoding="utf-8")), rows(text)
    assert len(quoted) > 9
    assert not [row for row in quoted if row not in computed]


def test_the_page_of_results_has_figures_of_these_tables():
    results = (ROOT / "docs/results.md").read_text(encoding="utf-8")
    section = results.partition("## Adjusted scores")[2].partition("\n## ")[0]
    figures = re.findall(r"\b\d\d\.\d\d\b", "".join(line for line in section.splitlines(True) if line.startswith("|")))
    accuracies = set(re.findall(r"\| (\d\d\.\d\d) \|", PAGE.read_text(encoding="utf-8")))
    assert len(figures) > 30
    assert not set(figures) - accuracies
