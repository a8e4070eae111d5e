"""Digests and signatures of source pictures: the same for one picture, whatever file it is in."""

import io

import numpy as np
import pytest
from PIL import Image
from support.sources import photograph

from ferbench.data import content, faces
from ferbench.data.prepare import prepare
from ferbench.data.samples import decode
from ferbench.data.synthetic import SYNTHETIC, ensure
from ferbench.seeds import generator


def saved(picture: Image.Image, kind: str, **options) -> np.ndarray:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return content.canonical(decode(buffer.getvalue(), "picture"))


def sideways(picture: Image.Image) -> np.ndarray:
    """As a camera stores it that was held on its side: 6 says to turn it by 90° clockwise."""
    exif = Image.Exif()
    exif[0x0112] = 6
    return saved(picture.transpose(Image.Transpose.ROTATE_90), "PNG", exif=exif)


LOSSLESS = {
    "PNG": lambda p: saved(p, "PNG"),
    "PNG of colours": lambda p: saved(p.convert("RGB"), "PNG"),
    "PNG with a palette": lambda p: saved(p.convert("P"), "PNG"),
    "PNG with transparency": lambda p: saved(p.convert("RGBA"), "PNG"),
    "PNG of 16 bits": lambda p: saved(Image.fromarray(np.asarray(p, dtype=np.uint16) * 257), "PNG"),
    "TIFF": lambda p: saved(p, "TIFF", compression="tiff_lzw"),
    "BMP": lambda p: saved(p, "BMP"),
    "WebP": lambda p: saved(p, "WEBP", lossless=True),
    "on its side": sideways,
}


@pytest.mark.parametrize("how", LOSSLESS)
def test_one_picture_has_one_digest_and_one_signature_in_every_lossless_file(how):
    for number in range(3):
        picture = photograph(number)
        one, other = content.canonical(picture), LOSSLESS[how](picture)
        assert content.digest(one) == content.digest(other)
        assert (content.signatures([content.thumbnail(one)]) == content.signatures([content.thumbnail(other)])).all()


def test_the_digest_tells_pixels_shapes_and_colours_apart():
    picture = photograph(0, (48, 48))
    pixels = np.asarray(picture)
    changed = pixels.copy()
    changed[0, 0] ^= 1
    colours = np.stack([pixels, pixels, changed], axis=2)
    different = [pixels, changed, pixels.reshape(96, 24), content.canonical(Image.fromarray(colours)), pixels[:, :47]]
    assert len({content.digest(one) for one in different}) == len(different)


def test_many_faces_of_48_pixels_are_averaged_as_pillow_averages_one():
    """Up to rounding, since Pillow rounds rows before columns."""
    picture = photograph(1, (48, 48))
    small = np.asarray(picture.resize((16, 16), Image.Resampling.BOX))
    pixels = np.asarray(picture)
    first, second, third = content.signatures([small, pixels, small])
    assert (first == third).all()
    assert np.bitwise_count(first ^ second).sum() <= 4


@pytest.mark.parametrize("size", [(48, 48), (178, 218)])
@pytest.mark.parametrize("quality", [95, 75, 50])
def test_a_picture_saved_with_loss_is_near_and_another_is_not(quality, size):
    pictures = [photograph(number, size) for number in range(60)]
    given = content.signatures([content.thumbnail(np.asarray(one)) for one in pictures])
    again = content.signatures([content.thumbnail(saved(one, "JPEG", quality=quality)) for one in pictures])
    assert content.near_copies(again, given).all()
    assert not content.near_copies(again[:30], given[30:]).any()


def test_pictures_of_one_grey_show_nothing_and_are_alike():
    blank = [np.full((48, 48), value, np.uint8) for value in (0, 128, 255)]
    assert not content.signatures(blank).any()
    assert content.signatures([content.thumbnail(np.asarray(photograph(2)))]).any()


def test_the_search_is_the_count_of_different_bits():
    rng = generator(0, "search")
    others = rng.integers(0, 256, (500, 32)).astype(np.uint8)
    some = others[:60].copy()
    for number, signature in enumerate(some):  # as many flipped bits as its number
        bits = np.unpackbits(signature)
        bits[rng.permutation(256)[:number]] ^= 1
        some[number] = np.packbits(bits)
    for most in (0, 10, 24):
        assert content.near_copies(some, others, most).tolist() == [number <= most for number in range(60)]
    assert not content.near_copies(some, others[:0]).any()


def test_the_signature_of_a_picture_stays_what_it_is():
    """Stored signatures are compared with those of later versions."""
    ramp = np.add.outer(np.arange(48) * 3, np.arange(48) ** 2 // 20).astype(np.uint8)
    assert content.signatures([ramp])[0].tobytes().hex() == (
        "6f5ceb124e49efe1943669046314054b30ddf7bcc7fa24bf294337831ca6a333"
    )


def test_prepared_sets_carry_both_and_their_fingerprint_ignores_them(tmp_path):
    folder = tmp_path / "source"
    for number in range(4):
        (folder / "train" / "happy").mkdir(parents=True, exist_ok=True)
        photograph(number).save(folder / "train" / "happy" / f"{number}.png")
    prepare("manifest", _manifest(folder), tmp_path / "data", "mine")
    found = faces.load("mine", tmp_path / "data")
    wanted = [content.canonical(photograph(number)) for number in range(4)]
    assert found.samples["content"].tolist() == [content.digest(pixels) for pixels in wanted]
    assert (found.signatures == content.signatures([content.thumbnail(pixels) for pixels in wanted])).all()
    assert faces.fingerprint(found.samples) == faces.fingerprint(found.samples.drop(columns="content"))
    assert faces.fingerprint(found.samples) == found.fingerprint


def test_a_set_of_before_loads_and_its_pictures_are_unknown(tmp_path):
    ensure("synth-wild", tmp_path, lambda *_: None)
    before = faces.load("synth-wild", tmp_path)
    folder = tmp_path / "synth-wild"
    (folder / "signatures.npy").unlink()
    before.samples.drop(columns="content").to_csv(folder / "samples.csv", index=False)
    card = before.card.model_copy(update={"files": {}, "digest": ""})
    (folder / "card.json").write_text(card.model_dump_json())
    found = faces.load("synth-wild", tmp_path)
    assert found.signatures is None
    assert set(found.samples["content"]) == {""}
    assert found.fingerprint == before.fingerprint


@pytest.mark.parametrize("name", [name for name in SYNTHETIC if name != "synth-sequences"])  # which takes long to draw
def test_drawn_sets_have_digests_of_their_own(name, tmp_path):
    ensure(name, tmp_path, lambda *_: None)
    found = faces.load(name, tmp_path)
    assert found.samples["content"].is_unique
    assert content.tolerance(found.card) == 0


def _manifest(folder):
    lines = [f"train/happy/{number}.png,happiness" for number in range(4)]
    (folder / "manifest.csv").write_text("\n".join(["path,label", *lines]) + "\n")
    return folder
