"""FERPlus (Barsoum et al. 2016): FER2013 with ten votes an image; the folders of images that its own script writes, or
fer2013.csv beside fer2013new.csv."""

import re

from ferbench.data import archive
from ferbench.data.archive import IMAGE, Tree, filename, stem
from ferbench.data.samples import Listing, Sample, as_is
from ferbench.data.sources import Options, fer2013
from ferbench.errors import DataError
from ferbench.labels import USAGES

_IMAGE = re.compile(r"(?:^|/)FER2013(?P<split>Train|Valid|Test)/(?P<name>fer\d{7})" + IMAGE)
_LIST = re.compile(r"(?:^|/)FER2013(?P<split>Train|Valid|Test)/label\.csv$")
_SPLITS = {"Train": "train", "Valid": "val", "Test": "test"}
_HEADLESS = ("image", "box", *fer2013.VOTES)  # of label.csv, which has no header
_EXPECTED = {"split": {"train": 25060, "val": 3199, "test": 3153}}  # images with a majority


def looks_like(tree: Tree) -> bool:
    return any(filename(path).lower() == fer2013.VOTES_FILE or _IMAGE.search(path) for path in tree.paths)


def read(tree: Tree, options: Options) -> Listing:
    images = {(match["split"], match["name"]): path for path in tree.paths if (match := _IMAGE.search(path))}
    table = next((path for path in tree.paths if filename(path).lower() == fer2013.VOTES_FILE), "")
    if not images:
        pixel_tables = fer2013.pixel_tables(tree)
        if not table or not pixel_tables:
            raise DataError(
                f"{tree.name} has {fer2013.VOTES_FILE} but neither fer2013.csv nor the folders FER2013Train, "
                "FER2013Valid and FER2013Test: put the images beside the votes"
            )
        path, _ = fer2013.chosen(tree, pixel_tables)
        if not path:
            raise DataError(f"{tree.name}: the votes are joined to fer2013.csv row by row, and that table is not there")
        return fer2013.whole(tree, path, fer2013.votes_table(tree, table))
    decided, source = _of_table(tree, table) if table else _of_lists(tree)
    samples = [
        Sample(name, images[split, name], as_is(tree, images[split, name]), label, split=_SPLITS[split])
        for (split, name), label in sorted(decided.items())
        if label and (split, name) in images
    ]
    notes = []
    if missing := [name for name in decided if name not in images]:
        notes.append(f"{len(missing):,} images with votes are missing, such as FER2013{'/'.join(missing[0])}")
    left_out = {
        path: "they have no majority of votes" if image in decided else "they have no votes"
        for image, path in images.items()
    }
    layout = f"folders of images with votes of {source}"
    return Listing(layout, samples, fer2013.VOTES_RULE, _EXPECTED, tuple(notes), left_out)


def _of_table(tree: Tree, path: str) -> tuple[dict[tuple[str, str], str], str]:
    """fer2013new.csv: an image whose name is empty shows no face."""
    of = {split: folder for folder, split in _SPLITS.items()}
    folders = {usage: of[split] for usage, split in USAGES.items()}
    rows = fer2013.votes_table(tree, path)
    named = [row for row in rows if row["Image name"]]
    decided = {(folders[row["Usage"]], stem(row["Image name"])): fer2013.label_of_votes(row) for row in named}
    return decided, fer2013.VOTES_FILE


def _of_lists(tree: Tree) -> tuple[dict[tuple[str, str], str], str]:
    """FER2013Train/label.csv: fer0000000.png,"(0, 0, 48, 48)",4,0,0,1,3,2,0,0,0,0."""
    decided = {}
    for path in tree.paths:
        if match := _LIST.search(path):
            for row in archive.rows(tree, path, _HEADLESS, headless=_HEADLESS):
                cells = fer2013.counted([row[name] for name in fer2013.VOTES], row.where)
                decided[match["split"], stem(row["image"])] = fer2013.majority(cells)
    if not decided:
        raise DataError(f"{tree.name} has images but no votes: put {fer2013.VOTES_FILE} beside the folders")
    return decided, "label.csv"
