"""The interface of a descriptor, and the description of a set of samples."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import numpy as np

from ferbench.data.resample import resample
from ferbench.errors import DataError
from ferbench.methods.interface import Progress, SampleSet, Video
from ferbench.schema import Schema

CACHE_BYTES = 256 << 20  # of descriptions of single samples, which the folds of a dataset share

Seed = Callable[[str], int]


class Descriptor(ABC):
    """Describes each sample independently of the others, then transforms descriptions to features, after a fit to the
    training set. By default the descriptions are the features.

    reads : "image" or "video". labelled : whether learning uses labels.
    """

    reads: ClassVar[str] = "video"
    labelled: bool = False
    recipe: Schema

    @abstractmethod
    def describe(self, sample: Any) -> np.ndarray:
        """Describe an image uint8 [48,48] or a :class:`Video`: arrays of equal shape for all samples."""

    def fit(self, raw: np.ndarray, labels: np.ndarray, seed: Seed) -> None:
        """Fit to the descriptions [N,…] of a training set with its labels [N]; by default nothing is learned."""
        return

    def transform(self, raw: np.ndarray) -> np.ndarray:
        """Return features [N,D] of descriptions [N,…]."""
        return raw

    def state(self) -> dict[str, np.ndarray]:
        """Return what was learned."""
        return {}

    def load(self, state: Mapping[str, np.ndarray]) -> None:
        """Restore what :meth:`state` returned."""
        return


class _Cache:
    """Descriptions of single samples by their content. All folds share them, because a description does not depend on
    other samples. A full cache accepts no further descriptions."""

    def __init__(self) -> None:
        self.descriptions: dict[bytes, np.ndarray] = {}
        self.bytes = 0

    def get(self, key: bytes, describe: Callable[[], np.ndarray]) -> np.ndarray:
        if key in self.descriptions:
            return self.descriptions[key]
        description = describe()
        if self.bytes + description.nbytes <= CACHE_BYTES:
            self.bytes += description.nbytes
            self.descriptions[key] = description
        return description


_CACHE = _Cache()


def described(
    descriptor: Descriptor, samples: SampleSet, report: Progress = lambda done, total, text: None
) -> np.ndarray:
    """Return the descriptions [N,…] of samples. Raises DataError if a descriptor needs sequences but gets images."""
    inputs: Any = samples.images if descriptor.reads == "image" else samples.videos
    if len(inputs) != len(samples):
        raise DataError("this method reads sequences and was given single images: choose a protocol of sequences")
    settings = f"{type(descriptor).__name__} {descriptor.recipe.model_dump_json()}".encode()
    descriptions = []
    for number, sample in enumerate(inputs):
        key = hashlib.sha256(settings + _content(sample)).digest()
        descriptions.append(_CACHE.get(key, lambda sample=sample: descriptor.describe(sample)))  # type: ignore[misc]
        if number % 32 == 31 or number + 1 == len(inputs):
            report(number + 1, len(inputs), "describing")
    return np.stack(descriptions)


def frames_of(video: Video, count: int) -> np.ndarray:
    """Return ``count`` frames of a sequence, float64 [count,48,48], grey levels; a short sequence repeats frames."""
    return resample(video.frames, count).astype(np.float64)


def copied(state: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Return copies of named arrays or tensors in C order. The rounding of matrix products depends on the order, and
    the predictions of a recogniser must have the same bytes after its training and when it is read from a file."""
    return {name: np.asarray(array).copy(order="C") for name, array in state.items()}


def _content(sample: Any) -> bytes:
    if not isinstance(sample, Video):
        return sample.tobytes()
    points = b"" if sample.landmarks is None else sample.landmarks.tobytes()
    return repr(sample.frames.shape).encode() + sample.frames.tobytes() + points
