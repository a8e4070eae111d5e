"""Whole sequences with their landmarks: readers, prepared datasets, protocols whose unit is a sequence, and resampling."""

import numpy as np
import pytest
from support.datasets import lay_down, make_faces, people
from support.sources import ckplus, lay

from ferbench.data import align, faces, landmarks
from ferbench.data.landmarks import BROWS, COUNT, EYES, INNER, JAW, LIPS, MIRROR, NOSE, PARTS, WITHOUT_CORNERS, resample
from ferbench.data.prepare import prepare, verify
from ferbench.data.sources import Options
from ferbench.data.synthetic.layouts import write_layout
from ferbench.data.synthetic.sets import prepare_synthetic
from ferbench.errors import DataError, UsageError
from ferbench.execution.views import sample_set
from ferbench.protocol import protocol as protocols
from ferbench.protocol import splits

POINTS = np.random.default_rng(0).normal(100, 30, (5, COUNT, 2))


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    prepare_synthetic("synth-sequences", home)
    return home


@pytest.mark.parametrize(("length", "count"), [(9, 5), (3, 12), (12, 12), (1, 4), (7, 1)])
def test_resampling_keeps_the_first_and_the_last_frame(length, count):
    track = np.arange(length)
    found = resample(track, count)
    wanted = [int(np.floor(j * (length - 1) / (count - 1) + 0.5)) for j in range(count)] if count > 1 else [length - 1]
    assert found.tolist() == wanted
    assert found[-1] == length - 1
    if length == count:
        np.testing.assert_array_equal(found, track)


def test_linear_resampling_mixes_neighbours():
    track = np.random.default_rng(1).normal(size=(4, 2, 3))
    found = resample(track, 7, "linear")
    for j in range(7):
        place = j * 3 / 6
        low = int(place)
        high = min(low + 1, 3)
        np.testing.assert_allclose(found[j], (low + 1 - place) * track[low] + (place - low) * track[high], atol=1e-12)
    np.testing.assert_array_equal(resample(np.full((3, 2), 5.0), 9, "linear"), np.full((9, 2), 5.0))


def test_parts_hold_each_point_once():
    assert sorted([*JAW, *BROWS, *NOSE, *EYES, *LIPS]) == list(range(COUNT))
    assert sorted(sum(PARTS.values(), ())) == list(INNER)
    assert (len(INNER), len(WITHOUT_CORNERS)) == (51, 49)


def test_a_mirror_image_mirrored_is_the_image_and_parts_stay_parts():
    np.testing.assert_array_equal(MIRROR[MIRROR], np.arange(COUNT))
    for part in (JAW, BROWS, NOSE, EYES, LIPS):
        assert {int(MIRROR[point]) for point in part} == set(part)
    np.testing.assert_allclose(landmarks.mirrored(landmarks.mirrored(POINTS, 48), 48), POINTS)


def test_mirrored_landmarks_of_a_drawn_face_lie_on_its_mirror_image(drawn):
    loaded = faces.load("synth-sequences", drawn)
    points = np.array(loaded.landmarks[0], dtype=np.float64)
    turned = landmarks.mirrored(points, 48)
    left, right, mouth = landmarks.anchors(turned)
    own = landmarks.anchors(points)
    np.testing.assert_allclose(left, [47 - own[1][0], own[1][1]])
    np.testing.assert_allclose(right, [47 - own[0][0], own[0][1]])
    np.testing.assert_allclose(mouth, [47 - own[2][0], own[2][1]])
    assert left[0] < right[0]


def test_normalised_landmarks_know_neither_place_nor_scale():
    found = landmarks.normalised(POINTS)
    for frame, points in enumerate(POINTS):
        for axis in range(2):
            centred = points[17:, axis] - points[30, axis]
            np.testing.assert_allclose(found[frame, :, axis], centred / centred.std(), rtol=1e-12)
    moved = POINTS * np.array([2.0, 0.5]) + np.array([7.0, -3.0])
    np.testing.assert_allclose(landmarks.normalised(moved), found, rtol=1e-9)


def test_official_ckplus_keeps_whole_sequences_with_landmarks_on_the_crop(tmp_path):
    write_layout("ckplus", tmp_path / "raw", 3, seed=1)
    prepare("ckplus", tmp_path / "raw", tmp_path / "home")
    loaded = faces.load("ckplus", tmp_path / "home")
    assert loaded.landmarks.shape == (len(loaded), COUNT, 2)
    for points in loaded.landmarks:  # each frame is aligned by its own, so eyes and mouth lie near the template's
        np.testing.assert_allclose(landmarks.anchors(np.array(points)), align.TEMPLATE, atol=3.0)
    last = splits.select(protocols.load("ckplus"), loaded)
    assert len(last) == 3 * 9
    rows = splits.select(protocols.load("ckplus-sequences"), loaded)
    assert len(rows) == 9
    assert set(rows) <= set(last)
    for row in rows:
        frames, points = loaded.sequence(int(row))
        assert len(frames) == len(points) >= 6
        np.testing.assert_array_equal(frames[-1], loaded.images[row])
        own = loaded.samples[loaded.samples["sequence"] == loaded.samples["sequence"].iloc[row]]
        assert own["frame"].is_monotonic_increasing
        assert len(own) == len(frames)


def test_a_sequence_may_be_placed_as_a_whole(tmp_path):
    files = ckplus()
    # From the fourth frame on the face has moved by ten pixels to the right.
    for frame in range(4, 8):
        path = f"Landmarks/S005/001/S005_001_{frame:08d}_landmarks.txt"
        rows = [line.split() for line in str(files[path]).splitlines()]
        files[path] = "\n".join(f"   {float(x) + 10:.7e}   {float(y):.7e}" for x, y in rows)
    root = lay(tmp_path / "root", files)
    found = {}
    for how in ("frame", "sequence"):
        card = prepare("ckplus", root, tmp_path / how, options=Options(align=how))
        assert card.options == {"align": how}
        found[how] = np.array(faces.load("ckplus", tmp_path / how).landmarks, dtype=np.float64)
    np.testing.assert_allclose(found["frame"][0], found["frame"][-1], atol=1e-4)
    moved = found["sequence"][-1] - found["sequence"][0]
    assert moved[36:48, 0].min() > 1  # the motion is kept
    np.testing.assert_allclose(moved[36:48, 0], moved[36, 0], atol=1e-4)
    crops = {
        f"CK+48/anger/S010_002_0000001{f}.png": files["cohn-kanade-images/S005/001/S005_001_00000001.png"]
        for f in range(3)
    }
    with pytest.raises(UsageError, match="crops stay as they are"):
        prepare("ckplus", lay(tmp_path / "crops", crops), tmp_path / "no", options=Options(align="sequence"))


def test_damaged_landmarks_are_noticed(tmp_path):
    prepare("ckplus", lay(tmp_path / "root", ckplus()), tmp_path / "home")
    file = tmp_path / "home" / "ckplus" / "landmarks.npy"
    assert verify("ckplus", tmp_path / "home") == []
    points = np.load(file)
    points[2, 5, 0] += 1
    np.save(file, points)
    assert any("landmarks" in problem for problem in verify("ckplus", tmp_path / "home"))
    np.save(file, points[:3])
    with pytest.raises(DataError, match="damaged"):
        faces.load("ckplus", tmp_path / "home")


def test_a_set_without_landmarks_keeps_its_fingerprint(tmp_path):
    one = make_faces(people(2, ["anger"], frames=3), name="ckplus")
    lay_down(one, tmp_path)
    loaded = faces.load("ckplus", tmp_path)
    assert loaded.landmarks is None
    assert faces.fingerprint(loaded.samples) == faces.fingerprint(loaded.samples, None) == loaded.fingerprint


def test_drawn_sequences_begin_neutral_and_grow(drawn):
    loaded = faces.load("synth-sequences", drawn)
    protocol = protocols.load("synth-sequences")
    rows = splits.select(protocol, loaded)
    assert len(rows) == protocol.expected_images == 200
    apart = []
    for row in rows[:40]:
        frames, points = loaded.sequence(int(row))
        assert 8 <= len(frames) <= 12
        steps = np.abs(points - points[0]).max(axis=(1, 2))
        assert (np.diff(steps) >= -1e-4).all()  # the face only goes further from the first frame
        apart.append(steps[-1])
    assert np.mean(apart) > 1.5  # pixels
    samples = sample_set(protocol, loaded, rows[:4])
    assert [len(video.frames) for video in samples.videos] == [len(loaded.sequence(int(row))[0]) for row in rows[:4]]
    assert all(video.landmarks is not None for video in samples.videos)


@pytest.mark.parametrize(("images", "sequences"), [("ckplus", "ckplus-sequences"), ("oulu", "oulu-sequences")])
def test_sequences_are_tested_with_the_people_of_the_image_protocol(images, sequences):
    one, other = protocols.load(images), protocols.load(sequences)
    labels = list(one.classes)
    loaded = make_faces(people(12, labels, frames=5), name=images)
    for first, second in zip(splits.make(one, loaded).folds, splits.make(other, loaded).folds, strict=True):
        for part in ("train", "test"):
            of = [set(loaded.samples["subject"].iloc[getattr(split, part)]) for split in (first, second)]
            assert of[0] == of[1]
    whole = splits.make(other, loaded)
    assert sum(len(split.test) for split in whole.folds) == 12 * len(labels)
    assert any("sequences take part" in note for note in whole.notes)
