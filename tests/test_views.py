"""Pictures that a prepared dataset keeps, and views of them: sizes, colours, alignments, what models really see."""

import io
import json

import numpy as np
import pytest
from PIL import Image
from support.command import ferbench
from support.datasets import make_faces, people
from support.models import card as card_file
from support.models import save_product
from support.sources import lay, npy, png

from ferbench.data import faces, pictures, views
from ferbench.data.landmarks import FIVE, five
from ferbench.data.prepare import prepare
from ferbench.data.synthetic.anatomy import Person, expression
from ferbench.data.synthetic.drawing import View as Seen
from ferbench.data.synthetic.drawing import render
from ferbench.data.views import IMAGES, InputSpec, View
from ferbench.errors import DataError, UsageError
from ferbench.runs.store import Store
from ferbench.seeds import generator

ARCFACE = [(38.2946, 51.6963), (73.5318, 51.5014), (56.0252, 71.7366), (41.5493, 92.3655), (70.7299, 92.2041)]
DDAMFN = [(33.566, 40.559), (78.321, 40.559), (55.338, 64.967), (38.479, 90.276), (73.591, 90.276)]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache/ferbench/views"


def photo(seed: int, size: tuple[int, int], face: float, centre=(0.5, 0.5)) -> tuple[Image.Image, np.ndarray]:
    """A drawn face in colour, and its 68 landmarks."""
    rng = generator(seed, "photo")
    grey, points = render(Person.draw(rng), expression("happiness", rng), Seen(), rng, size, face, centre)
    level = grey.astype(float)
    return Image.fromarray(np.stack([level, 0.75 * level + 20, 0.5 * level + 60], axis=2).astype(np.uint8)), points


def jpeg(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


def manifest(root, files: dict[str, bytes], labels=("anger", "happiness")):
    rows = "".join(f"{name},{labels[n % len(labels)]},s{n}\n" for n, name in enumerate(files))
    return lay(root, {**files, "manifest.csv": f"path,label,subject\n{rows}"})


def layout(name: str) -> tuple[str, dict[str, bytes | str], tuple[int, int]]:
    """The official layout of a dataset with two faces, in colour and of the usual size."""
    if name == "rafdb aligned":
        files = {f"basic/Image/aligned/train_0000{n}_aligned.jpg": jpeg(photo(n, (100, 100), 0.9)[0]) for n in (1, 2)}
        return (
            "rafdb",
            {**files, "basic/EmoLabel/list_patition_label.txt": "train_00001.jpg 4\ntrain_00002.jpg 1\n"},
            (100, 100),
        )
    if name == "rafdb original":
        files = {"basic/EmoLabel/list_patition_label.txt": "train_00001.jpg 4\ntrain_00002.jpg 1\n"}
        for n in (1, 2):
            picture, points = photo(n, (300, 260), 0.6)
            files[f"basic/Image/original/train_0000{n}.jpg"] = jpeg(picture)
            rows = "\n".join(f"{x:.4f}\t{y:.4f}" for x, y in five(points))
            files[f"basic/Annotation/manual/train_0000{n}_manu_attri.txt"] = f"{rows}\n0\n0\n2\n"
        return "rafdb", files, (300, 260)
    if name == "affectnet tables":
        head = (
            "subDirectory_filePath,face_x,face_y,face_width,face_height,facial_landmarks,expression,valence,arousal\n"
        )
        files, rows = {}, ""
        for n in (1, 2):
            picture, points = photo(n, (900, 700), 0.3, (0.3, 0.6))
            files[f"Manually_Annotated_Images/1/{n}.jpg"] = jpeg(picture)
            rows += f"1/{n}.jpg,160,310,220,220,{';'.join(f'{v:.3f}' for v in points.flatten())},1,0.5,0.5\n"
        return "affectnet", {**files, "training.csv": head + rows}, (440, 440)
    if name == "affectnet folders":
        files = {f"train_set/images/{n}.jpg": jpeg(photo(n, (224, 224), 0.9)[0]) for n in (1, 2)}
        return (
            "affectnet",
            {**files, **{f"train_set/annotations/{n}_exp.npy": npy(np.array("1")) for n in (1, 2)}},
            (224, 224),
        )
    if name == "expw":
        files = {f"image/origin/{n}.jpg": jpeg(photo(n, (400, 300), 0.5)[0]) for n in (1, 2)}
        return (
            "expw",
            {**files, "label/label.lst": "1.jpg 0 75 125 275 225 50.0 3\n2.jpg 0 75 125 275 225 50.0 6\n"},
            (400, 300),
        )
    if name == "oulu":
        files = {
            f"B_OriginalImg/OriginalImg/VL/Strong/P001/Happiness/00{n}.jpeg": jpeg(photo(n, (320, 240), 0.75)[0])
            for n in range(3)
        }
        return "oulu", files, (320, 240)
    return "kdef", {f"{name}/AF01HAS.JPG": jpeg(photo(1, (562, 762), 0.5)[0]) for name in ("AF01",)}, (378, 512)


LAYOUTS = ["rafdb aligned", "rafdb original", "affectnet tables", "affectnet folders", "expw", "oulu", "kdef"]


@pytest.mark.parametrize("name", LAYOUTS)
def test_pictures_of_official_layouts(tmp_path, name):
    dataset, files, size = layout(name)
    card = prepare(dataset, lay(tmp_path / "source", files), tmp_path / "home", every_class=False)
    prepared = faces.load(dataset, tmp_path / "home")
    assert card.pictures is not None
    assert (card.pictures.count, card.pictures.colour) == (len(prepared), len(prepared))
    for row in range(len(prepared)):
        assert max(abs(a - b) for a, b in zip(prepared.kept.picture(row).size, size, strict=True)) <= 3
    plain = prepare(dataset, tmp_path / "source", tmp_path / "plain", every_class=False, keep=0)
    assert (plain.fingerprint, plain.pictures) == (card.fingerprint, None)
    for file in ("images.npy", "samples.csv", "signatures.npy"):
        assert (tmp_path / "plain" / dataset / file).read_bytes() == (tmp_path / "home" / dataset / file).read_bytes()
    assert not (tmp_path / "plain" / dataset / pictures.DATA).exists()
    for row in range(len(prepared)):  # images.npy again, from the picture that was kept
        own = prepared.kept.rows[row]
        again = views.view_of(
            prepared.kept.picture(row),
            IMAGES,
            prepared.samples["aligner"].iloc[row],
            own["points"].astype(float),
            own["box"].astype(float),
        )
        off = np.abs(again.astype(int) - prepared.images[row].astype(int))
        assert off.mean() < (4 if name in ("affectnet tables", "kdef") else 0.2)  # of those, a smaller copy is kept


def test_a_source_s_own_file_is_kept_where_it_is_small_enough(tmp_path):
    small, large = jpeg(photo(1, (100, 120), 0.9)[0]), png(2, (700, 600))
    source = manifest(tmp_path / "m", {"small.jpg": small, "large.png": large, "grey48.png": png(3)})
    card = prepare("manifest", source, tmp_path / "home", "mine")
    prepared = faces.load("mine", tmp_path / "home")
    rows = prepared.kept.rows
    place = {name: row for row, name in enumerate(prepared.samples["source"])}
    data = (tmp_path / "home/mine" / pictures.DATA).read_bytes()
    own = rows[place["small.jpg"]]
    assert data[int(own["offset"]) : int(own["offset"]) + int(own["size"])] == small
    wanted = Image.open(io.BytesIO(large)).resize((512, 439), Image.Resampling.LANCZOS)
    kept = prepared.kept.picture(place["large.png"])
    np.testing.assert_array_equal(np.asarray(kept.convert("L")), np.asarray(wanted))
    assert prepared.kept.picture(place["grey48.png"]) is None
    assert (card.pictures.count, card.pictures.colour, card.pictures.keep) == (2, 1, 512)
    assert prepare("manifest", source, tmp_path / "home", "less", keep=64).pictures.bytes < card.pictures.bytes


def test_sets_of_48_grey_pixels_keep_nothing(tmp_path):
    files = {f"CK+48/{label}/S{n:03d}_001_00000001.png": png(n) for n, label in enumerate(["anger", "happy"])}
    card = prepare("ckplus", lay(tmp_path / "x", files), tmp_path / "home", every_class=False)
    assert card.pictures is None
    assert sorted(path.name for path in (tmp_path / "home/ckplus").iterdir()) == [
        "card.json",
        "images.npy",
        "samples.csv",
        "signatures.npy",
    ]


def test_nothing_is_left_behind_where_the_disk_is_full(tmp_path, monkeypatch):
    def full(self, picture):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pictures.Writer, "add", full)
    source = manifest(tmp_path / "m", {"a.jpg": jpeg(photo(1, (100, 100), 0.9)[0])})
    with pytest.raises((DataError, OSError)):
        prepare("manifest", source, tmp_path / "home", "mine", every_class=False)
    assert list((tmp_path / "home").iterdir()) == []


def spots(points: np.ndarray, view: View, size=(200, 180)) -> np.ndarray:
    """Where landmarks lie in a view [5,2]: the centre of mass of a bright spot at each in turn, in a dark picture."""
    centres = []
    y, x = np.mgrid[: size[1], : size[0]]
    rows, columns = np.mgrid[: view.size, : view.size]
    for point in points:
        spot = 255 * np.exp(-((x - point[0]) ** 2 + (y - point[1]) ** 2) / (2 * 3.0**2))
        picture = Image.fromarray(np.repeat(spot[..., None], 3, axis=2).round().astype(np.uint8))
        mass = views.view_of(picture, view, "landmarks", points)[..., 1].astype(float)
        centres.append([(mass * columns).sum() / mass.sum(), (mass * rows).sum() / mass.sum()])
    return np.array(centres)


@pytest.mark.parametrize(("alignment", "size"), [("arcface", 112), ("arcface", 224), ("arcface", 96), ("ddamfn", 112)])
def test_landmarks_lie_where_the_template_has_them(alignment, size):
    template = np.array(ARCFACE if alignment == "arcface" else DDAMFN)
    target = template * (size / 112)
    if alignment == "arcface" and size % 112:
        target = template * (size / 128) + (8 * size / 128, 0)
    turn = 1.1 * np.exp(0.3j)  # a similarity: 1.1 times as large, turned by 0.3 rad, shifted
    at = turn * (template[:, 0] + 1j * template[:, 1]) + (25 - 5j)
    points = np.stack([at.real, at.imag], axis=1)
    view = View(size=size, colour="rgb", alignment=alignment)
    assert np.abs(spots(points, view) - target).max() < 0.1


def test_raf_like_faces_have_eyes_and_mouth_in_their_places():
    target = np.array([[28.6, 40.0], [71.4, 40.0], [50.0, 71.4]]) - 0.5
    places = [target[0], target[1], (50.0, 55.0), target[2] - (12, 1), target[2] + (12, 1)]
    points = 1.2 * np.array(places) + (20, 15)
    found = spots(points, View(size=100, colour="rgb", alignment="raf"))
    np.testing.assert_allclose(found[:2], target[:2], atol=0.1)
    np.testing.assert_allclose(found[3:].mean(axis=0), target[2], atol=0.1)


def test_a_box_is_widened_by_a_fifth_and_made_square():
    picture = np.zeros((120, 160, 3), dtype=np.uint8)
    picture[40:80, 50:100] = (255, 0, 0)  # 50 wide, 40 high; its centre at 75, 60
    view = views.view_of(
        Image.fromarray(picture), View(size=60, colour="rgb", alignment="box"), "box", box=np.array([50.0, 40, 100, 80])
    )
    inside = view[..., 0] > 127
    assert inside.any(axis=0).sum() == 50  # a square of 60 pixels around a box of 50
    assert inside.any(axis=1).sum() == 40
    beyond = views.view_of(
        Image.fromarray(picture), View(size=60, colour="rgb", alignment="box"), "box", box=np.array([0.0, 0, 50, 40])
    )
    assert beyond.shape == (60, 60, 3)  # beyond the edge the nearest pixels are repeated


def test_a_view_is_stored_once_and_the_least_recent_ones_make_room(tmp_path, cache, monkeypatch):
    source = manifest(tmp_path / "m", {f"{n}.jpg": jpeg(photo(n, (60, 60), 0.9)[0]) for n in range(6)})
    prepare("manifest", source, tmp_path / "home", "mine")
    prepared, rows = faces.load("mine", tmp_path / "home"), np.array([4, 1, 1])
    view = View(size=32, colour="rgb")
    flying = views.images(prepared, rows, view)[:]
    assert not list(cache.glob("*.npy"))
    stored = views.images(prepared, rows, view, store=True)
    (file,) = cache.glob("*.npy")
    np.testing.assert_array_equal(stored[:], flying)
    assert stored.shape == (3, 32, 32, 3)
    np.testing.assert_array_equal(stored[np.array([2, 0])], flying[[2, 0]])
    written = file.stat().st_mtime_ns
    np.testing.assert_array_equal(views.images(prepared, rows, view, store=True)[:], flying)
    monkeypatch.setenv("FERBENCH_VIEWS_GB", "2e-5")  # 20 kB: room for one view of 6 images
    views.images(prepared, rows, View(size=30, colour="rgb"), store=True)
    assert not file.exists()
    assert written
    monkeypatch.setenv("FERBENCH_VIEWS_GB", "1e-6")
    np.testing.assert_array_equal(views.images(prepared, rows, view, store=True)[:], flying)
    assert not file.exists()


def test_a_cache_that_cannot_be_written_is_done_without(tmp_path, cache, monkeypatch):
    source = manifest(tmp_path / "m", {f"{n}.jpg": jpeg(photo(n, (60, 60), 0.9)[0]) for n in range(2)})
    prepare("manifest", source, tmp_path / "home", "mine")
    prepared, rows, view = faces.load("mine", tmp_path / "home"), np.arange(2), View(size=32)
    cache.parent.mkdir(parents=True)
    cache.write_text("in the way")
    flying = views.images(prepared, rows, view, store=True)[:]
    cache.unlink()
    np.testing.assert_array_equal(views.images(prepared, rows, view, store=True)[:], flying)
    monkeypatch.setenv("FERBENCH_VIEWS_GB", "many")
    with pytest.raises(UsageError, match="number of gigabytes"):
        views.images(prepared, rows, View(size=31), store=True)


def test_points_of_no_face_are_not_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(pictures.onet, "is_installed", lambda: True)
    monkeypatch.setattr(pictures.onet, "landmarks", lambda face: (np.full((5, 2), 7.0), 0.99))
    source = manifest(tmp_path / "m", {f"{n}.jpg": jpeg(photo(n, (60, 60), 0.9)[0]) for n in range(2)})
    assert prepare("manifest", source, tmp_path / "home", "mine").pictures.points == 0
    monkeypatch.setattr(pictures.onet, "landmarks", lambda face: (np.array(ARCFACE) * 48 / 112, 0.99))
    prepare("manifest", source, tmp_path / "home", "mine")
    rows = faces.load("mine", tmp_path / "home").kept.rows
    assert rows["by"].tolist() == [3, 3]  # by O-Net
    np.testing.assert_allclose(rows["points"][0], (np.array(ARCFACE) * 48 / 112 + 0.5) * 60 / 48 - 0.5, atol=1e-4)


def test_a_damaged_view_is_made_again(tmp_path, cache):
    source = manifest(tmp_path / "m", {f"{n}.jpg": jpeg(photo(n, (60, 60), 0.9)[0]) for n in range(2)})
    prepare("manifest", source, tmp_path / "home", "mine")
    prepared, rows, view = faces.load("mine", tmp_path / "home"), np.arange(2), View(size=32)
    before = views.images(prepared, rows, view, store=True)[:]
    (file,) = cache.glob("*.npy")
    content = bytearray(file.read_bytes())
    content[-1] ^= 255
    file.write_bytes(content)
    views._is_whole.cache_clear()
    np.testing.assert_array_equal(views.images(prepared, rows, view)[:], before)
    assert not file.exists()


def test_damaged_pictures_are_noticed_by_views_and_by_verify(tmp_path):
    source = manifest(tmp_path / "m", {f"{n}.jpg": jpeg(photo(n, (60, 60), 0.9)[0]) for n in range(2)})
    prepare("manifest", source, tmp_path / "home", "mine")
    file = tmp_path / "home/mine" / pictures.DATA
    content = bytearray(file.read_bytes())
    content[100] ^= 255
    file.write_bytes(content)
    prepared = faces.load("mine", tmp_path / "home")  # the images of 48 pixels are whole
    with pytest.raises(DataError, match=r"pictures\.bin is damaged"):
        views.images(prepared, np.arange(2), View(size=64))[:]
    assert ferbench("data", "verify", "mine", "--data-home", str(tmp_path / "home"), code=3, cwd=tmp_path)


def test_what_a_model_sees_is_said(tmp_path):
    source = manifest(tmp_path / "m", {f"{n}.jpg": jpeg(photo(n, (100, 100), 0.9)[0]) for n in range(2)})
    prepare("manifest", source, tmp_path / "home", "mine")
    colour = faces.load("mine", tmp_path / "home")
    grey = make_faces(people(2, ["anger"]))
    assert views.seen(colour, IMAGES) == "48 grey"
    assert views.seen(colour, View(size=96, colour="rgb")) == "96 rgb"
    assert views.seen(colour, View(size=224, colour="rgb", alignment="arcface")) == "224 rgb, arcface from 100 rgb"
    assert views.seen(grey, View(size=224, colour="rgb")) == "224 rgb from 48 grey"
    assert views.notes(grey, np.arange(2), View(alignment="arcface")) == [
        "2 of 2 pictures have no landmarks and stay as they came"
    ]
    assert views.notes(grey, np.arange(2), IMAGES) == []


def test_grey_pictures_repeat_their_levels_in_colour():
    grey = make_faces(people(2, ["anger"]))
    view = views.images(grey, np.arange(len(grey)), View(size=48, colour="rgb"))[:]
    np.testing.assert_array_equal(view, np.repeat(grey.images[..., None], 3, axis=3))


def test_an_input_asks_for_its_view():
    spec = InputSpec(size=224, alignment="arcface", resize="bicubic")
    assert spec.view == View(size=224, colour="rgb", alignment="arcface", resize="bicubic")
    assert (IMAGES.is_default, View(resize="bicubic").is_default, spec.view.is_default) == (True, True, False)


def onnx_of_colour(path, size: int) -> np.ndarray:
    """A network of means over an 8×8 grid and a product: float64 weights [3·64,2]."""
    weights = np.random.default_rng(0).normal(size=(3 * 64, 2)).astype(np.float32)
    save_product(path, weights, (3, size, size), pool=size // 8)
    return weights.astype(np.float64)


@pytest.mark.parametrize("colour", ["rgb", "bgr"])
def test_a_model_of_colour_is_evaluated_on_the_pictures_themselves(tmp_path, colour):
    """The same logits as by hand: the source's files, Pillow, float64."""
    given = {f"{n}.jpg": jpeg(photo(n, (90, 110), 0.8)[0]) for n in range(8)}
    source = manifest(tmp_path / "m", given)
    prepare("manifest", source, tmp_path / "data", "jaffe")
    weights = onnx_of_colour(tmp_path / "net.onnx", 64)
    text = card_file(tmp_path, "net", source="net.onnx", kind="onnx", labels='["anger", "happiness"]').read_text()
    (tmp_path / "net.toml").write_text(
        text.replace("[input]", f'[input]\nsize = 64\nresize = "bicubic"\ncolour = "{colour}"\nalignment = "as-is"')
    )
    ferbench("evaluate", "net.toml", "-d", "jaffe", cwd=tmp_path)
    (record,) = Store(tmp_path / "runs").records()
    assert record.facts["sees"] == "image, 64 rgb, as-is"
    assert record.identity.recipe["pictures"] == faces.load("jaffe", tmp_path / "data").card.pictures.fingerprint[:16]
    frame = Store(tmp_path / "runs").predictions(record.key)
    prepared = faces.load("jaffe", tmp_path / "data").samples.set_index("id")
    for _, row in frame.iterrows():
        picture = Image.open(io.BytesIO(given[prepared.loc[row["id"], "source"]]))
        x = np.asarray(picture.resize((64, 64), Image.Resampling.BICUBIC)).astype(np.float64) / 255
        x = x[..., ::-1] if colour == "bgr" else x
        means = x.reshape(8, 8, 8, 8, 3).mean(axis=(1, 3)).transpose(2, 0, 1).flatten()
        odds = np.exp(means @ weights - (means @ weights).max())
        np.testing.assert_allclose([row["p_anger"], row["p_happiness"]], odds / odds.sum(), atol=1e-5)
    shown = json.loads(
        ferbench(
            "predict", str(tmp_path / "m/3.jpg"), "--aligned", "--run", "net.toml", "--format", "json", cwd=tmp_path
        ).stdout
    )
    three = frame[frame["id"] == prepared.index[prepared["source"] == "3.jpg"][0]].iloc[0]
    assert shown[0]["faces"][0]["probabilities"]["anger"] == pytest.approx(three["p_anger"], abs=1e-6)


def test_the_order_of_five_landmarks():
    assert FIVE[0].startswith("left")
    three = np.array([[1.0, 2], [3, 4], [5, 6]])
    np.testing.assert_array_equal(five(three)[[0, 1, 3, 4]], [[1, 2], [3, 4], [5, 6], [5, 6]])
    assert np.isnan(five(three)[2]).all()
