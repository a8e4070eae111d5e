"""The pictures of a prepared dataset: what the source had of each face beyond the 48 grey pixels of ``images.npy``.

``pictures.bin`` holds image files one after the other, ``pictures.npy`` where each begins, landmarks and boxes. A
picture is the source's own file if no side is longer than ``keep`` pixels. Otherwise it is a lossless WebP file: of the
whole picture, made smaller, where the face comes cropped, else of a square with twice the sides of the face.
"""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image

from ferbench.data import align, content, onet
from ferbench.data.faces import PICTURES
from ferbench.data.landmarks import FIVE, anchors
from ferbench.data.samples import Aligned, decode
from ferbench.data.views import NO_BOX, NO_POINTS
from ferbench.errors import DataError
from ferbench.schema import KeptPictures
from ferbench.tables import read_array

DATA, INDEX = PICTURES
KEEP = 512  # pixels of the longest side, by default
CROPPED = ("as-is", "onet", "onet-unsure")  # aligners of faces that come cropped
_GENEROUS = 2.0  # sides of a square that is cut out, in sides of the face
# offset and size : of the file in pictures.bin, in bytes; a size of 0: the picture is the image of 48 pixels.
# points : landmarks.FIVE, box : left, top, right, bottom; in pixels of the picture, NaN where unknown.
# by : where the landmarks come from, an index of views.LANDMARKS_BY.
ROW = np.dtype(
    [("offset", "<u8"), ("size", "<u4"), ("by", "<u4"), ("points", "<f4", (len(FIVE), 2)), ("box", "<f4", (4,))]
)
_BY = {"landmarks": 1, "fixed-crop": 1, "mtcnn": 2, "onet": 3}  # by aligner


@dataclass(frozen=True)
class Kept:
    """One picture to be kept.

    by, points, box : as in :data:`ROW`. digest : of its pixels. side : of the face, in pixels. colour : "grey" where
    all channels are equal, else "rgb".
    """

    file: bytes
    by: int
    points: np.ndarray
    box: np.ndarray
    digest: str
    side: int
    colour: str


def kept(face: Aligned, pixels: np.ndarray, digest: str, keep: int) -> Kept | None:
    """Return what is kept of a face's picture; None where ``images.npy`` has all of it.

    pixels, digest : of the picture, by ``content.canonical`` and ``content.digest``. keep : pixels of the longest side.
    """
    if face.picture is None or (face.aligner in CROPPED[:1] and pixels.shape == (align.SIZE, align.SIZE)):
        return None
    by, points, box = _landmarks(face)
    height, width = pixels.shape[:2]
    left, top, right, bottom = region(face.aligner, points, box, (width, height))
    side, file = max(right - left, bottom - top), face.encoded
    if max(width, height) > keep or not file:
        image = Image.fromarray(pixels)
        if face.aligner not in CROPPED:
            middle, half = np.array([left + right, top + bottom]) / 2, _GENEROUS * side / 2
            low = np.clip(np.floor(middle - half), 0, (width, height)).astype(int)
            high = np.clip(np.ceil(middle + half), 0, (width, height)).astype(int)
            image = image.crop((*low, *high))
            points, box = points - low, box - np.tile(low, 2)
        if (scale := keep / max(image.size)) < 1:
            image = image.resize(
                (max(1, round(image.width * scale)), max(1, round(image.height * scale))), Image.Resampling.LANCZOS
            )
            points, box, side = (points + 0.5) * scale - 0.5, box * scale, side * scale
        written = io.BytesIO()
        image.save(written, "WEBP", lossless=True, quality=20, method=1)
        file, digest = written.getvalue(), content.digest(content.canonical(image))
    return Kept(file, by, points, box, digest, max(1, round(side)), "grey" if pixels.ndim == 2 else "rgb")


def _landmarks(face: Aligned) -> tuple[int, np.ndarray, np.ndarray]:
    """Where the landmarks of a face come from, the landmarks [5,2] and the box [4]: of the dataset, or those by which
    the face was aligned; else by O-Net, or by all of MTCNN where O-Net sees no face that fills the picture."""
    points, box = face.points, face.box
    by = 0 if points is None else _BY[face.aligner]
    if points is None and face.aligner in onet.CROPS and face.picture is not None and onet.is_installed():
        places, probability = onet.landmarks(face.pixels)
        if probability >= onet.SURE:
            points, by = onet.in_picture(places, box or (0, 0, *face.picture.size)), _BY["onet"]
        elif box is None and (found := align.detected(face.picture)):
            left, top, width, height = found.box
            points, box, by = found.points, (left, top, left + width, top + height), _BY["mtcnn"]
        if points is not None:
            try:
                align.placed(face.picture, anchors(points))
            except DataError:  # points that are no face's
                points, by = None, 0
    return by, NO_POINTS if points is None else points, NO_BOX if box is None else np.array(box, dtype=np.float64)


def region(
    aligner: str, points: np.ndarray, box: np.ndarray, size: tuple[int, int]
) -> tuple[float, float, float, float]:
    """Return left, top, right and bottom of the face in a picture of ``size`` (width, height): all of a picture that
    comes cropped, else the box, else the template's square without its rotation, else the centred square."""
    width, height = size
    if aligner in CROPPED:
        return 0, 0, width, height
    if not np.isnan(box).any():
        left, top, right, bottom = (float(value) for value in box)
        return left, top, right, bottom
    if not np.isnan(points[0]).any():
        matrix = align.similarity(anchors(points))
        x, y = matrix @ ((align.SIZE - 1) / 2, (align.SIZE - 1) / 2, 1) + 0.5
        half = float(np.hypot(matrix[0, 0], matrix[1, 0])) * align.SIZE / 2
        return x - half, y - half, x + half, y + half
    return align.centre_square(size)


class Writer:
    """Writes the pictures of a prepared dataset as they come; no file before the first picture. To be closed."""

    def __init__(self, folder: Path, keep: int):
        self.folder, self.keep = folder, keep
        self._file: BinaryIO | None = None
        self._rows = bytearray()
        self._end = self._colours = 0
        self._sides: list[int] = []
        self._fingerprint = hashlib.sha256()

    def add(self, picture: Kept | None) -> None:
        """Append the picture of the next row; None for a row without one."""
        row = np.zeros(1, dtype=ROW)
        row["offset"], row["points"], row["box"] = self._end, np.nan, np.nan
        if picture is not None:
            if self._file is None:
                self._file = (self.folder / DATA).open("wb")
            row["size"], row["by"] = len(picture.file), picture.by
            row["points"], row["box"] = picture.points, picture.box
            self._end += self._file.write(picture.file)
            self._sides.append(picture.side)
            self._colours += picture.colour == "rgb"
        self._fingerprint.update((picture.digest if picture else "").encode() + b"\n")
        self._rows += row.tobytes()

    def finish(self) -> KeptPictures | None:
        """Write the index. Returns what the card says of the pictures, None where there are none."""
        self.close()
        if not self._sides:
            return None
        table = np.frombuffer(self._rows, dtype=ROW)
        np.save(self.folder / INDEX, table, allow_pickle=False)
        self._fingerprint.update(table["points"].tobytes() + table["box"].tobytes())
        return KeptPictures(
            count=len(self._sides),
            keep=self.keep,
            bytes=self._end,
            colour=self._colours,
            side=int(np.median(self._sides)),
            points=int((~np.isnan(table["points"][:, 0, 0])).sum()),
            fingerprint=self._fingerprint.hexdigest(),
        )

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()


class Pictures:
    """The pictures of a prepared dataset that lies in ``folder``. rows : :data:`ROW` [N]."""

    def __init__(self, folder: Path, count: int):
        try:
            self.rows = read_array(folder / INDEX)
            self._data = np.memmap(folder / DATA, dtype=np.uint8, mode="r")
        except (OSError, ValueError, DataError) as error:
            raise DataError(f"the pictures of {folder} are damaged ({error}): prepare it again") from None
        if self.rows.dtype != ROW or len(self.rows) != count:
            raise DataError(f"the pictures of {folder} are damaged ({len(self.rows)} rows): prepare it again")
        self._name = str(folder / DATA)

    def picture(self, row: int) -> Image.Image | None:
        """Decode a picture; None where there is none beside the image of 48 pixels."""
        offset, size = int(self.rows["offset"][row]), int(self.rows["size"][row])
        return decode(self._data[offset : offset + size].tobytes(), f"{self._name}, row {row}") if size else None
