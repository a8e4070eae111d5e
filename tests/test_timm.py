"""Networks of timm in a folder with config.json and model.safetensors."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from support.command import ferbench
from support.datasets import lay_down, make_faces, people
from support.torch_vision import define_missing_operators

from ferbench.errors import DataError
from ferbench.methods.foreign.cards import card_of, template
from ferbench.methods.interface import SampleSet
from ferbench.methods.recipes import resolve
from ferbench.runs.store import Store

CLASSES = ("anger", "disgust", "fear", "happiness", "sadness", "surprise", "neutral")
NAMES = ["Angry", "Disgust", "Fear", "Happy", "Sad", "Surprise", "Neutral"]


@pytest.fixture(scope="module")
def timm():
    define_missing_operators()
    return pytest.importorskip("timm")


@pytest.fixture(scope="module")
def network(timm):
    torch.manual_seed(0)
    return timm.create_model("test_resnet", num_classes=7, global_pool="max").eval()


@pytest.fixture
def folder(network, tmp_path) -> Path:
    """A folder as timm writes it."""
    from timm.models._hub import save_config_for_hf

    path = tmp_path / "resnet"
    path.mkdir()
    save_file(network.state_dict(), path / "model.safetensors")
    save_config_for_hf(network, path / "config.json", model_config={"label_names": NAMES})
    return path


def change(folder: Path, **fields: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def opened(source: Path):
    method = resolve(str(source), "", "jaffe")
    return method.family.recogniser(method, "transfer", CLASSES)


def by_hand(network, images: np.ndarray) -> np.ndarray:
    """Probabilities by timm's own preprocessing and the network."""
    from timm.data import create_transform, resolve_data_config

    transform = create_transform(**resolve_data_config({}, model=network))
    with torch.inference_mode():
        batch = torch.stack([transform(Image.fromarray(image).convert("RGB")) for image in images])
        return network(batch).softmax(dim=1).numpy()


def test_a_folder_is_evaluated_as_it_is(network, folder, tmp_path):
    faces = make_faces(people(4, ["anger", "fear", "surprise"]), name="jaffe")
    lay_down(faces, tmp_path / "data")
    done = ferbench("evaluate", "resnet", "-d", "jaffe", "--format", "json", cwd=tmp_path)
    (record,) = Store(tmp_path / "runs").records()
    assert record.facts["display"] == "resnet"
    assert record.key in done.stdout
    frame = Store(tmp_path / "runs").predictions(record.key)
    stored = frame[[f"p_{name}" for name in CLASSES]].to_numpy()
    np.testing.assert_allclose(stored, by_hand(network, faces.images), atol=1e-6)


def test_the_card_of_a_folder_gives_the_same(network, folder):
    images = np.random.default_rng(0).integers(0, 256, (3, 48, 48)).astype(np.uint8)
    assert card_of(str(folder)) == folder
    expected = opened(folder).predict(SampleSet(images=images), None)
    np.testing.assert_allclose(expected, by_hand(network, images), atol=1e-6)
    card = folder.with_suffix(".toml")
    card.write_text(template(str(folder)).replace('"model.safetensors"', '"resnet/model.safetensors"'))
    assert card_of(str(folder)) == card
    assert np.array_equal(opened(card).predict(SampleSet(images=images), None), expected)


def test_another_configuration_is_another_model(folder):
    method = resolve(str(folder), "", "jaffe")
    before = method.family.identity("transfer", method, None)
    change(folder, model_args={"global_pool": "avg"})
    assert method.family.identity("transfer", method, None) != before


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"id2label": {str(k): name for k, name in enumerate(reversed(NAMES))}}, "two orders of labels"),
        ({"architecture": "hf_hub:someone/network"}, "no network of timm"),
        ({"architecture": "test_vit"}, "does not hold the network"),
        ({"num_classes": 8, "label_names": [*NAMES, "Contempt"]}, "does not hold the network"),
        ({"model_args": {"checkpoint_path": "other.pth"}}, "checkpoint_path, which would load other files"),
        ({"label_names": ["cat", *NAMES[1:]]}, "'cat'"),
    ],
)
def test_a_folder_that_does_not_hold_together_is_refused(timm, folder, fields, words):
    change(folder, **fields)
    with pytest.raises(DataError, match=words):
        opened(folder)


def test_a_card_in_another_order_than_the_configuration_is_refused(timm, folder):
    card = folder.with_suffix(".toml")
    text = template(str(folder)).replace('"model.safetensors"', '"resnet/model.safetensors"')
    card.write_text(text.replace('"Angry", "Disgust"', '"Disgust", "Angry"'))
    with pytest.raises(DataError, match="the metadata of resnet say that the scores stand for anger, disgust"):
        opened(card)


def test_a_network_of_transformers_is_pointed_to_onnx(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"architectures": ["ViTForImageClassification"]}))
    with pytest.raises(DataError, match="export it as ONNX"):
        resolve(str(tmp_path), "", "jaffe")


def test_without_timm_its_extra_is_named(folder, tmp_path):
    (tmp_path / "without").mkdir()
    (tmp_path / "without" / "timm.py").write_text("raise ImportError('it is not here')")
    lay_down(make_faces(people(4, ["anger"]), name="jaffe"), tmp_path / "data")
    words = ("evaluate", "resnet", "-d", "jaffe")
    done = ferbench(*words, cwd=tmp_path, code=2, PYTHONPATH=str(tmp_path / "without"))
    assert "pip install 'ferbench[timm]'" in done.stderr
