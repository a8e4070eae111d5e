"""Derived samples, index plans, the loop and its checkpoints."""

import ctypes
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from support.networks import CPU, SMALL, labelled

from ferbench.errors import UsageError
from ferbench.methods.recipes import resolve
from ferbench.methods.wslgan import stages
from ferbench.methods.wslgan.network import WSLGAN, AttentionMapGenerator
from ferbench.methods.wslgan.recipe import LossWeights
from ferbench.training import checkpoint, samples
from ferbench.training.augment import ANGLES, DERIVED, derive, rearrange
from ferbench.training.device import Device
from ferbench.training.loop import Captured, Eager, initial_state, learning_rate, optimizer_of
from ferbench.training.loop import engine as engine_of
from ferbench.training.networks import contrastive_loss
from ferbench.training.plan import looked_up, paired_epoch, single_epoch, steps


def picture() -> torch.Tensor:
    """A dark dot right of the centre and one below it on grey: turns and flips can be told apart."""
    image = torch.full((48, 48), 200, dtype=torch.uint8)
    image[22:26, 38:42] = 0
    return image


def darkest(x: torch.Tensor) -> tuple[float, float]:
    """Centre of the dark pixels about the picture's centre: (right, up)."""
    weight = (200 / 255 - x[0]).clamp_min(0)
    across = torch.arange(48) - 23.5
    return float((weight.sum(0) * across).sum() / weight.sum()), float(-(weight.sum(1) * across).sum() / weight.sum())


def test_fourteen_derived_samples_are_seven_angles_and_their_mirror_images():
    assert sorted(ANGLES) == [-15, -10, -5, 0, 5, 10, 15]
    assert DERIVED == 14
    images = picture().expand(14, -1, -1)
    found = derive(images, torch.arange(14))
    assert torch.equal(found[0, 0], picture().float() / 255)
    start = np.degrees(np.arctan2(*darkest(found[0])[::-1]))
    for number, angle in enumerate(ANGLES):
        right, up = darkest(found[number])
        assert np.degrees(np.arctan2(up, right)) - start == pytest.approx(angle, abs=0.7)
        torch.testing.assert_close(found[number + 7], found[number].flip(2))


def test_rotation_keeps_whole_grey_levels_and_extends_the_edge():
    bright = torch.full((1, 48, 48), 255, dtype=torch.uint8)
    turned = torch.tensor([6])
    assert (derive(bright, turned, "edge") == 1).all()
    assert (derive(bright, turned, "zero") == 0).any()
    levels = derive(torch.randint(0, 256, (1, 48, 48), dtype=torch.uint8), turned) * 255
    torch.testing.assert_close(levels, levels.round())


def test_expand_visits_every_derived_sample_once_and_sample_every_image_once():
    plan = single_epoch(20, "expand", 28, seed=1, epoch=0)
    seen = {pair for step in plan for pair in zip(step.images.tolist(), step.derived.tolist(), strict=True)}
    assert seen == {(i, d) for i in range(20) for d in range(14)}
    plan = single_epoch(20, "sample", 5, seed=1, epoch=0)
    assert sorted(i for step in plan for i in step.images) == list(range(20))
    assert len({d for step in plan for d in step.derived}) > 3
    assert all((step.derived == 0).all() for step in single_epoch(20, "none", 5, seed=1, epoch=0))


def test_plans_repeat_for_a_seed_and_change_with_it():
    labels = np.arange(40) % 4

    def rows(**kw):
        return np.concatenate([s.images for s in paired_epoch(labels, "sample", 10, **kw)])

    assert (rows(seed=1, epoch=3) == rows(seed=1, epoch=3)).all()
    assert (rows(seed=1, epoch=3) != rows(seed=1, epoch=4)).any()
    assert (rows(seed=1, epoch=3) != rows(seed=2, epoch=3)).any()


def test_pairs_of_two_streams_never_share_a_row_and_images_pair_with_a_permutation():
    labels = np.arange(60) % 6
    for step in paired_epoch(labels, "sample", 10, 0, 0, batch_of="pairs"):
        assert (len(step.images), step.streams) == (20, 2)
        assert (step.first == np.arange(10)).all()
        assert (step.second == np.arange(10, 20)).all()
    for step in paired_epoch(labels, "sample", 10, 0, 0, batch_of="images"):
        assert (len(step.images), step.streams) == (10, 1)
        assert sorted(step.second) == list(range(10))


def test_balanced_pairs_share_the_class_half_of_the_time():
    labels = np.arange(700) % 7
    same = [
        (labels[s.images[s.first]] == labels[s.images[s.second]]).mean()
        for e in range(10)
        for s in paired_epoch(labels, "sample", 100, 0, e, pairing="balanced")
    ]
    assert 0.42 < np.mean(same) < 0.58
    every = paired_epoch(labels, "sample", 10, 0, 0, batch_of="images", pairing="all")[0]
    assert len(every.first) == 45
    assert (every.first < every.second).all()


def test_rearranged_images_hold_the_same_tiles_elsewhere():
    """Beside three loops over places: what a tile's pixel shows is the pixel of the tile that came there."""
    rng = np.random.default_rng(0)
    x = torch.rand(3, 1, 48, 48)
    tiles, offsets = np.stack([rng.permutation(9) for _ in x]), rng.integers(0, 16, (3, 2))
    offsets[0] = 0
    found = rearrange(x, torch.from_numpy(tiles), torch.from_numpy(offsets)).numpy()
    for image, order, shift, moved in zip(x.numpy()[:, 0], tiles, offsets, found[:, 0], strict=True):
        rolled = np.roll(image, -shift, axis=(0, 1))
        for place, source in enumerate(order):
            (r, c), (i, j) = divmod(place, 3), divmod(source, 3)
            wanted = rolled[16 * i : 16 * i + 16, 16 * j : 16 * j + 16]
            np.testing.assert_array_equal(moved[16 * r : 16 * r + 16, 16 * c : 16 * c + 16], wanted)


def test_tiles_change_places_in_the_share_of_images_that_is_asked_for():
    plan = single_epoch(400, "sample", 50, 0, 0, shuffle=0.3)
    tiles, offsets = (np.concatenate([getattr(step, name) for step in plan]) for name in ("tiles", "offsets"))
    assert (np.sort(tiles, axis=1) == np.arange(9)).all()
    moved = (tiles != np.arange(9)).any(axis=1)
    assert 0.2 < moved.mean() < 0.4
    assert offsets[~moved].max() == 0
    assert set(np.unique(offsets[moved])) == set(range(16))
    before = [step.derived for step in single_epoch(400, "sample", 50, 0, 0)]
    assert all((a == step.derived).all() for a, step in zip(before, plan, strict=True))
    same = torch.arange(9).expand(2, 9), torch.zeros(2, 2, dtype=torch.int64)
    x = torch.rand(2, 1, 48, 48)
    assert torch.equal(rearrange(x, *same), x)


def test_a_last_batch_that_is_not_full_waits():
    assert steps(25, "sample", 10) == 2
    assert steps(5, "sample", 10) == 1
    assert len(single_epoch(5, "sample", 10, 0, 0)[0].images) == 5


def test_learning_rate_falls_tenfold_at_each_drop():
    stage = resolve("wslgan", "paper", "ckplus").recipe.attention
    rates = [round(learning_rate(stage, epoch), 6) for epoch in (0, 19, 20, 39, 40, 59)]
    assert rates == [0.1, 0.1, 0.01, 0.01, 0.001, 0.001]  # "after every 20 epochs"
    fine = resolve("wslgan", "paper", "ckplus").recipe.finetune
    assert [round(learning_rate(fine, epoch), 6) for epoch in (0, 19, 20, 29, 30)] == [0.01, 0.01, 0.001, 0.001, 0.0001]


class Interrupted(Exception):
    pass


def train(
    saved: Path, epochs: int = 4, stop_after: int | None = None, kept: Path | None = None, optimizer: str = "sgd"
) -> tuple[WSLGAN, list]:
    rate = f"finetune.lr={0.1 if optimizer == 'sgd' else 0.01}"
    overrides = (f"finetune.epochs={epochs}", "finetune.batch=8", rate, f"finetune.optimizer={optimizer}")
    recipe = resolve("wslgan", "tiny", "synth", overrides).recipe
    torch.manual_seed(1)
    net, data = WSLGAN(SMALL, 3), labelled()
    torch.manual_seed(2)
    amg = AttentionMapGenerator(SMALL).freeze()
    pixels = samples.pixel_table(data.images, "edge")
    tables = samples.Tables(pixels, samples.map_table(amg, pixels, CPU), CPU)

    def report(done: int, total: int, text: str) -> None:
        if stop_after is not None and done > stop_after:
            raise Interrupted

    history = stages.train_network(net, data, tables, recipe, recipe.finetune, 5, CPU, saved, report, epochs=kept)
    return net, history


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_interrupted_and_resumed_gives_the_same_bytes(tmp_path, optimizer):
    whole, history = train(tmp_path / "a", optimizer=optimizer)
    for stop in (4, 8):  # in the middle of the second, then of the third epoch
        with pytest.raises(Interrupted):
            train(tmp_path / "b", stop_after=stop, optimizer=optimizer)
    resumed, again = train(tmp_path / "b", optimizer=optimizer)
    assert again == history
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_adamw_is_algorithm_2_of_its_paper_and_its_state_can_be_created_before_the_first_step():
    """Loshchilov & Hutter 2019 in float64, for two steps of a schedule's optimizer."""
    fields = {"optimizer": "adamw", "lr": 0.1, "momentum": 0.8, "weight_decay": 0.05}
    stage = resolve("gfnet", "tiny", "synth").recipe.finetune.model_copy(update=fields)
    start, gradients = torch.tensor([1.0, -2.0]), torch.tensor([[0.5, -1.0], [2.0, 0.1]])
    final = []
    for prepared in (False, True):
        layer = torch.nn.Linear(2, 1, bias=False)
        layer.weight.data = start[None].clone()
        optimizer = optimizer_of(layer, stage)
        if prepared:
            optimizer.state[layer.weight] = initial_state(optimizer, layer.weight)
        for gradient in gradients:
            layer.weight.grad = gradient[None].clone()
            optimizer.step()
        final.append(layer.weight.detach()[0])
    assert torch.equal(*final)
    weight, m, v = start.double().numpy(), np.zeros(2), np.zeros(2)
    for step, gradient in enumerate(gradients.double().numpy(), start=1):
        m, v = 0.8 * m + 0.2 * gradient, 0.999 * v + 0.001 * gradient**2
        update = m / (1 - 0.8**step) / (np.sqrt(v / (1 - 0.999**step)) + 1e-8)
        weight = weight - 0.1 * update - 0.1 * 0.05 * weight
    np.testing.assert_allclose(final[0].numpy(), weight, rtol=1e-5)


def test_kept_epochs_are_those_of_a_training_that_stops_there(tmp_path):
    with pytest.raises(Interrupted):
        train(tmp_path / "whole", stop_after=8)  # keeps none: begun again
    with pytest.raises(Interrupted):
        train(tmp_path / "whole", stop_after=4, kept=tmp_path / "epochs")
    assert checkpoint.epochs_done(tmp_path / "whole") == 1
    whole, _ = train(tmp_path / "whole", kept=tmp_path / "epochs")
    files = checkpoint.kept(tmp_path / "epochs", 4)
    assert len(files) == 4
    assert checkpoint.kept(tmp_path / "epochs", 5) == []
    with pytest.raises(Interrupted):
        train(tmp_path / "part", stop_after=6)  # ends in the third epoch: two are behind it
    two, _ = checkpoint.unpack(tmp_path / "part")
    for name, tensor in whole.state_dict().items():
        assert torch.equal(checkpoint.unpack(files[-1])[0][name], tensor), name
        assert torch.equal(checkpoint.unpack(files[1])[0][name], two[f"model/{name}"]), name


def test_training_learns_what_can_be_learned(tmp_path):
    net, history = train(tmp_path / "c", epochs=12)
    data = labelled()
    torch.manual_seed(2)
    attention = samples.maps_of(AttentionMapGenerator(SMALL).freeze(), data.images, CPU)
    assert stages.accuracy(stages.predict(net, data.images, CPU, attention), data.labels) > 0.9
    assert history[-1]["loss_total"] < history[0]["loss_total"]


def test_keep_best_ends_with_the_first_best_epoch(tmp_path):
    scores, kept = iter([0.2, 0.9, 0.9, 0.1]), []
    from ferbench.training.loop import fit

    stage = resolve("gfnet", "tiny", "synth", ("finetune.epochs=4",)).recipe.finetune
    layer = torch.nn.Linear(2, 1)

    def validate() -> float:
        kept.append(layer.weight.detach().clone())
        return next(scores)

    fit(
        layer,
        lambda step: {"total": layer(torch.ones(1, 2)).square().sum()},
        lambda e: single_epoch(4, "none", 2, 0, e),
        stage,
        CPU,
        tmp_path / "d",
        lambda *a: None,
        validate,
        keep_best=True,
    )
    assert torch.equal(layer.weight, kept[1])
    assert not torch.equal(kept[1], kept[3])


def test_tables_hold_what_is_computed_at_every_step():
    amg, data = AttentionMapGenerator(SMALL).freeze(), labelled(30)
    pixels = samples.pixel_table(data.images, "edge")
    maps = samples.map_table(amg, pixels, CPU)
    assert (pixels.dtype, pixels.shape, maps.shape) == (torch.uint8, (30, 14, 48, 48), (30, 14, 2, 6, 6))
    assert torch.equal(maps, samples.map_table(amg, pixels, CPU))  # equal caches are byte-equal
    images, derived = torch.tensor([3, 7, 29]), torch.tensor([0, 9, 13])
    wanted = torch.zeros(30, 14, dtype=torch.bool)
    wanted[images, derived] = True
    few = samples.map_table(amg, pixels, CPU, wanted)
    torch.testing.assert_close(few[wanted], maps[wanted], atol=1e-5, rtol=1e-4)
    assert few[~wanted].isnan().all()  # what no plan names has no map, and cannot pass for one
    x, attention = samples.Computed(data.images, amg, "edge", CPU)(images, derived)
    same, found = samples.Tables(pixels, maps, CPU)(images, derived)
    assert torch.equal(x, same)
    torch.testing.assert_close(attention, found, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(samples.maps_of(amg, data.images, CPU), maps[:, 0], atol=1e-5, rtol=1e-4)


def test_a_table_for_one_training_holds_what_its_plans_name():
    recipe = resolve("wslgan", "tiny", "synth").recipe
    stage = recipe.finetune.model_copy(update={"epochs": 3, "batch": 8})
    plan = stages.network_plan(np.arange(20) % 3, stage, recipe.interpretation, 5)
    steps = [step for epoch in range(3) for step in plan(epoch)]
    named = {pair for step in steps for pair in zip(step.images.tolist(), step.derived.tolist(), strict=True)}
    found = looked_up(steps, 20)
    assert set(zip(*(axis.tolist() for axis in found.nonzero(as_tuple=True)), strict=True)) == named
    assert found.shape == (20, 14)
    assert 20 < found.sum() < 60  # some samples are drawn again, most are not


def test_tables_give_the_same_training(tmp_path):
    """Tier P2: twenty steps with looked-up and with computed samples stay within 1e-3 of each other's loss."""
    data, losses = labelled(40), {}
    torch.manual_seed(2)
    amg = AttentionMapGenerator(SMALL).freeze()
    pixels = samples.pixel_table(data.images, "edge")
    ways = {
        "computed": samples.Computed(data.images, amg, "edge", CPU),
        "tables": samples.Tables(pixels, samples.map_table(amg, pixels, CPU), CPU),
    }
    for name, way in ways.items():
        torch.manual_seed(1)
        net, stage = WSLGAN(SMALL, 3).train(), resolve("wslgan", "tiny", "synth").recipe.finetune
        steps = Eager(
            net, lambda b, n=net, w=way: stages.pair_loss(n.stream, data.labels, w, b, LossWeights(), CPU), stage
        )
        plan = [step for epoch in range(10) for step in paired_epoch(data.labels.numpy(), "sample", 10, 0, epoch)]
        losses[name] = torch.stack([steps.step(step.on("cpu"))["total"] for step in plan[:20]])
    assert len(losses["tables"]) == 20
    torch.testing.assert_close(losses["tables"], losses["computed"], rtol=1e-3, atol=0)
    assert losses["tables"][-1] < losses["tables"][0]


cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="captured steps need CUDA")


@cuda
def test_captured_steps_are_the_eager_ones():
    data, found = labelled(40).on(Device("cuda")), {}
    device = Device.chosen("cuda", "fp32", "fast")
    tables = samples.Tables(samples.pixel_table(data.images.cpu(), "edge").cuda(), None, device)
    stage = resolve("gfnet", "tiny", "synth").recipe.finetune
    shape = replace(SMALL, features="global")
    for kind in (Eager, Captured):
        torch.manual_seed(1)
        net = device.place(WSLGAN(shape, 3)).train()
        steps = kind(
            net, lambda b, n=net: stages.pair_loss(n.stream, data.labels, tables, b, LossWeights(), device), stage
        )
        plan = [step for e in range(10) for step in paired_epoch(data.labels.cpu().numpy(), "sample", 10, 0, e)]
        found[kind] = [steps.step(step.on("cuda"))["total"].item() for step in plan], net.state_dict()
    assert found[Eager][0] == found[Captured][0]
    for name, tensor in found[Eager][1].items():
        assert torch.equal(tensor, found[Captured][1][name]), name


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")  # torch's own, at its own functions
@pytest.mark.parametrize(
    ("name", "backend"),
    [
        pytest.param(
            "cpu", "aot_eager", marks=pytest.mark.slow
        ),  # the same graphs, each operation carried out by torch
        pytest.param("cpu", "inductor", marks=[pytest.mark.slow, pytest.mark.long]),  # some minutes of a C++ compiler
        pytest.param("cuda", "inductor", marks=[cuda, pytest.mark.slow]),
    ],
)
def test_compiled_steps_are_the_plain_ones(tmp_path, monkeypatch, name, backend):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=backend))
    data, found = labelled(20).on(Device(name)), {}
    recipe = resolve("wslgan", "tiny", "synth").recipe
    amg = AttentionMapGenerator(SMALL).freeze()
    for engine in ("plain", "compiled"):
        device = Device.chosen(name, "fp32", engine)
        device.place(amg)
        pixels = samples.pixel_table(data.images.cpu(), "edge")
        tables = samples.Tables(pixels.to(name), samples.map_table(amg, pixels, device).to(name), device)
        torch.manual_seed(1)
        net = device.place(WSLGAN(SMALL, 3)).train()
        stream = device.compiled(net.stream)
        assert (stream == net.stream) == (engine == "plain")
        steps = engine_of(
            net,
            lambda b, s=stream, d=device, t=tables: stages.pair_loss(s, data.labels, t, b, LossWeights(), d),
            recipe.finetune,
            device,
        )
        plan = [step for e in range(3) for step in paired_epoch(data.labels.cpu().numpy(), "sample", 10, 0, e)]
        found[engine] = torch.stack([steps.step(step.on(name))["total"] for step in plan[:5]])
    torch.testing.assert_close(found["compiled"], found["plain"], rtol=1e-5, atol=0)
    assert any(tmp_path.iterdir()) == (backend == "inductor")  # the next process finds what was compiled


def test_an_engine_says_what_it_promises():
    before = torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark
    try:
        for engine in ("plain", "fast", "compiled"):
            device = Device.chosen("cuda", "bf16", engine, here=False)
            assert (torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark) == (True, False)
            assert device.looks_up == device.captures == (engine != "plain")
        Device.chosen("cuda", "bf16", "searched", here=False)
        assert (torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark) == (False, True)
    finally:
        torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = before
    with pytest.raises(UsageError, match="searched is a mode of NVIDIA's cuDNN"):
        Device.chosen("cpu", "fp32", "searched")
    assert not Device("cpu", "fp32", "compiled").captures
    assert [Device("cpu", "fp32", engine).compiles for engine in ("plain", "fast", "compiled")] == [False, False, True]


def test_compiling_needs_a_compiler(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(UsageError, match=r"no-such-compiler.*--engine fast"):
        Device.chosen("cpu", "fp32", "compiled")
    Device.chosen("cpu", "fp32", "compiled", here=False)  # the machine that computes has one


def test_streams_apart_are_two_calls_and_joint_is_one():
    """Split streams see batch statistics of their own half; joint streams those of both."""
    data = labelled(8)
    step = paired_epoch(data.labels.numpy(), "none", 4, 0, 0, streams="split")[0]
    torch.manual_seed(0)
    net = WSLGAN(SMALL, 3).train()
    sizes = []
    net.extractor.register_forward_hook(lambda module, args, out: sizes.append(len(out)))
    amg = AttentionMapGenerator(SMALL).freeze()
    provider = samples.Computed(data.images, amg, "edge", CPU)
    stages.pair_loss(net.stream, data.labels, provider, step.on("cpu"), LossWeights(), CPU)
    joint = paired_epoch(data.labels.numpy(), "none", 4, 0, 0, streams="joint")[0]
    stages.pair_loss(net.stream, data.labels, provider, joint.on("cpu"), LossWeights(), CPU)
    assert sizes == [4, 4, 8]


def test_device_and_precision_are_checked():
    with pytest.raises(UsageError, match="tf32"):
        Device.chosen("cpu", "tf32")
    with pytest.raises(UsageError, match="unknown device"):
        Device.chosen("tpu", "fp32")
    with pytest.raises(UsageError, match="unknown engine"):
        Device.chosen("cpu", "fp32", "faster")
    with pytest.raises(UsageError, match="unknown precision"):
        Device.chosen("cpu", "fp8")
    if not torch.cuda.is_available():
        with pytest.raises(UsageError, match="no CUDA"):
            Device.chosen("cuda", "fp32")
    assert Device.chosen("auto", "fp32").name in ("cpu", "cuda")


@pytest.mark.parametrize(
    ("instructions", "precision"),
    [({"avx512_bf16": True}, "bf16"), ({"amx_bf16": True}, "bf16"), ({"avx512_bf16": False}, "fp32"), ({}, "fp32")],
)
def test_auto_takes_bf16_only_where_the_cpu_has_it(monkeypatch, instructions, precision):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: instructions)
    assert Device.chosen("cpu", "auto").precision == precision


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="the C library is not glibc")
def test_on_a_cpu_a_step_uses_the_memory_of_the_step_before():
    # Of sizes that glibc, left alone, always gives back (over 32 MB); several, since memory below anything that is
    # still in use is kept by chance.
    steps = """
faults = 0
for megabytes in (48, 96):
    for repeat in range(13):
        if repeat == 10:
            before = getrusage(RUSAGE_SELF).ru_minflt
        torch.ones(megabytes * 2**18)
    faults += getrusage(RUSAGE_SELF).ru_minflt - before
print(faults)
"""
    start = "import torch\nfrom resource import RUSAGE_SELF, getrusage\nfrom ferbench.training.device import Device\n"
    ordinary, kept = (
        int(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)
        for code in (start + steps, start + "Device.chosen('cpu', 'fp32')\n" + steps)
    )
    assert 50 * kept < ordinary


def test_every_interpretation_is_an_option_with_a_default():
    defaults = resolve("wslgan", "paper", "ckplus").recipe.interpretation
    assert (defaults.batch_of, defaults.pairing, defaults.normalise, defaults.border) == (
        "pairs",
        "permutation",
        "train",
        "edge",
    )


def test_the_contrastive_term_is_its_formula():
    rng = np.random.default_rng(0)
    features, labels = rng.normal(size=(6, 4)), np.array([0, 1, 0, 1, 2, 2])
    first, second = np.array([0, 0, 1, 4]), np.array([2, 1, 3, 5])
    expected = []
    for a, b in zip(first, second, strict=True):
        distance = np.sqrt(((features[a] - features[b]) ** 2).sum())
        expected.append(distance**2 / 2 if labels[a] == labels[b] else max(0.0, 3.0 - distance) ** 2 / 2)
    same = torch.from_numpy(labels[first] == labels[second])
    for epsilon in (False, True):
        loss = contrastive_loss(*map(torch.from_numpy, (features[first], features[second])), same, 3.0, epsilon)
        assert loss.item() == pytest.approx(np.mean(expected))
