"""Preparing is all or nothing, whatever lies on disk; what is prepared can be verified."""

import errno
import io
import multiprocessing
import os
import signal
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.sources import lay, png, zipped

from ferbench.data import align, faces, packed
from ferbench.data import prepare as room
from ferbench.data.prepare import prepare, verify
from ferbench.data.samples import Aligned, Listing, Sample
from ferbench.errors import DataError, JobFailed, UsageError

CROPS = {f"CK+48/anger/S01{i}_001_0000000{f}.png": png(i * 10 + f) for i in range(3) for f in range(3)}


def nothing_left(home: Path) -> bool:
    return not home.exists() or not list(home.iterdir())


@pytest.fixture
def processes(monkeypatch):
    """Sets the number of processes that prepare even the smallest dataset."""
    monkeypatch.setattr(room, "_IMAGES_PER_PROCESS", 1)
    return lambda count: monkeypatch.setattr(room, "cores", lambda: count)


@pytest.mark.parametrize("kind", ["folder", "zip", "tar", "tar.gz", "zip in zip", "zip in tar", "zip in folder"])
def test_the_number_of_processes_changes_no_byte(tmp_path, processes, kind):
    files = {f"CK+48/anger/S{i:03d}_001_00000001.png": png(i, (48 + i % 3, 48)) for i in range(70)}
    source = lay(tmp_path / "root", files)
    if "zip" in kind:
        source = zipped(source, tmp_path / "ck.zip")
    if kind == "zip in zip":
        source = zipped(lay(tmp_path / "outer", {"x/ck.zip": source.read_bytes()}), tmp_path / "outer.zip")
    elif kind == "zip in folder":
        source = lay(tmp_path / "outer", {"x/ck.zip": source.read_bytes()})
    elif "tar" in kind:
        path = tmp_path / "ck.tar"
        with tarfile.open(path, "w:gz" if kind == "tar.gz" else "w") as file:
            file.add(source, "x/ck.zip" if "zip" in kind else "x")
        source = path
    for count in (1, 3):
        processes(count)
        prepare("ckplus", source, tmp_path / str(count))
    for name in ("images.npy", "samples.csv", "signatures.npy", "card.json"):
        assert (tmp_path / "1/ckplus" / name).read_bytes() == (tmp_path / "3/ckplus" / name).read_bytes()
    assert faces.load_card("ckplus", tmp_path / "1").count == 70


def test_of_several_corrupt_images_the_first_is_named_by_any_number_of_processes(tmp_path, processes):
    files = {f"CK+48/anger/S{i:03d}_001_00000001.png": png(i)[: 300 if i > 40 else None] for i in range(70)}
    root = lay(tmp_path / "root", files)
    for count in (1, 3):
        processes(count)
        with pytest.raises(DataError, match="S041_001_00000001.png is not a readable image.*--skip-corrupt"):
            prepare("ckplus", root, tmp_path / "home")
        assert nothing_left(tmp_path / "home")
        assert prepare("ckplus", root, tmp_path / str(count), skip_corrupt=True).count == 41


def toy(count: int, face=lambda: Aligned(np.zeros((48, 48), np.uint8), "as-is")) -> Listing:
    return Listing("toy", [Sample(f"{i:05d}", "", face, "anger") for i in range(count)])


@pytest.mark.parametrize(
    ("error", "expected"), [(KeyboardInterrupt(), KeyboardInterrupt), (OSError(errno.ENOSPC, "full"), DataError)]
)
def test_an_error_ends_all_processes_and_leaves_nothing(tmp_path, processes, error, expected):
    def stop(done: int, total: int) -> None:
        if done == 40:
            raise error

    processes(3)
    with pytest.raises(expected):
        room.write_set(tmp_path / "home", "toy", "manifest", "memory", toy(900), tick=stop)
    assert nothing_left(tmp_path / "home")
    assert not multiprocessing.active_children()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="one process prepares everything where processes cannot be forked")
def test_a_killed_process_is_one_line_and_leaves_nothing(tmp_path, processes):
    parent = os.getpid()

    def face() -> Aligned:
        assert os.getpid() != parent
        os.kill(os.getpid(), signal.SIGKILL)

    processes(2)
    with pytest.raises(JobFailed, match="a child process was killed"):
        room.write_set(tmp_path / "home", "toy", "manifest", "memory", toy(40, face))
    assert nothing_left(tmp_path / "home")
    assert not multiprocessing.active_children()


def test_images_of_consecutive_rows_are_not_copied(tmp_path):
    prepare("ckplus", lay(tmp_path / "root", CROPS), tmp_path / "home")
    dataset = faces.load("ckplus", tmp_path / "home")
    for rows, shared in (([2, 3, 4], True), ([4, 3], False), ([1, 3], False), ([], False)):
        rows = np.array(rows, dtype=np.int64)
        pixels = dataset.pixels(rows)
        assert np.array_equal(pixels, dataset.images[rows])
        assert np.shares_memory(pixels, dataset.images) == shared


def test_a_truncated_or_missing_zip(tmp_path):
    whole = zipped(lay(tmp_path / "root", CROPS), tmp_path / "ck.zip").read_bytes()
    cut = tmp_path / "cut.zip"
    cut.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="download it again"):
        prepare("ckplus", cut, tmp_path / "home")
    with pytest.raises(DataError, match="does not exist"):
        prepare("ckplus", tmp_path / "none.zip", tmp_path / "home")
    damaged = bytearray(whole)
    damaged[60:200] = bytes(140)
    cut.write_bytes(damaged)
    with pytest.raises(DataError, match="get the archive again"):
        prepare("ckplus", cut, tmp_path / "home")
    assert nothing_left(tmp_path / "home")


@pytest.mark.parametrize("name", ["../evil.png", "/etc/evil.png", "a/../../evil.png", "C:/evil.png", "..\\evil.png"])
def test_entries_that_climb_out_are_refused(tmp_path, name):
    path = tmp_path / "bad.zip"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr(name, b"x")
    with pytest.raises(DataError, match="leads out of the archive"):
        prepare("ckplus", path, tmp_path / "home")


def test_decompression_bombs_are_refused(tmp_path):
    path = tmp_path / "bomb.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("CK+48/anger/S010_001_00000001.png", bytes(50_000_000))
    with pytest.raises(DataError, match="decompression bomb"):
        prepare("ckplus", path, tmp_path / "home")


def test_images_of_absurd_size_are_refused(tmp_path):
    buffer = io.BytesIO()
    Image.new("L", (9000, 9000)).save(buffer, "PNG")
    root = lay(tmp_path / "root", {"CK+48/anger/S010_001_00000001.png": buffer.getvalue()})
    with pytest.raises(DataError, match="too large for an image of a face"):
        prepare("ckplus", root, tmp_path / "home")


def test_links_out_of_a_folder_are_not_followed(tmp_path):
    root = lay(tmp_path / "root", CROPS)
    (root / "CK+48/anger/S099_001_00000001.png").symlink_to("/etc/hostname")
    assert prepare("ckplus", root, tmp_path / "home").count == 9


def test_corrupt_images_stop_or_are_listed(tmp_path):
    root = lay(tmp_path / "root", {**CROPS, "CK+48/anger/S010_001_00000001.png": png()[:300]})
    with pytest.raises(DataError, match="S010_001_00000001.png is not a readable image.*--skip-corrupt"):
        prepare("ckplus", root, tmp_path / "home")
    assert nothing_left(tmp_path / "home")
    card = prepare("ckplus", root, tmp_path / "home", skip_corrupt=True)
    assert card.count == 8
    assert "S010_001_00000001.png" in card.skipped[0]
    assert len(faces.load("ckplus", tmp_path / "home").images) == 8
    assert "1 corrupt images left out" in card.deviations


def test_a_full_disk_leaves_nothing_and_says_so(tmp_path, monkeypatch):
    root, calls = lay(tmp_path / "root", CROPS), []

    def full(samples, *rest):
        calls.append(1)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(room, "_card", full)
    with pytest.raises(DataError, match="the disk is full"):
        prepare("ckplus", root, tmp_path / "home")
    assert calls
    assert nothing_left(tmp_path / "home")


def test_no_permission_is_explained(tmp_path, monkeypatch):
    def denied(*args, **kw):
        raise PermissionError(errno.EACCES, "Permission denied", str(tmp_path / "home"))

    monkeypatch.setattr(Path, "mkdir", denied)
    with pytest.raises(DataError, match="no permission for"), room.new_folder(tmp_path / "home"):
        pass


def test_an_interrupted_preparation_keeps_the_old_set(tmp_path):
    root = lay(tmp_path / "root", CROPS)
    before = prepare("ckplus", root, tmp_path / "home")

    def stop(done: int, total: int) -> None:
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare("ckplus", root, tmp_path / "home", tick=stop)
    assert faces.load("ckplus", tmp_path / "home").fingerprint == before.fingerprint
    assert [path.name for path in (tmp_path / "home").iterdir()] == ["ckplus"]


def test_folder_and_zip_give_the_same_set(tmp_path):
    root = lay(tmp_path / "root", CROPS)
    a = prepare("ckplus", root, tmp_path / "a")
    b = prepare("ckplus", zipped(root, tmp_path / "ck.zip"), tmp_path / "b")
    assert a.fingerprint == b.fingerprint
    assert (tmp_path / "a/ckplus/images.npy").read_bytes() == (tmp_path / "b/ckplus/images.npy").read_bytes()


def test_verify_notices_any_change(tmp_path):
    prepare("ckplus", lay(tmp_path / "root", CROPS), tmp_path / "home")
    assert verify("ckplus", tmp_path / "home") == []
    path = tmp_path / "home/ckplus/images.npy"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert "1 of 9 images" in verify("ckplus", tmp_path / "home")[0]
    table = tmp_path / "home/ckplus/samples.csv"
    table.write_text(table.read_text().replace("anger", "fear", 1))
    assert any("fingerprint" in problem for problem in verify("ckplus", tmp_path / "home"))


def test_an_unprepared_set_names_its_command(tmp_path):
    with pytest.raises(DataError, match="ferbench data prepare ckplus SOURCE"):
        faces.load("ckplus", tmp_path)
    with pytest.raises(UsageError, match="cannot be the name"):
        prepare("ckplus", lay(tmp_path / "root", CROPS), tmp_path / "home", "../x")


@pytest.mark.parametrize(
    ("mode", "value", "expected"),
    [
        ("L", 100, 100),
        ("RGB", (100, 100, 100), 100),
        ("RGBA", (255, 255, 255, 0), 0),
        ("LA", (200, 255), 200),
        ("1", 1, 255),
        ("I;16", 100 * 257, 100),
        ("P", 3, None),
    ],
)
def test_any_picture_becomes_8_bit_grey(mode, value, expected):
    picture = Image.new(mode, (60, 50), value)
    if mode == "P":
        picture.putpalette([0, 0, 0] * 3 + [90, 90, 90] + [0, 0, 0] * 252)
        expected = 90
    out = align.resized(picture)
    assert (out.shape, out.dtype) == ((48, 48), np.uint8)
    assert abs(int(out[24, 24]) - expected) <= 1


def test_alignment_puts_eyes_and_mouth_on_the_template():
    angle, scale, shift = np.deg2rad(20), 3.7, np.array([150.0, 90.0])
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    points = align.TEMPLATE @ turn.T + shift
    matrix = align.similarity(points)
    np.testing.assert_allclose(matrix[:, :2], turn, atol=1e-9)
    np.testing.assert_allclose(matrix[:, 2], shift, atol=1e-9)
    canvas = np.full((400, 500), 220, np.uint8)
    rows, columns = np.mgrid[:400, :500]
    for x, y in points:
        canvas[(columns - x) ** 2 + (rows - y) ** 2 < 36] = 0
    face = align.aligned(Image.fromarray(canvas), points)
    y, x = np.mgrid[:48, :48]
    for point in align.TEMPLATE:
        weight = (220.0 - face) * (np.hypot(x - point[0], y - point[1]) < 5)
        centre = (weight * x).sum() / weight.sum(), (weight * y).sum() / weight.sum()
        np.testing.assert_allclose(centre, point, atol=0.1)


def test_detail_finer_than_a_pixel_does_not_alias():
    board = (np.indices((480, 480)).sum(axis=0) % 2 * 255).astype(np.uint8)
    face = align.aligned(Image.fromarray(board), (align.TEMPLATE + 0.5) * 10 - 0.5)
    assert np.abs(face.astype(int) - 127).max() < 12


def test_junk_of_operating_systems_is_not_seen(tmp_path):
    files = {"a/.DS_Store": b"", "a/._x.png": b"", "__MACOSX/a/x.png": b"", "a/Thumbs.db": b"", "a/x.png": b""}
    root = lay(tmp_path / "root", files)
    for source in (root, zipped(root, tmp_path / "x.zip")):
        with packed.opened(source) as tree:
            assert tree.paths == ["a/x.png"]


def test_memory_does_not_grow_with_the_set(tmp_path):
    """Pixels go to disk one by one: the peak is far below the set's own size."""
    import tracemalloc

    listing = toy(8000)
    tracemalloc.start()
    room.write_set(tmp_path, "toy", "manifest", "memory", listing)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8000 * 2304 * 0.75
