"""A network on another set: what is tested, what is left out, and what is refused."""

import json

import numpy as np
import pytest
import torch
from support.command import ferbench
from support.datasets import lay_down, make_faces, people
from support.networks import store_network

from ferbench.errors import DataError, UsageError
from ferbench.inference.evaluate import evaluate
from ferbench.inference.models import StoredRun
from ferbench.methods.recipes import resolve
from ferbench.methods.wslgan.deployed import deployed
from ferbench.runs.store import Store

LABELS = ["anger", "happiness", "neutral"]


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Store:
    store = Store(tmp_path_factory.mktemp("evaluate") / "runs")
    store_network(store)
    return store


@pytest.fixture
def home(tmp_path):
    lay_down(make_faces(people(10, LABELS), name="jaffe"), tmp_path / "data")
    return tmp_path / "data"


def network(store: Store):
    return next(record for record in store.records() if record.identity.kind == "fold")


def test_every_test_image_of_a_known_class_is_predicted_and_the_others_are_counted(store, home):
    record = network(store)
    assert "neutral" not in record.classes
    done = evaluate(record.key, "tiny", "jaffe", store.home, home)
    faces = make_faces(people(10, LABELS), name="jaffe")
    rows = np.flatnonzero(faces.samples["label"] != "neutral")
    with torch.inference_mode():
        logits = deployed(record, store)(torch.from_numpy(faces.images[rows]).unsqueeze(1))[0]
    frame = store.predictions(done.key)
    assert list(frame["id"]) == list(faces.samples["id"].iloc[rows])
    assert list(frame["truth"]) == list(faces.samples["label"].iloc[rows])
    assert list(frame["prediction"]) == [record.classes[index] for index in logits.argmax(dim=1)]
    np.testing.assert_allclose(frame[[f"p_{name}" for name in record.classes]], logits.softmax(dim=1), atol=1e-6)
    assert done.facts["left_out"] == {"neutral": 30}
    assert done.result["images"] == 60
    assert done.identity.parents == {"network": record.key}


def test_it_is_made_once(store, home):
    first = evaluate(network(store).key, "tiny", "jaffe", store.home, home)
    path = store.folder(first.key) / "record.json"
    before = path.stat().st_mtime_ns
    assert evaluate(network(store).key, "tiny", "jaffe", store.home, home) == first
    assert path.stat().st_mtime_ns == before


def test_the_set_of_a_run_that_did_not_record_its_pictures_is_refused(store, tmp_path):
    faces = make_faces(people(10, LABELS), name="jaffe")
    lay_down(faces, tmp_path / "own")
    record = network(store)
    twin = record.model_copy(update={"identity": record.identity.model_copy(update={"data": faces.fingerprint})})
    twin = twin.model_copy(update={"key": twin.identity.key, "experiment": twin.identity.experiment})
    other = Store(tmp_path / "runs")
    other.finish(twin)
    with pytest.raises(UsageError, match="has learned from images of jaffe and did not record from which"):
        evaluate(twin.key, "tiny", "jaffe", other.home, tmp_path / "own")


def test_a_set_without_a_known_class_is_refused(store, tmp_path):
    lay_down(make_faces(people(10, ["neutral"]), name="jaffe"), tmp_path / "other")
    with pytest.raises(DataError, match="no image of a class"):
        evaluate(network(store).key, "tiny", "jaffe", store.home, tmp_path / "other")


def test_the_command_says_what_came_of_it(store, home, tmp_path):
    words = ("evaluate", network(store).key, "--dataset", "jaffe", "--runs", str(store.home), "--format", "json")
    (facts,) = json.loads(ferbench(*words, cwd=tmp_path).stdout).values()
    assert facts["images"] == 60
    assert facts["left out, unknown to the network"] == {"neutral": 30}


def test_a_run_without_a_network_says_what_its_scores_are(store, home, monkeypatch):
    record = network(store)

    class Margins:
        def predict(self, samples, work):
            work.facts["uncalibrated"] = True
            work.notes.append("scores are margins")
            return np.full((len(samples), len(record.classes)), 1 / len(record.classes))

    def no_network(run):
        raise UsageError("no network")

    monkeypatch.setattr(StoredRun, "network", property(no_network))
    monkeypatch.setattr(StoredRun, "method", resolve("hog-svm", "tiny", "ckplus"))
    monkeypatch.setattr(StoredRun, "_recogniser", Margins())
    done = evaluate(record.key, "tiny", "jaffe", store.home, home, fresh=True)
    assert done.facts["uncalibrated"] is True
    assert "scores are margins" in done.facts["notes"]
    assert store.predictions(done.key)["p_anger"].nunique() == 1
