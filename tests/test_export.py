"""Exported files: they compute what the run computes, say what they are, and are refused when they do not."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from support.command import ferbench
from support.networks import ROWS, SMALL_FIELDS, store_network
from support.runs import CLASSES, store_fold, store_stage

from ferbench import __version__
from ferbench.errors import CheckFailed, DataError, UsageError
from ferbench.files import write_bytes
from ferbench.inference import export
from ferbench.inference.export import Parity, export_run, session
from ferbench.methods.wslgan.deployed import deployed
from ferbench.methods.wslgan.network import WSLGAN, AttentionMapGenerator
from ferbench.methods.wslgan.recipe import Architecture
from ferbench.runs.store import Store
from ferbench.training.checkpoint import pack, unpack


def images(count: int) -> np.ndarray:
    return np.random.default_rng(5).integers(0, 256, (count, 1, 48, 48)).astype(np.uint8)


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Store:
    store = Store(tmp_path_factory.mktemp("export") / "runs")
    store_network(store)
    return store


@pytest.fixture(scope="module")
def key(store) -> str:
    return next(record.key for record in store.records() if record.identity.kind == "fold")


@pytest.fixture(scope="module")
def exported(store, key) -> export.Exported:
    return export_run(key[:6], out=store.home.parent / "out" / "network.onnx", runs=store.home)


@pytest.mark.parametrize("batch", [1, 3, 64])
def test_the_file_computes_what_the_parts_compute_one_after_the_other(store, key, exported, batch):
    architecture = Architecture(**SMALL_FIELDS)
    network, amg = WSLGAN(architecture, len(CLASSES)), AttentionMapGenerator(architecture)
    attention = store.record(key).identity.parents["attention"]
    network.load_state_dict(unpack(store.folder(key) / "weights.safetensors")[0])
    amg.load_state_dict(unpack(store.folder(attention) / "weights.safetensors")[0])
    network.eval().double()
    amg.eval().double()
    with torch.no_grad():
        x = torch.from_numpy(images(batch)).double() / 255
        maps = amg(x)
        logits = network(x, maps)
    found = session(exported.path, 1).run(["logits", "maps"], {"images": images(batch)})
    assert found[0].dtype == found[1].dtype == np.float32
    np.testing.assert_allclose(found[0], logits.numpy(), rtol=0, atol=1e-4 * float(logits.abs().max()))
    np.testing.assert_allclose(found[1], maps.numpy(), rtol=0, atol=1e-4)


def test_the_module_is_frozen_and_leaves_the_training_layers_out(store, key):
    module = deployed(store.record(key), store)
    assert not module.training
    assert not any(parameter.requires_grad for parameter in module.parameters())
    assert not [name for name, _ in module.named_parameters() if "auxiliary" in name]


def test_the_result_says_what_was_written_and_how_near_it_is(exported):
    assert exported.size == exported.path.stat().st_size
    assert [path.name for path in exported.path.parent.iterdir()] == ["network.onnx"]
    assert 0 < exported.parity.logits <= 1e-4
    assert 0 < exported.parity.maps <= 1e-4
    assert onnx.load(exported.path).opset_import[0].version == exported.opset


def test_the_file_says_what_it_is_and_nothing_of_the_machine(store, key, exported):
    model = onnx.load(exported.path)
    told = {prop.key: prop.value for prop in model.metadata_props}
    assert json.loads(told["labels"]) == CLASSES
    assert json.loads(told["maps"]) == ["eyes", "mouth"]
    preprocessing = json.loads(told["preprocessing"])
    assert preprocessing["input"] == ["N", 1, 48, 48]
    assert (preprocessing["colour"], preprocessing["dtype"], preprocessing["range"]) == ("grey", "uint8", [0, 255])
    assert preprocessing["template"]["mouth_centre"] == [24.0, 37.0]
    identity = store.record(key).identity
    expected = {
        "method": "wslgan",
        "preset": "tiny",
        "protocol": "ckplus@1",
        "kind": "fold",
        "fold": "01",
        "run_key": key,
        "data_fingerprint": identity.data,
        "ferbench_version": __version__,
    }
    assert expected.items() <= told.items()
    (given,) = model.graph.input
    assert given.type.tensor_type.elem_type == onnx.TensorProto.UINT8
    assert given.type.tensor_type.shape.dim[0].dim_param
    assert b".py" not in exported.path.read_bytes()


@pytest.mark.parametrize("weight", ["network.classifier.weight", "amg.eyes.backbone.body.0.weight"])
def test_a_file_with_other_results_is_refused_and_not_written(store, key, exported, tmp_path, monkeypatch, weight):
    model = onnx.load(exported.path)
    (tensor,) = (tensor for tensor in model.graph.initializer if tensor.name == weight)
    values = onnx.numpy_helper.to_array(tensor).copy()
    values[1] += 0.5
    tensor.CopyFrom(onnx.numpy_helper.from_array(values, weight))
    monkeypatch.setattr(export, "to_onnx", lambda module, metadata: model.SerializeToString())
    with pytest.raises(CheckFailed, match="nothing was written"):
        export_run(key, out=tmp_path / "made" / "network.onnx", runs=store.home)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("found", "holds"),
    [
        (Parity(1e-7, 1e-7, 0), True),
        (Parity(2e-4, 0.0, 0), False),
        (Parity(1e-7, 2e-4, 0), False),
        (Parity(1e-7, 0.0, 1), False),
        (Parity(float("nan"), 0.0, 0), False),
    ],
)
def test_what_counts_as_the_same(found, holds):
    assert found.holds is holds


def test_gfnet_is_exported_without_maps_through_the_command(tmp_path):
    key = store_network(Store(tmp_path / "runs"), "gfnet", features="global")
    out = ferbench("export", key[:5], "--format", "onnx", cwd=tmp_path).stdout
    path = tmp_path / f"{key}.onnx"
    assert f"wrote {path.name}: {path.stat().st_size:,} bytes, opset 20" in out
    assert "n = 64 images in batches of 1, 2, 64" in out
    opened = session(path.read_bytes(), 2)
    assert [output.name for output in opened.get_outputs()] == ["logits"]
    assert "maps" not in opened.get_modelmeta().custom_metadata_map
    module = deployed(Store(tmp_path / "runs").record(key), Store(tmp_path / "runs"))
    with torch.no_grad():
        (logits,) = module.double()(torch.from_numpy(images(3)))
    np.testing.assert_allclose(opened.run(None, {"images": images(3)})[0], logits, rtol=1e-4, atol=1e-5)


def test_errors_of_the_command_are_one_line_and_an_exit_code(tmp_path):
    for words, says in [(["abc"], "no finished run begins with 'abc'"), (["abc", "--format", "tflite"], "it is onnx")]:
        error = ferbench("export", *words, cwd=tmp_path, code=2).stderr
        assert says in error
        assert error.count("\n") == 1
    assert not list(tmp_path.glob("*.onnx"))


def test_runs_without_a_network_are_refused(tmp_path):
    store = Store(tmp_path / "runs")
    attention = store_stage(store, "attention")
    with pytest.raises(UsageError, match="attention maps alone"):
        export_run(attention, runs=store.home)
    failed = store_fold(store, "02", ROWS, error="out of memory")
    with pytest.raises(UsageError, match="failed"):
        export_run(failed, runs=store.home)
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="is a file, not a folder"):
        export_run(attention, out=tmp_path / "file" / "network.onnx", runs=store.home)


def test_weights_that_are_missing_or_of_another_shape_are_named(tmp_path):
    store = Store(tmp_path / "runs")
    key = store_network(store)
    weights = store.folder(key) / "weights.safetensors"
    write_bytes(weights, pack({"classifier.bias": torch.zeros(7)}, {}))
    with pytest.raises(DataError, match="does not fit"):
        export_run(key, runs=store.home)
    weights.unlink()
    with pytest.raises(DataError, match="cannot be read"):
        export_run(key, runs=store.home)


def test_a_damaged_file_is_named(tmp_path):
    for content in (None, b"no graph"):
        path: Path = tmp_path / "damaged.onnx"
        if content:
            path.write_bytes(content)
        with pytest.raises(DataError, match="damaged.onnx cannot be opened"):
            session(path, 1)
