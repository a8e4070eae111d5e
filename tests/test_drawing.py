"""Drawn faces: the same every time, true to their attributes, and in the official layouts."""

import csv
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ferbench.data import align, faces
from ferbench.data.prepare import prepare
from ferbench.data.synthetic.anatomy import EMOTION_UNITS, Person, attributes, expression, landmarks68, shape
from ferbench.data.synthetic.drawing import View, render
from ferbench.data.synthetic.layouts import LAYOUTS, write_layout
from ferbench.data.synthetic.sets import EXPRESSIONS_PER_SUBJECT, SUBJECTS, prepare_synthetic
from ferbench.errors import UsageError
from ferbench.labels import CELEBA_ATTRIBUTES, PART_ATTRIBUTES
from ferbench.seeds import generator

PLAIN = View()


def person(seed: int = 0, **fixed) -> Person:
    plain = {"brow": 1.2, "arch": 0.5, "lid": 1.6, "lips": 1.0, "glasses": False, "beard": "none", "style": "short"}
    return Person.draw(generator(seed, "person"), **{**plain, **fixed})


def drawn(who: Person, units: dict[str, float]) -> np.ndarray:
    return render(who, units, PLAIN, generator(0, "pixels"))[0].astype(int)


def changed(a: np.ndarray, b: np.ndarray) -> tuple[float, float]:
    """Share of the change in the eyes' half (above 27) and its centre's row."""
    weight = np.abs(a - b).sum(axis=1)
    assert weight.sum() > 200, "the change must be visible"
    return weight[:27].sum() / weight.sum(), (weight * np.arange(48)).sum() / weight.sum()


@pytest.mark.parametrize("change", [{"brow": 2.6}, {"arch": 2.3}, {"lid": 0.85}, {"glasses": True}])
def test_eye_attributes_show_around_the_eyes_alone(change):
    who = person()
    share, row = changed(drawn(who, {}), drawn(replace(who, **change), {}))
    assert share > 0.98
    assert 8 < row < 22
    before, after = attributes(who, {}), attributes(replace(who, **change), {})
    differing = {name for name in CELEBA_ATTRIBUTES if before[name] != after[name]}
    assert len(differing) == 1
    assert differing <= set(PART_ATTRIBUTES["eyes"])


@pytest.mark.parametrize(("change", "units"), [({"lips": 2.1}, {}), ({}, {"25": 1.0}), ({}, {"12": 1.0})])
def test_mouth_attributes_show_around_the_mouth_alone(change, units):
    who = person()
    share, row = changed(drawn(who, {}), drawn(replace(who, **change), units))
    assert share < 0.05
    assert 31 < row < 42
    before, after = attributes(who, {}), attributes(replace(who, **change), units)
    assert {n for n in CELEBA_ATTRIBUTES if before[n] != after[n]} <= set(PART_ATTRIBUTES["mouth"])
    assert before != after


def test_same_seed_same_face_and_another_seed_another():
    a, b, c = (
        render(Person.draw(generator(s, "x")), {}, View.draw(generator(s, "v"), 1), generator(s, "p"))[0]
        for s in (1, 1, 2)
    )
    assert (a == b).all()
    assert (a != c).any()


def test_the_plain_view_has_eyes_and_mouth_on_the_template():
    who = person(spread=0.0)
    points = landmarks68(shape(who, {}))
    assert points.shape == (68, 2)
    eyes_mouth = [points[36:42].mean(axis=0), points[42:48].mean(axis=0), points[[48, 54]].mean(axis=0)]
    np.testing.assert_allclose(eyes_mouth, align.TEMPLATE, atol=0.5)


def test_landmarks_lie_where_they_are_drawn_and_align_back():
    who, view = person(3), View(scale=1.1, roll=12, shift=(2, -1))
    picture, points = render(who, {}, view, generator(0, "p"), (320, 240), 0.8)
    for eye in (points[36:42], points[42:48]):
        x, y = eye.mean(axis=0).round().astype(int)
        assert picture[y - 2 : y + 3, x - 2 : x + 3].min() < 60  # the pupil
    three = np.stack([points[36:42].mean(axis=0), points[42:48].mean(axis=0), points[[48, 54]].mean(axis=0)])
    back = align.aligned(Image.fromarray(picture), three).astype(float)
    plain = drawn(replace(who, spread=0.0), {})
    assert np.corrcoef(back[10:40, 8:40].ravel(), plain[10:40, 8:40].ravel())[0, 1] > 0.8


def test_every_emotion_moves_brows_or_mouth():
    who = person()
    rest = drawn(who, {})
    for emotion in EMOTION_UNITS:
        picture = drawn(who, expression(emotion, generator(1, emotion)))
        assert (np.abs(picture - rest).sum() > 300) == (emotion != "neutral")


def test_drawn_sets_are_what_a_dataset_would_be(tmp_path):
    card = prepare_synthetic("synth", tmp_path)
    found = faces.load("synth", tmp_path).samples
    assert (card.count, card.subjects, card.sequences) == (
        SUBJECTS * EXPRESSIONS_PER_SUBJECT * 3,
        SUBJECTS,
        SUBJECTS * EXPRESSIONS_PER_SUBJECT,
    )
    assert len(card.classes) == 7
    assert "neutral" not in card.classes
    assert (found.groupby("sequence")["label"].nunique() == 1).all()
    assert (found.groupby("sequence")["subject"].nunique() == 1).all()
    assert found["sha256"].is_unique
    first = (tmp_path / "synth/images.npy").read_bytes()
    prepare_synthetic("synth", tmp_path)
    assert (tmp_path / "synth/images.npy").read_bytes() == first
    with pytest.raises(UsageError, match="no synthetic dataset"):
        prepare_synthetic("synthetic", tmp_path)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_are_read_back_with_the_same_people(tmp_path, layout):
    people = {"ckplus": 3, "oulu": 2}.get(layout, 10)
    counts = write_layout(layout, tmp_path / "raw", people, seed=1)
    card = prepare(layout, tmp_path / "raw", tmp_path / "home")
    expected = {"rafdb": 70, "celeba": 40, "fer2013": 70}.get(layout, card.count)
    assert card.count == expected
    if layout in ("ckplus", "oulu"):  # whole sequences of six to eight frames
        assert card.sequences == {"ckplus": 9, "oulu": 12}[layout]
        assert 6 * card.sequences <= card.count <= 8 * card.sequences
    assert counts["people"] == people
    if layout in ("ckplus", "oulu", "celeba"):
        assert card.subjects == people
    assert card.aligners in (
        {"landmarks": expected},
        {"as-is": expected},
        {"centre-crop": expected},
        {"mtcnn": expected},
    )
    again = write_layout(layout, tmp_path / "again", people, seed=1)
    assert again == counts
    for path in (p for p in (tmp_path / "raw").rglob("*") if p.is_file()):
        assert (tmp_path / "again" / path.relative_to(tmp_path / "raw")).read_bytes() == path.read_bytes()
    with pytest.raises(UsageError, match="not an empty folder"):
        write_layout(layout, tmp_path / "raw", 1, seed=1)


def size(path: Path) -> tuple[int, int]:
    with Image.open(path) as picture:
        return picture.size


def test_the_official_formats_to_the_letter(tmp_path):
    for layout in LAYOUTS:
        write_layout(layout, tmp_path / layout, 1, seed=0)
    ck = tmp_path / "ckplus"
    emotion = next(ck.glob("Emotion/S005/001/*_emotion.txt"))
    assert re.fullmatch(r"   [1-7]\.0000000e\+00\n", emotion.read_text())
    peak = sorted(ck.glob("cohn-kanade-images/S005/001/*.png"))[-1]
    assert emotion.name == f"{peak.stem}_emotion.txt"
    assert size(peak) == (640, 490)
    marks = (ck / f"Landmarks/S005/001/{peak.stem}_landmarks.txt").read_text().splitlines()
    assert len(marks) == 68
    assert re.fullmatch(r"\s+-?\d\.\d{7}e[+-]\d\d\s+-?\d\.\d{7}e[+-]\d\d", marks[0])
    assert size(tmp_path / "oulu/B_OriginalImg/OriginalImg/VL/Strong/P001/Anger/000.jpeg") == (320, 240)
    line = (tmp_path / "rafdb/basic/EmoLabel/list_patition_label.txt").read_text().splitlines()[0]
    assert re.fullmatch(r"(train_\d{5}|test_\d{4})\.jpg [1-7]", line)
    attr = (tmp_path / "celeba/list_attr_celeba.txt").read_text().splitlines()
    assert int(attr[0]) == len(attr) - 2
    assert tuple(attr[1].split()) == CELEBA_ATTRIBUTES
    rows = list(csv.DictReader((tmp_path / "fer2013/fer2013.csv").read_text().splitlines()))
    assert list(rows[0]) == ["emotion", "pixels", "Usage"]
    assert len(rows[0]["pixels"].split()) == 48 * 48
