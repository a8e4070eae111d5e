"""ExpW (Zhang et al. 2018): pictures from the web with a box for each face, and the list of its expressions."""

from collections import Counter

from ferbench.data import archive
from ferbench.data.archive import Tree, comparable, filename, is_image, stem
from ferbench.data.samples import Listing, Sample, boxed
from ferbench.data.sources import Options
from ferbench.errors import DataError
from ferbench.labels import EXPW

_LIST = "label.lst"
_FACES = 91793


def looks_like(tree: Tree) -> bool:
    return any(filename(path).lower() == _LIST for path in tree.paths)


def read(tree: Tree, options: Options) -> Listing:
    """label/label.lst: image, number of the face, top, left, right and bottom of its box, confidence, expression."""
    path = next(path for path in tree.paths if filename(path).lower() == _LIST)
    images = {comparable(filename(path)): path for path in tree.paths if is_image(path)}
    samples, missing = [], []
    times: Counter[str] = Counter()
    rows = 0
    for number, cells in archive.lines(tree, path):
        rows += 1
        where = f"{path}, line {number}"
        values = [archive.whole(cell) for cell in (*cells[1:6], *cells[7:])]
        if len(cells) != 8 or any(value is None for value in values):
            raise DataError(
                f"{where}: {' '.join(cells)[:60]!r} should be an image, the number of a face, top, left, "
                "right and bottom of its box, a confidence and a label"
            )
        face, top, left, right, bottom, code = (value for value in values if value is not None)
        if code not in EXPW:
            raise DataError(f"{where}: the label {code} is not one of 0 to {max(EXPW)}")
        image = images.get(comparable(cells[0]))
        if image is None:
            missing.append(cells[0])
            continue
        name = f"{stem(cells[0])}-{face}"
        times[name] += 1
        if times[name] > 1:  # the id must be unique, whatever the list does
            name = f"{name}-{times[name]}"
        samples.append(Sample(name, image, boxed(tree, image, (left, top, right, bottom)), EXPW[code]))
    if missing and not samples:
        raise DataError(
            f"{tree.name} has {path} but not its images, such as {missing[0]}: put the folder image beside it"
        )
    notes = ["ExpW has neither a split nor subjects; its faces are cut out by its own boxes and not aligned"]
    if rows != _FACES:
        notes.append(f"{rows:,} faces listed, {_FACES:,} expected")
    if missing:
        notes.append(f"{len(missing):,} listed faces have no image, such as {missing[0]}")
    left_out = dict.fromkeys(images.values(), "label.lst has no face of theirs")
    return Listing("pictures with boxes of label.lst", samples, {}, {}, tuple(notes), left_out)
