"""No fold that we make splits one picture, and what an official split shares is said in plan, record and report."""

import io
import json

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from support.command import ferbench
from support.datasets import lay_down, make_faces, people, toy

from ferbench import api
from ferbench.data import content, faces
from ferbench.data.faces import Faces, linked
from ferbench.errors import DataError, UsageError
from ferbench.protocol import protocol as room
from ferbench.protocol import splits
from ferbench.protocol.leakage import audit, of_folds, overlap
from ferbench.runs.store import Store

LABELS = ["anger", "happiness"]
RULES = ["step", "block", "random"]


def images(count: int) -> np.ndarray:
    return np.random.default_rng(7).integers(0, 256, (count, 48, 48)).astype(np.uint8)


def repeated(rows: list[dict], *groups: tuple[int, ...], name: str = "toy") -> Faces:
    """A dataset in which all rows of each group have one picture."""
    pixels = images(len(rows))
    for first, *others in groups:
        pixels[others] = pixels[first]
    return make_faces(rows, pixels, name)


def fold_of(made: splits.Splits, found: Faces) -> dict[str, str]:
    """The fold that tests each subject."""
    return {subject: f.fold for f in made.folds for subject in found.samples["subject"].iloc[f.test]}


def test_rows_are_linked_through_others():
    one, other = (pd.Series(list(text)) for text in ("aabcdd", "xyyzwv"))
    assert linked(one, other).tolist() == [0, 0, 0, 3, 4, 4]


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(
    ("groups", "together"),
    [
        ([(0, 12, 42)], ["S000", "S002", "S007"]),  # one picture of three people
        ([(0, 3), (1, 9)], ["S000", "S001"]),  # of one person under two labels, and of another person
        ([(0, 6), (7, 12)], ["S000", "S001", "S002"]),  # through a second person
    ],
)
def test_people_who_share_a_picture_are_in_one_fold(rule, groups, together):
    found = repeated(people(12, LABELS), *groups)
    made = splits.make(toy(), found, rule, seed=2)
    assert len({fold_of(made, found)[subject] for subject in together}) == 1
    assert made.notes[-1] == (
        f"{len(together) - 1} subjects share a picture with another subject and are in the fold of that one, such as "
        f"{together[1]} with {together[0]}"
    )
    assert of_folds(made, found).seen == set()


@pytest.mark.parametrize("rule", RULES)
def test_a_picture_is_known_by_its_source_however_it_was_cropped(rule):
    rows = people(8, LABELS)
    for row in (rows[0], rows[12]):
        row["content"] = "0123456789abcdef"
    found = make_faces(rows, images(len(rows)))
    of = fold_of(splits.make(toy(), found, rule), found)
    assert of["S000"] == of["S002"]
    before = make_faces([{**row, "content": ""} for row in rows], found.images)
    assert of_folds(splits.make(toy(), before, rule), before).pictures == []


@pytest.mark.parametrize("rule", RULES)
def test_without_common_pictures_folds_are_as_ever(rule):
    rows = people(12, LABELS)
    within = repeated(rows, (0, 3, 5))  # one person's own copies concern nobody else
    made, plain = (splits.make(toy(), one, rule, seed=1) for one in (within, make_faces(rows, images(len(rows)))))
    assert made.hash == plain.hash
    assert made.notes == plain.notes


def test_too_few_people_are_left_when_too_many_share_pictures():
    found = repeated(people(5, LABELS), (0, 6, 12))
    with pytest.raises(
        DataError, match=r"^3 subjects \(of 5, counting those who share a picture as one\) cannot fill 4"
    ):
        splits.make(toy(), found)


def test_fold_files_that_split_a_picture_are_refused(tmp_path):
    rows = people(6, LABELS)
    plain = make_faces(rows, images(len(rows)))
    (tmp_path / "folds.csv").write_text(splits.to_csv(splits.make(toy(), plain).folds, plain))
    found = repeated(rows, (0, 8), name="ckplus")
    with pytest.raises(
        DataError, match="fold 01 tests 1 images whose picture it trains on, such as S000_000_01, which"
    ):
        splits.make(toy(), found, "file", folds_file=tmp_path / "folds.csv")
    leaks = {f.what: f for f in audit(tmp_path / "folds.csv", found) if f.severity == "leak"}
    assert set(leaks) == {"test samples with the pixels of a training sample"}
    lay_down(found, tmp_path / "data")
    words = ["--rule", "file", "--folds-file", "folds.csv", "--dry-run"]
    said = ferbench("train", "largest-class", "-d", "ckplus", *words, cwd=tmp_path, code=3).stderr
    assert "whose picture it trains on" in said


def test_audit_knows_pictures_by_their_source_and_near_copies(tmp_path):
    rows = people(4, LABELS)
    for row in (rows[0], rows[6]):
        row["content"] = "0123456789abcdef"
    pixels = images(len(rows))
    pixels[18] = saved_again(pixels[12])
    found = make_faces(rows, pixels)
    lines = [f"{row['id']},{row['subject']}" for row in rows]
    (tmp_path / "folds.csv").write_text("\n".join(["id,fold", *lines]))
    found_by = {(f.severity, f.what, f.fold): f.examples for f in audit(tmp_path / "folds.csv", found)}
    assert found_by["leak", "test samples with the pixels of a training sample", "S000"] == (rows[0]["id"],)
    assert found_by["note", "test samples that are near copies of a training sample", "S003"] == (rows[18]["id"],)


def test_audit_finds_people_in_two_spellings_and_sequences_of_several(tmp_path):
    rows = people(4, LABELS)
    for row in rows[:3]:  # a whole sequence
        row["subject"] = "s000"
    rows[6]["sequence"] = rows[12]["sequence"]
    found = make_faces(rows, images(len(rows)))
    (tmp_path / "folds.csv").write_text("\n".join(["id,fold", *(f"{row['id']},{row['subject']}" for row in rows)]))
    whats = {f.what: f.count for f in audit(tmp_path / "folds.csv", found) if f.severity == "fault"}
    assert whats == {"subjects under two spellings": 2, "names of sequences that several subjects have": 1}
    lines = [f"{row['id']},1,{row['subject'].lower()}" for row in rows[3:6]]
    (tmp_path / "folds.csv").write_text("\n".join(["id,fold,subject", *lines]))
    assert not [f for f in audit(tmp_path / "folds.csv", found) if "contradict" in f.what]


@pytest.mark.parametrize("known", [True, False])
def test_the_inner_split_does_not_split_a_picture(known):
    rows = [{**row, **({} if known else {"subject": "", "sequence": ""})} for row in people(20, LABELS)]
    pairs = [(n, (n + 66) % len(rows)) for n in range(0, 60, 7)]  # each of two people
    found = repeated(rows, *pairs)
    outer = splits.Split("01", np.arange(len(rows)), np.arange(0))
    for seed in range(5):
        train, validation = splits.inner(outer, found, seed)
        assert not set(found.pictures[train]) & set(found.pictures[validation])
        assert sorted([*train, *validation]) == list(range(len(rows)))
        assert len(validation)
    same = make_faces(rows, np.repeat(images(1), len(rows), axis=0))
    with pytest.raises(UsageError, match="--selection last"):
        splits.inner(outer, same, 0)


def saved_again(pixels: np.ndarray) -> np.ndarray:
    """The image after it was stored as JPEG."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=80)
    return np.asarray(Image.open(buffer))


def official() -> Faces:
    """A copy of FER2013 with 40 test images, of which 4 are training images and 3 near copies of one."""
    rows = [{"label": LABELS[n % 2], "split": "train" if n < 60 else "val"} for n in range(100)]
    pixels = images(100)
    pixels[60:64] = pixels[:4]
    for n in range(3):
        pixels[64 + n] = saved_again(pixels[10 + n])
    return make_faces(rows, pixels, "fer2013")


AUDIT = (
    "0 known subjects shared, 0 spelled in two ways, 100 images of unknown subject; "
    "the training set has 4 of the 40 tested images, near copies of 3 more"
)


def test_what_an_official_split_shares_is_said_everywhere(tmp_path):
    found = official()
    lay_down(found, tmp_path / "data")
    shown = json.loads(ferbench("protocol", "show", "fer2013-public", "--format", "json", cwd=tmp_path).stdout)
    assert shown["split"]["audit"] == AUDIT
    assert "checked" not in shown["split"]
    done = ferbench("train", "largest-class", "-d", "fer2013-public", "--jobs", "1", cwd=tmp_path)
    assert f"audit: {AUDIT}" in " ".join(done.stdout.split())
    (record,) = Store(tmp_path / "runs").records()
    assert record.facts["audit"] == {
        "subjects": [],
        "samples": [],
        "pictures": [f"image{n:04d}" for n in range(60, 64)],
        "near_copies": [f"image{n:04d}" for n in range(64, 67)],
        "tested": 40,
        "unknown": 100,
    }
    report = json.loads(ferbench("report", "-d", "fer2013-public", "--format", "json", cwd=tmp_path).stdout)
    (training,) = report[0]["trainings"]
    frame = Store(tmp_path / "runs").predictions(record.key)
    unseen = frame[~frame["id"].isin([f"image{n:04d}" for n in range(60, 67)])]
    assert (training["audit"], training["seen"]) == (AUDIT, 7)
    assert training["unseen_accuracy"] == (unseen["truth"] == unseen["prediction"]).mean() != training["accuracy"]
    said = ferbench("report", "-d", "fer2013-public", "--format", "markdown", cwd=tmp_path).stdout
    assert f"Audit of fer2013-public@1: {AUDIT}." in said
    assert f"{100 * training['unseen_accuracy']:.2f} of 33" in said


def test_a_dataset_without_signatures_says_that_near_copies_are_unknown(tmp_path):
    lay_down(official(), tmp_path)
    (tmp_path / "fer2013/signatures.npy").unlink()
    table = tmp_path / "fer2013/samples.csv"
    table.write_text(
        "\n".join(line.rpartition(",")[0] for line in table.read_text().splitlines())  # content is the last column
    )
    found = faces.load("fer2013", tmp_path)
    assert found.signatures is None
    said = str(of_folds(splits.make(room.load("fer2013-public"), found), found))
    assert said.endswith(
        "the training set has 4 of the 40 tested images, near copies are unknown: prepare the dataset again"
    )


def test_runs_from_python_carry_the_audit(tmp_path):
    found = make_faces(people(10, LABELS), images(60), "ckplus")
    lay_down(found, tmp_path / "data")
    evaluation = api.Judge("ours", "ckplus", tmp_path / "data")
    for fold in api.folds("ckplus", tmp_path / "data"):
        evaluation.add(fold, np.eye(len(fold.train.classes))[np.zeros(len(fold.ids), dtype=int)])
    evaluation.store(tmp_path / "runs")
    audits = [record.facts["audit"] for record in Store(tmp_path / "runs").records()]
    assert [one["subjects"] + one["pictures"] for one in audits] == [[]] * 10
    assert sum(one["tested"] for one in audits) == 60


def test_near_copies_are_those_of_the_plain_comparison():
    rng = np.random.default_rng(0)
    others = rng.integers(0, 256, (60, 32), dtype=np.uint8)
    some = others[:40].copy()
    for n in range(40):
        bits = np.unpackbits(some[n])
        bits[rng.choice(256, 3 * n, replace=False)] ^= 1
        some[n] = np.packbits(bits)
    distance = np.bitwise_count(some[:, None] ^ others).sum(axis=2).min(axis=1)
    for most in (0, 1, 5, 24, 40, 256):
        assert (content.near_copies(some, others, most) == (distance <= most)).all()
    assert not content.near_copies(some, others[:0]).any()
    assert len(content.near_copies(some[:0], others)) == 0


def test_overlap_counts_each_test_image_once():
    found = repeated(people(4, LABELS), (0, 6), (1, 7))
    shared = overlap(np.arange(6), np.array([5, 6, 7, 8]), found)
    assert (shared.subjects, shared.tested) == (["S000"], 4)
    assert (shared.samples, shared.pictures) == ([found.samples["id"][5]], list(found.samples["id"][6:8]))
    assert shared.near_copies == []


@pytest.mark.parametrize(
    "rows",
    [
        [{**row, "subject": "S1"} for row in people(4, LABELS)],  # one known person
        people(3, LABELS),
        [{**row, "content": "0123456789abcdef"} for row in people(12, LABELS)],  # all share a picture
    ],
)
def test_a_finished_model_needs_no_folds(tmp_path, rows):
    lay_down(make_faces(rows, images(len(rows)), "ckplus"), tmp_path / "data")
    ids = "\n".join(f"{row['id']},anger" for row in rows)
    (tmp_path / "theirs.csv").write_text(f"id,prediction\n{ids}\n")
    command = ["evaluate", "--predictions", "theirs.csv", "-d", "ckplus", "--name", "X", "--format", "json"]
    (done,) = json.loads(ferbench(*command, cwd=tmp_path).stdout).values()
    assert (done["images"], done["accuracy"]) == (len(rows), "50.00%")
    said = ferbench("train", "largest-class", "-d", "ckplus", cwd=tmp_path, code=3).stderr
    assert "cannot fill 10 folds" in said
