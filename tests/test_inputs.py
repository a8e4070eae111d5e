"""Files as people have them: foreign rows, pictures on their side, layouts under other names, packed sources, streams that
cannot show a character. Each is written as it lies on disk and read by `prepare` or the real entry point."""

import bz2
import gzip
import io
import json
import lzma
import os
import struct
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support import forked
from support.datasets import lay_down, make_faces
from support.sources import lay, npy, png

from ferbench import tables
from ferbench.cli import output
from ferbench.data import align, faces, packed
from ferbench.data.prepare import prepare
from ferbench.data.samples import decode
from ferbench.data.sources import Options
from ferbench.errors import DataError, UsageError
from ferbench.labels import CELEBA_ATTRIBUTES, FERPLUS
from ferbench.protocol import protocol as protocols
from ferbench.protocol import splits

FER_NAMES = ("train", "val", "test")


def pixels(seed: int = 0) -> str:
    return " ".join(map(str, np.random.default_rng(seed).integers(0, 256, 2304)))


def fer(usages: list[str], head: str = "emotion,pixels,Usage") -> str:
    return (
        head + "\n" + "\n".join(f"{n % 7},{pixels(n)}{',' + usage if usage else ''}" for n, usage in enumerate(usages))
    )


FER = fer(["Training"] * 7 + ["PublicTest", "PrivateTest"])


def ferbench(*words: str, cwd: Path, encoding: str = "", **more: str) -> subprocess.CompletedProcess[str]:
    given = {**os.environ, **more} | ({"PYTHONIOENCODING": encoding} if encoding else {})
    return forked.run(*words, cwd=cwd, environment=given)


# Tables


MANIFEST = "path,label,subject\na.png,happy,p1\n"


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("a.png,sad", r"manifest.csv, line 3: 2 cells, but the header names 3 columns"),
        ("a.png,sad,p1,p2", r"line 3: 4 cells"),
        ("\n\na.png", r"line 5: 1 cells"),
        ("Here ends the file. It was exported by hand.", r"line 3: 1 cells.*Here ends"),
        ('a.png,"sad,p1\nb.png,sad,p2\n', r"line 3: a quote that is not closed"),
        ('a.png,sad,"p1\nb.png,sad,p2"\n', r"line 3: a quoted cell runs on to line 4"),
        ('a.png,"sad"x,p1', r"line 3: a quote"),
        ("a.png,sad,=cmd|' /C calc'!A0", r"line 3: .* is a spreadsheet's formula"),
        ("a.png,sad,#REF!", r"line 3: '#REF!' is a spreadsheet's formula"),
        ("a.png,sad\0,p1", r"line 3: a NUL byte"),
        ("a.png,grumpy,p1", r"line 3: unknown emotion 'grumpy'"),
        ("a.png,3,p1", r"line 3: the label 3 is a number: say what each means"),
        ("../a.png,sad,p1", r"line 3: .* leads out of the folder"),
        ("C:\\a.png,sad,p1", r"line 3: .* leads out of the folder"),
    ],
)
def test_a_foreign_row_is_named_with_file_and_line(tmp_path, row, words):
    lay(tmp_path, {"manifest.csv": MANIFEST + row, "a.png": png()})
    with pytest.raises(DataError, match=words) as caught:
        prepare("manifest", tmp_path / "manifest.csv", tmp_path / "home")
    assert "\n" not in output.one_line(str(caught.value))


@pytest.mark.parametrize(
    "content",
    [
        b"\xef\xbb\xbf" + MANIFEST.encode(),
        MANIFEST.encode("utf-16"),
        MANIFEST.encode("utf-32"),
        MANIFEST.replace("\n", "\r\n").encode(),
        MANIFEST.replace("\n", "\r").encode(),
        MANIFEST.replace(",", ";").encode(),
        MANIFEST.replace(",", "\t").encode(),
        ("sep=;\n" + MANIFEST.replace(",", ";")).encode(),
        b"\n" + MANIFEST.replace("path,label", '"Path", "LABEL"').encode(),
        b"path,label,subject,,\na.png,happy,p1,,\n,,,,\n",
    ],
)
def test_tables_of_any_program_say_the_same(tmp_path, content):
    lay(tmp_path, {"manifest.csv": content, "a.png": png()})
    prepare("manifest", tmp_path / "manifest.csv", tmp_path / "home")
    found = faces.load("manifest", tmp_path / "home").samples
    assert found[["id", "label", "subject"]].values.tolist() == [["a.png", "happiness", "p1"]]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"\n\n", "is empty"),
        (b"\xff\xfea", "is not whole UTF-16"),
        ("päth,label".encode("latin-1"), "no column path"),
        ("path,label".encode("utf-16-le"), "a NUL byte"),
        (b"path,label,label\n", "column 'label' is there twice"),
        (b"\x1f\x8b\x08\x00", "no text file but a gzip file"),
        (b"path,label\n", "no image of manifest was found"),
    ],
)
def test_what_is_no_table_is_refused(tmp_path, content, words):
    lay(tmp_path / "m", {"manifest.csv": content, "x.txt": "x"})
    with pytest.raises(DataError, match=words):
        prepare("manifest", tmp_path / "m", tmp_path / "home")


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("7," + pixels() + ",Training", "line 11: emotion 7 .contempt. is not of FER2013 but of ckextended.csv"),
        ("3.5," + pixels() + ",Training", "line 11: the emotion '3.5' is not of FER2013"),
        ("3," + pixels() + ",Testing", "line 11: Usage 'Testing' is not one of"),
        ("This copy was made by me", "line 11: 1 cells, but the header names 3 columns"),
        ("3,1 2 x,Training", "line 11 has pixel values that are no whole numbers"),
        ("3,99999999999999999999 1,Training", "line 11 has pixel values that are no whole numbers"),
        ("3,,Training", "line 11 has 0 pixel values"),
        ("3,1 2 3,Training", "line 11 has 3 pixel values"),
    ],
)
def test_text_after_fer2013_s_rows(tmp_path, row, words):
    lay(tmp_path, {"fer2013.csv": FER + "\n" + row + "\n"})
    with pytest.raises(DataError, match=words):
        prepare("fer2013", tmp_path / "fer2013.csv", tmp_path / "home")
    if row.startswith("This"):
        done = ferbench("data", "prepare", "fer2013", "fer2013.csv", "--data-home", "home", cwd=tmp_path)
        assert (done.returncode, len(done.stderr.splitlines())) == (3, 1)


def test_the_tables_beside_images_are_read_as_strictly(tmp_path):
    lay(
        tmp_path / "raf",
        {
            "EmoLabel/list_patition_label.txt": "train_00001.jpg 5\ntrain_00002.jpg\n",
            "Image/aligned/train_00001_aligned.jpg": png(),
        },
    )
    with pytest.raises(DataError, match=r"list_patition_label.txt, line 2: 'train_00002.jpg' should be like"):
        prepare("rafdb", tmp_path / "raf", tmp_path / "home")
    kaggle = {
        "DATASET/train/5/train_00001_aligned.jpg": png(),
        "train_labels.csv": "image,label\ntrain_00001_aligned.jpg,²\n",
    }
    with pytest.raises(DataError, match=r"train_labels.csv, line 2: '²' is no label"):
        prepare("rafdb", lay(tmp_path / "k", kaggle), tmp_path / "home")
    votes = lay(
        tmp_path,
        {"fer2013new.csv": "Usage,Image name," + ",".join(FERPLUS) + ",unknown,NF\nTraining,a,1,2,x,0,0,0,0,0,0,0\n"},
    )
    with pytest.raises(DataError, match=r"fer2013new.csv, line 2: .* should be 10 numbers of votes"):
        prepare(
            "fer2013",
            lay(tmp_path / "f", {"fer2013.csv": FER}),
            tmp_path / "home",
            options=Options(ferplus=votes / "fer2013new.csv"),
        )
    folds = lay(tmp_path, {"folds.csv": "id,fold\na,1\nb\n"}) / "folds.csv"
    with pytest.raises(DataError, match=r"folds.csv, line 3: 1 cells"):
        splits.read_csv(folds)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        (
            "list_eval_partition.txt",
            "000001.jpg 0\n000002.jpg\n",
            "line 2: '000002.jpg' should be an image and 1 whole",
        ),
        ("list_eval_partition.csv", "image_id,partition\n000001.jpg,7\n", "line 2: 7 is none of the values"),
        ("list_landmarks_align_celeba.txt", "1\nlefteye_x\n000001.jpg 1 2 3\n", "line 3: .* an image and 10 whole"),
        ("identity_CelebA.txt", "000001.jpg x\n", "line 1: "),
    ],
)
def test_celeba_s_other_tables(tmp_path, name, content, words):
    head = " ".join(CELEBA_ATTRIBUTES)
    files = {
        "list_attr_celeba.txt": f"1\n{head}\n000001.jpg{' -1' * 40}\n",
        "img_align_celeba/000001.jpg": png(0, (178, 218)),
        name: content,
    }
    with pytest.raises(DataError, match=f"{name}, {words}"):
        prepare("celeba", lay(tmp_path / "c", files), tmp_path / "home")


def test_numbers_are_whole_numbers():
    assert [tables.whole(text) for text in ("3", " 3.0", "-1", "²", "--1", "1e3", "", "9" * 5000)] == [
        3,
        3,
        -1,
        None,
        None,
        None,
        None,
        None,
    ]


# Pictures


def on_its_side() -> tuple[bytes, bytes]:
    """The same picture twice: upright, and as a camera held on its side stores it."""
    pixels = np.zeros((60, 40), dtype=np.uint8)
    pixels[:20] = 255
    stored, upright, exif = io.BytesIO(), io.BytesIO(), Image.Exif()
    exif[0x0112] = 6  # to be turned by 90° clockwise
    Image.fromarray(np.rot90(pixels)).save(stored, "JPEG", exif=exif, quality=100)
    Image.fromarray(pixels).save(upright, "JPEG", quality=100)
    return stored.getvalue(), upright.getvalue()


def test_pictures_are_turned_upright(tmp_path):
    stored, upright = on_its_side()
    assert decode(stored, "x").size == (40, 60)
    for name, content in (("a", stored), ("b", upright)):
        prepare(
            "manifest",
            lay(tmp_path / name, {"manifest.csv": "path,label\nx.jpg,sad\n", "x.jpg": content}),
            tmp_path / "home",
            name,
        )
    a, b = (faces.load(name, tmp_path / "home").images[0].astype(int) for name in "ab")
    assert a[:14].min() > 200 > 50 > a[20:].max()
    assert np.abs(a - b).max() < 12


def test_damaged_exif_does_not_cost_the_picture(tmp_path):
    content = bytearray(on_its_side()[0])
    place = content.index(b"Exif\0\0") + 6
    content[place + 4 : place + 8] = struct.pack(">I", 0xFFFFFFF0)  # the directory lies nowhere
    assert decode(bytes(content), "x").size in ((60, 40), (40, 60))


def test_predict_sees_pictures_upright(tmp_path):
    from ferbench.inference import predict
    from ferbench.inference.models import open_model

    stored, upright = on_its_side()
    lay(tmp_path, {"a.jpg": stored, "b.jpg": upright})
    found = predict.predict(
        [tmp_path / "a.jpg", tmp_path / "b.jpg"], [open_model("", "tiny", None)], True, tmp_path / "drawn"
    )
    a, b = (max(one.faces[0].probabilities.values()) for one in found)
    assert a == pytest.approx(b, abs=0.02)
    for name in ("a.png", "b.png"):
        with Image.open(tmp_path / "drawn" / name) as drawn:
            assert drawn.height > drawn.width


def test_what_is_no_photograph_is_not_opened():
    for content in (
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
        b"\0\0\0\x18ftypheic" + bytes(40),
        b"",
        b"GIF89a",
    ):
        with pytest.raises(DataError, match=r"x is not a readable image"):
            decode(content, "x")


def test_empty_images_are_counted(tmp_path):
    files = {"manifest.csv": "path,label\na.png,sad\nb.png,sad\nc.png,sad\n", "a.png": png()}
    for name, value in (("b.png", 0), ("c.png", 90)):
        buffer = io.BytesIO()
        Image.new("L", (48, 48), value).save(buffer, "PNG")
        files[name] = buffer.getvalue()
    card = prepare("manifest", lay(tmp_path / "m", files), tmp_path / "home")
    assert "2 images are of one grey value all over, such as b.png: they show nothing" in card.deviations


# Layouts by content


@pytest.mark.parametrize("name", ["faces.csv", "FER2013.CSV", "icml_face_data (1).csv"])
def test_fer2013_under_any_name(tmp_path, name):
    card = prepare("fer2013", lay(tmp_path / "x", {name: FER}) / name, tmp_path / "home")
    assert card.counts["split"] == {"test": 1, "train": 7, "val": 1}
    with pytest.raises(DataError, match="looks like fer2013, not rafdb"):
        prepare("rafdb", tmp_path / "x", tmp_path / "home")


def test_kaggle_s_challenge(tmp_path):
    train = fer([""] * 7, "emotion,pixels")
    card = prepare(
        "fer2013", lay(tmp_path / "x", {"train.csv": train, "test.csv": f"pixels\n{pixels()}\n"}), tmp_path / "home"
    )
    assert card.counts["split"] == {"train": 7}
    assert "train.csv has no column Usage: its 7 rows were taken as the split train" in card.deviations
    assert "test.csv has pixels but no labels and is left out" in card.deviations
    with pytest.raises(DataError, match=r"test.csv has pixels but no labels.*icml_face_data.csv of it has"):
        prepare("fer2013", tmp_path / "x" / "test.csv", tmp_path / "home")
    lay(tmp_path / "x", {"icml_face_data.csv": FER})
    assert prepare("fer2013", tmp_path / "x", tmp_path / "home").count == 9


def test_a_table_for_each_side(tmp_path):
    side = fer([""] * 7, "emotion,pixels")
    card = prepare("fer2013", lay(tmp_path / "x", {f"fer_{name}.csv": side for name in FER_NAMES}), tmp_path / "home")
    assert card.counts["split"] == {"test": 7, "train": 7, "val": 7}
    assert faces.load("fer2013", tmp_path / "home").samples["id"].iloc[0] == "train-row00001"
    with pytest.raises(DataError, match="several tables with emotion and pixels"):
        prepare("fer2013", lay(tmp_path / "y", {"a.csv": side, "b.csv": side}), tmp_path / "home")
    with pytest.raises(DataError, match="several tables with emotion, pixels and Usage"):
        prepare("fer2013", lay(tmp_path / "z", {"a.csv": FER, "b.csv": FER}), tmp_path / "home")


def parquet_of(path: Path, images: list, labels: list, names: list[str] | None = None, column: str = "image") -> Path:
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as writing

    told = {"info": {"features": {"label": {"names": names}}}}
    table = pa.table({column: images, "label": labels})
    path.parent.mkdir(parents=True, exist_ok=True)
    writing.write_table(table.replace_schema_metadata({"huggingface": json.dumps(told)}) if names else table, path)
    return path


@pytest.mark.parametrize("struct", [True, False])
def test_parquet_of_images_and_labels(tmp_path, struct):
    images = [{"bytes": png(n), "path": f"{n}.png"} if struct else png(n) for n in range(150)]
    parquet_of(tmp_path / "x/data/train-00000-of-00001.parquet", images, [n % 7 for n in range(150)])
    parquet_of(tmp_path / "x/data/test-00000-of-00001.parquet", images[:7], list(range(7)))
    card = prepare("fer2013", tmp_path / "x", tmp_path / "home")
    found = faces.load("fer2013", tmp_path / "home")
    assert card.counts["split"] == {"test": 7, "train": 150}
    row = found.samples.index[found.samples["id"] == "train-00140"][0]
    assert np.array_equal(found.images[row], np.asarray(Image.open(io.BytesIO(png(139)))))
    assert any("taken as FER2013's own numbers" in note for note in card.deviations)
    assert any("rows were taken as the split test, by its name" in note for note in card.deviations)


def test_parquet_with_its_own_names_of_labels(tmp_path):
    path = parquet_of(
        tmp_path / "x.parquet",
        [png(n) for n in range(7)],
        list(range(7)),
        ["sad", "angry", "disgust", "fear", "happy", "surprise", "neutral"],
    )
    card = prepare("fer2013", path, tmp_path / "home")
    assert faces.load("fer2013", tmp_path / "home").samples["label"].iloc[0] == "sadness"
    assert [note for note in card.deviations if "neither its name nor a column tells a split" in note]


def test_parquet_that_cannot_be_read(tmp_path):
    good = parquet_of(tmp_path / "x.parquet", [png(0)], [3]).read_bytes()
    for content, words in (
        (b"PAR1nothingPAR1", "no whole Parquet file"),
        (good[:-20], "no whole Parquet file"),
        (parquet_of(tmp_path / "y.parquet", [5], [3]).read_bytes(), "not the bytes of images"),
        (parquet_of(tmp_path / "y.parquet", [png()], [3], column="face").read_bytes(), "needs a column of images"),
        (parquet_of(tmp_path / "y.parquet", [png()], [9]).read_bytes(), "row 1: the emotion '9' is not of FER2013"),
        (parquet_of(tmp_path / "y.parquet", [b"x"], [3]).read_bytes(), "row 1 is not a readable image"),
        (
            parquet_of(tmp_path / "y.parquet", [{"bytes": None, "path": "/etc/passwd"}], [3]).read_bytes(),
            "no image bytes",
        ),
    ):
        (tmp_path / "x.parquet").write_bytes(content)
        with pytest.raises(DataError, match=words):
            prepare("fer2013", tmp_path / "x.parquet", tmp_path / "home", every_class=False)


def test_parquet_without_its_reader(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UsageError, match=r"pip install 'ferbench\[parquet\]'"):
        prepare("fer2013", lay(tmp_path, {"x.parquet": b"PAR1"}) / "x.parquet", tmp_path / "home")


# Packed sources


def tarred(root: Path, out: Path, mode: str = "w") -> Path:
    with tarfile.open(out, mode) as file:
        for path in sorted(root.rglob("*")):
            file.add(path, path.relative_to(root), recursive=False)
    return out


@pytest.mark.parametrize(
    ("mode", "name"),
    [
        ("w", "x.tar"),
        ("w:gz", "fer2013.tar.gz"),
        ("w:bz2", "x.tbz2"),
        ("w:xz", "x.tar.xz"),
        ("w:gz", "fer2013.csv"),
        ("w", "noending"),
    ],
)
def test_tar_archives_are_read_in_place(tmp_path, mode, name):
    path = tarred(lay(tmp_path / "x", {"fer2013/fer2013.csv": FER, "fer2013/README": "x"}), tmp_path / name, mode)
    before = sorted(tmp_path.rglob("*"))
    assert prepare("fer2013", path, tmp_path / "home").count == 9
    assert [p for p in sorted(tmp_path.rglob("*")) if "home" not in p.parts] == before


@pytest.mark.parametrize("name", ["../x.csv", "/etc/x.csv", "a/../../x.csv", "..\\x.csv", "C:\\x.csv"])
def test_tar_entries_that_climb_out_are_refused(tmp_path, name):
    with tarfile.open(tmp_path / "x.tar", "w") as file:
        file.addfile(tarfile.TarInfo(name), io.BytesIO())
    with pytest.raises(DataError, match="leads out of the archive"):
        prepare("fer2013", tmp_path / "x.tar", tmp_path / "home")


def test_links_and_devices_of_a_tar_are_not_there(tmp_path):
    with tarfile.open(tmp_path / "x.tar", "w") as file:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE, tarfile.GNUTYPE_SPARSE):
            entry = tarfile.TarInfo(f"fer{kind.decode()}.csv")
            entry.type, entry.linkname = kind, "/etc/passwd"
            if kind != tarfile.GNUTYPE_SPARSE:
                file.addfile(entry)
    with packed.opened(tmp_path / "x.tar") as tree:
        assert tree.paths == []


def test_damaged_tars_are_one_line(tmp_path):
    whole = tarred(lay(tmp_path / "x", {"fer2013.csv": FER, "z.txt": "z" * 2000}), tmp_path / "x.tar").read_bytes()
    packed_whole = gzip.compress(whole)
    header = bytearray(whole)
    header[header.index(b"z.txt") + 20] ^= 1
    for name, content in (
        ("cut.tar", whole[: whole.index(b"z.txt") + 900]),
        ("cut.tgz", packed_whole[: len(packed_whole) // 2]),
        ("flipped.tgz", packed_whole[:4000] + bytes(500) + packed_whole[4500:]),
        ("header.tar", bytes(header)),
        ("cut.tar.xz", lzma.compress(whole)[:-300]),
        ("cut.tar.bz2", bz2.compress(whole)[:-300]),
        ("no.tar.gz", gzip.compress(b"only text")),
        ("empty.tar", b""),
        ("bomb.tar.gz", gzip.compress(bytes(40 << 20))),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match=name):
            prepare("fer2013", tmp_path / name, tmp_path / "home")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"7z\xbc\xaf\x27\x1c" + bytes(600), "is a 7z archive, which ferbench does not read: unpack it"),
        (b"Rar!\x1a\x07\x00" + bytes(600), "is a rar archive"),
        (b"\x28\xb5\x2f\xfd" + bytes(60), "is a zstd archive"),
    ],
)
def test_other_archives_are_to_be_unpacked(tmp_path, content, words):
    for name in ("x.7z", "x.csv", "x.zip"):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match=words):
            prepare("fer2013", tmp_path / name, tmp_path / "home")


def zip_of(files: dict[str, bytes | str], kind: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", kind) as file:
        for path, content in files.items():
            file.writestr(path, content)
    return buffer.getvalue()


def test_an_excel_workbook_is_named(tmp_path):
    (tmp_path / "manifest.csv").write_bytes(zip_of({"[Content_Types].xml": "x", "xl/workbook.xml": "x"}))
    with pytest.raises(DataError, match="an Excel workbook"):
        prepare("manifest", tmp_path / "manifest.csv", tmp_path / "home")


RAF = {
    "basic/EmoLabel/list_patition_label.txt": "train_00001.jpg 5\n",
    "basic/Image/aligned.zip": zip_of({"aligned/train_00001_aligned.jpg": png(3)}),
}


@pytest.mark.parametrize("how", ["folder", "zip", "tar", "tar.gz"])
def test_archives_inside_are_read(tmp_path, how):
    source = lay(tmp_path / "x", RAF)
    if how == "zip":
        (tmp_path / "x.zip").write_bytes(zip_of(RAF))
        source = tmp_path / "x.zip"
    elif how != "folder":
        source = tarred(source, tmp_path / f"x.{how}", "w:gz" if how.endswith("gz") else "w")
    card = prepare("rafdb", source, tmp_path / "home")
    assert card.count == 1
    assert "read from archives inside of the source as well: basic/Image/aligned.zip" in card.deviations


def test_archives_inside_stay_shut_where_they_are_not_needed_or_do_not_help(tmp_path):
    files = {**RAF, "basic/Image/aligned/train_00001_aligned.jpg": png(3)}
    assert not any(
        "inside" in note for note in prepare("rafdb", lay(tmp_path / "x", files), tmp_path / "home").deviations
    )
    deep = {"a.zip": zip_of({"b.zip": zip_of({"fer2013.csv": FER})})}
    with pytest.raises(DataError, match=r"does not look like fer2013.*it holds a.zip, where that is not either"):
        prepare("fer2013", lay(tmp_path / "deep", deep), tmp_path / "home")
    bomb = {"a.zip": zip_of({"fer2013.csv": bytes(30 << 20)})}
    with pytest.raises(DataError, match=r"does not look like fer2013"):
        prepare("fer2013", lay(tmp_path / "bomb", bomb), tmp_path / "home")


def test_a_tar_that_ends_with_a_zip_is_a_tar(tmp_path):
    path = tarred(lay(tmp_path / "x", {"fer2013.csv": FER, "z.zip": zip_of({"a": "b"})}), tmp_path / "x.tar")
    assert prepare("fer2013", path, tmp_path / "home").count == 9


def test_names_that_are_not_utf8(tmp_path):
    folder = os.fsencode(tmp_path / "x" / "CK+48" / "anger")
    os.makedirs(folder)
    Path(os.fsdecode(folder + b"/S010_004_00000017.png")).write_bytes(png())
    try:
        Path(os.fsdecode(folder + b"/caf\xe9.txt")).write_bytes(b"x")
    except OSError:
        pytest.skip("this file system takes UTF-8 only")
    manifest = b"path,label\nCK+48/anger/S010_004_00000017.png,sad\n"
    (tmp_path / "x" / "manifest.csv").write_bytes(manifest)
    assert prepare("manifest", tmp_path / "x", tmp_path / "home").count == 1
    with packed.opened(tmp_path / "x") as tree:
        odd = next(path for path in tree.paths if path.endswith("txt"))
        assert (odd, tree.read(odd)) == ("CK+48/anger/caf\\xe9.txt", b"x")


# Datasets by names and columns


def test_numbers_as_labels(tmp_path):
    rows = "path,label\na.png,0\nb.png,1.0\nc.png,8\n"
    lay(tmp_path / "m", {"manifest.csv": rows, **{f"{name}.png": png(n) for n, name in enumerate("abc")}})
    done = ferbench(
        "data", "prepare", "manifest", "m", "--labels", "0=neutral, 1=happy,8=-", "--data-home", "home", cwd=tmp_path
    )
    assert "note: 1 rows are left out by --labels" in done.stdout, done.stderr
    assert faces.load("manifest", tmp_path / "home").samples["label"].tolist() == ["neutral", "happiness"]
    for labels, words in (
        ("0", "should be like 0=neutral"),
        ("0=grumpy", "unknown emotion"),
        ("0=sad,0.0=fear", "says twice"),
    ):
        with pytest.raises(UsageError, match=words):
            prepare("manifest", tmp_path / "m", tmp_path / "home", options=Options(labels=labels))
    assert ferbench("data", "prepare", "ckplus", "m", "--labels", "0=sad", cwd=tmp_path).returncode == 2


def test_affectnet_of_2021(tmp_path):
    files = {}
    for number, code in enumerate(["0", "7", "10", "3"]):
        side = "val" if number == 3 else "train"
        files |= {
            f"{side}_set/images/{number}.jpg": png(number, (224, 224), "JPEG"),
            f"{side}_set/annotations/{number}_exp.npy": npy(np.array(code)),
        }
    card = prepare("affectnet", lay(tmp_path / "x", files), tmp_path / "home")
    found = faces.load("affectnet", tmp_path / "home").samples
    assert found[["id", "label", "split"]].values.tolist() == [
        ["train-0", "neutral", "train"],
        ["train-1", "contempt", "train"],
        ["val-3", "surprise", "val"],
    ]
    assert (
        "1 images are left out: annotated as 'no face', which is no emotion, such as train_set/images/2.jpg"
        in card.deviations
    )
    assert len(splits.make(protocols.load("affectnet"), faces.load("affectnet", tmp_path / "home")).folds[0].test) == 1
    for content in (
        npy(np.array({"a": 1}, dtype=object), allow_pickle=True),
        b"",
        b"\x93NUMPY\x01\x00\xff\xff",
        npy(np.zeros(5)),
        npy(np.array("x")),
        npy(np.array(11)),
        npy(np.array(3))[:-8],
        b"\x93NUMPY" + bytes(5000),
    ):
        lay(tmp_path / "x", {"train_set/annotations/0_exp.npy": content})
        with pytest.raises(DataError, match="0_exp.npy"):
            prepare("affectnet", tmp_path / "x", tmp_path / "home")


def test_affectnet_of_2017(tmp_path):
    points = np.tile([60.0, 60.0], (68, 1))
    points[36:42], points[42:48], points[[48, 54]] = (40, 40), (80, 40), (60, 90)
    marks = ";".join(f"{value:.2f}" for value in points.flatten())
    head = "subDirectory_filePath,face_x,face_y,face_width,face_height,facial_landmarks,expression,valence,arousal"
    files = {
        "Manually_Annotated_file_lists/training.csv": f"{head}\n689/aa.jpg,10,10,100,100,{marks},1,0.7,-0.01\n12/bb.jpg,1,1,9,9,{marks},9,-2,-2\n",
        "Manually_Annotated_file_lists/validation.csv": f"689/cc.jpg,10,10,100,100,{marks},6,0.7,-0.01\n",  # no header in some copies
    }
    files |= {
        f"Manually_Annotated_Images/{name}.jpg": png(n, (120, 120), "JPEG")
        for n, name in enumerate(["689/aa", "12/bb", "689/cc"])
    }
    card = prepare("affectnet", lay(tmp_path / "x", files), tmp_path / "home")
    found = faces.load("affectnet", tmp_path / "home").samples
    assert found[["id", "label", "split", "aligner"]].values.tolist() == [
        ["train-689/aa", "happiness", "train", "landmarks"],
        ["val-689/cc", "anger", "val", "landmarks"],
    ]
    assert any(
        "1 images are left out: annotated as 'uncertain', which is no emotion" in note for note in card.deviations
    )
    for old, new, words in (
        (marks, "1;2", "line 2: facial_landmarks should be 68"),
        (",1,0.7", ",12,0.7", "line 2: the expression is"),
        (marks, ";".join(["nan"] * 136), "aa.jpg: the landmarks do not fit"),
        (marks, ";".join(["1e300"] * 136), "do not fit"),
        (marks, ";".join(["5"] * 136), "do not fit"),
    ):
        bad = {
            path: content.replace(old, new, 1) if path.endswith("training.csv") else content
            for path, content in files.items()
        }
        with pytest.raises(DataError, match=words):
            prepare("affectnet", lay(tmp_path / "bad", bad), tmp_path / "home")
    boxes = {
        **files,
        "Manually_Annotated_file_lists/training.csv": files["Manually_Annotated_file_lists/training.csv"].replace(
            marks, ""
        ),
    }
    prepare("affectnet", lay(tmp_path / "b", boxes), tmp_path / "home")
    assert faces.load("affectnet", tmp_path / "home").samples["aligner"].iloc[0] == "box"


def test_expw(tmp_path):
    rows = "angry_actor_104.jpg 0 28 113 226 141 22.9362 0\nangry_actor_104.jpg 1 0 0 50 50 9.5 6\ngone.jpg 0 1 2 3 4 5.0 3\n"
    files = {"label/label.lst": rows, "image/origin/angry_actor_104.jpg": png(1, (300, 200), "JPEG")}
    card = prepare("expw", lay(tmp_path / "x", files), tmp_path / "home", every_class=False)
    found = faces.load("expw", tmp_path / "home")
    assert found.samples[["id", "label", "aligner"]].values.tolist() == [
        ["angry_actor_104-0", "anger", "box"],
        ["angry_actor_104-1", "neutral", "box"],
    ]
    picture = Image.open(io.BytesIO(files["image/origin/angry_actor_104.jpg"]))
    assert np.array_equal(found.images[0], align.resized(picture.crop((113, 28, 226, 141))))
    assert "1 listed faces have no image, such as gone.jpg" in card.deviations
    for row, words in (
        ("a.jpg 0 1 2 3", "line 1: .* should be an image"),
        ("angry_actor_104.jpg 0 0 0 9 9 1.0 7", "line 1: the label 7"),
        ("angry_actor_104.jpg 0 900 900 950 950 1.0 3", "holds nothing of a picture of 300×200"),
        ("angry_actor_104.jpg 0 60 60 20 20 1.0 3", "holds nothing"),
    ):
        with pytest.raises(DataError, match=words):
            prepare("expw", lay(tmp_path / "x", {"label/label.lst": row}), tmp_path / "home")


def test_sfew(tmp_path):
    files = {
        f"{side}/{side}_Aligned_Faces/{label}/Film_0001_0000000{n}.png": png(n)
        for n, (side, label) in enumerate([("Train", "Angry"), ("Train", "Happy"), ("Val", "Sad")])
    }
    files |= {
        "Train/Train/Angry/Film_0001_00000000.png": png(9, (720, 576)),
        "Test/Test_Aligned_Faces/Film_0009_1.png": png(8),
    }
    card = prepare("sfew", lay(tmp_path / "x", files), tmp_path / "home")
    found = faces.load("sfew", tmp_path / "home").samples
    assert found[["label", "split", "aligner"]].values.tolist() == [
        ["anger", "train", "as-is"],
        ["happiness", "train", "as-is"],
        ["sadness", "val", "as-is"],
    ]
    assert any("1 images are left out: test images, which have no labels" in note for note in card.deviations)


VOTES = [
    "Training,fer0000000.png,4.,0,0,1,3,2,0,0,0,0",
    "Training,fer0000001.png,0,9,1,0,0,0,0,0,0,0",
    "PublicTest,,0,0,0,0,0,0,0,0,0,10",
    "PrivateTest,fer0000003.png,0,0,0,0,0,0,0,8,2,0",
]
VOTES_HEAD = "Usage,Image name,neutral,happiness,surprise,sadness,anger,disgust,fear,contempt,unknown,NF"


@pytest.mark.parametrize("lists", [False, True])
def test_ferplus_folders(tmp_path, lists):
    files = {f"data/FER2013{side}/fer000000{n}.png": png(n) for n, side in ((0, "Train"), (1, "Train"), (3, "Test"))}
    if lists:
        for side, usage in (("Train", "Training"), ("Test", "PrivateTest")):
            rows = [row.split(",", 2) for row in VOTES if row.startswith(f"{usage},fer")]
            files[f"data/FER2013{side}/label.csv"] = "\n".join(
                f'{name},"(0, 0, 48, 48)",{votes}' for _, name, votes in rows
            )
    else:
        files["fer2013new.csv"] = "\n".join([VOTES_HEAD, *VOTES])
    card = prepare("ferplus", lay(tmp_path / "x", files), tmp_path / "home")
    found = faces.load("ferplus", tmp_path / "home").samples
    assert found[["id", "label", "split"]].values.tolist() == [
        ["fer0000003", "contempt", "test"],
        ["fer0000001", "happiness", "train"],
    ]
    assert card.options == {"ferplus": "majority"}


def test_ferplus_from_the_table_of_pixels(tmp_path):
    table = fer(["Training", "Training", "PublicTest", "PrivateTest"])
    lay(tmp_path / "x", {"fer2013.csv": table, "fer2013new.csv": "\n".join([VOTES_HEAD, *VOTES])})
    prepare("ferplus", tmp_path / "x", tmp_path / "home")
    assert faces.load("ferplus", tmp_path / "home").samples["id"].tolist() == ["row00002", "row00004"]
    lay(tmp_path / "x", {"fer2013new.csv": "\n".join([VOTES_HEAD, *reversed(VOTES)])})
    with pytest.raises(DataError, match="another order"):
        prepare("ferplus", tmp_path / "x", tmp_path / "home")


# What is said of it, and where


def unaligned_raf(root: Path) -> Path:
    count = 8
    files = {
        f"Image/original/{side}_{n:05d}.jpg": png(n, (90, 120), "JPEG")
        for n in range(count)
        for side in ("train", "test")
    }
    rows = [f"{side}_{n:05d}.jpg {n % 7 + 1}" for n in range(count) for side in ("train", "test")]
    return lay(root, {**files, "EmoLabel/list_patition_label.txt": "\n".join(rows)})


def test_pictures_that_nobody_aligned_are_told_everywhere(tmp_path):
    told = "16 of 16 images are cropped at the centre of raw pictures, not aligned"
    source = unaligned_raf(tmp_path / "x")
    done = ferbench("data", "prepare", "rafdb", str(source), "--data-home", "home", cwd=tmp_path)
    assert f"note: {told}" in done.stdout, done.stderr
    words = ("train", "largest-class", "--dataset", "rafdb", "--data-home", "home", "--runs", "runs")
    plan = ferbench(*words, "--dry-run", cwd=tmp_path, encoding="ascii", COLUMNS="400")
    assert f"note: {told}" in plan.stdout, plan.stderr
    assert ferbench(*words, cwd=tmp_path).returncode == 0
    table = ferbench("report", "--dataset", "rafdb", "--runs", "runs", "--format", "markdown", cwd=tmp_path).stdout
    assert f"Note: {told}" in table
    narrow = ferbench("report", "--dataset", "rafdb", "--runs", "runs", cwd=tmp_path, encoding="ascii")
    assert (narrow.returncode, "Traceback" in narrow.stderr) == (0, False), narrow.stderr


HELD = ("é × ± – … → \U0001f600", "e x +- - ... -> ?")


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8"])
def test_no_stream_is_too_narrow(tmp_path, encoding):
    set_ = make_faces([{"label": "anger"}] * 3, name="toy")
    card = set_.card.model_copy(update={"layout": HELD[0], "deviations": [HELD[0]]})
    lay_down(faces.Faces(set_.images, set_.samples, card), tmp_path / "home")
    rest = [("data", "show", "toy", "--format", "json"), ("runs",), ("--help",), ("show",), ("data", "show", "tôy")]
    for words in (("data", "list"), ("data", "show", "toy"), *(rest if encoding == "ascii" else ())):
        with_home = (*words, "--data-home", "home") if words[0] == "data" else words
        done = subprocess.run(
            [sys.executable, "-m", "ferbench", *with_home],
            capture_output=True,
            cwd=tmp_path,
            env={**os.environ, "PYTHONIOENCODING": encoding, "COLUMNS": "200"},
        )
        assert b"Traceback" not in done.stderr, done.stderr.decode()
        assert done.returncode == (3 if "tôy" in words else 0), done.stderr.decode(encoding)
        shown = done.stdout.decode(encoding)
        if words[-1] == "toy" and encoding == "ascii":
            assert HELD[1] in shown
        if words[-1] == "toy" and encoding == "utf-8":
            assert HELD[0] in shown


def test_messages_stay_one_line():
    assert output.one_line("a\nb\x1b[2Jc\x9b") == "a b [2Jc "
