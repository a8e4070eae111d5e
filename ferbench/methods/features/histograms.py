"""Histograms of oriented gradients of single images (Dalal & Triggs 2005), by scikit-image."""

from typing import ClassVar

import numpy as np
from skimage.feature import hog

from ferbench.methods.features.descriptor import Descriptor
from ferbench.methods.features.recipe import Hog
from ferbench.methods.interface import Video


def histogram(image: np.ndarray, orientations: int, cell: int, block: int, norm: str = "L2-Hys") -> np.ndarray:
    """Return histograms [rows, columns, block, block, orientations] of blocks that lie one cell apart.

    image : float [48,48], at a scale of 0 to 1. cell : pixels. block : cells. norm : of each block.
    """
    return hog(image, orientations, (cell, cell), (block, block), block_norm=norm, feature_vector=False)


class ImageHistogram(Descriptor):
    """HOG of an image."""

    reads: ClassVar[str] = "image"

    def __init__(self, recipe: Hog) -> None:
        self.recipe: Hog = recipe

    def one(self, sample: np.ndarray) -> np.ndarray:
        return self._hog(sample / 255.0)

    def _hog(self, image: np.ndarray) -> np.ndarray:
        return histogram(image, self.recipe.orientations, self.recipe.cell, self.recipe.block).ravel()


class ReferencedHistogram(ImageHistogram):
    """What of a sequence's last frame its first one has not: HOG of their difference, or the difference of their HOG.

    It knows a person's neutral face and nothing of dynamics, so it says how much of what a dynamic method gains is
    that knowledge.
    """

    reads: ClassVar[str] = "video"

    def one(self, sample: Video) -> np.ndarray:  # type: ignore[override]
        first, last = sample.frames[0] / 255.0, sample.frames[-1] / 255.0
        if self.recipe.reference == "image":
            return self._hog(last - first)
        return self._hog(last) - self._hog(first)
