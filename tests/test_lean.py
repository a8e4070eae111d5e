"""The lean networks: both operations against a few lines of float64, in torch and in Triton, and the whole against the
plain module. Without a GPU the Triton kernels run in Triton's interpreter, which takes seconds."""

from importlib.util import find_spec, module_from_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from support.networks import statistics_as_after_training

from ferbench.bench import workloads
from ferbench.methods.recipes import resolve
from ferbench.methods.wslgan import kernels
from ferbench.methods.wslgan.deployed import Deployed
from ferbench.methods.wslgan.lean import LeanMapGenerator, lean, map_generator
from ferbench.methods.wslgan.network import WSLGAN, AttentionMapGenerator
from ferbench.methods.wslgan.recipe import Architecture
from ferbench.training.device import Device
from ferbench.training.prediction import PreparedNetwork

SMALL = {"growth": 5, "stem_stride": 2, "extractor_layers": (2, 1, 1), "generator_layers": (1, 2, 1), "reduction": 4}


def loaded(name: str = "ferbench.methods.wslgan.tiles"):
    """The Triton kernels anew: whether they are interpreted is decided when they are read."""
    spec = find_spec(name)
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def tiles():
    pytest.importorskip("triton", reason="triton is not installed: pip install 'ferbench[triton]'")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRITON_INTERPRET", "1")
        found = loaded()
        try:
            found.conv3(torch.ones(1, 1, 2, 2, 16), torch.ones(1, 9, 16, 16), torch.ones(1, 1, 2, 2, 16))
        except Exception as error:
            if "0-dimensional" not in str(error):
                raise
            pytest.skip("the interpreter of this Triton (3.6 and before) cannot count with this NumPy (2.4 and later)")
        yield found


@pytest.fixture(params=["torch", "triton"])
def operations(request):
    """The module that carries the two operations out."""
    return kernels if request.param == "torch" else request.getfixturevalue("tiles")


def drawn(*shape: int, kind: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape))).to(kind)


# float16 stands for both halves: the interpreter has no products of bfloat16.
@pytest.mark.parametrize(("kind", "tolerance"), [(torch.float32, 1e-5), (torch.float16, 4e-3)])
@pytest.mark.parametrize(
    ("nets", "images", "size", "channels", "outputs", "pool", "relu"),
    [(2, 1, 4, 7, 20, 1, True), (1, 2, 6, 40, 130, 2, False), (2, 3, 2, 36, 2, 1, False), (1, 1, 12, 16, 48, 1, True)],
)
def test_pointwise_is_norm_relu_mean_and_product(
    operations, kind, tolerance, nets, images, size, channels, outputs, pool, relu
):
    row, columns = kernels.padded(channels), kernels.padded(outputs)
    x = drawn(nets, images, size, size, row, kind=kind)
    x[..., channels:] = torch.nan  # another layer's channels, not written yet
    scale, shift, bias = drawn(nets, row), drawn(nets, row + 1)[:, :row].contiguous(), drawn(nets, columns)
    scale[:, ::3] *= -1
    scale[:, 1::4] = 0
    weight = drawn(nets, row, columns, kind=kind)
    buffer = torch.full((nets, images, size // pool, size // pool, outputs + 9), 7.0).to(kind)
    operations.pointwise(x, scale, shift, weight, bias, buffer[..., 3 : 3 + outputs], channels, relu, pool)
    for g in range(nets):
        norm = (one[g, :channels].double().numpy() for one in (scale, shift))
        active = np.maximum(x[g, ..., :channels].double().numpy() * next(norm) + next(norm), 0)
        active = active.reshape(images, size // pool, pool, size // pool, pool, channels).mean(axis=(2, 4))
        wanted = active @ weight[g, :channels, :outputs].double().numpy() + bias[g, :outputs].double().numpy()
        wanted = np.maximum(wanted, 0) if relu else wanted
        found = buffer[g, ..., 3 : 3 + outputs].double().numpy()
        np.testing.assert_allclose(found, wanted, rtol=0, atol=tolerance * abs(wanted).max())
    assert (buffer[..., :3] == 7).all()
    assert (buffer[..., 3 + outputs :] == 7).all()


@pytest.mark.parametrize(("kind", "tolerance"), [(torch.float32, 1e-5), (torch.float16, 4e-3)])
@pytest.mark.parametrize(
    ("nets", "images", "size", "channels", "outputs", "stride"),
    [(2, 1, 4, 20, 5, 1), (2, 2, 6, 1, 24, 2), (1, 3, 3, 48, 12, 1), (1, 1, 12, 1, 10, 1)],
)
def test_conv3_is_nine_products(operations, kind, tolerance, nets, images, size, channels, outputs, stride):
    x = drawn(nets, images, size, size, kernels.padded(channels), kind=kind)
    x[..., channels:] = torch.nan
    weight = drawn(nets, 9, channels, kernels.padded(outputs), kind=kind)
    buffer = torch.full((nets, images, size // stride, size // stride, outputs + 9), 7.0).to(kind)
    operations.conv3(x, weight, buffer[..., 4 : 4 + outputs], stride)
    for g in range(nets):
        around = np.pad(x[g, ..., :channels].double(), ((0, 0), (1, 1), (1, 1), (0, 0)))
        wanted = sum(
            around[:, dy : dy + size : stride, dx : dx + size : stride]
            @ weight[g, 3 * dy + dx, :, :outputs].double().numpy()
            for dy in range(3)
            for dx in range(3)
        )
        found = buffer[g, ..., 4 : 4 + outputs].double().numpy()
        np.testing.assert_allclose(found, wanted, rtol=0, atol=tolerance * abs(wanted).max())
    assert (buffer[..., :4] == 7).all()
    assert (buffer[..., 4 + outputs :] == 7).all()


def deployed(**change) -> Deployed:
    """A small network as after training: some γ are negative, some 0, and both branches normalise in their own way."""
    torch.manual_seed(0)
    shape = Architecture(**{**SMALL, **change})
    network, amg = WSLGAN(shape, 7), AttentionMapGenerator(shape) if shape.needs_attention else None
    statistics_as_after_training(network, 0)
    if amg is not None:
        statistics_as_after_training(amg, 1)
        amg.eyes.normalise.mean.fill_(0.3)
    return Deployed(network, amg)


def faces(count: int) -> torch.Tensor:
    return torch.randint(0, 256, (count, 1, 48, 48), dtype=torch.uint8, generator=torch.Generator().manual_seed(5))


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"stem_stride": 1},
        {"features": "local"},
        {"features": "global"},
        {"fusion": "sum"},
        {"fusion": "concat"},
        {"classifier_input": "flatten"},
        {"cam_class": "predicted"},
        {"cam_class": "positive"},
        {"generator_growth": 3},
    ],
)
@pytest.mark.parametrize("at_once", [0, 2])
def test_a_lean_network_gives_the_same_logits_and_maps(change, at_once):
    module = deployed(**change).double()
    with torch.inference_mode():
        wanted, found = module(faces(3)), lean(module, torch.float64, at_once)(faces(3))
    assert len(found) == len(wanted)
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


def test_each_image_may_be_scaled_by_its_own_moments():
    module = deployed()
    for part in (module.network, module.amg.eyes):  # the mouth's branch by those of the training images
        part.normalise.each.fill_(1)
    with torch.inference_mode():
        for one, other in zip(lean(module, torch.float64)(faces(2)), module.double()(faces(2)), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("kind", "precision"), [(torch.float32, "fp32"), (torch.bfloat16, "bf16")])
def test_lean_networks_are_within_the_bound_of_their_precision(kind, precision):
    module = deployed()
    with torch.inference_mode():
        found, maps = lean(module, kind)(faces(8))
    assert found.dtype == maps.dtype == torch.float32
    assert workloads.compare_logits(found, module, faces(8), precision).valid
    if precision == "fp32":
        with torch.inference_mode():
            torch.testing.assert_close(maps, module.double()(faces(8))[1].float(), rtol=0, atol=1e-5)


def test_a_lean_copy_leaves_the_module_as_it_was():
    module = deployed()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    lean(module, torch.bfloat16)(faces(1))
    for name, tensor in module.state_dict().items():
        assert torch.equal(tensor, before[name])


def test_a_whole_network_of_triton_kernels_is_that_of_torch(tiles, monkeypatch):
    module = lean(deployed(extractor_layers=(2, 1, 1), generator_layers=(1, 1, 1)), torch.float32)
    with torch.inference_mode():
        wanted = module(faces(1))
        monkeypatch.setattr(kernels, "_tiles", lambda x: tiles)
        for one, other in zip(module(faces(1)), wanted, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("what", ["inference", "fe", "amg"])
def test_the_bench_has_each_part_in_its_quick_form(what):
    method = resolve("wslgan", "tiny", "ckplus")
    timed = method.family.timed(method, 7, 0)
    reference = timed.part(what).eval()
    for precision in ("fp32", "bf16"):
        found = PreparedNetwork(timed.part(what), Device("cpu", precision, "fast"))(faces(4).squeeze(1))[0]
        assert workloads.compare_logits(found, reference, faces(4), precision).valid
    assert timed.part("amg") is not None
    method = resolve("gfnet", "tiny", "ckplus")
    assert method.family.timed(method, 7, 0).part("amg") is None


def test_maps_of_fp32_are_made_by_the_plain_generator(monkeypatch):
    monkeypatch.setattr(kernels, "fused", lambda device: True)
    amg = deployed().amg
    for device in (Device("cpu", "bf16", "fast"), Device("cpu", "fp32", "fast"), Device("cpu", "bf16", "plain")):
        assert map_generator(amg, device) is amg
    monkeypatch.setattr(Device, "captures", property(lambda device: device.looks_up))
    assert isinstance(map_generator(amg, Device("cpu", "bf16", "fast")), LeanMapGenerator)
    assert map_generator(amg, Device("cpu", "fp32", "fast")) is amg


@pytest.mark.filterwarnings("ignore")
def test_the_kernels_compile_for_hopper_and_move_16_bytes_at_a_time(monkeypatch):
    """No GPU is needed to compile for one."""
    pytest.importorskip("triton", reason="triton is not installed: pip install 'ferbench[triton]'")
    from triton import compile as compiled
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    tiles = loaded()
    common = {"OUTPUTS": 32, "BLOCK_N": 32, "BLOCK_M": 64, "BLOCK_K": 32}
    for kernel, constants in (
        (tiles._pointwise, common | {"POOL": 1, "RELU": True}),
        (tiles._conv3, common | {"STRIDE": 1, "ALIGNED": 16}),
    ):
        names = kernel.fn.arg_names
        types = {name: "constexpr" if name in constants else "i32" for name in names}
        types |= dict.fromkeys(("x", "weight", "out"), "*bf16")
        types |= {name: "*fp32" for name in ("scale", "shift", "bias") if name in names}
        whole = [name for name in names if name not in constants and name not in ("pixels", "width", "height")]
        source = ASTSource(
            kernel.fn,
            types,
            {(names.index(name),): value for name, value in constants.items()},
            {(names.index(name),): [["tt.divisibility", 16]] for name in whole},
        )
        made = compiled(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": 4, "num_stages": 3})
        assert "wgmma.mma_async" in made.asm["ptx"]
        assert "st.global.v4" in made.asm["ptx"]
        assert "cp.async" in made.asm["ptx"]


cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="what a GPU does needs one")


@cuda
def test_on_a_gpu_the_lean_network_is_that_of_float64_alone_and_in_a_graph():
    from ferbench.bench.workloads import Cell, build

    assert kernels.fused("cuda")
    for preset in ("light", "paper"):
        for what, batch in (("inference", 1), ("inference", 48), ("amg", 48), ("fe", 1)):
            cell = Cell(what, "wslgan", preset, "fast", "bf16", "torch", "cuda", batch, "offline", 1, 0)
            work = build(cell, Path())
            work.call()
            assert work.check().valid, cell
    module = deployed()
    with torch.inference_mode():
        found = lean(module, torch.bfloat16).cuda()(faces(8).cuda())[0].cpu()
    assert workloads.compare_logits(found, module, faces(8), "bf16").valid


@cuda
def test_on_a_gpu_maps_of_bf16_are_near_those_of_fp32():
    from ferbench.training import samples

    pixels = torch.randint(0, 256, (40, 14, 48, 48), dtype=torch.uint8)
    amg = deployed(growth=12).amg
    wanted = samples.map_table(map_generator(amg, Device()), pixels, Device())
    device = Device("cuda", "bf16", "fast")
    found = samples.map_table(map_generator(amg, device), pixels, device)
    assert (found - wanted).abs().max() < 0.1
