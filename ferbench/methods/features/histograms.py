"""Histograms of oriented gradients of single images (Dalal & Triggs 2005), by scikit-image."""

from typing import ClassVar

import numpy as np
from skimage.feature import hog

from ferbench.methods.features import Hog
from ferbench.methods.features.descriptor import Descriptor
from ferbench.methods.interface import Video


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
