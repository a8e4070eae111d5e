"""One person has one spelling and one sequence one person, however a source writes them."""

import pytest
from support.command import ferbench
from support.datasets import lay_down, make_faces, people
from support.sources import lay, png

from ferbench.data import faces
from ferbench.data.faces import person, repeated, spellings
from ferbench.data.prepare import prepare
from ferbench.errors import DataError
from ferbench.protocol import protocol as room
from ferbench.protocol import splits


@pytest.mark.parametrize(
    "same",
    [
        ("S010", "s010", " S010 ", "S10"),
        ("10", "010", "10.0", "10.00"),
        ("Zoé", "Zoe\u0301", "ZOÉ"),
        ("P１", "p1", "P01"),
        ("1_01", "01_001"),
    ],
)
def test_spellings_of_one_person(same):
    assert len({person(name) for name in same}) == 1
    assert set(spellings(same).values()) == {min(name.strip() for name in same)}


def test_other_people_stay_other_people():
    names = ["S010", "S100", "S01", "P010", "10", "100", "1", "10.5", "0", "A", "B", ""]
    assert len({person(name) for name in names}) == len(names)
    assert spellings(names) == {}


def test_sequences_of_several_subjects():
    pairs = [("A", "1"), ("A", "1"), ("B", "1"), ("B", "2"), ("", "2"), ("C", "")]
    assert repeated(pairs) == ["1"]


def manifest(rows: list[str]) -> dict[str, bytes | str]:
    files: dict[str, bytes | str] = {f"{n}.png": png(n) for n in range(len(rows))}
    table = "\n".join(f"{n}.png,{row}" for n, row in enumerate(rows))
    return {**files, "manifest.csv": f"path,label,subject,sequence,frame\n{table}\n"}


@pytest.mark.parametrize("spelled", [("S010", "s010"), ("010", "10"), ("10", "10.0"), ("P07", "p7")])
def test_two_spellings_become_one_person_with_a_word(tmp_path, spelled):
    rows = [f"anger,{name},s{n},1" for n, name in enumerate([*spelled, "other"])]
    card = prepare("manifest", lay(tmp_path / "root", manifest(rows)), tmp_path / "home")
    subjects = faces.load("manifest", tmp_path / "home").samples["subject"].tolist()
    assert subjects == [min(spelled), min(spelled), "other"]
    assert card.subjects == 2
    assert any("1 subjects are spelled in more than one way" in note for note in card.deviations)


def test_sequence_names_that_repeat_from_person_to_person_are_told_apart(tmp_path):
    rows = [f"anger,{who},001,{frame}" for who in ("S1", "S2", "S3") for frame in range(4)]
    card = prepare("manifest", lay(tmp_path / "root", manifest(rows)), tmp_path / "home")
    loaded = faces.load("manifest", tmp_path / "home")
    assert card.sequences == 3
    assert set(loaded.samples["sequence"]) == {"S1/001", "S2/001", "S3/001"}
    assert any("1 names of sequences occur under more than one subject" in note for note in card.deviations)
    protocol = room.load("ckplus").model_copy(update={"folds": room.Folds(count=3), "dataset": "manifest"})
    assert sum(len(fold.test) for fold in splits.make(protocol, loaded).folds) == 9  # the last three frames of each


def test_spellings_are_joined_before_sequences_are_told_apart(tmp_path):
    rows = ["anger,S1,001,1", "anger,s1,001,2", "joy,S1,002,1"]
    card = prepare("manifest", lay(tmp_path / "root", manifest(rows)), tmp_path / "home")
    assert (card.subjects, card.sequences) == (1, 2)
    assert not any("names of sequences" in note for note in card.deviations)


def test_frames_without_an_order_are_counted(tmp_path):
    rows = ["anger,S1,001,1", "joy,S1,001,1", "anger,S1,002,", "anger,S1,002,"]
    card = prepare("manifest", lay(tmp_path / "root", manifest(rows)), tmp_path / "home")
    assert any(
        note.startswith("2 images of sequences have the frame number of another or none") for note in card.deviations
    )


def test_a_set_without_collisions_keeps_its_names_and_fingerprint(tmp_path):
    files = {f"CK+48/anger/S01{i}_001_0000000{f}.png": png(i * 10 + f) for i in range(3) for f in range(3)}
    card = prepare("ckplus", lay(tmp_path / "root", files), tmp_path / "home")
    loaded = faces.load("ckplus", tmp_path / "home")
    assert loaded.samples["sequence"].unique().tolist() == ["S010_001", "S011_001", "S012_001"]
    assert card.fingerprint == faces.fingerprint(loaded.samples)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda n, row: {**row, "subject": row["subject"].lower() if n % 2 else row["subject"]},
            "'S000' and as 's000'",
        ),
        (lambda n, row: {**row, "sequence": row["sequence"][5:]}, "several subjects under one name, such as '000'"),
    ],
)
def test_a_set_that_was_prepared_before_is_refused(tmp_path, change, words):
    rows = [change(n, row) for n, row in enumerate(people(12, ["anger", "happiness"]))]
    found = make_faces(rows, name="ckplus")
    with pytest.raises(DataError, match=f"{words}: prepare it again"):
        splits.make(room.load("ckplus"), found)
    lay_down(found, tmp_path / "data")
    for words_ in (
        ["train", "hog-svm", "-d", "ckplus", "--dry-run"],
        ["protocol", "export", "ckplus", "--out", "f.csv"],
    ):
        assert "prepare it again" in ferbench(*words_, cwd=tmp_path, code=3).stderr
