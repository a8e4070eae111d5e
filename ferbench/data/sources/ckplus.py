"""CK+ (Lucey et al. 2010): the official tree, the CK+48 crops, and ckextended.csv."""

import re
from collections import defaultdict
from collections.abc import Callable

import numpy as np

from ferbench.data import archive
from ferbench.data.archive import IMAGE, Tree, filename, stem
from ferbench.data.landmarks import COUNT
from ferbench.data.samples import Listing, Sample, as_is, folder_emotion, of_pixels, raw
from ferbench.data.sources import Options
from ferbench.errors import DataError, UsageError
from ferbench.labels import CKEXTENDED, CKPLUS, USAGES

_FRAME = re.compile(r"^(S\d{3})_(\d{3})_(\d{8})" + IMAGE)
_EMOTION = re.compile(r"^(S\d{3})_(\d{3})_(\d{8})_emotion\.(?i:txt)$")
_LANDMARKS = re.compile(r"^(S\d{3}_\d{3}_\d{8})_landmarks\.(?i:txt)$")
LAST = 3  # frames of each sequence that every published protocol uses (Zhang et al. 2020, IV-A-2)

# The official release, three frames of each of the 327 labelled sequences.
_EXPECTED = {
    "class": {
        "anger": 135,
        "contempt": 54,
        "disgust": 177,
        "fear": 75,
        "happiness": 207,
        "sadness": 84,
        "surprise": 249,
    }
}
_SEQUENCES = {"sequences": {name: number // LAST for name, number in _EXPECTED["class"].items()}}


def looks_like(tree: Tree) -> bool:
    return any(_FRAME.match(filename(path)) or filename(path).lower() == "ckextended.csv" for path in tree.paths)


def read(tree: Tree, options: Options) -> Listing:
    frames = [path for path in tree.paths if _FRAME.match(filename(path))]
    if not frames:
        return _extended(tree, next(path for path in tree.paths if filename(path).lower() == "ckextended.csv"))
    if any(_EMOTION.match(filename(path)) for path in tree.paths):
        if options.align == "onet":
            raise UsageError("--align onet is for faces that come cropped: the official tree of CK+ has landmarks")
        return _official(tree, frames, options.align)
    if options.align == "sequence":
        raise UsageError("--align sequence takes the official tree of CK+ with its landmarks: crops stay as they are")
    classes = {path: folder_emotion(path) for path in frames}
    if all(classes.values()):
        return _crops(tree, classes)
    raise DataError(
        f"{tree.name} has the images of CK+ but no emotion files: put the folder Emotion "
        "(Emotion_labels.zip) beside cohn-kanade-images"
    )


def _official(tree: Tree, frames: list[str], align: str) -> Listing:
    """cohn-kanade-images/S005/001/S005_001_00000011.png, Emotion/…_emotion.txt, Landmarks/…_landmarks.txt: labelled
    sequences whole, from the neutral face on."""
    sequences: dict[str, dict[int, str]] = defaultdict(dict)
    for path in frames:
        subject, sequence, frame = _parts(path)
        sequences[f"{subject}_{sequence}"][int(frame)] = path
    landmarks = {m[1]: path for path in tree.paths if (m := _LANDMARKS.match(filename(path)))}
    samples, notes = [], []
    for path in tree.paths:
        match = _EMOTION.match(filename(path))
        if match is None:
            continue
        sequence = f"{match[1]}_{match[2]}"
        label = _emotion(tree, path)
        if not sequences.get(sequence):
            notes.append(f"sequence {sequence} is labelled but has no images")
            continue
        numbers = sorted(sequences[sequence])
        last = numbers[-LAST:]
        if np.diff(last).max(initial=1) > 1 or len(last) < LAST:
            notes.append(f"sequence {sequence}: the last frames {last} are not {LAST} in a row")
        if int(match[3]) != numbers[-1]:
            notes.append(f"sequence {sequence}: labelled at frame {int(match[3])}, but the last is {numbers[-1]}")
        first = _points(tree, landmarks.get(stem(sequences[sequence][numbers[0]])))
        for number in numbers:
            image = sequences[sequence][number]
            name = stem(image)
            points = _points(tree, landmarks.get(name))
            samples.append(
                Sample(
                    name,
                    image,
                    raw(tree, image, points, first if align == "sequence" else None),
                    label,
                    match[1],
                    sequence,
                    number,
                )
            )
    without = sum(sample.id not in landmarks for sample in samples)
    if without:
        notes.append(f"{without} images have no landmark file")
    samples.sort(key=lambda sample: sample.id)
    left_out = dict.fromkeys(frames, "no emotion file labels their sequence")
    return Listing("official tree with Emotion files", samples, {"align": align}, _SEQUENCES, tuple(notes), left_out)


def _crops(tree: Tree, classes: dict[str, str]) -> Listing:
    """CK+48/anger/S010_004_00000017.png: cropped to 48×48; names still tell subject, sequence and frame."""
    samples = []
    for path, label in classes.items():
        subject, sequence, frame = _parts(path)
        samples.append(Sample(stem(path), path, as_is(tree, path), label, subject, f"{subject}_{sequence}", int(frame)))
    samples.sort(key=lambda sample: sample.id)
    return Listing("CK+48: class folders of 48×48 crops", samples, {}, _EXPECTED)


def _extended(tree: Tree, path: str) -> Listing:
    """ckextended.csv: emotion,pixels,Usage; one frame a sequence and no subjects."""
    samples = []
    for number, row in enumerate(archive.rows(tree, path, ("emotion", "pixels"), ("Usage",))):
        code, usage = archive.whole(row["emotion"]), row.get("Usage", "")
        if code not in CKEXTENDED or usage not in ("", *USAGES):
            raise DataError(
                f"{row.where}: emotion {row['emotion'][:20]!r} and Usage {usage[:20]!r} are not of "
                f"ckextended.csv, which knows 0 to 7 and {', '.join(USAGES)}"
            )
        samples.append(
            Sample(
                f"row{number + 1:05d}",
                row.where,
                of_pixels(row["pixels"], row.where),
                CKEXTENDED[code],
                split=USAGES.get(usage, ""),
            )
        )
    notes = ("ckextended.csv names no subjects, so folds by subject are impossible; its own split shares people",)
    return Listing("ckextended.csv", samples, {}, {}, notes)


def _emotion(tree: Tree, path: str) -> str:
    content = archive.text(tree, path).split()
    try:
        return CKPLUS[int(float(content[0]))]
    except (IndexError, ValueError, KeyError, OverflowError):
        raise DataError(
            f"{path} should hold one number from 1 to 7 such as 3.0000000e+00, not {' '.join(content)[:40]!r}"
        ) from None


def _points(tree: Tree, path: str | None) -> Callable[[], np.ndarray | None]:
    def points() -> np.ndarray | None:
        if path is None:
            return None
        try:
            return np.array(archive.text(tree, path).split(), dtype=np.float64).reshape(COUNT, 2)
        except ValueError:
            raise DataError(f"{path} should hold {COUNT} rows of two numbers") from None

    return points


def _parts(path: str) -> tuple[str, str, str]:
    match = _FRAME.match(filename(path))
    assert match is not None
    return match[1], match[2], match[3]
