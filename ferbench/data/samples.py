"""What a dataset reader gives: samples with their labels, and a call that decodes the picture of each."""

import io
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from ferbench.data import align
from ferbench.data.archive import Tree
from ferbench.data.landmarks import COUNT, anchors, five
from ferbench.errors import DataError
from ferbench.labels import emotion

MAX_PIXELS = 64_000_000  # of one image; the largest honest ones (KDEF, ExpW originals) have under 20 million
# What is read as a picture, by content. Others of Pillow's formats start programs (EPS) or are no photographs.
FORMATS = ("PNG", "JPEG", "MPO", "BMP", "GIF", "TIFF", "WEBP", "PPM", "JPEG2000", "TGA", "PCX", "AVIF")
# Where Pillow finds how the camera was held, beside the tags of a TIFF.
_ORIENTATION = frozenset(("exif", "Raw profile type exif", "XML:com.adobe.xmp", "xmp"))


class Aligned(NamedTuple):
    """A face: pixels uint8 [48,48] and the aligner's name.

    landmarks : 68 of them [68,2] in pixels of the crop, where known. picture : that it was cut out of; None where that
    is ``pixels``. points, box : in pixels of the picture, where known: ``landmarks.FIVE`` [5,2] by which the face was
    placed; left, top, right and bottom. encoded : the file of the picture.
    """

    pixels: np.ndarray
    aligner: str
    landmarks: np.ndarray | None = None
    picture: Image.Image | None = None
    points: np.ndarray | None = None
    box: tuple[int, int, int, int] | None = None
    encoded: bytes = b""


@dataclass(frozen=True, slots=True)
class Sample:
    """One image of a dataset.

    face : returns the aligned face; raises DataError for a corrupt image.
    attributes : 0/1 by name, for sets of attributes.
    """

    id: str
    source: str
    face: Callable[[], Aligned]
    label: str = ""
    subject: str = ""
    sequence: str = ""
    frame: int = -1
    split: str = ""
    attributes: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Listing:
    """A dataset recognised on disk: its layout, its samples in their lasting order, and what to expect.

    expected : counts from the literature as {"class": {...}, "split": {...}}; empty where unknown.
    deviations : sentences about what differs from the dataset's description.
    left_out : why an image file of the source is no sample, by path, where the reader knows.
    """

    layout: str
    samples: Iterable[Sample]
    options: dict[str, Any] = field(default_factory=dict)
    expected: dict[str, dict[str, int]] = field(default_factory=dict)
    deviations: tuple[str, ...] = ()
    left_out: dict[str, str] = field(default_factory=dict)


def folder_emotion(path: str) -> str:
    """Return the emotion that the innermost telling folder of a path names, or an empty text."""
    for part in reversed(path.split("/")[:-1]):
        try:
            return emotion(part)
        except DataError:
            continue
    return ""


def decode(content: bytes, path: str) -> Image.Image:
    """Return the picture in image bytes, upright, whatever the file is called. Raises DataError if it is corrupt.

    A camera that was held on its side stores the picture on its side, and says so in EXIF: it is turned here, so that
    no picture of any source lies down. Landmarks and boxes that come with a set are those of the upright picture.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns of damaged EXIF, and of sizes that are judged here
        try:
            picture = Image.open(io.BytesIO(content), formats=_formats())
            if picture.width * picture.height > MAX_PIXELS:
                raise DataError(f"{path} has {picture.width}×{picture.height} pixels: too large for an image of a face")
            picture.load()
        except DataError:
            raise
        except Image.DecompressionBombError as error:
            raise DataError(f"{path} is a decompression bomb: {error}") from None
        except UnidentifiedImageError:
            kind = " but HEIC: save it as JPEG" if content[4:8] == b"ftyp" else ""
            raise DataError(f"{path} is not a readable image{kind}") from None
        except Exception as error:
            raise DataError(f"{path} is not a readable image ({type(error).__name__}: {error})") from None
        if not hasattr(picture, "tag_v2") and _ORIENTATION.isdisjoint(picture.info):
            return picture
        try:
            return ImageOps.exif_transpose(picture)
        except Exception:  # damaged EXIF under sound pixels: there is no telling how the camera was held
            return picture


@cache
def _formats() -> tuple[str, ...]:
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def as_is(tree: Tree, path: str) -> Callable[[], Aligned]:
    """A face that comes cropped: resized as it is."""
    return partial(_as_is, tree, path)


def _as_is(tree: Tree, path: str) -> Aligned:
    content = tree.read(path)
    return uncropped(decode(content, path), content)


def uncropped(picture: Image.Image, encoded: bytes = b"") -> Aligned:
    """The face in a picture that comes cropped: resized as it is. encoded : the picture's file."""
    same = picture.mode == "L" and picture.size == (align.SIZE, align.SIZE)
    return Aligned(align.resized(picture), "as-is", picture=None if same else picture, encoded=encoded)


def raw(
    tree: Tree,
    path: str,
    landmarks: Callable[[], np.ndarray | None] = lambda: None,
    steady: Callable[[], np.ndarray | None] | None = None,
    box: tuple[int, int, int, int] | None = None,
) -> Callable[[], Aligned]:
    """A raw frame: aligned by the dataset's landmarks ([68,2] or [5,2]), else by a detector where one is installed,
    else the centre crop.

    steady : landmarks of another frame of the sequence, by which this one is placed as well. box : of the dataset,
    which is only kept.
    """

    def face() -> Aligned:
        content = tree.read(path)
        picture = decode(content, path)
        points = landmarks()
        placing = points if steady is None else steady()
        if placing is not None:
            try:
                crop, matrix = align.placed(picture, anchors(placing))
            except DataError as error:
                raise DataError(f"{path}: {error}") from None
            all68 = points if points is not None and len(points) == COUNT else None
            onto = None if all68 is None else align.onto(matrix, all68)
            return Aligned(crop, "landmarks", onto, picture, five(placing), box, content)
        found = align.detected(picture)
        if found is None:
            crop = align.resized(picture.crop(align.centre_square(picture.size)))
            return Aligned(crop, align.CENTRE, picture=picture, box=box, encoded=content)
        left, top, width, height = found.box
        crop = align.aligned(picture, anchors(found.points))
        return Aligned(
            crop, "mtcnn", None, picture, found.points, box or (left, top, left + width, top + height), content
        )

    return face


def boxed(tree: Tree, path: str, box: tuple[int, int, int, int]) -> Callable[[], Aligned]:
    """A face that the dataset's own box cuts out of a picture. box : left, top, right, bottom in pixels."""

    def face() -> Aligned:
        content = tree.read(path)
        picture = decode(content, path)
        left, top, right, bottom = box
        inside = (max(left, 0), max(top, 0), min(right, picture.width), min(bottom, picture.height))
        if inside[2] - inside[0] < 2 or inside[3] - inside[1] < 2:
            raise DataError(
                f"{path}: the box {left},{top} to {right},{bottom} holds nothing of a picture of "
                f"{picture.width}×{picture.height} pixels"
            )
        return Aligned(align.resized(picture.crop(inside)), "box", picture=picture, box=inside, encoded=content)

    return face


def of_pixels(text: str, path: str, size: int = 48) -> Callable[[], Aligned]:
    """A face given as ``size``² grey values in a CSV cell."""

    def face() -> Aligned:
        try:
            values = np.array(text.strip("[]").replace(",", " ").split(), dtype=np.int64)
        except (ValueError, OverflowError):
            raise DataError(f"{path} has pixel values that are no whole numbers: {text[:40]!r}") from None
        if len(values) != size * size or values.min() < 0 or values.max() > 255:
            raise DataError(f"{path} has {len(values)} pixel values; {size * size} between 0 and 255 are wanted")
        return uncropped(Image.fromarray(values.astype(np.uint8).reshape(size, size)))

    return face
