"""The bench: its clock and statistics, the losses of the reference loops, the comparison with float64, the command."""

import csv
import io
import json
import os
import re
import subprocess
import sys
from copy import deepcopy
from dataclasses import replace
from importlib.util import find_spec
from multiprocessing import active_children
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT
from support.command import ferbench
from support.datasets import lay_down, make_faces

from ferbench.bench import BenchOptions, accuracy, timing, workloads
from ferbench.bench.run import _cells, run
from ferbench.bench.workloads import Cell, baselines, build, loaders, naive_evaluation
from ferbench.errors import DataError, UsageError
from ferbench.labels import EMOTIONS
from ferbench.methods.recipes import family_of, resolve
from ferbench.methods.wslgan import stages
from ferbench.methods.wslgan.cost import bytes_of
from ferbench.methods.wslgan.densenet import DenseLayer
from ferbench.methods.wslgan.network import WSLGAN, AttentionMapGenerator
from ferbench.methods.wslgan.recipe import Architecture
from ferbench.methods.wslgan.timing import PairDataset, ReferenceLoop
from ferbench.report.formats.text import markdown
from ferbench.report.speed import sections
from ferbench.runs.speed import SpeedRecord, SpeedRow, store, stored
from ferbench.runs.store import shipped_run, shipped_runs
from ferbench.training import samples
from ferbench.training.device import Device
from ferbench.training.loop import Eager
from ferbench.training.networks import flops
from ferbench.training.plan import Step, paired_epoch
from ferbench.training.prediction import openvino_core

SMALL = Architecture(growth=4, stem_stride=2, extractor_layers=(1, 1, 1), generator_layers=(1, 1, 1), reduction=4)


def test_percentiles_need_values_beyond_them():
    assert timing.percentile([1.0, 2.0, 3.0], 50) == 2.0
    assert timing.percentile([1.0, 2.0], 50) is None
    values = list(np.linspace(0, 1, 1000))
    assert timing.percentile(values, 99) == pytest.approx(0.99, abs=1e-3)
    assert timing.percentile(values[:999], 99) is None


def test_a_ratio_has_the_truth_in_its_interval():
    rng = np.random.default_rng(0)
    inside = 0
    for trial in range(40):
        ours, peer = rng.normal(300, 10, 9), rng.normal(100, 4, 9)
        found = timing.ratio(ours, peer, trial)
        assert found.low <= found.median <= found.high
        inside += found.low <= 3 <= found.high
    assert inside >= 34
    same = timing.median([5.0] * 7)
    assert (same.low, same.median, same.high) == (5.0, 5.0, 5.0)


def test_rates_and_latencies_count_calls():
    calls = []
    found = timing.rate(lambda: calls.append(1), "cpu", 0.02)
    assert found == pytest.approx(len(calls) / 0.02, rel=0.2)
    assert all(value >= 0 for value in timing.latencies(lambda: None, "cpu", 0.01))


def test_costs_are_counted_by_hand():
    layer = DenseLayer(8, 4)
    x = torch.zeros(3, 8, 6, 6)
    products = 8 * 16 + 9 * 16 * 4  # 1x1 to 4k maps, then 3x3 to k
    assert flops(layer, (x,)) == 2 * products * 36 * 3
    assert bytes_of(layer, (x,), 4, training=False) == 3 * 36 * (8 + 9 * 4) * 4
    assert bytes_of(layer, (x,), 2, training=True) == 3 * 36 * (8 * 8 + 39 * 4) * 2


def setting() -> tuple:
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (40, 48, 48), dtype=np.uint8), np.arange(40) % 7
    torch.manual_seed(0)
    return images, labels, WSLGAN(SMALL, 7), AttentionMapGenerator(SMALL).freeze()


def unturned(labels: np.ndarray, pairs: int) -> list[Step]:
    """Steps of images and mirror images only: PIL's rotation is not ours to the last bit."""
    plan = [step for epoch in range(5) for step in paired_epoch(labels, "sample", pairs, 0, epoch)]
    return [Step(s.images, s.derived % 2 * 7, s.streams, s.first, s.second) for s in plan]


def test_the_naive_peer_and_our_step_give_the_same_losses():
    images, labels, net, amg = setting()
    steps, recipe = unturned(labels, 5)[:20], resolve("wslgan", "tiny", "ckplus").recipe
    stage = recipe.finetune
    losses = recipe.losses_of(recipe.pretrain)
    loop = ReferenceLoop(
        "naive", deepcopy(net), deepcopy(amg), PairDataset(images, labels, steps), 5, losses, stage, "cpu", workers=0
    )
    theirs = [loop.step() for _ in steps]
    device = Device("cpu", "fp32", "fast")
    pixels = samples.pixel_table(torch.from_numpy(images), "edge")
    tables = samples.Tables(pixels, samples.map_table(amg, pixels, device), device)
    net.train()
    ours = Eager(
        net, lambda b: stages.pair_loss(net.stream, torch.from_numpy(labels), tables, b, losses, device), stage
    )
    found = [float(ours.step(step.on("cpu"))["total"]) for step in steps]
    np.testing.assert_allclose(found, theirs, rtol=1e-3)
    assert workloads.compare_losses(found, theirs, "fp32").valid


def test_wrong_results_are_not_valid():
    module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(48 * 48, 7))
    x = torch.rand(64, 1, 48, 48)
    right = module(x).detach()
    assert workloads.compare_logits(right, module, x.double(), "fp32").valid
    assert not workloads.compare_logits(right * 1.01, module, x.double(), "fp32").valid
    assert workloads.compare_logits(right * 1.01, module, x.double(), "bf16").agree == 1
    assert not workloads.compare_losses([1.0, 1.01], [1.0, 1.0], "fp32").valid
    assert not workloads.compare_losses([1.0, float("nan")], [1.0, 1.0], "bf16").valid


def test_losses_of_bf16_may_part_late_but_not_early_nor_on_average():
    wanted = [2.0] * 20
    late = [2.0] * 10 + [2.4, 1.6] * 5
    assert workloads.compare_losses(late, wanted, "bf16").valid
    assert not workloads.compare_losses(late, wanted, "tf32").valid
    assert not workloads.compare_losses(late[::-1], wanted, "bf16").valid
    drifted = [2.0] * 10 + [2.4] * 10
    assert workloads.compare_losses(drifted, wanted, "bf16").error == pytest.approx(0.1)
    assert not workloads.compare_losses(drifted, wanted, "bf16").valid


def test_cells_are_what_exists_and_each_once():
    cells = list(
        _cells(
            BenchOptions(
                whats=("inference", "step", "prepare"),
                backends=("torch", "onnxruntime", "openvino"),
                precisions=("fp32", "bf16"),
                batches=(1, 8),
            ),
            "cpu",
        )
    )
    assert len(set(cells)) == len(cells)
    assert {c.precision for c in cells if c.backend == "onnxruntime"} == {"fp32"}
    assert {c.precision for c in cells if c.backend == "openvino"} == {"fp32", "bf16"}
    assert {c.what for c in cells if c.backend != "torch"} == {"inference"}
    assert {c.batch for c in cells if c.scenario == "single-stream"} == {1}
    assert all(c.batch > 1 for c in cells if c.what == "step")
    assert sum(c.what == "prepare" for c in cells) == 1


def test_an_evaluation_is_timed_as_it_is_computed():
    """One row for each engine, in the batches of predictions; before, they were as large as those of training."""
    options = BenchOptions(
        whats=("inference", "fe"),
        engines=("plain", "fast"),
        backends=("torch", "openvino"),
        batches=(1, 8),
        scenarios=("evaluate",),
    )
    cells = list(_cells(options, "cpu"))
    assert [(c.what, c.backend, c.engine, c.batch) for c in cells] == [
        ("inference", "torch", "plain", 128),
        ("inference", "torch", "fast", 16),
        ("inference", "openvino", "fast", 16),
    ]
    work = build(replace(cells[1], preset="demo"), Path())
    assert work.images == len(work.call()) == 128
    assert work.check().valid


def test_the_naive_evaluation_gives_the_same_logits_in_another_process():
    cell = Cell("inference", "wslgan", "demo", "fast", "fp32", "torch", "cpu", 16, "evaluate", 1, 0)
    naive = naive_evaluation(cell)
    expected_logits = build(cell, Path()).call()
    assert isinstance(expected_logits, torch.Tensor)
    np.testing.assert_allclose(naive(), expected_logits, atol=1e-4)
    assert np.array_equal(naive(), naive())
    assert len(active_children()) == 1
    del naive
    for process in active_children():
        process.join(timeout=20)
    assert active_children() == []
    assert baselines(cell, ("strong",)) == {} == baselines(replace(cell, scenario="offline"), ("naive",))


def test_engines_of_inference_on_a_gpu_are_two():
    """What else an engine says is of training steps."""
    options = BenchOptions(engines=("plain", "fast", "compiled", "searched"), batches=(8,), scenarios=("offline",))
    cells = list(_cells(options, "cuda"))
    assert [c.engine for c in cells if c.what == "inference"] == ["plain", "fast"]
    assert [c.engine for c in cells if c.what == "step"] == ["plain", "fast", "compiled", "searched"]


def test_peers_on_a_gpu_have_all_cores_but_one_to_load_pictures():
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    assert loaders("cuda", 1) == max(1, cores - 1)
    assert [loaders("cpu", threads) for threads in (1, 2, 8)] == [0, 1, 2]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("whats", ("sleep",)),
        ("presets", ("huge",)),
        ("engines", ("warp",)),
        ("backends", ("tf",)),
        ("scenarios", ("rush",)),
        ("baselines", ("weak",)),
        ("batches", (0,)),
        ("precisions", ("fp8",)),
        ("methods", ("x",)),
    ],
)
def test_unknown_words_are_refused(field, value):
    with pytest.raises(UsageError):
        run(BenchOptions(**{field: value}, mode="quick"), lambda *_: None, lambda *_: None)


def test_the_time_that_is_told_counts_every_call(monkeypatch):
    monkeypatch.setattr(timing, "costs", lambda cell: (0.0, 6e6))
    ceilings = {"fp32": {"bytes_per_s": 1e9}}
    offline = Cell("inference", "wslgan", "tiny", "plain", "fp32", "torch", "cpu", 10, "offline", 1, 0)
    call = 0.002 + 10 * 6e6 / (0.06 * 1e9)
    timed = call + 9 * call + 7 * (2 + call / 2)
    compared = 64 / 10 * call * 5
    found = timing.expected_seconds([[offline]], (), 7, 2.0, 30.0, ceilings)
    assert found == pytest.approx(0.5 + timed + compared, rel=1e-12)
    step = replace(offline, what="step", engine="fast", scenario="training")
    alone, beside = (
        timing.expected_seconds([[step]], names, 7, 2.0, 30.0, ceilings) for names in ((), ("naive", "strong"))
    )
    assert beside > 2 * alone  # and one of them is compiled first


def test_speed_records_come_back_and_make_a_table(tmp_path):
    options, told = BenchOptions(whats=("fe",), presets=("demo",), batches=(1, 4), mode="quick", threads=1), []
    record = run(options, lambda done, *_: told.append(done), lambda rows, seconds: told.append((rows, seconds > 0)))
    assert told[0] == (2, True)  # before anything is timed
    store(tmp_path, record)
    assert stored(tmp_path) == [record]
    single, offline = record.rows
    assert (single.scenario, single.batch, offline.scenario, offline.batch) == ("single-stream", 1, "offline", 4)
    assert single.p50_ms is not None
    # The median is of other calls than the rate: on a busy machine a few calls take many times as long as half of them.
    assert 0.05 < single.p50_ms / (1000 / single.images_per_s) < 3
    assert offline.error is not None
    assert offline.error <= offline.bound
    text = markdown(sections([record]))
    assert f"| {record.key} |" in text
    assert {"# One image: how long does a prediction take?", "# Many images: how many images per second?"} < {
        *text.splitlines()
    }
    wrong = record.model_copy(update={"rows": [single.model_copy(update={"error": 1.0, "valid": False})]})
    assert "1e+00 !" in markdown(sections([wrong]))


def test_the_speed_report_is_that_of_the_records_beside_it():
    records = stored(ROOT / "reports")
    assert len(records) > 3
    text = (ROOT / "reports" / "speed.md").read_text()
    assert markdown(sections(records, "speed")) == text
    assert all((ROOT / "reports" / name).is_file() for name in re.findall(r"\]\((\S+\.svg)\)", text))


def test_a_prediction_of_many_images_stands_beside_the_plain_path_and_the_peak_of_its_run():
    plain = _row(engine="plain", scenario="evaluate", images_per_s=50.0, gflop_per_image=0.5, share_of_flops=0.25)
    folded = plain.model_copy(update={"engine": "folded", "batch": 16, "images_per_s": 100.0, "share_of_flops": None})
    ceilings = {"fp32": {"flops_per_s": 1e11, "bytes_per_s": 1e10}}
    record = SpeedRecord(
        mode="standard",
        seed=0,
        environment={"device": "cpu: x, 1 thread"},
        ceilings=ceilings,
        noise=0,
        rows=[plain, folded],
    )
    _, many, _ = sections([record])
    header, (_, row) = many.tables[0].header, many.tables[0].texts()
    cells = dict(zip(header, row, strict=True))
    assert (cells["Measured"], cells["Engine"], cells["× plain"]) == ("ferbench evaluate", "torch folded", "2.00")
    assert (cells["Images/s at peak"], cells["Of peak"]) == ("200.0", "50%")
    assert not any("" in column for column in zip(*many.tables[0].texts(), strict=True))


def _row(**fields) -> SpeedRow:
    given = {"what": "inference", "method": "wslgan", "preset": "tiny", "precision": "fp32", "backend": "torch"}
    given |= {
        "device": "cpu",
        "threads": 1,
        "batch": 128,
        "blocks": 7,
        "calls": 70,
        "cold_start_s": 0.1,
        "peak_mb": 1.0,
    }
    given |= {"images_per_s_low": 1.0, "images_per_s_high": 2.0, "error": 0.0}
    return SpeedRow(**given | fields)


@pytest.mark.slow
def test_the_command_times_a_step_beside_the_naive_peer(tmp_path):
    words = [
        "bench",
        "step",
        "--preset",
        "demo",
        "--quick",
        "--batch",
        "4",
        "--baseline",
        "naive",
        "--engine",
        "plain,fast",
        "--format",
    ]
    rows = json.loads(ferbench(*words, "json", cwd=tmp_path).stdout)
    assert [row["engine"] for row in rows] == ["plain", "fast"]
    wanted = {
        "what",
        "method",
        "preset",
        "engine",
        "precision",
        "backend",
        "device",
        "batch",
        "scenario",
        "images_per_s",
        "p50_ms",
        "p99_ms",
        "ratio_naive",
        "ratio_strong",
        "error",
    }
    for row in rows:
        assert wanted <= set(row)
        assert row["valid"]
        assert row["ratio_naive_low"] <= row["ratio_naive"] <= row["ratio_naive_high"]
        assert row["ratio_strong"] is None
    assert rows[1]["ratio_naive"] > 1.2  # the AMG's forward pass alone is half of a naive step
    (path,) = (tmp_path / "runs" / "speed").glob("*.json")
    record = SpeedRecord.model_validate_json(path.read_text())
    assert record.rows[0].images_per_s == rows[0]["images_per_s"]
    assert record.environment["peer_loaders"] == loaders("cpu", rows[0]["threads"])
    told = ferbench("report", "--bench", "--format", "csv", cwd=tmp_path).stdout
    assert [row["engine"] for row in csv.DictReader(io.StringIO(told))] == ["plain", "fast"]
    assert "× naive" in ferbench("report", "--bench", "--format", "markdown", cwd=tmp_path).stdout


def skip_unless_available(backend: str, precision: str) -> None:
    """Skip the test where the backend is not installed or the processor does not have the precision."""
    if find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    if backend == "openvino":
        try:
            openvino_core(precision)
        except UsageError as error:
            pytest.skip(str(error))


@pytest.mark.parametrize(
    ("backend", "precision"), [("onnxruntime", "fp32"), ("openvino", "fp32"), ("openvino", "bf16")]
)
def test_runtimes_of_exported_files_are_valid_and_report_to_nobody(tmp_path, backend, precision):
    skip_unless_available(backend, precision)
    cell = Cell("inference", "gfnet", "tiny", "fast", precision, backend, "cpu", 24, "offline", 1, 0)
    work = build(cell, tmp_path)
    work.call()
    verdict = work.check()  # 64 images in batches of 24: the last one is smaller
    assert verdict.valid
    assert verdict.agree >= (1 if precision == "fp32" else 0.9)
    assert "openvino_telemetry.main" not in sys.modules


def test_a_runtime_that_is_missing_names_its_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(UsageError, match=r"pip install 'ferbench\[openvino\]'"):
        build(Cell("inference", "gfnet", "tiny", "fast", "fp32", "openvino", "cpu", 1, "single-stream", 1, 0), tmp_path)


def test_timing_needs_no_pictures():
    """A GPU machine that has torch and little else can be timed (.ci/speed-gpu names what it needs)."""
    code = "import sys; sys.modules.update(dict.fromkeys(['PIL', 'sklearn', 'onnx', 'onnxruntime'])); import ferbench.bench.run"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_precision_that_a_runtime_lacks_is_refused_before_anything_is_timed(monkeypatch):
    def core(precision):
        raise UsageError(f"no {precision}")

    monkeypatch.setattr("ferbench.bench.run.openvino_core", core)
    monkeypatch.setattr("ferbench.bench.run.ceilings", lambda *_: pytest.fail("something was timed"))
    options = BenchOptions(whats=("inference",), precisions=("fp32", "bf16"), backends=("torch", "openvino"))
    with pytest.raises(UsageError, match="no (fp32|bf16)"):
        run(options, lambda *_: None, lambda *_: None)


@pytest.mark.parametrize(("backend", "precision"), [("torch", "fp32"), ("onnxruntime", "fp32"), ("openvino", "bf16")])
def test_trained_weights_are_tested_in_the_way_that_is_timed(backend, precision):
    skip_unless_available(backend, precision)
    images = np.random.default_rng(2).integers(0, 256, (5, 48, 48)).astype(np.uint8)
    record = shipped_run(kind="pretrain", method="wslgan", preset="tiny", protocol="fer2013@1")
    module = family_of(record).module(record, shipped_runs()).double()
    with torch.no_grad():
        scores = module(torch.from_numpy(images).unsqueeze(1))[0]
    named = [record.classes[place] for place in scores.argmax(dim=1).tolist()]
    margin = scores.topk(2).values.diff().abs().min()
    assert margin > 0.05 * scores.abs().max()  # or rounding might decide
    named[3] = next(name for name in record.classes if name != named[3])  # one mistake of five
    cell = Cell("inference", "wslgan", "tiny", "plain", precision, backend, "cpu", 1, "single-stream", 1, 0)
    found = accuracy.accuracy(cell, accuracy.TestSet(images, named))
    assert found == accuracy.Accuracy(0.8, 5, record.key)


@pytest.mark.slow
def test_accuracy_is_of_inference_with_shipped_weights_on_publictest(tmp_path):
    rows = [{"label": label, "split": split} for split in ("train", "val") for label in EMOTIONS if label != "contempt"]
    lay_down(make_faces([{**row, "id": f"f{n}"} for n, row in enumerate(rows)], name="fer2013"), tmp_path)
    test_set = accuracy.TestSet.of(tmp_path)
    assert test_set.labels == [row["label"] for row in rows if row["split"] == "val"]
    assert test_set.images.shape == (7, 48, 48)
    quiet = (lambda *_: None, lambda *_: None)
    wanted = {"backends": ("onnxruntime",), "mode": "quick", "threads": 1, "accuracy": True, "home": tmp_path}
    (row,) = run(BenchOptions(whats=("inference",), batches=(1,), **wanted), *quiet).rows
    record = shipped_run(kind="pretrain", method="wslgan", preset="tiny", protocol="fer2013@1")
    assert (row.accuracy_images, row.accuracy_run) == (7, record.key)
    assert row.accuracy in [n / 7 for n in range(8)]
    record = SpeedRecord(mode="quick", seed=0, environment={"device": "cpu"}, ceilings={}, noise=0.0, rows=[row])
    assert "7 images of FER2013's PublicTest" in markdown(sections([record]))
    with pytest.raises(UsageError, match="of inference"):
        run(BenchOptions(whats=("step",), batches=(4,), accuracy=True, home=tmp_path), *quiet)
    with pytest.raises(UsageError, match="none of wslgan paper come"):
        run(BenchOptions(whats=("inference",), presets=("paper",), accuracy=True, home=tmp_path), *quiet)
    with pytest.raises(DataError, match="data prepare fer2013"):
        run(BenchOptions(whats=("inference",), accuracy=True, home=tmp_path / "none"), *quiet)
