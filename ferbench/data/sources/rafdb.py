"""RAF-DB, basic expressions (Li, Deng, Du 2017): the official tree, and the Kaggle folders."""

import re

import numpy as np

from ferbench.data import archive
from ferbench.data.archive import IMAGE, Tree, filename, stem
from ferbench.data.samples import Listing, Sample, as_is, raw
from ferbench.data.sources import Options
from ferbench.errors import DataError
from ferbench.labels import RAFDB

# The release ships "patition"; its ReadMe also says "partition".
_LIST = re.compile(r"^list_part?ition_label\.txt$|^list_patition_label\.txt$")
_COMPOUND = 11  # labels of the compound set
_STEM = re.compile(r"^(train|test)_\d+")
_IMAGE = re.compile(r"^(train|test)_\d+(_aligned)?" + IMAGE)

# Per class in the order 1..7, from the release's own list.
_COUNTS = {"train": (1290, 281, 717, 4772, 1982, 705, 2524), "test": (329, 74, 160, 1185, 478, 162, 680)}
_EXPECTED = {
    "class": {RAFDB[i + 1]: _COUNTS["train"][i] + _COUNTS["test"][i] for i in range(7)},
    "split": {split: sum(numbers) for split, numbers in _COUNTS.items()},
}


def looks_like(tree: Tree) -> bool:
    return any(
        _LIST.match(filename(path)) or re.match(r"^(train|test)_\d+_aligned\.", filename(path)) for path in tree.paths
    )


def read(tree: Tree, options: Options) -> Listing:
    images = {path for path in tree.paths if _IMAGE.match(filename(path))}
    lists = [path for path in tree.paths if _LIST.match(filename(path))]
    if lists:
        # A release with both sets has two lists of one name; the compound one is never read.
        return _official(tree, min(lists, key=lambda path: ("compound" in path.lower(), path)), images)
    if not images:
        raise DataError(f"{tree.name} has no images named train_00001_aligned.jpg")
    return _folders(tree, images)


def _official(tree: Tree, path: str, images: set[str]) -> Listing:
    """EmoLabel/list_patition_label.txt ("train_00001.jpg 5") and Image/aligned or Image/original."""
    labels: dict[str, int] = {}
    for number, cells in archive.lines(tree, path):
        code = archive.whole(cells[1]) if len(cells) > 1 else None
        # Repositories that clean labels add columns of their own; only the first two are read.
        if code is None or not 1 <= code <= _COMPOUND or not _STEM.match(cells[0]):
            raise DataError(f"{path}, line {number}: {' '.join(cells)[:40]!r} should be like 'train_00001.jpg 5'")
        if labels.setdefault(stem(cells[0]), code) != code:
            raise DataError(f"{path}, line {number}: {cells[0]} has the label {code}, and another one above")
    if not labels:
        raise DataError(f"{path} is empty")
    if (most := max(labels.values())) > len(RAFDB):
        raise DataError(
            f"{path} has labels up to {most}: the compound set of RAF-DB; give the folder of the basic one (7 labels)"
        )
    aligned = {
        stem(p).removesuffix("_aligned"): p for p in images if stem(p).endswith("_aligned") and "compound" not in p
    }
    original = {stem(p): p for p in images if not stem(p).endswith("_aligned") and "compound" not in p}
    pictures = aligned or original
    if not pictures:
        raise DataError(f"{tree.name} has {path} but no images: unpack Image/aligned.zip beside it")
    manual = {stem(p).removesuffix("_manu_attri"): p for p in tree.paths if p.endswith("_manu_attri.txt")}
    samples = [
        Sample(
            name,
            pictures[name],
            as_is(tree, pictures[name]) if aligned else raw(tree, pictures[name], _points(tree, manual.get(name))),
            RAFDB[code],
            split=name.partition("_")[0],
        )
        for name, code in sorted(labels.items())
        if name in pictures
    ]
    missing = [name for name in labels if name not in pictures]
    notes = [f"{len(missing):,} labelled images are missing, such as {missing[0]}"] if missing else []
    kind = "aligned" if aligned else "original"
    left_out = dict.fromkeys(images, f"the {kind} images of the basic set are used")
    left_out |= dict.fromkeys(pictures.values(), "they have no label")
    return Listing(f"official tree, {kind} images", samples, {}, _EXPECTED, tuple(notes), left_out)


def _folders(tree: Tree, images: set[str]) -> Listing:
    """Kaggle: DATASET/{train,test}/{1..7}/train_00001_aligned.jpg, with train_labels.csv and test_labels.csv."""
    tabled: dict[str, str] = {}
    for path in tree.paths:
        if filename(path) in ("train_labels.csv", "test_labels.csv"):
            for row in archive.rows(tree, path, ("image", "label")):
                if archive.whole(row["label"]) not in RAFDB:
                    raise DataError(f"{row.where}: {row['label'][:20]!r} is no label from 1 to 7")
                tabled[stem(row["image"])] = row["label"]
    samples = []
    for path in sorted(images, key=stem):
        parent = path.split("/")[-2] if "/" in path else ""
        number = tabled.get(stem(path), parent)
        code = archive.whole(number)
        if code not in RAFDB:
            raise DataError(f"{path}: neither train_labels.csv nor its folder gives a label from 1 to 7")
        if archive.whole(parent) not in (None, code):
            raise DataError(
                f"{path} lies in folder {parent}, but the table of labels says {number}: one of both is wrong"
            )
        name = stem(path).removesuffix("_aligned")
        samples.append(Sample(name, path, as_is(tree, path), RAFDB[code], split=name.partition("_")[0]))
    return Listing("Kaggle folders by number", samples, {}, _EXPECTED)


def _points(tree: Tree, path: str | None):
    """Annotation/manual/train_00001_manu_attri.txt: five lines of x and y (eyes, nose, mouth corners)."""

    def points() -> np.ndarray | None:
        if path is None:
            return None
        first = [cells[:2] for _, cells in archive.lines(tree, path)][:5]
        try:
            five = np.array(first, dtype=np.float64).reshape(5, 2)
        except ValueError:
            raise DataError(f"{path} should begin with five lines of two numbers") from None
        return five

    return points
