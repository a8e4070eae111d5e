"""AffectNet (Mollahosseini et al. 2017), manually annotated: the folders of 2021 with an .npy for each annotation, and
the tables of 2017. Its test images were never released: the literature tests on the validation images."""

import io
import re
from collections.abc import Callable

import numpy as np

from ferbench.data import archive
from ferbench.data.archive import IMAGE, Tree, comparable, filename, is_image
from ferbench.data.landmarks import COUNT, five
from ferbench.data.samples import Aligned, Listing, Sample, as_is, boxed, raw
from ferbench.data.sources import Options
from ferbench.errors import DataError
from ferbench.labels import AFFECTNET

_IMAGE = re.compile(r"(?:^|/)(?P<split>train|val)_set/images/(?P<number>\d{1,9})" + IMAGE)
_LABEL = re.compile(r"(?:^|/)(?P<split>train|val)_set/annotations/(?P<number>\d{1,9})_exp\.(?i:npy)$")
_COLUMNS = (
    "subDirectory_filePath",
    "face_x",
    "face_y",
    "face_width",
    "face_height",
    "facial_landmarks",
    "expression",
    "valence",
    "arousal",
)
_NEEDED = ("subDirectory_filePath", "expression")
_BOX = ("face_x", "face_y", "face_width", "face_height")
_OTHERS = {8: "none", 9: "uncertain", 10: "no face"}  # what the annotators could say beside an emotion
_SMALL = 4096  # bytes; an annotation is one number with its header

# Training and validation images together (74,874 and 500 neutral …).
_EXPECTED = {
    "class": {
        "neutral": 75374,
        "happiness": 134915,
        "sadness": 25959,
        "surprise": 14590,
        "fear": 6878,
        "disgust": 4303,
        "anger": 25382,
        "contempt": 4250,
    }
}


def looks_like(tree: Tree) -> bool:
    return any(_LABEL.search(path) for path in tree.paths) or bool(_tables(tree))


def read(tree: Tree, options: Options) -> Listing:
    annotations = {(m["split"], m["number"]): path for path in tree.paths if (m := _LABEL.search(path))}
    if annotations:
        return _folders(tree, annotations)
    return _tabled(tree, _tables(tree))


def _folders(tree: Tree, labels: dict[tuple[str, str], str]) -> Listing:
    """train_set/images/12.jpg and train_set/annotations/12_exp.npy: faces that are cropped already."""
    images = {(m["split"], m["number"]): path for path in tree.paths if (m := _IMAGE.search(path))}
    samples: list[Sample] = []
    left_out = dict.fromkeys(images.values(), "they have no annotation")
    missing = []
    for (split, number), annotation in sorted(labels.items(), key=lambda item: (item[0][0], int(item[0][1]))):
        code = _number(tree.read(annotation), annotation)
        name = _label(code, annotation)
        image = images.get((split, number))
        if image is None:
            missing.append(f"{split}_set/images/{number}.jpg")
        elif name in _OTHERS.values():
            left_out[image] = f"annotated as {name!r}, which is no emotion"
        else:
            samples.append(Sample(f"{split}-{number}", image, as_is(tree, image), name, split=split))
    return Listing("folders with .npy annotations", samples, {}, _EXPECTED, _missing(missing), left_out)


def _tables(tree: Tree) -> dict[str, str]:
    """The split of each table of manual annotations; validation.csv has no header in some copies."""
    splits = {}
    for path in tree.paths:
        name = filename(path).lower()
        split = "train" if name.startswith("train") else "val" if name.startswith("val") else ""
        if split and name.endswith(".csv"):
            columns = archive.columns(tree, path, _COLUMNS)
            headless = len(columns) == len(_COLUMNS) and is_image(columns[0])
            if {name.lower() for name in _NEEDED} <= set(columns) or headless:
                splits[path] = split
    return splits


def _tabled(tree: Tree, splits: dict[str, str]) -> Listing:
    """training.csv, validation.csv: a path, the box of the face, 68 landmarks as x;y;x;y, the expression."""
    # A table's paths begin below Manually_Annotated_Images or the like: the last two parts, folder and file, decide.
    images = {_end(path): path for path in tree.paths}
    samples: list[Sample] = []
    left_out = dict.fromkeys(images.values(), "the tables of manual annotations do not name them")
    missing = []
    for path, split in splits.items():
        for row in archive.rows(tree, path, _NEEDED, _COLUMNS, headless=_COLUMNS):
            name = _label(archive.whole(row["expression"]), row.where)
            given = row["subDirectory_filePath"].replace("\\", "/")
            image = images.get(_end(given))
            if image is None:
                missing.append(given)
            elif name in _OTHERS.values():
                left_out[image] = f"annotated as {name!r}, which is no emotion"
            else:
                samples.append(
                    Sample(f"{split}-{given.rpartition('.')[0]}", image, _face(tree, image, row), name, split=split)
                )
    if missing and not samples:
        raise DataError(
            f"{tree.name} has {next(iter(splits))} but not its images, such as {missing[0]}: put the folder "
            "Manually_Annotated_Images beside it"
        )
    return Listing("tables of manual annotations", samples, {}, _EXPECTED, _missing(missing), left_out)


def _end(path: str) -> str:
    return comparable("/".join(path.split("/")[-2:]))


def _face(tree: Tree, image: str, row: archive.Row) -> Callable[[], Aligned]:
    """Aligned by the row's landmarks, else cut out by its box, else as it is."""
    box = _box(row)
    given = row.get("facial_landmarks", "")
    if given:
        try:
            points = five(np.array(given.split(";"), dtype=np.float64).reshape(COUNT, 2))
        except ValueError:
            raise DataError(f"{row.where}: facial_landmarks should be {COUNT} points as x;y;x;y") from None
        return raw(tree, image, lambda: points, box=box)
    return as_is(tree, image) if box is None else boxed(tree, image, box)


def _box(row: archive.Row) -> tuple[int, int, int, int] | None:
    """Left, top, right and bottom of the row's face; None where it says nothing."""
    if not all(row.get(name) for name in _BOX):
        return None
    values = [archive.whole(row[name]) for name in _BOX]
    left, top, width, height = (-1 if value is None else value for value in values)
    if None in values or width < 1 or height < 1:
        raise DataError(f"{row.where}: {', '.join(row[name] for name in _BOX)[:40]!r} is no box of a face")
    return left, top, left + width, top + height


def _label(code: int | None, where: str) -> str:
    """What a code stands for: an emotion, or one of the others."""
    if code in AFFECTNET:
        return AFFECTNET[code]
    if code not in _OTHERS:
        raise DataError(f"{where}: the expression is a number from 0 to {max(_OTHERS)}")
    return _OTHERS[code]


def _missing(missing: list[str]) -> tuple[str, ...]:
    return (f"{len(missing):,} annotated images are missing, such as {missing[0]}",) if missing else ()


def _number(content: bytes, path: str) -> int:
    """The one number of an .npy file, which may be stored as text. Nothing in it is ever unpickled."""
    try:
        if len(content) > _SMALL:
            raise ValueError
        file = io.BytesIO(content)
        version = np.lib.format.read_magic(file)
        header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}[version]
        shape, _, kind = header(file)
        if kind.hasobject or int(np.prod(shape)) != 1 or kind.itemsize > _SMALL:
            raise ValueError
        code = archive.whole(str(np.frombuffer(file.read(), dtype=kind, count=1)[0]))
    except Exception:  # whatever hostile bytes lead numpy's reader into
        code = None
    if code is None:
        raise DataError(f"{path} should hold one whole number, the expression")
    return code
