"""CelebA (Liu et al. 2015): aligned images with 40 attributes; official text files or Kaggle's CSV."""

from collections.abc import Callable

import numpy as np

from ferbench.data import align
from ferbench.data.archive import Tree, filename, reader, stem
from ferbench.data.samples import Aligned, Listing, Sample, decode
from ferbench.data.sources import Options, tables
from ferbench.errors import DataError
from ferbench.labels import CELEBA_ATTRIBUTES

_SPLITS = {"0": "train", "1": "val", "2": "test"}


def looks_like(paths: list[str]) -> bool:
    return any(filename(path).startswith("list_attr_celeba.") or "/img_align_celeba/" in f"/{path}" for path in paths)


def read(tree: Tree, options: Options) -> Listing:
    images = {
        filename(path): path for path in tree.paths
        if "/img_align_celeba/" in f"/{path}" and path.lower().endswith((".jpg", ".jpeg", ".png"))
    }  # fmt: skip
    path = _find(tree, "list_attr_celeba")
    if path is None:
        raise DataError(
            f"{tree.name} has the images of CelebA but not list_attr_celeba.txt (or .csv): put it beside them"
        )
    if not images:
        raise DataError(f"{tree.name} has {path} but no folder img_align_celeba of images: unpack img_align_celeba.zip")
    attributes = dict(_table(tree, path, CELEBA_ATTRIBUTES))
    points = _landmarks(tree)
    splits = _optional(tree, "list_eval_partition")
    people = _optional(tree, "identity_CelebA")
    samples = [
        Sample(
            stem(name), images[name], _face(reader(tree, images[name]), images[name], points.get(name)),
            subject=people.get(name, ""), split=_SPLITS.get(splits.get(name, ""), ""), attributes=attributes[name],
        )
        for name in sorted(images) if name in attributes
    ]  # fmt: skip
    notes = []
    if unlabelled := len(images) - len(samples):
        notes.append(f"{unlabelled:,} images have no row of attributes and are left out")
    if absent := len(attributes) - len(samples):
        notes.append(f"{absent:,} rows of attributes have no image")
    if not splits:
        notes.append("no list_eval_partition: training and validation images are drawn from all")
    return Listing("Kaggle CSV" if path.endswith(".csv") else "official text files", samples, {}, {}, tuple(notes))


def _table(tree: Tree, path: str, columns: tuple[str, ...]):
    """Yield (image, 0/1 by attribute). The header's count is not trusted; −1 and 0 both mean absent."""
    if path.endswith(".csv"):
        for row in tables.rows(tree, path, ("image_id", *columns)):
            yield row["image_id"], {name: _flag(row[name], path) for name in columns}
        return
    lines = tables.text(tree, path).split("\n")
    header = next((number for number, line in enumerate(lines) if set(columns) <= set(line.split())), None)
    if header is None:
        raise DataError(f"{path} has no line with the names of the {len(columns)} attributes")
    names = lines[header].split()
    for number, line in enumerate(lines[header + 1 :], start=header + 2):
        cells = line.split()
        if not cells:
            continue
        if len(cells) != len(names) + 1:
            raise DataError(
                f"{path}, line {number}: {len(cells) - 1} values for {len(names)} attributes; the file is cut"
            )
        yield cells[0], {name: _flag(value, path) for name, value in zip(names, cells[1:], strict=True)}


def _flag(value: str, path: str) -> int:
    if value not in ("1", "-1", "0"):
        raise DataError(f"{path}: an attribute is 1, -1 or 0, not {value!r}")
    return int(value == "1")


def _optional(tree: Tree, name: str) -> dict[str, str]:
    """A file of two columns (image, value), with or without a header; empty where there is none."""
    path = _find(tree, name)
    if path is None:
        return {}
    lines = (line.replace(",", " ").replace(";", " ").split() for line in tables.text(tree, path).splitlines())
    return {cells[0]: cells[1] for cells in lines if len(cells) == 2 and cells[1].isdigit()}


def _landmarks(tree: Tree) -> dict[str, np.ndarray]:
    """list_landmarks_align_celeba: five points of the aligned images, "left" being the picture's left."""
    path = _find(tree, "list_landmarks_align_celeba")
    found = {}
    if path is not None:
        for line in tables.text(tree, path).splitlines():
            cells = line.replace(",", " ").replace(";", " ").split()
            if len(cells) == 11 and cells[0].lower().endswith((".jpg", ".png")):
                five = np.array(cells[1:], dtype=np.float64).reshape(5, 2)
                found[cells[0]] = np.stack([five[0], five[1], five[3:].mean(axis=0)])
    return found


def _face(read: Callable[[], bytes], path: str, points: np.ndarray | None) -> Callable[[], Aligned]:
    def face() -> Aligned:
        picture = decode(read(), path)
        if points is None:
            return Aligned(align.celeba_crop(picture), "fixed-crop")
        scale = picture.width / align.CELEBA_WIDTH  # the file's points are for 178×218 pixels
        return Aligned(align.aligned(picture, (points + 0.5) * scale - 0.5), "landmarks")

    return face


def _find(tree: Tree, name: str) -> str | None:
    return next((path for path in tree.paths if filename(path) in (f"{name}.txt", f"{name}.csv")), None)
