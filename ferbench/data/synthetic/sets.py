"""Datasets of synthetic faces: what ``--dataset synth`` trains and tests on, without any dataset on disk."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from ferbench.data.prepare import write_set
from ferbench.data.samples import Aligned, Listing, Sample
from ferbench.data.synthetic.anatomy import Person, attributes, expression, scaled
from ferbench.data.synthetic.drawing import View, render
from ferbench.errors import UsageError
from ferbench.labels import EMOTIONS, FER2013
from ferbench.schema import Card
from ferbench.seeds import generator

SEED = 2020  # of these datasets, which are the same on every machine
SUBJECTS = 40  # in ``synth``
EXPRESSIONS_PER_SUBJECT = 5  # of seven, in ``synth``
FRAMES = (0.7, 0.85, 1.0)  # share of the peak in the last three frames of a sequence
FACES = 1000  # of ``synth-attributes``
WILD_SPLIT = {"train": 1200, "val": 200}
SEQUENCE_LENGTHS = (8, 13)  # frames of a sequence in ``synth-sequences``: minimum (inclusive) and maximum (exclusive)
SYNTH_LENGTHS = (6, 20)  # the same for ``synth``, which keeps only the last three frames


def prepare_synthetic(name: str, home: Path, tick: Callable[[int, int], None] = lambda done, total: None) -> Card:
    """Draw the dataset ``name`` (one of ``SYNTHETIC``) into the data home ``home``; the pixels are always the same."""
    listings = {
        "synth": _laboratory,
        "synth-attributes": _attributes,
        "synth-sequences": _sequences,
        "synth-wild": _wild,
    }
    if name not in listings:
        raise UsageError(f"{name!r} is no synthetic dataset: there are {', '.join(listings)}")
    listing = Listing("drawn", list(listings[name]()), {"seed": SEED})
    return write_set(home, name, "synth", "drawn by ferbench", listing, tick=tick)


def _laboratory() -> Iterator[Sample]:
    """Like CK+: posed sequences under plain light, of which the last three frames are kept; seven classes."""

    def last(peak: float, length: int) -> list[tuple[int, float]]:
        return [(frame, peak * share) for frame, share in zip(range(length - 2, length + 1), FRAMES, strict=True)]

    return _posed("synth", SYNTH_LENGTHS, last)


def _sequences() -> Iterator[Sample]:
    """Like the official CK+: whole posed sequences from a neutral face to the peak, with all 68 landmarks."""

    def whole(peak: float, length: int) -> list[tuple[int, float]]:
        return [(frame, peak * frame / (length - 1)) for frame in range(length)]

    return _posed("synth-sequences", SEQUENCE_LENGTHS, whole, landmarks=True)


def _posed(
    set_name: str,
    lengths: tuple[int, int],
    frames: Callable[[float, int], list[tuple[int, float]]],
    landmarks: bool = False,
) -> Iterator[Sample]:
    """Give the frames of posed sequences.

    lengths : minimum (inclusive) and maximum (exclusive) number of frames. frames : for a sequence's peak intensity
    and length, the numbers of the frames to draw and the intensity of the expression in each.
    """
    emotions = [name for name in EMOTIONS if name != "neutral"]
    for number in range(SUBJECTS):
        rng = generator(SEED, set_name, number)
        person, subject = Person.draw(rng), f"P{number + 1:03d}"
        for place, emotion in enumerate(rng.permutation(emotions)[:EXPRESSIONS_PER_SUBJECT]):
            peak, length = rng.uniform(0.9, 1.4), int(rng.integers(*lengths))
            units, view = expression(str(emotion), rng), View.draw(rng, 0.0)
            sequence = f"{subject}_{place + 1:03d}"
            for frame, strength in frames(peak, length):
                name = f"{sequence}_{frame:08d}"
                yield Sample(
                    name,
                    "drawn",
                    _face(person, scaled(units, strength), view, set_name, name, landmarks),
                    str(emotion),
                    subject,
                    sequence,
                    frame,
                )


def _attributes() -> Iterator[Sample]:
    """Like CelebA: everyday faces, some smiling, some with their lips apart, and forty attributes."""
    for number in range(FACES):
        rng = generator(SEED, "synth-attributes", number)
        person = Person.draw(rng)
        units = everyday(rng)
        name = f"{number + 1:06d}"
        yield Sample(
            name,
            "drawn",
            _face(person, units, View.draw(rng, 0.1), "synth-attributes", name),
            attributes=attributes(person, units),
        )


def _wild() -> Iterator[Sample]:
    """Like FER2013: anybody, less posed than in the laboratory, seven classes with neutral."""
    for number in range(sum(WILD_SPLIT.values())):
        rng = generator(SEED, "synth-wild", number)
        emotion = FER2013[int(rng.integers(len(FER2013)))]
        units = scaled(expression(emotion, rng), rng.uniform(0.8, 1.4))
        split = "train" if number < WILD_SPLIT["train"] else "val"
        name = f"{split}_{number + 1:05d}"
        yield Sample(
            name, "drawn", _face(Person.draw(rng), units, View.draw(rng, 0.3), "synth-wild", name), emotion, split=split
        )


def everyday(rng: np.random.Generator) -> dict[str, float]:
    """Draw how a face looks in an ordinary photograph: half smile, a third have their lips apart."""
    units = {name: max(0.0, rng.normal(0, 0.25)) for name in ("1", "2", "4", "5", "15", "17")}
    if rng.random() < 0.25:
        units |= {"12": rng.uniform(0.6, 1.1), "6": rng.uniform(0.2, 0.8)}
    if rng.random() < 0.25:
        units["25"] = rng.uniform(0.5, 1.2)
    return units


def _face(
    person: Person, units: dict[str, float], view: View, set_name: str, name: str, landmarks: bool = False
) -> Callable[[], Aligned]:
    def face() -> Aligned:
        pixels, points = render(person, units, view, generator(SEED, set_name, "pixels", name))
        return Aligned(pixels, "drawn", points if landmarks else None)

    return face
