"""FER2013 (Goodfellow et al. 2015): fer2013.csv, icml_face_data.csv, Kaggle folders; FERPlus votes."""

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from ferbench.data.archive import SingleFile, Tree, filename, reader, stem
from ferbench.data.samples import Listing, Sample, as_is, folder_emotion, of_pixels
from ferbench.data.sources import Options, tables
from ferbench.errors import DataError, UsageError
from ferbench.labels import FER2013, FERPLUS

_SPLITS = {"Training": "train", "PublicTest": "val", "PrivateTest": "test"}
_IMAGE = re.compile(r"^(Training|PublicTest|PrivateTest)_(\d+)\.(jpe?g|png)$")
_CSV = ("fer2013.csv", "icml_face_data.csv")
_EXPECTED = {
    "class": {"anger": 4953, "disgust": 547, "fear": 5121, "happiness": 8989, "sadness": 6077, "surprise": 4002,
              "neutral": 6198},
    "split": {"train": 28709, "val": 3589, "test": 3589},
}  # fmt: skip


def looks_like(paths: list[str]) -> bool:
    return any(filename(path).lower() in _CSV or _IMAGE.match(filename(path)) for path in paths)


def read(tree: Tree, options: Options) -> Listing:
    path = next((path for path in tree.paths if filename(path).lower() in _CSV), None)
    if path is not None:
        return _csv(tree, path, options.ferplus)
    if options.ferplus is not None:
        raise UsageError(
            "--ferplus is joined to fer2013.csv row by row; the images of a folder copy are in another order"
        )
    return _folders(tree)


def _csv(tree: Tree, path: str, ferplus: Path | None) -> Listing:
    """emotion,pixels,Usage, in any order and with blanks in the names (icml_face_data.csv)."""
    rows = tables.rows(tree, path, ("emotion", "pixels", "Usage"))
    votes = list(_majority(ferplus, len(rows))) if ferplus else None
    samples = []
    for number, row in enumerate(rows):
        source = f"{path}, row {number + 1}"
        if row["emotion"] not in {str(key) for key in FER2013} or row["Usage"] not in _SPLITS:
            raise DataError(f"{source}: emotion {row['emotion'][:20]!r} and Usage {row['Usage'][:20]!r} are not of "
                            "FER2013; the file is cut or has something appended")  # fmt: skip
        label = FER2013[int(row["emotion"])] if votes is None else votes[number]
        if label:
            samples.append(Sample(f"row{number + 1:05d}", source, of_pixels(row["pixels"], source), label,
                                  split=_SPLITS[row["Usage"]]))  # fmt: skip
    if votes is None:
        return Listing(filename(path), samples, {}, _EXPECTED)
    notes = (f"{len(rows) - len(samples):,} images without a FERPlus majority are left out",)
    return Listing(f"{filename(path)} with FERPlus votes", samples, {"ferplus": "majority"}, {}, notes)


def _folders(tree: Tree) -> Listing:
    """train/angry/Training_3908.jpg, test/angry/PublicTest_*.jpg: the name, not the folder, tells the split."""
    found = [(path, match) for path in tree.paths if (match := _IMAGE.match(filename(path)))]
    usages = list(_SPLITS)
    # A number can lie in two class folders: the label is then part of the id.
    times = Counter(stem(path) for path, _ in found)
    found.sort(key=lambda item: (usages.index(item[1][1]), int(item[1][2]), item[0]))
    samples = []
    for path, match in found:
        label = folder_emotion(path) or FER2013.get(_number(path), "")
        if not label:
            raise DataError(f"{path}: its folder names no emotion")
        name = stem(path) if times[stem(path)] == 1 else f"{stem(path)}-{label}"
        samples.append(Sample(name, path, as_is(reader(tree, path), path), label, split=_SPLITS[match[1]]))
    counts = Counter(sample.split for sample in samples)
    notes = [f"no images of {usage}" for usage, split in _SPLITS.items() if not counts[split]]
    return Listing("class folders", samples, {}, _EXPECTED if not notes else {"split": {
        split: number for split, number in _EXPECTED["split"].items() if counts[split]}}, tuple(notes))  # fmt: skip


def _number(path: str) -> int:
    parent = path.split("/")[-2] if "/" in path else ""
    return int(parent) if parent.isdigit() else -1


def _majority(path: Path, count: int) -> Iterator[str]:
    """The majority label of each row of fer2013new.csv, or "" (Barsoum et al. 2016, src/ferplus.py).

    Single votes are noise and count as none; the winner needs more than half of the remaining votes;
    "unknown" and "NF" (no face) are no emotions.
    """
    names = (*FERPLUS, "unknown", "NF")
    rows = tables.rows(SingleFile(path), path.name, names)
    if len(rows) != count:
        raise DataError(f"{path} has {len(rows):,} rows and fer2013.csv {count:,}: they are joined row by row, "
                        "so both must be whole")  # fmt: skip
    for row in rows:
        votes = [int(row[name]) if int(row[name]) > 1 else 0 for name in names]
        best = max(votes)
        name = names[votes.index(best)]
        yield name if name in FERPLUS and best > 0.5 * sum(votes) else ""
