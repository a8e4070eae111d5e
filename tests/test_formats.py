"""The report in every format: what a reader gets, in a real browser where there is one."""

import csv
import io
import json
import re
import shutil
import subprocess
from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest
from support.command import ferbench, watched
from support.datasets import lay_down, make_faces
from support.runs import CLASSES, grids, store_fold

from ferbench.errors import DataError
from ferbench.report.build import build
from ferbench.report.conclusions import sections
from ferbench.report.formats import text as formats
from ferbench.report.formats.html import _low, _marks, page
from ferbench.report.tables import overview, tables
from ferbench.runs.store import Store

ROWS = [(f"S{n:02d}", truth, truth if n % 5 else "sadness") for n in range(10) for truth in CLASSES]


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Store:
    store = Store(tmp_path_factory.mktemp("formats") / "runs")
    for seed in (0, 1):
        for fold, rows in (("01", ROWS[:35]), ("02", ROWS[35:])):
            store_fold(store, fold, rows, seed=seed, facts={"notes": ["50 % of A & B_1 #2 <b>bold</b>"]})
    return store


def test_latex_is_balanced_and_escaped_and_holds_every_table(store):
    reports = build(store)
    text = formats.latex(sections(reports))
    found = grids(tables(reports[0]))
    for name in ("document", "table", "tabular", "itemize"):
        assert text.count(f"\\begin{{{name}}}") == text.count(f"\\end{{{name}}}") > 0
    assert (
        text.count("\\toprule")
        == text.count("\\bottomrule")
        == len(found)
        == len(set(re.findall(r"\\label{.*?}", text)))
    )
    assert r"50 \% of A \& B\_1 \#2" in text
    assert not re.search(r"(?<!\\)[%#]", text)
    for _, header, rows in found:
        assert all(len(row) == len(header) for row in rows)
    body = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert len(body) == sum(1 + len(rows) for _, _, rows in found)
    if shutil.which("pdflatex"):
        path = store.home.parent / "report.tex"
        path.write_text(text)
        subprocess.run(["pdflatex", "-halt-on-error", path.name], cwd=path.parent, check=True, stdout=subprocess.PIPE)


def test_csv_has_a_row_for_each_cell(store):
    reports = build(store)
    rows = list(csv.DictReader(io.StringIO(formats.csv(sections(reports)))))
    cells = {(row["table"], row["row"], row["column"]) for row in rows}
    assert len(cells) == sum(len(body) * (len(header) - 1) for _, header, body in grids(tables(reports[0])))
    assert len({(*cell, row["part"]) for row in rows for cell in [(row["table"], row["row"], row["column"])]}) == len(
        rows
    )
    ours = [row for row in rows if row["table"].startswith("Accuracy") and row["name"] == "▸ WS-LGAN (tiny, seed 0)"]
    (images,) = [row for row in ours if row["column"] == "By image"]
    assert (float(images["value"]), images["unit"], images["part"]) == (pytest.approx(100 * 58 / 70), "percent", "")
    interval = reports[0].trainings[0].interval
    limits = {row["part"]: float(row["value"]) for row in ours if row["column"] == "95 % interval"}
    assert limits == {"low": pytest.approx(100 * interval.low), "high": pytest.approx(100 * interval.high)}


def test_the_command_writes_each_format(store, tmp_path):
    for format in ("markdown", "latex", "csv", "html", "json"):
        out = tmp_path / f"report.{format}"
        ferbench("report", "--format", format, "--out", str(out), "--runs", str(store.home), cwd=tmp_path)
        assert re.search(r"82\.857142" if format == "csv" else r"82\.86|0\.82857", out.read_text())
    assert "--format html" in ferbench("report", "--errors", "3", cwd=tmp_path, code=2).stderr


def test_nothing_is_loaded_from_elsewhere_and_markup_in_data_stays_text(store):
    text = page(build(store), store)
    assert not re.search(r"(src|href)=\"(?!data:|#s\d)", text)
    assert "<b>bold</b>" not in text
    assert "&lt;b&gt;bold&lt;/b&gt;" in text
    assert "data:image" not in text  # no picture of anybody unless it is asked for


def test_a_page_is_whole_without_its_script(store):
    """The colours of matrices, the captions and the heads of rows and columns are in the document itself."""
    text = page(build(store), store).partition("<script>")[0]
    row = re.search(r'<th scope="row" class="">An</th>\s*((?:<td.*</td>\s*)+)', text)
    assert row is not None
    shares = [float(share) for share in re.findall(r'<td style="--a: ([\d.]+)"', row[1])]
    assert sum(shares) == pytest.approx(1, abs=0.01)
    assert shares[0] == max(shares)
    for found in re.findall(r"<table[^>]*>", text):
        label = re.search(r'aria-labelledby="([^"]+)"', found)
        assert label is not None
        assert text.count(f'id="{label[1]}"') == 1
    assert text.count("<tr") > 20
    assert not re.search(r"<th(?! scope=)[ >]", text)


@pytest.mark.parametrize("given", [0, 47, 50, 79, 80, 93])
def test_an_axis_has_round_marks_and_ends_at_a_hundred(given):
    low = _low([given / 100, 1])
    marks = _marks(low)
    assert low <= given
    assert marks[-1] == ("100.00", 100)
    assert 3 <= len(marks) <= 6
    assert all(mark % 5 == 0 and 0 <= float(place) <= 100 for place, mark in marks)


def test_the_surest_errors_are_shown_with_their_pictures(store, tmp_path, monkeypatch):
    ids = [f"01-{n:03d}" for n in range(35)] + [f"02-{n:03d}" for n in range(35)]
    faces = make_faces([{"id": name, "label": "anger"} for name in ids], name="ckplus")
    lay_down(faces, tmp_path / "data")
    with pytest.raises(DataError, match="not the dataset that was tested"):
        page(build(store), store, 2, tmp_path / "data")
    with pytest.raises(DataError, match="data prepare ckplus"):
        page(build(store), store, 2, tmp_path / "nowhere")
    tested = replace(faces, card=faces.card.model_copy(update={"fingerprint": "d" * 64}))
    monkeypatch.setattr("ferbench.data.faces.load", lambda name, home: tested)
    text = page(build(store), store, 2, tmp_path / "data")
    assert text.count("data:image/png") == 4  # two errors of each of two trainings


# How far the first cell of each table lies from its box's edge when the box is scrolled.
STUCK = """
const [at, name, edge] = arguments;
return [...document.querySelectorAll(".scroll")].filter(box => box.offsetParent).map(box => {
  box.scrollTo(at, at);
  const cell = box.querySelector(name).getBoundingClientRect(), frame = box.getBoundingClientRect();
  return Math.round(cell[edge] - frame[edge] - (edge === "top" ? box.clientTop : box.clientLeft));
}).map((gap, i) => Math.abs(gap) <= 1 ? 0 : gap);
"""


@pytest.fixture
def browser():
    webdriver = pytest.importorskip("selenium.webdriver")
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not (chromium and driver):
        pytest.skip("chromium and chromedriver are not here")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for word in ("--headless=new", "--no-sandbox", "--disable-gpu"):
        options.add_argument(word)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    opened = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield opened
    opened.quit()


def test_a_browser_shows_it_sorts_it_and_asks_nobody(store, browser, tmp_path):
    path = tmp_path / "report.html"
    path.write_text(page(build(store), store), encoding="utf-8")
    grounds = {}
    for scheme, width in product(("light", "dark"), (375, 1200, 1920)):
        browser.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 400},
        )
        feature = {"name": "prefers-color-scheme", "value": scheme}
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
        browser.get(path.as_uri())
        assert browser.execute_script("return document.documentElement.scrollWidth <= innerWidth")
        grounds[scheme] = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
        for at, (name, edge) in product((0, 400), (("thead th", "top"), ("tbody th", "left"))):
            # Scrolled in its box, a table keeps its header and its first column.
            moved = browser.execute_script(STUCK, at, name, edge)
            assert moved == [0] * len(moved), (scheme, width, name)
            assert len(moved) > 5
        columns = browser.execute_script(
            "return getComputedStyle(document.querySelector('.charts')).gridTemplateColumns"
        )
        assert len([one for one in columns.split() if one != "0px"]) == (1 if width < 400 else 2)
    assert grounds["light"] != grounds["dark"]
    column = (
        "return [...document.querySelector('table').tBodies[0].rows].map(row => parseFloat(row.cells[1].textContent))"
        ".filter(value => !isNaN(value))"
    )
    (button,) = (
        b
        for b in browser.find_elements("css selector", "table:first-of-type th button")
        if b.text == "Published"
        and b.find_element("xpath", "ancestor::table") == browser.find_element("css selector", "table")
    )
    button.send_keys("\n")  # by keyboard, as by mouse
    assert browser.execute_script(column) == sorted(browser.execute_script(column))
    button.click()
    assert browser.execute_script(column) == sorted(browser.execute_script(column), reverse=True)
    assert "descending" in browser.page_source
    assert browser.execute_script("return document.querySelector('td[style]').title").startswith("An taken for An")
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    assert browser.execute_script("return getComputedStyle(document.querySelector('.scroll')).overflow") == "visible"
    paper = {"width": 720, "height": 1000, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", paper)
    assert browser.execute_script("return document.documentElement.scrollWidth <= innerWidth")
    assert browser.get_log("browser") == []
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]
    assert {url for url in asked if not url.startswith("data:")} == {path.as_uri()}


def test_of_a_hundred_runs_each_file_is_opened_once_and_torch_is_not_loaded(tmp_path):
    store = Store(tmp_path / "runs")
    names = tuple(f"{n:02d}" for n in range(1, 11))
    for seed in range(10):
        for place, fold in enumerate(names):
            store_fold(store, fold, [(f"S{place}{n}", t, p) for n, t, p in ROWS], seed=seed, folds=names)
    ferbench("check", "--accept", "--reason", "a test", cwd=tmp_path)
    for words in (("report", "--format", "markdown"), ("report", "--format", "html", "--out", "r.html"), ("check",)):
        opened, loaded = watched(store.home, *words, cwd=tmp_path)
        assert len(opened) > 100
        assert max(opened.values()) == 1, words
        assert loaded == [], words


def _environment(folder: Path) -> dict[str, str]:
    import os

    return {**os.environ, "FERBENCH_RUNS": str(folder / "runs"), "OMP_NUM_THREADS": "1"}


def test_every_figure_is_drawn_twice_and_the_same_each_time(store, tmp_path):
    for run in store.home.glob("*"):
        (run / "history.csv").write_text("epoch,lr,loss_total\n1,0.1,2.0\n2,0.1,1.0\n")
    words = ("report", "--runs", str(store.home), "--figures")
    assert "drew 18 files" in ferbench(*words, str(tmp_path / "a"), cwd=tmp_path).stderr
    ferbench(*words, str(tmp_path / "b"), cwd=tmp_path)
    names = sorted(path.name for path in (tmp_path / "a").iterdir())
    stems = {path.rpartition(".")[0] for path in names}
    assert {f"ckplus-{kind}" for kind in ("classes", "folds", "confusion-published")} < stems
    assert {f"ckplus-{kind}-ws-lgan-tiny-seed-1" for kind in ("confusion", "reliability", "curves")} < stems
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert "<svg" in (tmp_path / "a" / "ckplus-classes.svg").read_text()


def test_several_protocols_are_put_together_in_every_format(tmp_path):
    store = Store(tmp_path / "runs")
    for seed in (0, 1):
        for fold, rows in (("01", ROWS[:35]), ("02", ROWS[35:])):
            store_fold(store, fold, rows, seed=seed)
            store_fold(store, fold, rows, seed=seed, method="gfnet", facts={"display": "GFNet"})
    right = [(who, truth, truth) for who, truth, _ in ROWS]
    store_fold(store, "01", right[:35], protocol="oulu@1")
    store_fold(store, "02", right[35:], protocol="oulu@1")
    store_fold(store, "01", right[:35], protocol="rafdb@1")  # lacks a fold
    reports = build(store)
    table = overview(reports)
    assert table is not None
    rows = table.texts()
    assert table.header == ["Training", "Weights tested", "ckplus@1", "oulu@1"]
    whole = [truth == prediction for _, truth, prediction in ROWS]
    percent = f"{100 * sum(whole) / len(whole):.2f} ± 0.00 (2 seeds)"
    assert sorted(rows) == [
        ["▸ GFNet (tiny)", "last epoch", percent, ""],
        ["▸ WS-LGAN (tiny)", "last epoch", percent, "100.00"],
    ]
    assert [section.title for section in sections(reports)] == ["all protocols", "ckplus", "oulu", "rafdb"]
    assert page(reports, store).count("<h2>") == 4
    for format in ("markdown", "latex", "csv"):
        told = ferbench("report", "--format", format, "--runs", str(store.home), cwd=tmp_path).stdout
        assert "all protocols" in told
    assert overview(build(store, "ckplus")) is None
