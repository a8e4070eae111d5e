"""CelebA (Liu et al. 2015): aligned images with 40 attributes; official text files or Kaggle's CSV."""

import re
from collections.abc import Callable, Container, Iterator

import numpy as np

from ferbench.data import align, archive
from ferbench.data.archive import Tree, filename, is_image, stem
from ferbench.data.landmarks import anchors, five
from ferbench.data.samples import Aligned, Listing, Sample, decode
from ferbench.data.sources import Options
from ferbench.errors import DataError
from ferbench.labels import CELEBA_ATTRIBUTES

# The release has the images as JPEG and, in another folder, as PNG; its lists name the JPEG files for both.
_FOLDER = re.compile(r"(?:^|/)img_align_celeba(?:_png)?/")
_SPLITS = {"0": "train", "1": "val", "2": "test"}


def looks_like(tree: Tree) -> bool:
    return any(filename(path).startswith("list_attr_celeba.") or _FOLDER.search(path) for path in tree.paths)


def read(tree: Tree, options: Options) -> Listing:
    images = {stem(path): path for path in reversed(tree.paths) if _FOLDER.search(path) and is_image(path)}
    path = _find(tree, "list_attr_celeba")
    if path is None:
        raise DataError(
            f"{tree.name} has the images of CelebA but not list_attr_celeba.txt (or .csv): put it beside them"
        )
    if not images:
        raise DataError(f"{tree.name} has {path} but no folder img_align_celeba of images: unpack img_align_celeba.zip")
    attributes = {stem(name): flags for name, flags in _table(tree, path, CELEBA_ATTRIBUTES)}
    points = _landmarks(tree)
    splits = _optional(tree, "list_eval_partition", _SPLITS)
    people = _optional(tree, "identity_CelebA")
    samples = [
        Sample(
            name,
            images[name],
            _face(tree, images[name], points.get(name)),
            subject=people.get(name, ""),
            split=_SPLITS.get(splits.get(name, ""), ""),
            attributes=attributes[name],
        )
        for name in sorted(images)
        if name in attributes
    ]
    notes = []
    if absent := len(attributes) - len(samples):
        notes.append(f"{absent:,} rows of attributes have no image")
    if not splits:
        notes.append("no list_eval_partition: training and validation images are drawn from all")
    layout = "Kaggle CSV" if path.endswith(".csv") else "official text files"
    left_out = dict.fromkeys(images.values(), "they have no row of attributes")
    return Listing(layout, samples, {}, {}, tuple(notes), left_out)


def _table(tree: Tree, path: str, columns: tuple[str, ...]):
    """Yield (image, 0/1 by attribute). The header's count is not trusted; −1 and 0 both mean absent."""
    if path.endswith(".csv"):
        for row in archive.rows(tree, path, ("image_id", *columns)):
            yield row["image_id"], {name: _flag(row[name], row.where) for name in columns}
        return
    names: list[str] = []
    for number, cells in archive.lines(tree, path):
        if not names:
            names = cells if set(columns) <= set(cells) else []
            continue
        if len(cells) != len(names) + 1:
            raise DataError(
                f"{path}, line {number}: {len(cells) - 1} values for {len(names)} attributes; the file is cut"
            )
        where = f"{path}, line {number}"
        yield cells[0], {name: _flag(value, where) for name, value in zip(names, cells[1:], strict=True)}
    if not names:
        raise DataError(f"{path} has no line with the names of the {len(columns)} attributes")


def _flag(value: str, where: str) -> int:
    if value not in ("1", "-1", "0"):
        raise DataError(f"{where}: an attribute is 1, -1 or 0, not {value[:20]!r}")
    return int(value == "1")


def _optional(tree: Tree, name: str, known: Container[str] = ()) -> dict[str, str]:
    """A file of two columns (image, value), with or without a header: values by image, without its ending.

    Empty where there is no such file. known : its values.
    """
    path = _find(tree, name)
    if path is None:
        return {}
    return {stem(name): values[0] for name, values in _values(tree, path, 1, known)}


def _landmarks(tree: Tree) -> dict[str, np.ndarray]:
    """list_landmarks_align_celeba: five points of the aligned images, "left" being the picture's left."""
    path = _find(tree, "list_landmarks_align_celeba")
    points = {}
    if path is not None:
        for name, values in _values(tree, path, 10):
            points[stem(name)] = np.array(values, dtype=np.float64).reshape(5, 2)
    return points


def _values(tree: Tree, path: str, count: int, known: Container[str] = ()) -> Iterator[tuple[str, list[str]]]:
    """Yield (image, its whole numbers) of a table; what precedes the first image is its count and its header."""
    begun = False
    for number, (name, *values) in archive.lines(tree, path):
        image = is_image(name)
        if not image and not begun:
            continue
        begun = True
        if not image or len(values) != count or any(archive.whole(value) is None for value in values):
            raise DataError(
                f"{path}, line {number}: {' '.join([name, *values])[:40]!r} should be an image and {count} "
                "whole numbers; the file is cut or has something appended"
            )
        if known and values[0] not in known:
            raise DataError(f"{path}, line {number}: {values[0]} is none of the values that this file may have")
        yield name, values


def _face(tree: Tree, path: str, points: np.ndarray | None) -> Callable[[], Aligned]:
    def face() -> Aligned:
        content = tree.read(path)
        picture = decode(content, path)
        scale = picture.width / align.CELEBA_WIDTH  # the file's points are for 178×218 pixels
        known = five(align.CELEBA if points is None else points)
        try:
            crop = align.aligned(picture, (anchors(known) + 0.5) * scale - 0.5)
        except DataError as error:
            raise DataError(f"{path}: {error}") from None
        aligner = "fixed-crop" if points is None else "landmarks"
        return Aligned(crop, aligner, None, picture, (known + 0.5) * scale - 0.5, encoded=content)

    return face


def _find(tree: Tree, name: str) -> str | None:
    return next((path for path in tree.paths if filename(path) in (f"{name}.txt", f"{name}.csv")), None)
