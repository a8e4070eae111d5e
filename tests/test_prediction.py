"""The prepared network of every prediction: against the plain one, in fp32 and bf16, by torch and by OpenVINO."""

from importlib.util import find_spec

import numpy as np
import pytest
import torch
from PIL import Image
from support.command import ferbench
from support.datasets import lay_down, make_faces, people
from support.networks import statistics_as_after_training, store_network
from torch import nn

from ferbench.data.synthetic.anatomy import Person
from ferbench.data.synthetic.drawing import View, render
from ferbench.data.synthetic.sets import everyday
from ferbench.errors import UsageError
from ferbench.inference.evaluate import evaluate
from ferbench.methods.cnn.recogniser import build, predict
from ferbench.methods.interface import FOLD
from ferbench.methods.recipes import network_of, resolve
from ferbench.methods.wslgan.deployed import for_tests
from ferbench.runs.store import Store, shipped_run, shipped_runs
from ferbench.seeds import generator
from ferbench.training import samples
from ferbench.training.arithmetic import ROWS, Arithmetic
from ferbench.training.device import Device, has_bf16
from ferbench.training.networks import Deployed, fused
from ferbench.training.prediction import PreparedNetwork, openvino_core

SHIPPED = ("tiny", "wide", pytest.param("light", marks=pytest.mark.slow), pytest.param("full", marks=pytest.mark.slow))


@pytest.fixture(scope="module")
def faces() -> torch.Tensor:
    """Drawn faces uint8 [100,48,48]."""
    return torch.from_numpy(np.stack([drawn_face(number) for number in range(100)]))


def drawn_face(number: int) -> np.ndarray:
    rng = generator(0, "prediction", number)
    return render(Person.draw(rng), everyday(rng), View.draw(rng, 0.3), rng)[0]


def shipped(preset: str):
    return network_of(shipped_run(kind="pretrain", method="wslgan", preset=preset), shipped_runs())


def plain(module, images: torch.Tensor) -> list[torch.Tensor]:
    """Logits and maps, operation by operation."""
    with torch.inference_mode():
        batches = [module(batch) for batch in images.unsqueeze(1).split(50)]
    return [torch.cat(parts) for parts in zip(*batches, strict=True)]


@pytest.mark.parametrize("preset", SHIPPED)
def test_fp32_changes_no_prediction_of_the_shipped_networks(preset, faces):
    module = shipped(preset)
    logits, maps = PreparedNetwork(module, Device())(faces)
    expected, expected_maps = plain(module, faces)
    assert torch.equal(logits.argmax(dim=1), expected.argmax(dim=1))
    assert (logits.softmax(dim=1) - expected.softmax(dim=1)).abs().max() <= 1e-5
    assert (maps - expected_maps).abs().max() <= 1e-5


@pytest.mark.parametrize("preset", SHIPPED[:3])  # `full` takes half a minute where bf16 is emulated
def test_bf16_changes_few_predictions(preset, faces):
    module, images = shipped(preset), faces[:40]
    logits = PreparedNetwork(module, Device("cpu", "bf16"))(images)[0]
    assert logits.dtype == torch.float32
    expected = plain(module, images)[0]
    assert 0 < (logits - expected).abs().max() < 0.2 * expected.abs().max()
    assert (logits.argmax(dim=1) != expected.argmax(dim=1)).sum() <= 2


needs_openvino = pytest.mark.skipif(not find_spec("openvino"), reason="pip install 'ferbench[openvino]'")


@needs_openvino
def test_openvino_changes_no_prediction(faces):
    module, images = shipped("tiny"), faces[: ROWS["cpu"] + 3]  # the last batch is smaller
    results = Arithmetic(engine="openvino").prepare(module)(images)
    for result, expected in zip(results, plain(module, images), strict=True):
        torch.testing.assert_close(result, expected, rtol=0, atol=3e-5)
    assert torch.equal(results[0].argmax(dim=1), plain(module, images)[0].argmax(dim=1))


@needs_openvino
def test_openvino_never_computes_in_another_precision_than_it_is_asked_for():
    bf16 = Arithmetic("bf16", "openvino")
    if "BF16" in openvino_core("fp32").get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        images = torch.zeros(2, 48, 48, dtype=torch.uint8)
        assert not torch.equal(bf16.prepare(shipped("tiny"))(images)[0], plain(shipped("tiny"), images)[0])
    else:
        with pytest.raises(UsageError, match="no bf16"):
            bf16.prepare(shipped("tiny"))


@pytest.mark.parametrize(("method", "left"), [("resnet18", 0), ("pat-resnet", 0), ("il-cnn", 3), ("dcma-cnns", 0)])
def test_ordinary_networks_are_the_same_without_batch_normalisation(method, left, faces):
    """Where pooling lies between it and a convolution it stays."""
    resolved = resolve(method, "tiny", "ckplus")
    network = build(resolved.recipe, FOLD, 7).eval()
    rng = torch.Generator().manual_seed(0)
    for norm in network.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.running_mean.copy_(0.3 * torch.randn(norm.running_mean.shape, generator=rng))
            norm.running_var.copy_(torch.rand(norm.running_var.shape, generator=rng) + 0.5)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    expected = plain(Deployed(network), faces)[0]
    logits = PreparedNetwork(Deployed(network), Device())(faces)[0]
    assert torch.equal(logits.argmax(dim=1), expected.argmax(dim=1))
    torch.testing.assert_close(logits.softmax(dim=1), expected.softmax(dim=1), rtol=0, atol=1e-5)
    np.testing.assert_allclose(predict(network, faces.numpy(), Device()), expected.softmax(dim=1), rtol=0, atol=1e-5)
    assert sum(isinstance(module, nn.BatchNorm2d) for module in fused(network).modules()) == left
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


def test_a_convolution_that_something_else_reads_too_keeps_its_batch_normalisation():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm = nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3)
            self.again, self.last = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)

        def forward(self, x):
            x = self.conv(x)
            x = self.norm(x) + x
            return self.last(self.again(self.last(self.again(x))))

    network = Twice().eval()
    statistics_as_after_training(network, 1)
    x = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(fused(network)(x), network(x))


def test_maps_of_tests_are_those_of_training(faces):
    amg, device = shipped("tiny").amg, Device()
    maps = samples.maps_of(for_tests(amg, device), faces, device, ROWS["cpu"])
    torch.testing.assert_close(maps, samples.maps_of(amg, faces, device), rtol=0, atol=1e-5)
    assert for_tests(amg, Device("cpu", "bf16")) is amg


@pytest.fixture
def evaluated(tmp_path) -> tuple[Store, str]:
    """A store with a network, and its key; the data home has a dataset."""
    store = Store(tmp_path / "runs")
    lay_down(make_faces(people(10, ["anger", "happiness"]), name="jaffe"), tmp_path / "data")
    return store, store_network(store)


def test_the_arithmetic_is_part_of_the_evaluation(evaluated, tmp_path, monkeypatch):
    store, key = evaluated
    if not has_bf16():
        with pytest.raises(UsageError, match="no instructions for bf16"):
            evaluate(key, "", "jaffe", store.home, tmp_path / "data", arithmetic=Arithmetic("bf16"))
        monkeypatch.setattr("ferbench.training.device.has_bf16", lambda: True)
    fp32, bf16 = (
        evaluate(key, "", "jaffe", store.home, tmp_path / "data", arithmetic=arithmetic)
        for arithmetic in (Arithmetic(), Arithmetic("bf16"))
    )
    assert (fp32.identity.precision, fp32.identity.engine) == ("fp32", "plain")
    assert bf16.identity == fp32.identity.model_copy(update={"precision": "bf16"})
    assert (fp32.environment["precision"], bf16.environment["precision"]) == ("fp32", "bf16")
    columns = [f"p_{name}" for name in fp32.classes]
    changes = np.abs(store.predictions(fp32.key)[columns] - store.predictions(bf16.key)[columns]).to_numpy()
    assert 0 < changes.max() < 0.05


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["--precision", "fp8"], "unknown precision 'fp8'"),
        (["--engine", "onnx"], "unknown engine 'onnx'"),
        (["fer-25", "--precision", "bf16"], "not for"),
        (["--predictions", "p.csv", "--engine", "openvino"], "not for --predictions"),
    ],
)
def test_what_does_not_exist_is_refused_in_one_line(evaluated, tmp_path, words, problem):
    (tmp_path / "p.csv").write_text("id,prediction\n")
    result = ferbench("evaluate", *words, "--dataset", "jaffe", cwd=tmp_path, code=2)
    assert problem in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


def test_pictures_of_a_folder_are_predicted_together_and_come_in_order(evaluated, tmp_path):
    from ferbench.inference import predict as room
    from ferbench.inference.models import open_run

    store, key = evaluated
    model, paths = open_run(key, "", store.home), []
    for number in range(2 * room.AT_ONCE + 3):
        paths.append(tmp_path / f"{number:03d}.png")
        Image.fromarray(drawn_face(number % 7)).save(paths[-1])
    paths[5].write_bytes(b"no picture")
    pictures = list(room.predict(paths, [model], True, tmp_path / "drawn"))
    assert [picture.path for picture in pictures] == paths
    assert [bool(picture.faces) for picture in pictures] == [number != 5 for number in range(len(paths))]
    for number in (0, 4, 6, len(paths) - 1):
        (alone,) = room.predict([paths[number]], [model], True, None)
        together = pictures[number].faces[0].probabilities
        assert alone.faces[0].probabilities == pytest.approx(together, abs=1e-6)
    assert len(list((tmp_path / "drawn").iterdir())) == len(paths) - 1
