"""Histograms of gradients: HOG of single images (Dalal & Triggs 2005) by scikit-image, and HOG 3D (Kläser, Marszałek,
Schmid, "A spatio-temporal descriptor based on 3D-gradients", BMVC 2008)."""

from collections.abc import Mapping, Sequence
from itertools import product
from typing import ClassVar

import numpy as np
from skimage.feature import hog
from sklearn.cluster import KMeans

from ferbench.methods.features import Hog, Hog3d
from ferbench.methods.features.descriptor import Descriptor, Seed, frames_of
from ferbench.methods.interface import Video
from ferbench.seeds import generator

GOLDEN = (1 + 5**0.5) / 2
FITTED_ON = 20_000  # maximum number of boxes for k-means


def axes(solid: str) -> np.ndarray:
    """Return one unit normal [A,3] of each pair of opposite faces: 10 of an icosahedron, which point to the vertices of
    a dodecahedron, or 6 of a dodecahedron, which point to the vertices of an icosahedron."""
    signs = (-1.0, 1.0)
    if solid == "icosahedron":
        normals = [np.array(corner) for corner in product(signs, repeat=3)]
        pair = (1 / GOLDEN, GOLDEN)
    else:
        normals, pair = [], (1.0, GOLDEN)
    for a, b in product(signs, repeat=2):
        normals += [np.roll((0.0, a * pair[0], b * pair[1]), shift) for shift in range(3)]
    one_of_each_pair = [normal for normal in normals if tuple(normal) > tuple(-normal)]
    return np.array([normal / np.linalg.norm(normal) for normal in one_of_each_pair])


def quantised(gradients: np.ndarray, solid: str, half: bool) -> np.ndarray:
    """Return histograms [...,B] of gradients [...,3]: |g| distributed over the faces of the solid.

    A face gets the projection on its normal minus t|g|, at least 0, where t is the cosine of the angle between
    neighbouring normals, so a gradient along a normal belongs to its face alone. Bins are scaled to the sum |g|.
    half : g and -g share a bin, so B is 10 or 6; otherwise it is 20 or 12, and bin A + i is the face opposite to i.
    """
    normals = axes(solid)
    cosines = normals @ normals.T
    threshold = np.abs(cosines - np.eye(len(normals))).max()
    bins = gradients @ normals.T
    length = np.linalg.norm(gradients, axis=-1, keepdims=True)
    bins = np.abs(bins) if half else np.concatenate([bins, -bins], axis=-1)
    # Along a normal the projections on its neighbours equal t|g| up to rounding, which must give 0.
    bins = np.maximum(bins - threshold * length * (1 + 1e-12), 0.0)
    total = bins.sum(axis=-1, keepdims=True)
    return bins * np.divide(length, total, out=np.zeros_like(length), where=total > 0)


def averaging(starts: Sequence[float], size: float, parts: int, count: int) -> np.ndarray:
    """Return the matrix [len(starts)·parts, count] that maps values at ``count`` places to their means in the parts of
    the intervals [start, start + size). A value is constant up to the next place, and borders may lie between places.
    Three such products give the means over boxes; the paper takes them from integral videos."""
    edges = np.asarray(starts, dtype=np.float64)[:, None] + np.arange(parts + 1) * (size / parts)
    low, high = edges[:, :-1].reshape(-1, 1), edges[:, 1:].reshape(-1, 1)
    place = np.arange(count)
    overlap = np.clip(np.minimum(high, place + 1) - np.maximum(low, place), 0.0, None)
    return overlap / (high - low)


def mean_gradients(video: np.ndarray, x: np.ndarray, y: np.ndarray, t: np.ndarray) -> np.ndarray:
    """Return the mean of (dI/dx, dI/dy, dI/dt) of a video [T,H,W] in each box, [len(t), len(y), len(x), 3].

    x, y, t : matrices of :func:`averaging`. Central differences, one-sided at the borders.
    """
    parts = []
    for axis in (2, 1, 0):
        means = y @ (np.gradient(video, axis=axis) @ x.T)  # [T,Y,X]
        parts.append(np.tensordot(t, means, axes=1))
    return np.stack(parts, axis=-1)


def box_descriptors(
    video: np.ndarray, recipe: Hog3d, starts: Sequence[Sequence[float]], size: Sequence[float]
) -> np.ndarray:
    """Return the descriptors [boxes, cells, bins] of the boxes of a video, not normalised, in the order t, y, x.

    starts : first places of the boxes along x, y, t. size : of each box along x, y, t.
    """
    parts = [cells * recipe.blocks for cells in recipe.cells]
    lengths = (video.shape[2], video.shape[1], video.shape[0])
    matrices = [averaging(*axis) for axis in zip(starts, size, parts, lengths, strict=True)]
    bins = quantised(mean_gradients(video, *matrices), recipe.solid, recipe.half)
    shape = []
    for axis in (2, 1, 0):
        shape += [len(starts[axis]), recipe.cells[axis], recipe.blocks]
    cells = bins.reshape(*shape, -1).sum(axis=(2, 5, 8))  # [boxes and cells of t, of y, of x, bins]
    cells = cells.transpose(0, 2, 4, 1, 3, 5, 6)
    return cells.reshape(-1, int(np.prod(recipe.cells)), cells.shape[-1])


def normalised(cells: np.ndarray, kind: str) -> np.ndarray:
    """Return descriptors [boxes, cells, bins] as vectors: each cell normalised to length 1 (``kind`` "cells"), or the
    whole normalised to length 1, clipped at 0.25 and normalised again."""
    if kind == "cells":
        return _unit(cells).reshape(len(cells), -1)
    return _unit(np.minimum(_unit(cells.reshape(len(cells), -1)), 0.25))


class SpaceTimeGradients(Descriptor):
    """HOG 3D of a whole sequence, or the frequencies of its codewords in dense boxes."""

    def __init__(self, recipe: Hog3d) -> None:
        self.recipe: Hog3d = recipe
        self.words = np.zeros((0, 0))

    def describe(self, sample: Video) -> np.ndarray:
        """[D] of the whole sequence, or [boxes, D]; boxes with small gradients are 0."""
        video = frames_of(sample, self.recipe.frames)
        whole = (video.shape[2], video.shape[1], video.shape[0])
        if self.recipe.pool == "box":
            return normalised(box_descriptors(video, self.recipe, [[0]] * 3, whole), self.recipe.normalise)[0]
        size = [min(side, length) for side, length in zip(self.recipe.box, whole, strict=True)]
        starts = [np.arange(0, length - side + 1e-9, side / 2) for side, length in zip(size, whole, strict=True)]
        cells = box_descriptors(video, self.recipe, starts, size)  # type: ignore[arg-type]
        strong = np.linalg.norm(cells, axis=-1).sum(axis=-1) >= self.recipe.least
        return normalised(cells, self.recipe.normalise) * strong[:, None]

    def fit(self, raw: np.ndarray, labels: np.ndarray, seed: Seed) -> None:
        if self.recipe.pool == "box":
            return
        boxes = raw.reshape(-1, raw.shape[-1])
        boxes = boxes[np.any(boxes, axis=1)]
        rng = generator(seed("codewords"))
        chosen = boxes[rng.permutation(len(boxes))[:FITTED_ON]]
        count = min(self.recipe.words, len(np.unique(chosen, axis=0)))
        self.words = KMeans(count, n_init=1, random_state=seed("k-means") % 2**32).fit(chosen).cluster_centers_

    def transform(self, raw: np.ndarray) -> np.ndarray:
        return raw if self.recipe.pool == "box" else np.stack([self._frequencies(boxes) for boxes in raw])

    def state(self) -> dict[str, np.ndarray]:
        return {} if self.recipe.pool == "box" else {"words": self.words}

    def load(self, state: Mapping[str, np.ndarray]) -> None:
        if self.recipe.pool == "words":
            self.words = state["words"]

    def _frequencies(self, boxes: np.ndarray) -> np.ndarray:
        """The share of boxes, without those that are 0, for which each codeword is the nearest one."""
        boxes = boxes[np.any(boxes, axis=1)]
        distance = (self.words**2).sum(axis=1) - 2 * boxes @ self.words.T
        counts = np.bincount(distance.argmin(axis=1), minlength=len(self.words))
        return counts / max(1, len(boxes))


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)


def histogram(image: np.ndarray, orientations: int, cell: int, block: int, norm: str = "L2-Hys") -> np.ndarray:
    """Return histograms [rows, columns, block, block, orientations] of blocks with a stride of one cell.

    image : float [48,48] in [0,1]. cell : in pixels. block : in cells. norm : of each block.
    """
    return hog(image, orientations, (cell, cell), (block, block), block_norm=norm, feature_vector=False)


class ImageHistogram(Descriptor):
    """HOG of an image."""

    reads: ClassVar[str] = "image"

    def __init__(self, recipe: Hog) -> None:
        self.recipe: Hog = recipe

    def describe(self, sample: np.ndarray) -> np.ndarray:
        return self._hog(sample / 255.0)

    def _hog(self, image: np.ndarray) -> np.ndarray:
        return histogram(image, self.recipe.orientations, self.recipe.cell, self.recipe.block).ravel()


class ReferencedHistogram(ImageHistogram):
    """The change from the first to the last frame of a sequence: HOG of their difference, or the difference of their
    HOG.

    It uses the neutral face of a person but no dynamics. Its gain over HOG of one image is the part of the gain of
    dynamic methods that comes from the neutral face.
    """

    reads: ClassVar[str] = "video"

    def describe(self, sample: Video) -> np.ndarray:  # type: ignore[override]
        first, last = sample.frames[0] / 255.0, sample.frames[-1] / 255.0
        if self.recipe.reference == "image":
            return self._hog(last - first)
        return self._hog(last) - self._hog(first)
