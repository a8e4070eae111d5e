"""Guards of the small pieces, as ratios inside one run: absolute times say nothing on a shared machine. Seconds are
those of the process itself, on one thread, so that whatever else the machine does is not counted.

Each piece is timed beside a plain way to do the same; it may not lose what it was built for.
"""

import time

import numpy as np
import pandas as pd
import pytest
import torch

from ferbench import metrics
from ferbench.methods.wslgan.network import SelectiveFeatureUnit
from ferbench.methods.wslgan.stages import contrastive_loss
from ferbench.training import checkpoint, samples
from ferbench.training.augment import derive
from ferbench.training.checkpoint import TrainingState
from ferbench.training.device import Device
from ferbench.training.plan import paired_epoch

CPU = Device()
pytestmark = pytest.mark.benchmark(timer=time.process_time)


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def fastest(call, rounds: int = 15) -> float:
    call()
    found = []
    for _ in range(rounds):
        start = time.process_time()
        call()
        found.append(time.process_time() - start)
    return min(found)


def seconds(benchmark, call) -> float:
    benchmark.pedantic(call, rounds=15, warmup_rounds=2)
    return benchmark.stats.stats.min


def test_looking_samples_up_beats_computing_them(benchmark):
    images = torch.randint(0, 256, (50, 48, 48), dtype=torch.uint8)
    tables = samples.Tables(samples.pixel_table(images, "edge"), None, CPU)
    rows, derived = torch.randint(0, 50, (100,)), torch.randint(1, 14, (100,))
    assert seconds(benchmark, lambda: tables(rows, derived)) * 2 < fastest(lambda: derive(images[rows], derived))


def test_a_plan_costs_less_than_looking_up_what_it_names(benchmark):
    labels = np.arange(28709) % 7
    images = torch.randint(0, 256, (500, 48, 48), dtype=torch.uint8)
    tables = samples.Tables(samples.pixel_table(images, "edge"), None, CPU)
    rows, derived = torch.randint(0, 500, (200,)), torch.randint(0, 14, (200,))
    one_step = fastest(lambda: tables(rows, derived))
    assert seconds(benchmark, lambda: paired_epoch(labels, "sample", 100, 0, 0)) < 28709 // 200 * one_step


def test_the_selective_feature_unit_costs_a_few_passes_over_its_maps(benchmark):
    branches = [torch.rand(64, 132, 12, 12) for _ in range(3)]
    unit = SelectiveFeatureUnit(132).eval()
    with torch.no_grad():
        assert seconds(benchmark, lambda: unit(branches)) < 12 * fastest(lambda: torch.stack(branches).sum(dim=0))


def test_the_contrastive_loss_costs_less_than_the_distances_of_all_pairs(benchmark):
    first, second = torch.rand(256, 128), torch.rand(256, 128)
    same = torch.rand(256) < 0.5
    found = seconds(benchmark, lambda: contrastive_loss(first, second, same, 10.0))
    assert found < 3 * fastest(lambda: torch.cdist(first, second))


def test_counting_a_confusion_matrix_beats_a_loop(benchmark):
    rng = np.random.default_rng(0)
    classes = list("abcdefg")
    truth, prediction = (pd.Series(np.array(classes)[rng.integers(0, 7, 5000)]) for _ in range(2))

    def loop():
        matrix = np.zeros((7, 7), dtype=np.int64)
        for a, b in zip(truth, prediction, strict=True):
            matrix[classes.index(a), classes.index(b)] += 1
        return matrix

    assert (metrics.confusion(truth, prediction, classes) == loop()).all()
    assert seconds(benchmark, lambda: metrics.confusion(truth, prediction, classes)) < fastest(loop, 5)


def test_a_checkpoint_is_written_at_the_speed_of_its_bytes(benchmark, tmp_path):
    layer = torch.nn.Linear(1000, 1000)
    optimizer = torch.optim.SGD(layer.parameters(), 0.1, 0.9)
    layer(torch.rand(4, 1000)).sum().backward()
    optimizer.step()

    def plain():
        with (tmp_path / "plain").open("wb") as file:
            for tensor in (*layer.state_dict().values(), *(s["momentum_buffer"] for s in optimizer.state.values())):
                file.write(tensor.detach().numpy().tobytes())
            file.flush()
            import os

            os.fsync(file.fileno())

    found = seconds(benchmark, lambda: checkpoint.save(tmp_path / "c", layer, optimizer, TrainingState(1)))
    assert found < 20 * max(fastest(plain, 5), 1e-3)
