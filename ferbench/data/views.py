"""A view: the pictures of a prepared dataset at one size, in one colour and by one alignment.

``images.npy`` is the view (48, grey, template). Others are made when they are first asked for and stored in the user's
cache, memory-mapped; a view that would not fit there is decoded picture by picture. Importing this loads neither pandas
nor Pillow.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, cast

import numpy as np
from pydantic import Field

from ferbench.data.faces import SIZE, Faces
from ferbench.environment import cores
from ferbench.errors import DataError, UsageError
from ferbench.files import cache_home, canonical_json, exclusive, sha256_of, sha256_of_file
from ferbench.schema import Schema
from ferbench.tables import read_array

if TYPE_CHECKING:
    from PIL import Image

Alignment = Literal["template", "as-is", "box", "arcface", "ddamfn", "raf"]
MARGIN = 1.2  # of "box"; 20 % as in CD-FER-Benchmark and in py-feat
# Landmarks (landmarks.FIVE) in pixels of a 112-pixel image: insightface's face_align.py, and the frontal one of the
# five templates of DDAMFN++. RAF-DB's aligned images have the eyes and the mouth's centre at these shares of the side.
_ARCFACE = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]]
)
_DDAMFN = np.array([[33.566, 40.559], [78.321, 40.559], [55.338, 64.967], [38.479, 90.276], [73.591, 90.276]])
_RAF = np.array([[0.286, 0.4], [0.714, 0.4], [0.5, 0.714]])
BY_LANDMARKS = ("arcface", "ddamfn", "raf")
LANDMARKS_BY = ("", "of the dataset", "by MTCNN", "by its O-Net")  # where they come from, by pictures.ROW's number
PLACED = ("landmarks", "mtcnn", "onet", "fixed-crop")  # aligners that place landmarks on the template
NO_POINTS, NO_BOX = np.full((5, 2), np.nan), np.full(4, np.nan)  # where they are unknown
CACHE_GB = 16.0  # of all views; the environment variable FERBENCH_VIEWS_GB sets another bound
_SPARE = 1e9  # bytes of the disk that stay free
_AT_ONCE = 256  # images
_REVISION = 1  # raised when a change of code changes the pixels of views


class View(Schema):
    """size : height and width in pixels. colour : of grey pictures the levels are repeated for "rgb".

    alignment : "template": as in ``images.npy``. "as-is": the picture as the dataset gives it cropped, else the face's
    box. "box": 1.2 times the box. "arcface", "ddamfn" and "raf": landmarks lie where the code of that name puts them.
    resize : filter of Pillow for faces that are not turned; by default the one that makes ``images.npy``. crop : share
    of the side that the centre keeps (timm's ``crop_pct``): faces are made in size / crop pixels, rounded down, before.
    """

    size: Annotated[int, Field(ge=8, le=1024)] = SIZE
    colour: Literal["grey", "rgb"] = "grey"
    alignment: Alignment = "template"
    resize: Literal["", "bilinear", "bicubic"] = ""
    crop: Annotated[float, Field(ge=0.1, le=1)] = 1.0

    def __str__(self) -> str:
        return f"{self.size} {self.colour}" + (f", {self.alignment}" if self.alignment != "template" else "")

    @property
    def shape(self) -> tuple[int, ...]:
        """Of an image."""
        return (self.size, self.size, 3) if self.colour == "rgb" else (self.size, self.size)

    @property
    def is_default(self) -> bool:
        """Whether it is what ``images.npy`` holds."""
        return (self.size, self.colour, self.alignment, self.crop) == (SIZE, "grey", "template", 1.0)


IMAGES = View()  # what images.npy holds


class InputSpec(View):
    """What a network sees: a view, of which ``mean`` is subtracted and by ``std`` divided, for each channel or for all,
    after 0 to 255 was scaled to 0 to 1. The defaults are those of ImageNet (timm's ``pretrained_cfg``)."""

    size: Annotated[int, Field(ge=8, le=1024)] = 112
    colour: Literal["grey", "rgb"] = "rgb"
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)

    @property
    def view(self) -> View:
        return View.model_validate(self.model_dump(include=set(View.model_fields)))


@dataclass(frozen=True)
class Images:
    """Rows of a view. It behaves like an array uint8 [N,S,S] or [N,S,S,3] whose images are read when they are indexed.

    read : gives the images of some rows of the prepared dataset. rows : int64 [N].
    """

    read: Callable[[np.ndarray], np.ndarray]
    rows: np.ndarray
    view: View

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.rows), *self.view.shape)

    def __getitem__(self, index: slice | np.ndarray) -> np.ndarray:
        return self.read(self.rows[index])


def images(faces: Faces, rows: np.ndarray, view: View = IMAGES, store: bool = False) -> np.ndarray:
    """Return a view of some rows of a prepared dataset, uint8 [N,S,S] or [N,S,S,3], as :class:`Images`; 48 grey pixels
    as an array.

    store : make the whole view in the cache if it fits there, as a training reads it in each epoch. Otherwise only what
    is already there is used. Raises DataError for damaged pictures.
    """
    if view.is_default:
        return faces.pixels(rows)
    return cast(np.ndarray, Images(_opened(faces, view, store), rows, view))


def seen(faces: Faces, view: View) -> str:
    """Say what a model sees by a view, such as "224 rgb, arcface", and of what it was made if that was less, such as
    "224 rgb from 48 grey"."""
    kept = faces.card.pictures
    side, colour = (kept.side, "rgb" if 2 * kept.colour > kept.count else "grey") if kept else (SIZE, "grey")
    less = side < view.size or (colour, view.colour) == ("grey", "rgb")
    return f"{view} from {side} {colour}" if less and not view.is_default else str(view)


def notes(faces: Faces, rows: np.ndarray, view: View) -> list[str]:
    """Say where the landmarks of a view come from, and how many pictures have none or, for "box", no box."""
    pictures = None if view.is_default else faces.kept
    if view.alignment == "box":
        missing = len(rows) if pictures is None else int(np.isnan(pictures.rows["box"][rows, 0]).sum())
        return (
            [f"{missing:,} of {len(rows):,} pictures have no box: the face's square stands for it"] if missing else []
        )
    if view.alignment not in BY_LANDMARKS:
        return []
    by = np.zeros(len(rows), dtype=int) if pictures is None else pictures.rows["by"][rows]
    counts = {name: int((by == number).sum()) for number, name in enumerate(LANDMARKS_BY)}
    found = ", ".join(f"{count:,} {name}" for name, count in counts.items() if name and count)
    without = f"{counts['']:,} of {len(rows):,} pictures have no landmarks and stay as they came"
    return [*([f"landmarks for {view.alignment}: {found}"] if found else []), *([without] if counts[""] else [])]


def view_of(
    picture: Image.Image, view: View, aligner: str = "as-is", points: np.ndarray = NO_POINTS, box: np.ndarray = NO_BOX
) -> np.ndarray:
    """Return one picture as a view: uint8 [S,S] or [S,S,3].

    aligner : of ``images.npy``; "as-is" for a picture that is the face. points : ``landmarks.FIVE`` [5,2], box : left,
    top, right, bottom; in pixels of the picture, NaN where unknown.
    """
    from ferbench.data import align
    from ferbench.data.landmarks import anchors
    from ferbench.data.pictures import CROPPED, region

    if view.crop < 1:
        whole = view.model_copy(update={"size": int(view.size / view.crop), "crop": 1.0})
        first = round((whole.size - view.size) / 2)
        pixels = view_of(picture, whole, aligner, points, box)
        return pixels[first : first + view.size, first : first + view.size]
    known = not np.isnan(points[0]).any()
    if known and view.alignment in BY_LANDMARKS:
        target = _target(view)
        if len(target) != len(points) or np.isnan(points).any():
            points, target = anchors(points), target if len(target) == 3 else anchors(target)
        return align.placed(picture, points, target, view.size, view.colour)[0]
    if known and view.alignment == "template" and aligner in PLACED:
        return align.placed(picture, anchors(points), align.template(view.size), view.size, view.colour)[0]
    boxed = not np.isnan(box).any()
    left, top, right, bottom = region(aligner, points, box, picture.size)
    if view.alignment == "box" and boxed:
        left, top, right, bottom = (float(place) for place in box)
    if view.alignment == "box" and (boxed or aligner not in CROPPED):
        x, y, half = (left + right) / 2, (top + bottom) / 2, MARGIN * max(right - left, bottom - top) / 2
        left, top, right, bottom = x - half, y - half, x + half, y + half
    if left < 0 or top < 0 or right > picture.width or bottom > picture.height:  # the nearest pixels are repeated
        across, down = (right - left) / view.size, (bottom - top) / view.size
        matrix = np.array([[across, 0, left + across / 2 - 0.5], [0, down, top + down / 2 - 0.5]])
        return align.resampled(align.in_colour(picture, view.colour), matrix, view.size)
    corners = round(left), round(top), round(right), round(bottom)
    face = picture if corners == (0, 0, *picture.size) else picture.crop(corners)
    return align.resized(face, view.size, view.colour, view.resize)


def _target(view: View) -> np.ndarray:
    """Where landmarks lie in a view: [5,2], or [3,2] of eyes and the mouth's centre."""
    if view.alignment == "raf":
        return _RAF * view.size - 0.5
    if view.alignment == "ddamfn":
        return _DDAMFN * (view.size / 112)
    if view.size % 112 == 0:
        return _ARCFACE * (view.size / 112)
    ratio = view.size / 128  # as insightface places faces of other sizes
    return _ARCFACE * ratio + (8 * ratio, 0)


def _opened(faces: Faces, view: View, store: bool) -> Callable[[np.ndarray], np.ndarray]:
    """A function from rows to the images of a view: from the cache, or decoded on the fly."""
    kept = faces.card.pictures
    content = [_REVISION, faces.fingerprint, kept and kept.fingerprint, view.model_dump(), metadata.version("pillow")]
    key, folder = sha256_of(canonical_json(content).encode())[:16], cache_home() / "views"
    path = next(folder.glob(f"{key}-*.npy"), None)
    if path is None and store:
        with suppress(OSError, DataError):  # a disk that is full or read-only: pictures are decoded again
            path = _written(faces, view, folder, key)
    if path is not None and _is_whole(path):
        os.utime(path)  # the least recently used views make room for others
        return read_array(path).__getitem__
    return _drawing(faces, view)


def _drawing(faces: Faces, view: View) -> Callable[[np.ndarray], np.ndarray]:
    """A function that decodes and draws the pictures of some rows, in as many threads as there are cores: Pillow
    releases Python's lock."""
    from PIL import Image

    pictures, aligners = faces.kept, faces.samples["aligner"].to_numpy()

    def one(row: int) -> np.ndarray:
        picture = None if pictures is None else pictures.picture(row)
        if pictures is None or picture is None:
            return view_of(Image.fromarray(faces.images[row]), view)
        known = pictures.rows[row]
        return view_of(picture, view, aligners[row], known["points"].astype(float), known["box"].astype(float))

    def draw(rows: np.ndarray) -> np.ndarray:
        if not len(rows):
            return np.empty((0, *view.shape), dtype=np.uint8)
        with ThreadPoolExecutor(cores()) as pool:
            return np.stack(list(pool.map(one, rows.tolist())))

    return draw


def _make_room(folder: Path, size: float) -> bool:
    """Whether a view of so many bytes fits into the cache, after the least recently used ones are removed."""
    given = os.environ.get("FERBENCH_VIEWS_GB", str(CACHE_GB))
    try:
        bound = float(given) * 1e9
    except ValueError:
        raise UsageError(f"FERBENCH_VIEWS_GB is a number of gigabytes, not {given!r}") from None
    free = shutil.disk_usage(folder).free
    files = sorted(folder.glob("*.npy"), key=lambda path: path.stat().st_mtime)
    used = sum(path.stat().st_size for path in files)
    if size > bound or size + _SPARE > free + used:
        return False
    for path in files:
        if used + size <= bound and size + _SPARE <= free:
            break
        bytes_of = path.stat().st_size
        path.unlink(missing_ok=True)
        used, free = used - bytes_of, free + bytes_of
    return True


def _written(faces: Faces, view: View, folder: Path, key: str) -> Path | None:
    """Write a whole view, unless another process has done so; None where it does not fit. The name of the file ends
    with its checksum."""
    shape, temporary, draw = (len(faces), *view.shape), folder / f".{key}.npy", _drawing(faces, view)
    with exclusive(folder / f".{key}.lock"):
        if path := next(folder.glob(f"{key}-*.npy"), None):
            return path
        if not _make_room(folder, float(np.prod(shape))):
            return None
        try:
            with temporary.open("wb") as file:
                header = {"descr": "|u1", "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_1_0(file, header)
                for start in range(0, len(faces), _AT_ONCE):
                    file.write(draw(np.arange(start, min(start + _AT_ONCE, len(faces)))).data)
            path = folder / f"{key}-{sha256_of_file(temporary)[:16]}.npy"
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    return path


@lru_cache(maxsize=32)
def _is_whole(path: Path) -> bool:
    """Whether a file of the cache has the checksum in its name; one that has not is removed."""
    whole = sha256_of_file(path)[:16] == path.stem.rpartition("-")[2]
    if not whole:
        path.unlink(missing_ok=True)
    return whole
