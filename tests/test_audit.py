"""The audit finds what leaks, in files as people have them."""

import pytest
from support.datasets import make_faces, people

from ferbench.errors import CheckFailed, DataError
from ferbench.protocol.leakage import audit
from ferbench.protocol.verbs import verdict

FACES = make_faces(people(4, ["anger", "happiness"]))
IDS = FACES.samples["id"].tolist()
SUBJECTS = FACES.samples["subject"].tolist()


def found(tmp_path, lines: list[str], faces=FACES) -> dict[tuple[str, str], int]:
    path = tmp_path / "folds.csv"
    path.write_text("\n".join(lines) + "\n")
    return {(f.severity, f.what): f.count for f in audit(path, faces)}


def test_a_clean_split_passes(tmp_path):
    lines = ["\ufeffid, Fold"] + [f"{i} , {s[-1]}" for i, s in zip(IDS, SUBJECTS, strict=True)]  # as Excel might
    assert found(tmp_path, lines) == {}
    verdict(audit(tmp_path / "folds.csv", FACES))


def test_image_level_folds_leak_people(tmp_path):
    lines = ["id,fold"] + [f"{name},{n % 3}" for n, name in enumerate(IDS)]
    assert found(tmp_path, lines)["leak", "subjects in training and test set"] == 4
    with pytest.raises(CheckFailed, match="must not be used"):
        verdict(audit(tmp_path / "folds.csv", FACES))


def test_never_and_twice_tested_samples_are_faults(tmp_path):
    lines = ["id,fold,role", f"{IDS[0]},1,test", f"{IDS[0]},2,test", f"{IDS[6]},1,train", f"{IDS[12]},2,train"]
    result = found(tmp_path, lines)
    assert result["fault", "samples tested more than once"] == 1
    assert result["fault", "samples never tested"] == 2
    assert result["note", "samples of the prepared dataset that the file leaves out"] == len(IDS) - 3


def test_the_same_sample_on_both_sides_leaks(tmp_path):
    lines = ["id,fold,role", f"{IDS[0]},1,test", f"{IDS[0]},1,train"]
    result = found(tmp_path, lines)
    assert result["leak", "samples in training and test set"] == 1
    assert ("leak", "test samples with the pixels of a training sample") not in result  # said once


def test_identical_pixels_across_sides_leak(tmp_path):
    images = FACES.images.copy()
    images[6] = images[0]  # another subject's image
    faces = make_faces(people(4, ["anger", "happiness"]), images)
    lines = ["id,fold"] + [f"{i},{s[-1]}" for i, s in zip(IDS, SUBJECTS, strict=True)]
    assert found(tmp_path, lines, faces)["leak", "test samples with the pixels of a training sample"] == 1


def test_unknown_ids_and_contradictions_are_faults(tmp_path):
    lines = ["ID, Fold, Subject, Label", f"{IDS[0]},1,S999,sad", "nobody,1,,"]
    lines[0] = lines[0].replace(" ", "")
    result = found(tmp_path, lines)
    assert result["fault", "ids that the prepared dataset does not have"] == 1
    assert result["fault", "subjects that contradict the prepared dataset"] == 1
    assert result["fault", "labels that contradict the prepared dataset"] == 1


def test_own_numbers_for_people_and_classes_contradict_nothing(tmp_path):
    lines = ["id,fold,subject,label"] + [f"{i},{s[-1]},{int(s[1:]) + 1},3" for i, s in zip(IDS, SUBJECTS, strict=True)]
    assert {severity for severity, _ in found(tmp_path, lines)} <= {"note"}


def test_a_split_with_an_empty_side_is_a_fault(tmp_path):
    assert found(tmp_path, ["id,fold", *(f"{name},1" for name in IDS)])["fault", "the training set is empty"] == 1


def test_one_official_split_need_not_test_everything(tmp_path):
    lines = ["id,fold,role"] + [f"{name},1,{'test' if n < 6 else 'train'}" for n, name in enumerate(IDS)]
    assert found(tmp_path, lines) == {}


def test_unknown_people_are_noted(tmp_path):
    faces = make_faces([{"label": "anger"}] * 4)
    lines = ["id,fold"] + [f"{name},{n % 2}" for n, name in enumerate(faces.samples["id"])]
    assert found(tmp_path, lines, faces) == {
        ("note", "samples of unknown subject: people may be in training and test set"): 4
    }


def test_leaks_come_first_and_name_a_few_offenders(tmp_path):
    faces = make_faces(people(9, ["anger", "happiness"]))
    lines = ["id,fold", "nobody,1"] + [f"{name},{n % 3}" for n, name in enumerate(faces.samples["id"])]
    path = tmp_path / "folds.csv"
    path.write_text("\n".join(lines))
    findings = audit(path, faces)
    assert [f.severity for f in findings] == ["leak", "leak", "leak", "fault"]
    assert findings[0].examples == ("S000", "S001", "S002", "S003", "S004")
    assert findings[0].count == 9


def test_absent_classes_are_noted(tmp_path):
    lines = ["id,fold,role"] + [f"{name},1,{'test' if n < 3 else 'train'}" for n, name in enumerate(IDS)]
    assert found(tmp_path, lines)["note", "classes absent from the test set"] == 1


@pytest.mark.parametrize(
    ("content", "words"),
    [("name,fold\na,1\n", "has no column id"), ("id,fold,role\na,1,dev\n", "another role than train and test")],
)
def test_what_is_no_fold_file_is_explained(tmp_path, content, words):
    path = tmp_path / "folds.csv"
    path.write_text(content)
    with pytest.raises(DataError, match=words):
        audit(path, FACES)
    with pytest.raises(DataError, match="does not exist"):
        audit(tmp_path / "none.csv", FACES)
