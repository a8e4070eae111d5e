"""Every reader against files that the test writes in the official layout, messy as they come."""

import io

import numpy as np
import pytest
from PIL import Image
from support.sources import ckplus, lay, png, zipped

from ferbench.data import align, faces
from ferbench.data.prepare import prepare
from ferbench.data.sources import Options
from ferbench.errors import DataError, UsageError
from ferbench.labels import CELEBA_ATTRIBUTES, FER2013, OULU, RAFDB


@pytest.mark.parametrize(
    ("prefix", "labels"),
    [("", "Emotion/"), ("CK+/", "Emotion_labels/Emotion/"), ("extended-cohn-kanade-images/", "Labels/")],
)
@pytest.mark.parametrize("packed", [False, True])
def test_official_ckplus_in_any_nesting(tmp_path, prefix, labels, packed):
    root = lay(tmp_path / "root", ckplus(prefix, labels))
    (root / prefix / labels / "S005/002").mkdir()  # unlabelled sequences have empty folders
    card = prepare("ckplus", zipped(root, tmp_path / "ck.zip") if packed else root, tmp_path / "home")
    found = faces.load("ckplus", tmp_path / "home").samples
    assert found["id"].tolist() == [f"S005_001_0000000{n}" for n in range(1, 8)]
    assert set(found["label"]) == {"disgust"}
    assert found["frame"].tolist() == list(range(1, 8))
    assert (card.subjects, card.sequences, card.aligners) == (1, 1, {"landmarks": 7})


def test_ckplus_says_what_is_odd(tmp_path):
    files = ckplus()
    del files["cohn-kanade-images/S005/001/S005_001_00000006.png"]
    del files["cohn-kanade-images/S005/001/S005_001_00000007.png"]
    del files["Landmarks/S005/001/S005_001_00000005_landmarks.txt"]
    card = prepare("ckplus", lay(tmp_path / "root", files), tmp_path / "home")
    assert any("labelled at frame 7, but the last is 5" in text for text in card.deviations)
    assert "1 images have no landmark file" in card.deviations
    assert card.aligners["landmarks"] == 4
    files = {path: content for path, content in files.items() if "_emotion" not in path}
    with pytest.raises(DataError, match="no emotion files"):
        prepare("ckplus", lay(tmp_path / "other", files), tmp_path / "home")


def test_ck48_crops_keep_their_people(tmp_path):
    files = {
        f"ck/CK+48/{c}/S01{i}_002_0000001{f}.png": png(i * 10 + f)
        for i, c in enumerate(["anger", "happy"])
        for f in range(3)
    }
    card = prepare("ckplus", lay(tmp_path / "root", files), tmp_path / "home")
    found = faces.load("ckplus", tmp_path / "home")
    assert (card.subjects, card.sequences, card.classes) == (2, 2, ["anger", "happiness"])
    assert (
        found.images[0] == np.asarray(Image.open(io.BytesIO(files[f"ck/CK+48/anger/{found.samples['id'][0]}.png"])))
    ).all()


def test_ckextended_is_readable_but_has_no_people(tmp_path):
    row = " ".join(["7"] * 2304)
    path = (
        lay(tmp_path, {"ckextended.csv": f"emotion,pixels,Usage\n7,{row},Training\n6,{row},PublicTest\n"})
        / "ckextended.csv"
    )
    card = prepare("ckplus", path, tmp_path / "home")
    assert (card.subjects, card.classes) == (0, ["contempt", "neutral"])
    assert any("folds by subject are impossible" in text for text in card.deviations)


@pytest.mark.parametrize(
    "root",
    [
        "B_OriginalImg/OriginalImg/VL",
        "OriginalImg/VL",
        "B_OriginalImg/B_OriginalImg/OriginalImg/VL",
        "PreProcess_Img/VL_Acropped",
        "Preprocess Img/VL_Acropped",
    ],
)
def test_oulu_under_all_its_names(tmp_path, root):
    files = {f"{root}/Strong/P001/{e}/{f:03d}.jpeg": png(f, (64, 48), "JPEG") for e in OULU for f in range(5)}
    files |= {f"{root.replace('VL', 'NI')}/Dark/P001/Anger/{f:03d}.jpeg": png(f, kind="JPEG") for f in range(5)}
    files[f"{root}/Strong/P001/Thumbs.db"] = b"junk"
    lay(tmp_path / "root", files)
    card = prepare("oulu", tmp_path / "root", tmp_path / "home")
    found = faces.load("oulu", tmp_path / "home").samples
    assert (card.count, card.sequences, card.subjects) == (30, 6, 1)
    assert set(found["frame"]) == set(range(5))
    assert any("6 sequences found, 480 expected" in text for text in card.deviations)
    dark = prepare("oulu", tmp_path / "root", tmp_path / "home", "oulu-dark", Options("NI", "Dark"))
    assert dark.count == 5
    with pytest.raises(DataError, match="it has --camera NI --lighting Dark"):
        prepare("oulu", tmp_path / "root", tmp_path / "home", options=Options("VL", "Weak"))


def rafdb(prefix: str = "basic/") -> dict[str, bytes | str]:
    names = [f"train_{i:05d}" for i in range(1, 8)] + ["test_0001", "test_0002"]
    labels = [f"{name}.jpg {i % 7 + 1}" for i, name in enumerate(names)]
    files: dict[str, bytes | str] = {
        f"{prefix}Image/aligned/{name}_aligned.jpg": png(i, (100, 100), "JPEG") for i, name in enumerate(names)
    }
    return {**files, f"{prefix}EmoLabel/list_patition_label.txt": "\n".join(labels)}


@pytest.mark.parametrize("prefix", ["basic/", "raf-basic/", ""])
def test_official_rafdb(tmp_path, prefix):
    card = prepare("rafdb", lay(tmp_path / "root", rafdb(prefix)), tmp_path / "home")
    found = faces.load("rafdb", tmp_path / "home").samples.set_index("id")
    assert card.counts["split"] == {"test": 2, "train": 7}
    assert found["label"]["train_00001"] == "surprise"
    assert found["label"]["train_00007"] == "neutral"
    assert card.aligners == {"as-is": 9}


def test_the_other_spelling_of_rafdb_s_list_and_original_images(tmp_path):
    files = {
        p.replace("patition", "partition").replace("aligned/", "original/").replace("_aligned", ""): c
        for p, c in rafdb().items()
    }
    five = "30 40\n60 40\n45 55\n35 70\n55 70\n0\n0\n2\n"
    files |= {f"basic/Annotation/manual/train_{i:05d}_manu_attri.txt": five for i in range(1, 8)}
    card = prepare("rafdb", lay(tmp_path / "root", files), tmp_path / "home")
    assert card.aligners["landmarks"] == 7
    assert card.count == 9


def test_compound_rafdb_is_refused_and_skipped_beside_the_basic_one(tmp_path):
    compound = {
        "compound/EmoLabel/list_patition_label.txt": "train_0001.jpg 11\n",
        "compound/Image/aligned/train_0001_aligned.jpg": png(),
    }
    with pytest.raises(DataError, match="compound set"):
        prepare("rafdb", lay(tmp_path / "c", compound), tmp_path / "home")
    card = prepare("rafdb", lay(tmp_path / "both", {**rafdb(), **compound}), tmp_path / "home")
    assert card.count == 9


def test_kaggle_rafdb_checks_folders_against_its_table(tmp_path):
    files = {f"DATASET/train/{i % 7 + 1}/train_{i:05d}_aligned.jpg": png(i, (100, 100), "JPEG") for i in range(1, 8)}
    table = "image,label\n" + "\n".join(f"train_{i:05d}_aligned.jpg,{i % 7 + 1}" for i in range(1, 8))
    card = prepare("rafdb", lay(tmp_path / "a", {**files, "train_labels.csv": table}), tmp_path / "home")
    assert card.counts["class"] == dict.fromkeys(sorted(RAFDB.values(), key=card.classes.index), 1)
    wrong = table.replace("train_00001_aligned.jpg,2", "train_00001_aligned.jpg,3")
    with pytest.raises(DataError, match="lies in folder 2, but the table of labels says 3"):
        prepare("rafdb", lay(tmp_path / "b", {**files, "train_labels.csv": wrong}), tmp_path / "home")


def celeba(csv: bool = False) -> dict[str, bytes | str]:
    images = {
        f"img_align_celeba/{'img_align_celeba/' if csv else ''}{i:06d}.jpg": png(i, (178, 218), "JPEG")
        for i in (1, 2, 3)
    }
    rows = [[1 if (i + j) % 3 else -1 for j in range(40)] for i in (1, 2, 3)]
    if csv:
        lines = ["image_id;" + ";".join(CELEBA_ATTRIBUTES)]
        lines += [f"{i:06d}.jpg;" + ";".join(map(str, row)) for i, row in zip((1, 2, 3), rows, strict=True)]
        return {
            **images,
            "list_attr_celeba.csv": "\n".join(lines),
            "list_eval_partition.csv": "image_id,partition\n000001.jpg,0\n000002.jpg,1\n",
        }
    lines = ["202599", " ".join(CELEBA_ATTRIBUTES) + " "]
    lines += [f"{i:06d}.jpg " + " ".join(f"{v:2d}" for v in row) for i, row in zip((1, 2, 3), rows, strict=True)]
    marks = "3\nlefteye_x ...\n000001.jpg 69 111 108 111 88 136 72 152 105 152\n"
    return {
        **images,
        "Anno/list_attr_celeba.txt": "\r\n".join(lines) + "\r\n",
        "Anno/list_landmarks_align_celeba.txt": marks,
        "Anno/identity_CelebA.txt": "000002.jpg 2880\n",
    }


@pytest.mark.parametrize("csv", [False, True])
def test_celeba_official_and_kaggle(tmp_path, csv):
    card = prepare("celeba", lay(tmp_path / "root", celeba(csv)), tmp_path / "home")
    found = faces.load("celeba", tmp_path / "home").samples
    assert card.count == 3  # whatever the header claims
    assert found[list(CELEBA_ATTRIBUTES)].to_numpy().tolist() == [
        [int((i + j) % 3 > 0) for j in range(40)] for i in (1, 2, 3)
    ]
    if csv:
        assert found["split"].tolist() == ["train", "val", ""]
    else:
        assert card.aligners == {"landmarks": 1, "fixed-crop": 2}
        assert found["subject"].tolist() == ["", "2880", ""]


def test_celeba_at_half_scale_is_cropped_at_the_same_place(tmp_path):
    large = Image.fromarray(np.random.default_rng(0).integers(0, 256, (27, 22)).astype(np.uint8)).resize(
        (178, 218), Image.Resampling.BICUBIC
    )
    half = large.resize((89, 109), Image.Resampling.BOX)
    a, b = (
        align.aligned(image, (align.CELEBA + 0.5) * (image.width / align.CELEBA_WIDTH) - 0.5).astype(float)
        for image in (large, half)
    )
    assert np.abs(a - b).mean() < 4


@pytest.mark.parametrize("name", ["fer2013.csv", "icml_face_data.csv"])
def test_fer2013_tables(tmp_path, name):
    rng = np.random.default_rng(0)
    rows = [
        (i % 7, " ".join(map(str, rng.integers(0, 256, 2304))), u)
        for i, u in enumerate(["Training"] * 7 + ["PublicTest", "PrivateTest"])
    ]
    if name == "fer2013.csv":
        text = "emotion,pixels,Usage\n" + "\n".join(f"{e},{p},{u}" for e, p, u in rows)
    else:
        text = "emotion, Usage, pixels\n" + "\n".join(f"{e},{u},{p}" for e, p, u in rows)
    card = prepare("fer2013", lay(tmp_path / "root", {f"fer2013/{name}": text}), tmp_path / "home")
    found = faces.load("fer2013", tmp_path / "home")
    assert card.counts["split"] == {"test": 1, "train": 7, "val": 1}
    assert found.samples["label"].tolist() == [FER2013[i % 7] for i in range(9)]
    assert found.images[0].flatten().tolist() == [int(v) for v in rows[0][1].split()]
    with pytest.raises(DataError, match="has something appended"):
        prepare("fer2013", lay(tmp_path / "junk", {name: text + "\nfoo,bar,baz"}), tmp_path / "home")


def test_ferplus_votes_decide_by_majority(tmp_path):
    pixels = " ".join(["9"] * 2304)
    lay(tmp_path / "root", {"fer2013.csv": "emotion,pixels,Usage\n" + f"0,{pixels},Training\n" * 4})
    head = "Usage,Image name,neutral,happiness,surprise,sadness,anger,disgust,fear,contempt,unknown,NF"
    votes = [
        "Training,fer0.png,4,0,0,1,3,2,0,0,0,0",  # the single vote goes; 4 of 9 is no majority
        "Training,fer1.png,0,9,1,0,0,0,0,0,0,0",
        "Training,,0,0,0,0,0,0,0,0,0,10",
        "Training,fer2.png,0,0,0,0,0,0,0,8,2,0",
    ]
    path = lay(tmp_path, {"fer2013new.csv": "\n".join([head, *votes])}) / "fer2013new.csv"
    prepare("fer2013", tmp_path / "root", tmp_path / "home", "ferplus", Options(ferplus=path))
    found = faces.load("ferplus", tmp_path / "home").samples
    assert found["id"].tolist() == ["row00002", "row00004"]
    assert found["label"].tolist() == ["happiness", "contempt"]
    path.write_text("\n".join([head, votes[0]]))
    with pytest.raises(DataError, match="joined row by row"):
        prepare("fer2013", tmp_path / "root", tmp_path / "home", "x", Options(ferplus=path))


@pytest.mark.parametrize("prefix", ["", "archive/", "train/"])
def test_fer2013_folders_tell_the_split_by_name(tmp_path, prefix):
    files = {
        f"{prefix}train/angry/Training_3908.jpg": png(1, kind="JPEG"),
        f"{prefix}train/0/Training_12.jpg": png(2),
        f"{prefix}test/happy/PublicTest_7.jpg": png(3),
        f"{prefix}test/sad/PrivateTest_9.jpg": png(4),
        f"{prefix}train/fear/Training_3908.jpg": png(5),
    }
    prepare("fer2013", lay(tmp_path / "root", files), tmp_path / "home")
    found = faces.load("fer2013", tmp_path / "home").samples
    assert found["split"].tolist() == ["train", "train", "train", "val", "test"]
    assert found["id"].tolist()[:3] == ["Training_12", "Training_3908-anger", "Training_3908-fear"]
    assert found["label"].tolist() == ["anger", "anger", "fear", "happiness", "sadness"]


def test_jaffe_and_kdef_by_file_name(tmp_path):
    jaffe = {f"jaffe/KA.{code}1.39.tiff": png(i, (64, 64), "TIFF") for i, code in enumerate(["AN", "HA"])}
    card = prepare("jaffe", lay(tmp_path / "j", {**jaffe, "jaffe/README": "x"}), tmp_path / "home")
    assert (card.count, card.subjects, card.classes) == (2, 1, ["anger", "happiness"])
    kdef = {f"KDEF/{s}F01/{s}F01AF{a}.JPG": png(1, (56, 76), "JPEG") for s in "AB" for a in ("S", "HL")}
    card = prepare("kdef", lay(tmp_path / "k", kdef), tmp_path / "home")
    assert (card.count, card.subjects, card.classes) == (2, 1, ["fear"])  # both sessions are one person


def test_a_manifest_takes_anything(tmp_path):
    rows = "path,label,subject,sequence,frame,split\na/1.png,Happy,p1,p1s1,4,train\na/2.jpg,sad,p2,,,\n"
    card = prepare(
        "manifest",
        lay(tmp_path / "m", {"manifest.csv": rows, "a/1.png": png(1), "a/2.jpg": png(2)}) / "manifest.csv",
        tmp_path / "home",
        "mine",
    )
    found = faces.load("mine", tmp_path / "home").samples
    assert found["label"].tolist() == ["happiness", "sadness"]
    assert found["frame"].tolist() == [4, -1]
    assert card.name == "mine"
    for bad, words in (
        ("../x.png,sad", "leads out"),
        ("a/1.png,grumpy", "unknown emotion"),
        ("a/9.png,sad", "has no file a/9.png"),
    ):
        (tmp_path / "m" / "manifest.csv").write_text(f"path,label\n{bad}\n")
        with pytest.raises(DataError, match=words):
            prepare("manifest", tmp_path / "m" / "manifest.csv", tmp_path / "home", "bad")


def test_another_dataset_s_folder_is_named(tmp_path):
    with pytest.raises(DataError, match="looks like rafdb, not ckplus"):
        prepare("ckplus", lay(tmp_path / "root", rafdb()), tmp_path / "home")
    with pytest.raises(DataError, match="does not look like oulu"):
        prepare("oulu", lay(tmp_path / "empty", {"a.txt": "x"}), tmp_path / "home")
    with pytest.raises(UsageError, match="did you mean ckplus"):
        prepare("ckplu", tmp_path, tmp_path / "home")


@pytest.mark.real
@pytest.mark.parametrize(
    ("name", "file", "count", "subjects", "sequences"),
    [
        ("ckplus", "CK+48.zip", 981, 118, 327),
        pytest.param("fer2013", "fer2013.zip", 32_298, 0, 0, marks=pytest.mark.slow),
        pytest.param("celeba", "celeba10k.zip", 10_000, 0, 0, marks=pytest.mark.slow),
    ],
)
def test_the_real_sets_have_the_counts_of_their_papers(real_data, tmp_path, name, file, count, subjects, sequences):
    card = prepare(name, real_data / file, tmp_path)
    assert (card.count, card.subjects, card.sequences) == (count, subjects, sequences)
    if name == "ckplus":
        assert list(card.counts["class"].values()) == [135, 54, 177, 75, 207, 84, 249]
        assert card.deviations == []
    if name == "fer2013":
        assert card.counts["split"] == {"train": 28_709, "val": 3_589}
