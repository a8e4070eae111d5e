"""FER2013 (Goodfellow et al. 2015): a table of pixels under any name, Parquet, Kaggle folders; FERPlus votes."""

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from ferbench.data import archive
from ferbench.data.archive import IMAGE, SingleFile, Tree, filename, stem
from ferbench.data.samples import Listing, Sample, as_is, folder_emotion, of_pixels
from ferbench.data.sources import Options, parquet
from ferbench.errors import DataError, UsageError
from ferbench.labels import FER2013, FERPLUS, USAGES, emotion

_IMAGE = re.compile(r"^(Training|PublicTest|PrivateTest)_(\d{1,9})" + IMAGE)
VOTES = (*FERPLUS, "unknown", "NF")  # of fer2013new.csv, in its order; the last two are no emotions
VOTES_FILE = "fer2013new.csv"
VOTES_RULE = {"ferplus": "majority"}  # for the card
_OFFICIAL = ("fer2013.csv", "icml_face_data.csv")  # the names under which the whole table is handed on
# What a file's path says of its split, its last word first.
_PART = re.compile(r"(?:^|[^a-z])(train|publictest|privatetest|val|test)(?:ing|id|idation)?(?![a-z])")
_MEANT = {"publictest": "val", "privatetest": "test"}
_TRAINING = {
    "anger": 3995,
    "disgust": 436,
    "fear": 4097,
    "happiness": 7215,
    "sadness": 4830,
    "surprise": 3171,
    "neutral": 4965,
}
_EXPECTED = {
    "class": {
        "anger": 4953,
        "disgust": 547,
        "fear": 5121,
        "happiness": 8989,
        "sadness": 6077,
        "surprise": 4002,
        "neutral": 6198,
    },
    "split": {"train": 28709, "val": 3589, "test": 3589},
}


def looks_like(tree: Tree) -> bool:
    return bool(pixel_tables(tree)) or any(_IMAGE.match(filename(p)) or parquet.named(p) for p in tree.paths)


def pixel_tables(tree: Tree) -> dict[str, list[str]]:
    """Return the columns of each CSV that has one called pixels, whatever the file is called; not ckextended.csv."""
    named = (
        path for path in tree.paths if path.lower().endswith(".csv") and filename(path).lower() != "ckextended.csv"
    )
    columns_of = {path: archive.columns(tree, path) for path in named}
    return {path: columns for path, columns in columns_of.items() if "pixels" in columns}


def read(tree: Tree, options: Options) -> Listing:
    columns_of = pixel_tables(tree)
    if columns_of:
        path, parts = chosen(tree, columns_of)
        if path:
            given = options.ferplus
            return whole(tree, path, votes_table(SingleFile(given), given.name) if given else None)
        _no_votes(options.ferplus)
        return _parts(tree, parts, [path for path in columns_of if path not in parts])
    _no_votes(options.ferplus)
    if any(_IMAGE.match(filename(path)) for path in tree.paths):
        return _folders(tree)
    return _parquet(tree, [path for path in tree.paths if parquet.named(path)])


def _no_votes(ferplus: Path | None) -> None:
    if ferplus is not None:
        raise UsageError(
            "--ferplus is joined to fer2013.csv row by row; other copies of FER2013 are in another order, or lack rows"
        )


def chosen(tree: Tree, columns_of: dict[str, list[str]]) -> tuple[str, list[str]]:
    """Return the whole table (emotion, pixels, Usage), or else a table for each split (emotion, pixels)."""
    complete = [path for path, columns in columns_of.items() if {"emotion", "usage"} <= set(columns)]
    official = [path for path in complete if filename(path).lower() in _OFFICIAL]
    if len(complete) > 1 and not official:
        raise DataError(
            f"{tree.name} holds several tables with emotion, pixels and Usage ({', '.join(complete[:3])}): "
            "give one of them"
        )
    if complete:
        return (official or complete)[0], []
    labelled = [path for path, columns in columns_of.items() if "emotion" in columns]
    if not labelled:
        raise DataError(
            f"{next(iter(columns_of))} has pixels but no labels, as test.csv of the Kaggle challenge: "
            "nothing can be trained or tested on it; icml_face_data.csv of it has its labels"
        )
    counts = Counter(_split(path) for path in labelled)
    if len(labelled) > 1 and max(counts.values()) > 1:
        raise DataError(
            f"{tree.name} holds several tables with emotion and pixels, and neither a column Usage nor "
            f"their names tell the splits apart ({', '.join(labelled[:3])}): give one of them"
        )
    return "", sorted(labelled, key=lambda path: list(USAGES.values()).index(_split(path)))


def _named_split(path: str) -> str:
    """The split that a file's path tells, empty where it tells none."""
    words = _PART.findall(path.lower())
    return _MEANT.get(words[-1], words[-1]) if words else ""


def _split(path: str) -> str:
    return _named_split(path) or "train"


def label(cell: str, where: str) -> str:
    """Return the emotion of a cell: one of FER2013's numbers, or a word."""
    code = archive.whole(cell)
    if code in FER2013:
        return FER2013[code]
    if code == 7:
        raise DataError(
            f"{where}: emotion 7 (contempt) is not of FER2013 but of ckextended.csv: give the file that "
            "name, and prepare it as ckplus"
        )
    try:
        return emotion(cell)
    except DataError:
        raise DataError(
            f"{where}: the emotion {cell[:20]!r} is not of FER2013 (0 to 6); the file is cut or has something appended"
        ) from None


def whole(tree: Tree, path: str, voted: Sequence[archive.Row] | None) -> Listing:
    """emotion,pixels,Usage in any order and with blanks in the names (icml_face_data.csv). voted : rows of FERPlus."""
    rows = archive.rows(tree, path, ("emotion", "pixels", "Usage"))
    if voted is not None and len(voted) != len(rows):
        raise DataError(
            f"{VOTES_FILE} has {len(voted):,} rows and {path} {len(rows):,}: they are joined row by row, "
            "so both must be whole"
        )
    samples = []
    for number, row in enumerate(rows):
        if row["Usage"] not in USAGES:
            raise DataError(
                f"{row.where}: Usage {row['Usage'][:20]!r} is not one of {', '.join(USAGES)}; the file is "
                "cut or has something appended"
            )
        name = label(row["emotion"], row.where)
        if voted is not None:
            if voted[number]["Usage"] != row["Usage"]:
                raise DataError(
                    f"{row.where} is of {row['Usage']}, {voted[number].where} of {voted[number]['Usage']}: "
                    "the rows of both files are in another order"
                )
            name = label_of_votes(voted[number])
        if name:
            samples.append(
                Sample(
                    f"row{number + 1:05d}",
                    row.where,
                    of_pixels(row["pixels"], row.where),
                    name,
                    split=USAGES[row["Usage"]],
                )
            )
    layout = f"{filename(path)}: a table of emotion, pixels, Usage"
    if voted is None:
        return Listing(layout, samples, {}, _EXPECTED)
    notes = (f"{len(rows) - len(samples):,} images without a FERPlus majority are left out",)
    return Listing(f"{layout}, with FERPlus votes", samples, VOTES_RULE, {}, notes)


def _parts(tree: Tree, paths: list[str], unlabelled: list[str]) -> Listing:
    """train.csv of the Kaggle challenge, or a table for each split: emotion,pixels and no Usage."""
    samples, notes = [], []
    for path in paths:
        split = _split(path)
        rows = archive.rows(tree, path, ("emotion", "pixels"))
        prefix = f"{split}-" if len(paths) > 1 else ""
        samples += [
            Sample(
                f"{prefix}row{number + 1:05d}",
                row.where,
                of_pixels(row["pixels"], row.where),
                label(row["emotion"], row.where),
                split=split,
            )
            for number, row in enumerate(rows)
        ]
        notes.append(f"{filename(path)} has no column Usage: its {len(rows):,} rows were taken as the split {split}")
    notes += [f"{path} has pixels but no labels and is left out" for path in unlabelled]
    expected = {"class": _TRAINING, "split": {"train": _EXPECTED["split"]["train"]}}
    return Listing(
        f"{', '.join(map(filename, paths))}: a table of emotion and pixels",
        samples,
        {},
        expected if [_split(path) for path in paths] == ["train"] else _EXPECTED,
        tuple(notes),
    )


def _parquet(tree: Tree, paths: list[str]) -> Listing:
    """Parquet files of images and labels, such as data/train-00000-of-00001.parquet."""
    samples, notes, assumed = [], [], False
    counts: Counter[str] = Counter()
    for path in paths:
        part = parquet.opened(tree, path)
        split = _split(path)
        assumed |= part.names is None
        for place, cell in enumerate(part.labels):
            where = f"{path}, row {place + 1}"
            code = archive.whole(cell)
            if part.names is not None and code is not None:
                if not 0 <= code < len(part.names):
                    raise DataError(f"{where}: the label {code} is none of the {len(part.names)} that the file names")
                cell = part.names[code]
            counts[split] += 1
            samples.append(
                Sample(f"{split}-{counts[split]:05d}", where, part.face(place, where), label(cell, where), split=split)
            )
        reason = "by its name" if _named_split(path) else "since neither its name nor a column tells a split"
        notes.append(f"{filename(path)}: its {len(part.labels):,} rows were taken as the split {split}, {reason}")
    if assumed:
        notes.append(
            "the labels have no names in the file: they were taken as FER2013's own numbers, 0 = anger to 6 = neutral"
        )
    expected = {} if set(counts) != set(USAGES.values()) else _EXPECTED
    return Listing("Parquet files of images and labels", samples, {}, expected, tuple(notes))


def _folders(tree: Tree) -> Listing:
    """train/angry/Training_3908.jpg, test/angry/PublicTest_*.jpg: the name, not the folder, tells the split."""
    matches = [(path, match) for path in tree.paths if (match := _IMAGE.match(filename(path)))]
    usages = list(USAGES)
    # A number can lie in two class folders: the label is then part of the id.
    times = Counter(stem(path) for path, _ in matches)
    matches.sort(key=lambda item: (usages.index(item[1][1]), int(item[1][2]), item[0]))
    samples = []
    for path, match in matches:
        named = folder_emotion(path) or FER2013.get(_number(path), "")
        if not named:
            raise DataError(f"{path}: its folder names no emotion")
        name = stem(path) if times[stem(path)] == 1 else f"{stem(path)}-{named}"
        samples.append(Sample(name, path, as_is(tree, path), named, split=USAGES[match[1]]))
    counts = Counter(sample.split for sample in samples)
    notes = [f"no images of {usage}" for usage, split in USAGES.items() if not counts[split]]
    return Listing(
        "class folders",
        samples,
        {},
        _EXPECTED
        if not notes
        else {"split": {split: number for split, number in _EXPECTED["split"].items() if counts[split]}},
        tuple(notes),
    )


def _number(path: str) -> int:
    code = archive.whole(path.split("/")[-2]) if "/" in path else None
    return -1 if code is None else code


def votes_table(tree: Tree, path: str) -> list[archive.Row]:
    """Return the rows of fer2013new.csv; DataError for one that is not of it."""
    rows = archive.rows(tree, path, ("Usage", "Image name", *VOTES))
    for row in rows:
        if row["Usage"] not in USAGES:
            raise DataError(f"{row.where}: Usage {row['Usage'][:20]!r} is not one of {', '.join(USAGES)}")
        counted([row[name] for name in VOTES], row.where)
    return rows


def counted(cells: Sequence[str], where: str) -> list[int]:
    """Return the ten votes of a row as numbers."""
    votes = [archive.whole(cell) for cell in cells]
    valid = [vote for vote in votes if vote is not None and 0 <= vote <= 10]
    if len(valid) != len(VOTES) or len(votes) != len(VOTES):
        raise DataError(f"{where}: {', '.join(cells)[:40]!r} should be {len(VOTES)} numbers of votes from 0 to 10")
    return valid


def majority(votes: Sequence[int]) -> str:
    """Return the emotion that most people named, or "" (as the authors' src/ferplus.py decides).

    Single votes are noise and count as none; the winner needs more than half of the remaining votes; "unknown" and
    "NF" (no face) are no emotions.
    """
    votes = [vote if vote > 1 else 0 for vote in votes]
    best = max(votes)
    name = VOTES[votes.index(best)]
    return name if name in FERPLUS and best > 0.5 * sum(votes) else ""


def label_of_votes(row: archive.Row) -> str:
    """Return the majority label of a row of :func:`votes_table`."""
    return majority(counted([row[name] for name in VOTES], row.where))
