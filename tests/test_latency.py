"""Accuracy over latency: which timing a training is shown with, and where it is shown."""

from pathlib import Path

import pytest
from support.command import ferbench
from support.runs import CLASSES, store_fold

from ferbench.report.build import build
from ferbench.report.figures import accuracy_over_latency
from ferbench.report.formats.html import page
from ferbench.runs import speed
from ferbench.runs.speed import SpeedRecord, SpeedRow
from ferbench.runs.store import Store

ROWS = [(f"S{n:02d}", truth, truth if n % 5 else "sadness") for n in range(10) for truth in CLASSES]

MACHINE = {"device": "cpu: test, 1 thread", "packages": {"torch": "2"}, "commit": ""}


def _row(p50: float, **more) -> SpeedRow:
    fields = {
        "what": "inference",
        "method": "wslgan",
        "preset": "tiny",
        "engine": "fast",
        "precision": "fp32",
        "backend": "onnxruntime",
        "device": "cpu",
        "threads": 1,
        "batch": 1,
        "scenario": "single-stream",
        "blocks": 7,
        "calls": 70,
        "images_per_s": 1000 / p50,
        "images_per_s_low": 1.0,
        "images_per_s_high": 2.0,
        "cold_start_s": 0.1,
        "peak_mb": 100.0,
        "p50_ms": p50,
    }
    return SpeedRow(**fields | more)


@pytest.fixture
def store(tmp_path) -> Store:
    store = Store(tmp_path / "runs")
    for fold, rows in (("01", ROWS[:35]), ("02", ROWS[35:])):
        store_fold(store, fold, rows)
    store_fold(store, "01", ROWS[:35], method="gfnet", facts={"display": "GFNet"})  # lacks a fold
    rows = [
        _row(7.5),
        _row(6.25),
        _row(1.0, valid=False),
        _row(2.0, scenario="offline"),
        _row(3.0, what="fe"),
        _row(4.0, preset="light"),
        _row(5.0, method="gfnet"),
    ]
    speed.store(
        store.home, SpeedRecord(mode="standard", seed=0, environment=MACHINE, ceilings={}, noise=0.01, rows=rows)
    )
    return store


def test_the_fastest_valid_inference_of_one_image_is_taken_and_parts_of_trainings_are_not(store):
    (point,) = accuracy_over_latency(speed.stored(store.home), build(store))
    assert (point.name, point.latency_ms, point.n) == ("WS-LGAN (tiny, seed 0)", 6.25, "70 images")
    assert point.accuracy == pytest.approx(sum(truth == told for _, truth, told in ROWS) / len(ROWS))
    assert point.low < point.accuracy < point.high
    assert point.machine == "cpu: test, 1 thread; onnxruntime, fp32"


def test_it_stands_in_the_page_and_among_the_figures_and_beside_the_speed_report(store, tmp_path):
    text = page(build(store), store)
    assert "Accuracy over latency" in text
    assert "6.25 ms; cpu: test, 1 thread; onnxruntime, fp32" in text
    for path in (store.folder(record.key) / "history.csv" for record in store.records()):
        path.write_text("epoch,lr,loss_total\n1,0.1,2.0\n2,0.1,1.0\n")
    ferbench("report", "--figures", "figures", cwd=tmp_path)
    assert {"latency.png", "latency.svg"} < {path.name for path in (tmp_path / "figures").iterdir()}
    ferbench("report", "--bench", "--format", "markdown", "--out", "speed.md", cwd=tmp_path)
    assert (tmp_path / "speed.png").read_bytes() == (tmp_path / "figures" / "latency.png").read_bytes()
    assert _words(tmp_path / "figures" / "latency.svg") == {"WS-LGAN (tiny, seed 0)", "onnxruntime, fp32"}


def test_trainings_that_differ_in_their_seeds_are_one_point(store):
    for fold, rows in (("01", ROWS[:35]), ("02", ROWS[35:])):
        store_fold(store, fold, [(who, truth, truth) for who, truth, _ in rows], seed=1)
    (point,) = accuracy_over_latency(speed.stored(store.home), build(store))
    assert point.name == "WS-LGAN (tiny, seeds 0, 1)"
    assert point.accuracy == pytest.approx((1 + sum(truth == told for _, truth, told in ROWS) / len(ROWS)) / 2)
    assert point.high == 1


def test_a_store_without_timings_has_no_such_figure(store):
    for path in (store.home / "speed").iterdir():
        path.unlink()
    assert "Accuracy over latency" not in page(build(store), store)


def _words(path: Path) -> set[str]:
    """Which of what the figure has to say stands in it (matplotlib leaves each text as a comment)."""
    text = path.read_text()
    return {words for words in ("WS-LGAN (tiny, seed 0)", "onnxruntime, fp32", "GFNet") if words in text}
