"""Folds: disjoint, exhaustive, stable; the rules; stage 1's draw."""

import io
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.datasets import CLASSES, make_faces, people, toy
from support.recognisers import training_set

from ferbench.data.faces import Faces
from ferbench.errors import DataError, UsageError
from ferbench.labels import CELEBA_ATTRIBUTES
from ferbench.protocol import protocol as room
from ferbench.protocol import rules, splits
from ferbench.protocol.rules import grouped_folds


@settings(max_examples=40, deadline=None)
@given(
    subjects=st.lists(st.integers(0, 30), min_size=16, max_size=60),
    rule=st.sampled_from(["step", "block", "random"]),
    seed=st.integers(0, 5),
)
def test_folds_share_no_subject_and_test_every_sample_once(subjects, rule, seed):
    if len(set(subjects)) < 4:
        return
    rows = [{"subject": f"S{s:03d}", "label": CLASSES[i % 3]} for i, s in enumerate(subjects)]
    faces = make_faces(rows)
    made = splits.make(toy(), faces, rule, seed)
    people_of = faces.samples["subject"].to_numpy()
    tested = np.concatenate([split.test for split in made.folds])
    assert sorted(tested) == list(range(len(rows)))
    for split in made.folds:
        assert not set(people_of[split.train]) & set(people_of[split.test])
        assert sorted([*split.train, *split.test]) == list(range(len(rows)))


@settings(max_examples=20, deadline=None)
@given(order=st.permutations(range(24)), rule=st.sampled_from(["step", "block", "random"]))
def test_the_order_of_rows_on_disk_does_not_matter(order, rule):
    rows = people(8, list(CLASSES), frames=1)
    images = make_faces(rows).images

    def folds(order: list[int]) -> str:
        faces = make_faces([rows[i] for i in order], images[order])
        return splits.to_csv(splits.make(toy(), faces, rule, seed=3).folds, faces)

    assert folds(list(order)) == folds(list(range(24)))


def test_step_takes_every_tenth_subject_and_block_takes_neighbours():
    faces = make_faces(people(8, ["anger"], frames=1))

    def tested(rule: str) -> list[list[str]]:
        return [faces.samples["subject"].iloc[split.test].tolist() for split in splits.make(toy(), faces, rule).folds]

    assert tested("step") == [["S000", "S004"], ["S001", "S005"], ["S002", "S006"], ["S003", "S007"]]
    assert tested("block") == [["S000", "S001"], ["S002", "S003"], ["S004", "S005"], ["S006", "S007"]]


def test_blocks_end_where_python_rounds():
    """FMPN's ``subjects[round(division * i) : round(division * (i + 1))]`` for 7 subjects: 1.75, 3.5, 5.25."""
    faces = make_faces(people(7, ["anger"], frames=1))
    assert [len(split.test) for split in splits.make(toy(), faces, "block").folds] == [2, 2, 1, 2]


def test_the_last_three_frames_of_each_sequence_take_part():
    faces = make_faces(people(4, ["anger"], frames=7))
    chosen = splits.select(toy(frames="last3"), faces)
    assert set(faces.samples["frame"].iloc[chosen]) == {5, 6, 7}
    assert len(chosen) == 12
    assert len(splits.select(toy(), faces)) == 28


def test_classes_outside_the_protocol_stay_outside():
    faces = make_faces(people(4, ["anger", "neutral"]))
    chosen = splits.select(toy(), faces)
    assert set(faces.samples["label"].iloc[chosen]) == {"anger"}
    assert "the set has no image of sadness" in splits.make(toy(), faces).notes


def test_a_fold_file_goes_out_and_comes_back(tmp_path):
    faces = make_faces(people(9, list(CLASSES)))
    made = splits.make(toy(), faces, "random", seed=7)
    path = tmp_path / "folds.csv"
    path.write_text(splits.to_csv(made.folds, faces))
    again = splits.make(toy(), faces, "file", folds_file=path)
    assert again.hash == made.hash
    for a, b in zip(made.folds, again.folds, strict=True):
        assert (a.train == b.train).all()
        assert (a.test == b.test).all()


def test_folds_of_a_file_keep_its_order(tmp_path):
    faces = make_faces(people(9, list(CLASSES)))
    frame = pd.read_csv(io.StringIO(splits.to_csv(splits.make(toy(), faces).folds, faces)), dtype=str)
    names = {name: str(9 + place) for place, name in enumerate(sorted(frame["fold"].unique()))}
    frame.assign(fold=frame["fold"].map(names)).to_csv(tmp_path / "folds.csv", index=False)
    made = splits.make(toy(), faces, "file", folds_file=tmp_path / "folds.csv")
    assert [fold.fold for fold in made.folds] == list(names.values())  # 9, 10, 11: not as text


def test_a_fold_file_with_one_person_on_both_sides_is_refused(tmp_path):
    faces = make_faces(people(4, ["anger"], frames=2))
    ids = faces.samples["id"].tolist()
    path = tmp_path / "folds.csv"
    path.write_text("id,fold\n" + "\n".join(f"{name},{i % 2}" for i, name in enumerate(ids)))
    with pytest.raises(DataError, match="subjects in training and test set"):
        splits.make(toy(), faces, "file", folds_file=path)


@pytest.mark.parametrize(
    ("rows", "error", "words"),
    [
        ([{"label": "anger"}] * 9, DataError, "name no subject"),
        (people(3, ["anger"]), DataError, "3 subjects cannot fill 4 folds"),
        ([{"subject": ""}, {"label": "anger", "subject": ""}], DataError, "name no subject"),
        ([{"label": "fear", "subject": "A"}] * 5, DataError, "no image of the classes"),
    ],
)
def test_what_cannot_be_split_is_explained(rows, error, words):
    with pytest.raises(error, match=words):
        splits.make(toy(), make_faces(rows))


def test_leaks_that_slip_through_are_caught_at_run_time():
    faces = make_faces(people(4, ["anger"]))
    rows = np.arange(12)
    shared = (splits.Split("01", rows[1:], rows[:1]),)
    with pytest.raises(DataError, match="fold 01 has 1 subjects in training and test set: S000"):
        rules.check_folds(shared, faces, rows)
    never = (splits.Split("01", rows[3:], rows[:3]),)
    with pytest.raises(DataError, match="9 samples are not tested exactly once"):
        rules.check_folds(never, faces, rows)


def test_official_splits_and_what_they_need():
    rows = [{"label": "anger", "split": s} for s in ("train", "train", "val", "test")]
    faces = make_faces(rows, name="fer2013")
    made = splits.make(room.load("fer2013"), faces)
    assert [(len(s.train), len(s.test)) for s in made.folds] == [(2, 1)]
    train, validation = splits.training_sets(room.load("fer2013"), faces)
    assert (train.tolist(), validation.tolist()) == ([0, 1], [2])
    assert made.notes[-1] == "4 images take part; the protocol expects 35,887"
    public = splits.make(room.load("fer2013-public"), faces)
    assert (public.folds[0].test.tolist(), public.notes[-1][:8]) == ([2], "3 images")
    with pytest.raises(DataError, match="fer2013-public"):
        splits.make(room.load("fer2013"), make_faces(rows[:3], name="fer2013"))
    with pytest.raises(
        DataError, match="needs the split 'test'.*it has train, val: choose the protocol fer2013-public"
    ):
        splits.tested(room.load("fer2013"), make_faces(rows[:3], name="fer2013"))
    with pytest.raises(DataError, match="no images of the split 'train'"):
        splits.training_sets(room.load("fer2013"), make_faces(rows[2:], name="fer2013"))


def test_an_official_split_that_shares_people_is_refused():
    rows = [{"label": "anger", "split": s, "subject": "A"} for s in ("train", "test")]
    with pytest.raises(DataError, match="fold official has 1 subjects in training and test set: A"):
        splits.make(room.load("rafdb"), make_faces(rows))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda f: splits.make(room.load("rafdb"), f, "step"), "do not apply"),
        (lambda f: splits.make(room.load("rafdb"), f, folds_file=Path("folds.csv")), "do not apply"),
        (lambda f: splits.make(toy(), f, "file"), "go together"),
        (lambda f: splits.make(toy(), f, "alphabetical"), "it is step, block, random or file"),
        (lambda f: splits.make(room.load("synth-wild"), f), "pre-training only"),
        (lambda f: splits.training_sets(toy(), f), "needs a protocol with an official split"),
    ],
)
def test_rules_that_do_not_fit_are_wrong_usage(call, words):
    with pytest.raises(UsageError, match=words):
        call(make_faces(people(4, ["anger"])))


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (["id,fold"], "has no rows"),
        (["id,fold", "S000_000_01,"], "line 2, names no fold"),
        (["id,fold", "nobody,1"], "such as nobody"),
        (["id,fold", *(f"S00{s}_000_01,1" for s in range(4))], "fold 1 trains on nothing"),
        (["id,fold,role", "S000_000_01,1,train", "S001_000_01,2,test"], "fold 1 tests nothing"),
        (["id,fold,role", "S000_000_01,1,train", "S000_000_01,1,train", "S001_000_01,1,test"], "some images twice"),
    ],
)
def test_fold_files_that_cannot_be_used_are_explained(tmp_path, lines, words):
    (tmp_path / "folds.csv").write_text("\n".join(lines) + "\n")
    faces = make_faces(people(4, ["anger"], frames=1))
    with pytest.raises(DataError, match=words):
        splits.make(toy(), faces, "file", folds_file=tmp_path / "folds.csv")


def test_a_fold_file_cannot_vouch_for_people_that_nobody_knows(tmp_path):
    faces = make_faces([{"label": "anger"}] * 4)
    (tmp_path / "folds.csv").write_text(
        "id,fold\n" + "".join(f"{name},{n % 2}\n" for n, name in enumerate(faces.samples["id"]))
    )
    with pytest.raises(DataError, match="name no subject"):
        splits.make(toy(), faces, "file", folds_file=tmp_path / "folds.csv")


def test_a_class_rarer_than_the_folds_is_no_obstacle():
    rows = people(6, ["anger", "happiness"]) + [{"id": "rare", "label": "sadness", "subject": "S000"}]
    made = splits.make(toy(), make_faces(rows), "random")
    assert sum(len(split.test) for split in made.folds) == len(rows)


def test_inner_split_holds_out_whole_people():
    faces = make_faces(people(20, list(CLASSES)))
    outer = splits.make(toy(), faces).folds[0]
    train, validation = splits.inner(outer, faces, seed=0)
    subjects = faces.samples["subject"].to_numpy()
    assert not set(subjects[train]) & set(subjects[validation])
    assert sorted([*train, *validation]) == sorted(outer.train)
    assert not set(validation) & set(outer.test)
    assert 0.05 < len(validation) / len(outer.train) < 0.15


def test_inner_split_is_stratified_where_people_are_unknown():
    rows = [{"label": CLASSES[i % 3], "split": "train"} for i in range(90)] + [{"label": "anger", "split": "test"}]
    faces = make_faces(rows)
    outer = splits.make(room.load("rafdb"), faces).folds[0]
    train, validation = splits.inner(outer, faces, seed=0)
    assert faces.samples["label"].iloc[validation].value_counts().to_dict() == dict.fromkeys(CLASSES, 3)
    assert sorted([*train, *validation]) == list(range(90))


def test_a_training_side_of_one_person_cannot_be_split_again():
    faces = make_faces(people(2, ["anger"]))
    with pytest.raises(UsageError, match="--selection last"):
        splits.inner(splits.Split("01", np.arange(3), np.arange(3, 6)), faces, seed=0)


def attributes_set(count: int, positive: float, splits_of: list[str] | None = None) -> Faces:
    rows = []
    for i in range(count):
        flags = dict.fromkeys(CELEBA_ATTRIBUTES, 0)
        flags["Eyeglasses"] = flags["Smiling"] = int(i < positive * count)
        rows.append({"split": splits_of[i % len(splits_of)] if splits_of else "", **flags})
    return make_faces(rows, np.zeros((count, 48, 48), np.uint8))


@pytest.mark.parametrize("partitions", [None, ["train", "train", "val"]])
def test_stage_1_draws_half_positive_images_and_says_when_they_are_few(partitions):
    faces = attributes_set(300, 0.3, partitions)
    drawn = splits.attribute_split(room.load_attributes("celeba"), faces, "eyes", seed=1)
    assert drawn.train_target.mean() == 0.5
    assert drawn.validation_target.mean() == 0.5
    assert not set(drawn.train) & set(drawn.validation)
    assert (faces.samples["Eyeglasses"].to_numpy()[drawn.train] == drawn.train_target).all()
    assert "too small for 30,000" in drawn.notes[0]
    if partitions:
        assert set(faces.samples["split"].iloc[drawn.train]) == {"train"}
        assert set(faces.samples["split"].iloc[drawn.validation]) == {"val"}
    other = splits.attribute_split(room.load_attributes("celeba"), faces, "eyes", seed=2)
    assert set(other.train) != set(drawn.train)


def test_few_partitioned_images_keep_ten_to_one():
    faces = attributes_set(300, 0.5, ["train", "val"])
    drawn = splits.attribute_split(room.load_attributes("celeba"), faces, "eyes", seed=0)
    assert (len(drawn.train), len(drawn.validation)) == (150, 16)


def test_a_set_without_the_attributes_is_explained():
    with pytest.raises(DataError, match="has no attribute Bushy_Eyebrows"):
        splits.attribute_split(room.load_attributes("celeba"), make_faces(people(2, ["anger"])), "eyes", 0)
    with pytest.raises(DataError, match="too few images"):
        splits.attribute_split(room.load_attributes("celeba"), attributes_set(40, 0.1), "eyes", 0)


def test_a_large_set_gives_the_paper_s_numbers():
    faces = attributes_set(36_000, 0.5)
    drawn = splits.attribute_split(room.load_attributes("celeba"), faces, "mouth", seed=0)
    assert (len(drawn.train), len(drawn.validation), drawn.notes) == (30_000, 3_000, ())


@pytest.mark.real
def test_ck48_gives_the_published_folds(real_data, tmp_path):
    """The list "10-fold, ID ascending, step 10" tests 33, 39, 40, 35, 30, 37, 29, 29, 33 and 22 sequences."""
    from ferbench.data import faces
    from ferbench.data.prepare import prepare

    prepare("ckplus", real_data / "CK+48.zip", tmp_path)
    made = splits.make(room.load("ckplus"), faces.load("ckplus", tmp_path))
    assert [len(s.test) // 3 for s in made.folds] == [33, 39, 40, 35, 30, 37, 29, 29, 33, 22]
    assert made.notes == ()
    labels = faces.load("ckplus", tmp_path).samples["label"]
    assert "fear" not in set(labels.iloc[made.folds[9].test])


def test_grouped_folds_part_people():
    samples = training_set(24)
    folds = grouped_folds(samples.labels, samples.subjects, 3, seed=1)
    assert len(folds) == 3
    assert sorted(np.concatenate([held for _, held in folds])) == list(range(24))
    for learn, held in folds:
        assert not set(samples.subjects[learn]) & set(samples.subjects[held])
    unknown = np.array([""] * 24)
    assert len(grouped_folds(samples.labels, unknown, 3, seed=1)) == 3
    assert grouped_folds(samples.labels, np.array(["P0"] * 24), 3, seed=1) == []
