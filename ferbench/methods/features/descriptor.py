"""What a descriptor is to the pipeline behind it, and how a set of samples is described."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from ferbench.data.resample import resample
from ferbench.errors import DataError
from ferbench.methods.interface import Progress, SampleSet, Video
from ferbench.schema import Schema

KEPT_BYTES = 256 << 20  # of descriptions of single samples, which the folds of one set have in common

Seed = Callable[[str], int]


class Descriptor:
    """First each sample is described by itself; what is learned of all of them turns that into features. Unless a
    subclass says otherwise nothing is learned, and descriptions are the features.

    reads : "image" or "video". labelled : whether what it learns depends on labels.
    """

    reads: ClassVar[str] = "video"
    labelled: bool = False
    recipe: Schema

    def one(self, sample: Any) -> np.ndarray:
        """Describe an image uint8 [48,48] or a :class:`Video`: arrays of one shape, nothing learned."""
        raise AssertionError("a descriptor describes")

    def fit(self, raw: np.ndarray, labels: np.ndarray, seed: Seed) -> None:
        """Learn from the descriptions [N,…] of a training set with its labels [N]."""

    def transform(self, raw: np.ndarray) -> np.ndarray:
        """Return features [N,D] of descriptions [N,…]."""
        return raw

    def state(self) -> dict[str, np.ndarray]:
        """Return what was learned."""
        return {}

    def load(self, state: Mapping[str, np.ndarray]) -> None:
        """Take up what :meth:`state` gave."""


class _Kept:
    """Descriptions of single samples by their content. Ten folds describe the same samples, and nothing of a
    description depends on other samples; what does not fit in is described again."""

    def __init__(self) -> None:
        self.found: dict[bytes, np.ndarray] = {}
        self.bytes = 0

    def get(self, key: bytes, make: Callable[[], np.ndarray]) -> np.ndarray:
        if key in self.found:
            return self.found[key]
        made = make()
        if self.bytes + made.nbytes <= KEPT_BYTES:
            self.bytes += made.nbytes
            self.found[key] = made
        return made


_KEPT = _Kept()


def described(
    descriptor: Descriptor, samples: SampleSet, report: Progress = lambda done, total, text: None
) -> np.ndarray:
    """Return the descriptions [N,…] of some samples. Raises DataError where sequences are needed and there are
    none."""
    given: Any = samples.images if descriptor.reads == "image" else videos_of(samples)
    said = f"{type(descriptor).__name__} {descriptor.recipe.model_dump_json()}".encode()
    found = []
    for number, sample in enumerate(given):
        key = hashlib.sha256(said + _content(sample)).digest()
        found.append(_KEPT.get(key, lambda sample=sample: descriptor.one(sample)))  # type: ignore[misc]
        if number % 32 == 31 or number + 1 == len(given):
            report(number + 1, len(given), "describing")
    return np.stack(found)


def videos_of(samples: SampleSet) -> Sequence[Video]:
    """Return the sequences of some samples. Raises DataError where they have none."""
    if len(samples.videos) != len(samples):
        raise DataError("this method reads sequences and was given single images: choose a protocol of sequences")
    return samples.videos


def frames_of(video: Video, count: int) -> np.ndarray:
    """Return ``count`` frames of a sequence, float64 [count,48,48], grey levels; a short one repeats frames."""
    return resample(video.frames, count).astype(np.float64)


def taken_up(state: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Return named arrays or tensors as arrays of their own, in C's order: how products of matrices are rounded
    depends on that, and what was learned must predict the same bytes as what is read from a file."""
    return {name: np.asarray(array).copy(order="C") for name, array in state.items()}


def _content(sample: Any) -> bytes:
    if not isinstance(sample, Video):
        return sample.tobytes()
    points = b"" if sample.landmarks is None else sample.landmarks.tobytes()
    return repr(sample.frames.shape).encode() + sample.frames.tobytes() + points
