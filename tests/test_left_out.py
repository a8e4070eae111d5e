"""No image of a source is lost in silence: endings in any case are read, and what is not used is counted."""

import io
import tarfile
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from support.sources import lay, png, zipped

from ferbench.data import faces
from ferbench.data.prepare import prepare
from ferbench.data.sources import Options
from ferbench.errors import DataError
from ferbench.labels import CELEBA_ATTRIBUTES
from ferbench.schema import Card


def annotation(code: int) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.array(str(code)))
    return buffer.getvalue()


VOTES = "(0, 0, 48, 48)"
LAYOUTS: dict[str, dict[str, bytes | str]] = {
    "ckplus": {f"CK+48/anger/S01{i}_001_0000000{f}.png": png(i * 10 + f) for i in range(2) for f in range(3)},
    "oulu": {f"OriginalImg/VL/Strong/P00{i}/Anger/00{f}.jpeg": png(i * 10 + f) for i in range(2) for f in range(3)},
    "rafdb": {
        "basic/EmoLabel/list_patition_label.txt": "train_00001.jpg 1\ntest_0001.jpg 2\n",
        "basic/Image/aligned/train_00001_aligned.jpg": png(1),
        "basic/Image/aligned/test_0001_aligned.jpg": png(2),
    },
    "celeba": {
        "list_attr_celeba.txt": f"1\n{' '.join(CELEBA_ATTRIBUTES)}\n000001.jpg {' '.join(['-1'] * 40)}\n",
        "identity_CelebA.txt": "000001.jpg 7\n",
        "img_align_celeba/000001.jpg": png(1, (178, 218)),
    },
    "fer2013": {"train/angry/Training_1.jpg": png(1), "test/happy/PrivateTest_2.jpg": png(2)},
    "ferplus": {
        "FER2013Train/label.csv": f'fer0000001.png,"{VOTES}",10,0,0,0,0,0,0,0,0,0\n',
        "FER2013Train/fer0000001.png": png(1),
    },
    "affectnet": {
        "train_set/images/1.jpg": png(1),
        "train_set/annotations/1_exp.npy": annotation(1),
        "val_set/images/2.jpg": png(2),
        "val_set/annotations/2_exp.npy": annotation(2),
    },
    "expw": {"label/label.lst": "a.jpg 0 0 0 40 40 90 3\n", "image/a.jpg": png(1)},
    "sfew": {"Train/Angry/x.png": png(1), "Val/Happy/y.png": png(2)},
    "jaffe": {"KA.AN1.39.tiff": png(1), "KL.HA2.40.tiff": png(2)},
    "kdef": {"AF01ANS.jpg": png(1), "BM02HAS.jpg": png(2)},
    "manifest": {
        "manifest.csv": "path,label,subject\na/x.png,anger,1\ny.jpg,joy,2\n",
        "a/x.png": png(1),
        "y.jpg": png(2),
    },
}


def renamed(files: dict[str, bytes | str], change) -> dict[str, bytes | str]:
    """The same files, the endings of images changed."""
    images = (".png", ".jpg", ".jpeg", ".tiff")
    return {
        f"{path.rpartition('.')[0]}.{change(path.rpartition('.')[2])}" if path.endswith(images) else path: content
        for path, content in files.items()
    }


def tarred(root: Path, out: Path) -> Path:
    with tarfile.open(out, "w:gz") as file:
        file.add(root, ".")
    return out


def left_out(card: Card) -> list[str]:
    return [note for note in card.deviations if "left out" in note]


@pytest.mark.parametrize("change", [str.upper, str.title], ids=["capitals", "one capital"])
@pytest.mark.parametrize("dataset", LAYOUTS)
def test_endings_in_capitals_are_read(tmp_path, dataset, change):
    expected = prepare(dataset, lay(tmp_path / "plain", LAYOUTS[dataset]), tmp_path / "home", every_class=False)
    assert not left_out(expected)
    root = lay(tmp_path / "root", renamed(LAYOUTS[dataset], change))
    sources = [root, zipped(root, tmp_path / "x.zip"), tarred(root, tmp_path / "x.tgz")]
    for number, source in enumerate(sources):
        card = prepare(dataset, source, tmp_path / "home", f"other{number}")
        assert card.fingerprint == expected.fingerprint or dataset == "manifest"  # whose ids are the paths
        assert (card.count, left_out(card)) == (expected.count, [])


@pytest.mark.parametrize(
    ("dataset", "more", "reason"),
    [
        ("ckplus", {"CK+48/anger/portrait.png": png(99)}, "neither their names nor their folders"),
        ("oulu", {"OriginalImg/NI/Dark/P001/Anger/000.jpeg": png(99)}, "another --camera or --lighting"),
        ("rafdb", {"basic/Image/aligned/train_00002_aligned.jpg": png(99)}, "they have no label"),
        ("rafdb", {"basic/Image/original/train_00001.JPG": png(99)}, "the aligned images"),
        ("celeba", {"img_align_celeba/000002.jpg": png(99, (178, 218))}, "no row of attributes"),
        ("fer2013", {"train/angry/4711.jpg": png(99)}, "neither their names"),
        ("ferplus", {"FER2013Train/fer0000002.png": png(99)}, "they have no votes"),
        ("affectnet", {"train_set/images/9.jpg": png(99)}, "no annotation"),
        ("expw", {"image/b.webp": png(99)}, "label.lst has no face of theirs"),
        ("sfew", {"Test/z.png": png(99)}, "test images, which have no labels"),
        ("jaffe", {"README.png": png(99)}, "neither their names"),
        ("kdef", {"AF01ANFL.JPG": png(99)}, "straight view"),
        ("manifest", {"a/unnamed.BMP": png(99)}, "the manifest does not name them"),
    ],
)
def test_images_that_are_not_used_are_counted_with_the_reason(tmp_path, dataset, more, reason):
    card = prepare(dataset, lay(tmp_path / "root", {**LAYOUTS[dataset], **more}), tmp_path / "home")
    assert card.count == len(faces.load(dataset, tmp_path / "home"))
    assert [note.partition(":")[0] for note in left_out(card)] == ["1 images are left out"]
    assert reason in left_out(card)[0]
    assert next(iter(more)) in left_out(card)[0]


def test_unlabelled_sequences_of_ckplus_are_counted(tmp_path):
    files: dict[str, bytes | str] = {"Emotion/S005/001/S005_001_00000003_emotion.txt": "   3.0000000e+00\n"}
    for sequence in ("001", "002"):
        files |= {f"images/S005/{sequence}/S005_{sequence}_0000000{f}.png": png(f, (90, 80)) for f in range(1, 4)}
    card = prepare("ckplus", lay(tmp_path / "root", files), tmp_path / "home")
    assert card.count == 3
    assert "3 images are left out: no emotion file labels their sequence" in left_out(card)[0]


def test_rows_that_labels_leave_out_are_counted_as_images_too(tmp_path):
    files = {"manifest.csv": "path,label\nx.png,0\ny.png,8\n", "x.png": png(1), "y.png": png(2)}
    card = prepare("manifest", lay(tmp_path / "r", files), tmp_path / "home", options=Options(labels="0=anger,8=-"))
    assert any(
        "1 images are left out: --labels leaves their rows out, such as y.png" in note for note in card.deviations
    )


def test_names_in_another_unicode_form_or_case_are_found(tmp_path):
    name = "Zoé.png"
    for number, (disk, table) in enumerate(
        [(unicodedata.normalize(a, name), unicodedata.normalize(b, name)) for a, b in (("NFD", "NFC"), ("NFC", "NFD"))]
        + [("ZOÉ.PNG", name)]
    ):
        root = lay(tmp_path / str(number), {f"Q/{disk}": png(1), "manifest.csv": f"path,label\nq/{table},anger\n"})
        for source in (root, root / "manifest.csv", zipped(root, tmp_path / "x.zip"), tarred(root, tmp_path / "x.tgz")):
            card = prepare("manifest", source, tmp_path / "home")
            assert (card.count, left_out(card)) == (1, [])
    both = lay(tmp_path / "both", {"A.png": png(1), "a.png": png(2), "manifest.csv": "path,label\na.PNG,anger\n"})
    with pytest.raises(DataError, match=r"has no file a\.PNG"):  # either could be meant
        prepare("manifest", both, tmp_path / "home")


def test_celeba_as_png_is_read_by_the_lists_of_the_jpeg_files(tmp_path):
    files = {
        path.replace("img_align_celeba/000001.jpg", "img_align_celeba_png/000001.png"): content
        for path, content in LAYOUTS["celeba"].items()
    }
    card = prepare("celeba", lay(tmp_path / "root", files), tmp_path / "home")
    assert (card.count, card.subjects) == (1, 1)


@pytest.mark.parametrize("dataset", ["fer2013", "manifest"])
def test_class_folders_of_unknown_names_are_refused_with_what_to_do(tmp_path, dataset):
    root = lay(tmp_path / "root", {"train/angry/0.jpg": png(1), "train/happy/0.jpg": png(2)})
    with pytest.raises(DataError, match="write a manifest.csv .* `ferbench data prepare manifest"):
        prepare(dataset, root, tmp_path / "home")


def test_a_source_without_a_usable_image_says_why(tmp_path):
    files = {**LAYOUTS["celeba"], "img_align_celeba/000001.jpg": b""}
    files["img_align_celeba/000002.jpg"] = files.pop("img_align_celeba/000001.jpg")
    with pytest.raises(DataError, match="no image of celeba.*1 images are left out: they have no row of attributes"):
        prepare("celeba", lay(tmp_path / "root", files), tmp_path / "home")
