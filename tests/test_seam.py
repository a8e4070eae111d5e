"""The seam: a method of a new kind is one file and one TOML, and goes the way of all others."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from support.command import ferbench
from support.datasets import lay_down, make_faces, people
from support.models import example

from ferbench.errors import DataError, UsageError
from ferbench.execution.jobs import plan
from ferbench.execution.requests import Request
from ferbench.execution.run_job import run_job
from ferbench.execution.views import check_needs, sample_set, sees, training_set
from ferbench.methods import recipes
from ferbench.methods.interface import Family, SampleSet, TrainingSet
from ferbench.methods.recipes import family_of, names, presets, resolve, variants
from ferbench.protocol import protocol as protocols
from ferbench.protocol import splits
from ferbench.runs.store import Store
from ferbench.training.checkpoint import unpack
from ferbench.training.device import Device

ROOT = Path(__file__).resolve().parent.parent
EMOTIONS = ("anger", "contempt", "disgust", "fear", "happiness", "sadness", "surprise")
ROWS = people(10, list(EMOTIONS), frames=3)


@pytest.fixture
def place(tmp_path):
    lay_down(make_faces(ROWS, name="ckplus"), tmp_path / "data")
    return tmp_path


def planned(place, method, **more):
    request = Request(method, protocols.load("ckplus"), **more)
    return plan([request], place / "data", Store(place / "runs")).jobs


def test_the_example_of_the_documentation_is_trained_reported_compared_and_held(place):
    toml = example(place)
    said = ferbench("train", toml.name, "--dataset", "ckplus", "--jobs", "1", cwd=place).stdout
    assert "Nearest mean (coarse, seed 0): " in said
    assert "fp64, plain engine" in said
    report = json.loads(ferbench("report", "--dataset", "ckplus", "--format", "json", cwd=place).stdout)
    assert "Nearest mean" in json.dumps(report)
    again = ferbench("train", toml.name, "--dataset", "ckplus", "--jobs", "1", cwd=place).stdout
    assert again.count("reused") >= 10
    accepted = place / "accepted"
    ferbench("check", "--accept", "--reason", "first", "--baseline", str(accepted), cwd=place)
    assert ferbench("check", "--baseline", str(accepted), cwd=place).stdout.startswith("held: Nearest mean")
    compared = ferbench("compare", str(place / "runs"), str(place / "runs"), cwd=place).stdout
    assert "Nearest mean" in compared
    shown = ferbench("show", toml.name, "--dataset", "ckplus", cwd=place).stdout
    assert "cells" in shown


def test_a_run_of_an_own_method_finds_its_family_again(place):
    method = resolve(str(example(place)), "coarse", "ckplus")
    job, *_ = planned(place, method, folds=("01",))
    store = Store(place / "runs")
    record = run_job(job, store, Device(), lambda *_: None)
    assert family_of(record) is method.family
    assert record.identity.precision == "fp64"
    assert record.facts["parameters"] == 7 * 8 * 8
    assert record.facts["trained_on"] == ["ckplus@1"]
    assert (record.facts["level"], record.facts["sees"]) == ("image", "image")
    again = method.family.recogniser(method, "fold", tuple(record.classes))
    again.load(unpack(store.folder(record.key) / "weights.safetensors")[0])
    samples = sample_set(job.request.protocol, job.faces, job.split.test)
    stored = store.predictions(record.key).filter(like="p_").to_numpy()
    np.testing.assert_allclose(again.predict(samples, None), stored, rtol=1e-7)


def test_another_file_of_an_own_family_is_another_run(place):
    other = place / "other"
    other.mkdir()
    first = planned(place, resolve(str(example(place)), "", "ckplus"))[0].key
    shutil.copy(place / "nearest-mean.toml", other / "later.toml")
    (other / "later.toml").write_text((other / "later.toml").read_text().replace('"nearest"', '"nearer"'))
    (other / "nearer.py").write_text((place / "nearest.py").read_text() + "\n# another thought\n")
    assert planned(place, resolve(str(other / "later.toml"), "", "ckplus"))[0].key != first


def test_sides_hold_what_is_asked_for_and_the_tested_one_no_labels(place):
    protocol, faces = protocols.load("ckplus"), make_faces(ROWS, name="ckplus")
    split = splits.make(protocol, faces).folds[0]
    classes = EMOTIONS
    train = training_set(protocol, faces, split.train, classes)
    assert isinstance(train, TrainingSet)
    np.testing.assert_array_equal(train.images, faces.images[split.train])
    assert [classes[label] for label in train.labels] == faces.samples["label"].iloc[split.train].tolist()
    assert train.subjects.tolist() == faces.samples["subject"].iloc[split.train].tolist()
    test = sample_set(protocol, faces, split.test)
    assert type(test) is SampleSet
    assert set(vars(test)) == {"images", "videos"}


class Hungry(Family):
    """A family that needs what it is told to need."""

    def __init__(self, *needs: str):
        self.wanted = frozenset(needs)

    def recogniser(self, method, kind, classes):
        raise AssertionError("nothing is trained")

    def needs(self, method):
        return self.wanted


@pytest.mark.parametrize(
    ("needs", "error", "words"),
    [
        (("sequences",), UsageError, "choose a protocol of sequences, such as ckplus-sequences"),
        (("landmarks",), DataError, "reads landmarks, and the prepared dataset ckplus has none"),
        (("neutral",), DataError, "has only the last frames of each"),
    ],
)
def test_what_a_method_needs_and_a_set_lacks_is_said_before_anything_is_trained(needs, error, words, monkeypatch):
    method = resolve("gfnet", "tiny", "ckplus")
    monkeypatch.setattr(recipes, "load_family", lambda *_: Hungry(*needs))
    with pytest.raises(error, match=words):
        check_needs(method, protocols.load("ckplus"), make_faces(ROWS, name="ckplus"))


def test_a_family_that_is_not_there_is_named(tmp_path):
    (tmp_path / "m.toml").write_text('family = "nowhere.at_all"\nname = "m"\ntitle = "M"\n[preset.one]\n')
    with pytest.raises(DataError, match=r"the family 'nowhere.at_all' cannot be loaded"):
        resolve(str(tmp_path / "m.toml"), "", "ckplus")


@pytest.mark.parametrize("name", names())
def test_each_shipped_method_resolves_at_each_preset_and_says_what_it_needs(name):
    for preset in presets(name):
        method = resolve(name, preset, "ckplus")
        assert method.name == name
        assert method.family.needs(method) <= {"sequences", "landmarks", "neutral", "subjects"}
        json.dumps(method.model_dump(mode="json", by_alias=True))


def test_variants_are_what_extends_a_method():
    assert variants("wslgan") == ["wslgan", "gfnet", "lfnet", "wslgan-concat", "wslgan-sum", "wslgan-wcl"]


def test_nothing_outside_the_room_of_a_family_names_it():
    allowed = {ROOT / "ferbench" / "__init__.py"}
    for path in sorted((ROOT / "ferbench").rglob("*.py")):
        if "methods/wslgan/" not in path.as_posix() and path not in allowed:
            assert "wslgan" not in path.read_text(encoding="utf-8"), path


def test_no_family_imports_another():
    rooms = [path for path in (ROOT / "ferbench" / "methods").iterdir() if path.is_dir() and path.name != "__pycache__"]
    for room in rooms:
        for path in room.rglob("*.py"):
            for other in {one.name for one in rooms} - {room.name}:
                assert f"ferbench.methods.{other}" not in path.read_text(encoding="utf-8"), f"{path} imports {other}"


def test_image_methods_see_images_alone_whatever_the_protocol():
    protocol, faces = protocols.load("ckplus"), make_faces(ROWS, name="ckplus")
    assert sees(resolve("gfnet", "tiny", "ckplus"), protocol, faces, np.arange(3)) == "image"
