"""Expressions of the faces in pictures, by a trained run or by the weights that come with the package."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw

from ferbench import DEFAULT_METHOD
from ferbench.data import align
from ferbench.data.align import SIZE, Found
from ferbench.data.samples import decode
from ferbench.errors import DataError, UsageError
from ferbench.files import explained, runs_home
from ferbench.methods.recipes import network_of
from ferbench.runs.record import Record
from ferbench.runs.store import Store, shipped_run, shipped_runs
from ferbench.training.arithmetic import FP32, Arithmetic
from ferbench.training.prediction import ROWS, PreparedNetwork

NO_FACE = "no face found; --aligned takes the picture as the face"
_COLOURS = ((255, 80, 0), (0, 120, 255))  # of the eyes' and the mouth's map
_OPACITY = 0.45  # of a map at its maximum
_AT_ONCE = 4 * ROWS["cpu"]  # faces from which on those of several pictures are recognised
_SMALL = 240  # pixels of the longer side below which a drawn picture is enlarged


@dataclass(frozen=True)
class Face:
    """One face with its expression.

    found : where it lies; None where the picture was given as the face. probabilities : by class, adding up to 1.
    maps : attention float32 [2,H,W] of eyes and mouth, None where the method has none.
    """

    found: Found | None
    probabilities: dict[str, float]
    maps: np.ndarray | None

    @property
    def expression(self) -> str:
        return max(self.probabilities, key=lambda name: self.probabilities[name])


@dataclass(frozen=True)
class Picture:
    """A picture and its faces, the largest first; ``problem`` says why there are none."""

    path: Path
    faces: list[Face]
    problem: str = ""


def chosen(run: str, preset: str, runs: Path | None) -> tuple[Record, Store]:
    """Return the run whose key begins with ``run``, or the pre-trained network of the package for ``preset``.

    Raises UsageError where there is none.
    """
    if run:
        store = Store(runs_home(runs))
        found = store.find(run)
        return found, store.holder(found.key)
    record = shipped_run(kind="pretrain", method=DEFAULT_METHOD, preset=preset)
    if record is None:
        raise UsageError(f"no weights come with ferbench for the preset {preset!r}: name a run of your own with --run")
    return record, shipped_runs()


def pictures(sources: list[Path]) -> list[Path]:
    """Return the files named, and the pictures below the folders named, sorted.

    Raises DataError for what does not exist and for a folder without pictures.
    """
    readable = {suffix for suffix, kind in Image.registered_extensions().items() if kind in Image.OPEN}
    found: list[Path] = []
    for source in sources:
        if source.is_dir():
            inside = sorted(path for path in source.rglob("*") if path.suffix.lower() in readable)
            if not inside:
                raise DataError(f"{source} holds no pictures")
            found += inside
        elif source.is_file():
            found.append(source)
        else:
            raise DataError(f"{source} does not exist")
    return found


def predict(
    paths: list[Path],
    members: list[tuple[Record, Store]],
    aligned: bool,
    draw: Path | None,
    arithmetic: Arithmetic = FP32,
) -> Iterator[Picture]:
    """Give each picture with its faces; one that cannot be read has a problem instead.

    members : runs with their stores; of several, the mean of their probabilities counts, and the maps are those of
        the first. aligned : the picture is the face, cropped already. draw : folder for pictures with boxes, labels
        and maps.
    Raises UsageError where faces have to be found and no detector is installed, and for members of other classes.
    """
    if not aligned and not align.can_detect():
        raise UsageError(
            "finding faces takes a detector: `pip install 'ferbench[detect]'`; "
            "or give pictures that are faces already, with --aligned"
        )
    classes = members[0][0].classes
    for record, _ in members:
        if record.classes != classes:
            raise UsageError(
                f"run {record.key} knows other classes than {members[0][0].key}: "
                f"{', '.join(record.classes)}, not {', '.join(classes)}"
            )
    networks = [arithmetic.prepare(network_of(record, store)) for record, store in members]
    names: dict[str, Path] = {}
    waiting: list[_Read] = []
    for number, path in enumerate(paths, 1):
        waiting.append(_read(path, aligned))
        if number == len(paths) or sum(len(read.crops) for read in waiting) >= _AT_ONCE:
            faces = iter(_classified(networks, classes, waiting))
            for read in waiting:
                picture = Picture(read.path, list(islice(faces, len(read.crops))), read.problem)
                if draw is not None and read.picture is not None and picture.faces:
                    _save_drawn(draw, read.picture, picture, names)
                yield picture
            waiting.clear()


@dataclass(frozen=True)
class _Read:
    """A picture that was read. found, crops : its faces, uint8 [48,48] each; none where there is a ``problem``."""

    path: Path
    picture: Image.Image | None = None
    found: tuple[Found | None, ...] = ()
    crops: tuple[np.ndarray, ...] = ()
    problem: str = ""


def _read(path: Path, aligned: bool) -> _Read:
    try:
        picture = decode(path.read_bytes(), str(path))
    except (DataError, OSError) as error:
        return _Read(path, problem=str(error))
    found: list[Found | None] = [None] if aligned else [*align.detect(picture)]
    if not found:
        return _Read(path, problem=NO_FACE)
    crops = [align.resized(picture) if one is None else align.aligned(picture, one.points) for one in found]
    return _Read(path, picture, tuple(found), tuple(crops))


def _classified(networks: list[PreparedNetwork], classes: list[str], pictures: list[_Read]) -> list[Face]:
    """All faces of some pictures, in one pass of each network."""
    found = [one for read in pictures for one in read.found]
    if not found:
        return []
    crops = torch.from_numpy(np.stack([crop for read in pictures for crop in read.crops]))
    outputs = [network(crops) for network in networks]
    probabilities = torch.stack([torch.softmax(one[0].double(), dim=1) for one in outputs]).mean(dim=0).tolist()
    maps = outputs[0][1].numpy() if len(outputs[0]) > 1 else [None] * len(found)
    return [
        Face(one, dict(zip(classes, row, strict=True)), attention)
        for one, row, attention in zip(found, probabilities, maps, strict=True)
    ]


def _save_drawn(folder: Path, image: Image.Image, picture: Picture, names: dict[str, Path]) -> None:
    """Write a picture with its faces drawn. names : paths by the stems that are taken."""
    path = picture.path
    stem = path.stem if names.setdefault(path.stem, path) == path else f"{path.parent.name}-{path.stem}"
    with explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
        drawn(image, picture.faces).save(folder / f"{stem}.png")


def drawn(picture: Image.Image, faces: list[Face]) -> Image.Image:
    """Draw boxes, labels and both attention maps (eyes in orange, mouth in blue) into a copy of a picture."""
    scale = max(1, -(-_SMALL // max(picture.size)))
    canvas = picture.convert("RGB").resize((picture.width * scale, picture.height * scale))
    for face in faces:
        for attention, colour in zip(() if face.maps is None else face.maps, _COLOURS, strict=False):
            layer = _placed(attention, face.found, canvas.size, scale)
            canvas.paste(Image.new("RGB", canvas.size, colour), mask=layer.point(lambda level: round(level * _OPACITY)))
    pen = ImageDraw.Draw(canvas)
    for face in faces:
        left, top, width, height = face.found.box if face.found else (0, 0, picture.width, picture.height)
        corner = (scale * left, scale * top)
        if face.found:
            pen.rectangle((*corner, scale * (left + width), scale * (top + height)), outline="white", width=2)
        label = f"{face.expression} {face.probabilities[face.expression]:.0%}"
        size = max(12, scale * height // 12)
        place = (max(0, corner[0]), max(0, corner[1] - size - 4))
        pen.rectangle(pen.textbbox(place, label, font_size=size), fill="black")
        pen.text(place, label, fill="white", font_size=size)
    return canvas


def _placed(attention: np.ndarray, found: Found | None, size: tuple[int, int], scale: int) -> Image.Image:
    """A map as grey levels where its face lies in the picture, ``scale`` times enlarged."""
    levels = Image.fromarray((attention * 255).round().astype(np.uint8))
    if found is None:
        return levels.resize(size, Image.Resampling.BILINEAR)
    face = levels.resize((SIZE, SIZE), Image.Resampling.BILINEAR)
    # From the picture back to the template; Pillow counts from a pixel's corner, ours is its centre.
    matrix = align.similarity(align.TEMPLATE, (found.points + 0.5) * scale - 0.5)
    linear = matrix[:, :2]
    shift = matrix[:, 2] + 0.5 - linear @ np.array([0.5, 0.5])
    data = (*linear[0], shift[0], *linear[1], shift[1])
    return face.transform(size, Image.Transform.AFFINE, data, Image.Resampling.BILINEAR)
