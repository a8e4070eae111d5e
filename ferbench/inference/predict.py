"""Expressions of the faces in pictures, by a trained run or by the weights that come with the package."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from ferbench.data import align
from ferbench.data.align import SIZE, Found
from ferbench.data.landmarks import anchors
from ferbench.data.samples import decode
from ferbench.data.views import View, view_of
from ferbench.errors import DataError, UsageError
from ferbench.files import explained
from ferbench.inference.models import Model

NO_FACE = "no face found; --aligned takes the picture as the face"
_COLOURS = ((255, 80, 0), (0, 120, 255))  # of the eyes' and the mouth's map
_OPACITY = 0.45  # of a map at its maximum
AT_ONCE = 64  # faces of a folder that are recognised together, which bounds the memory for pictures
_SMALL = 240  # pixels of the longer side below which a drawn picture is enlarged


@dataclass(frozen=True)
class Face:
    """One face with its expression.

    detection : where it lies; None where the picture was given as the face. probabilities : by class, adding up to 1.
    maps : attention float32 [2,H,W] of eyes and mouth, None where the method has none.
    """

    detection: Found | None
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


def pictures(sources: list[Path]) -> list[Path]:
    """Return the files named, and the pictures below the folders named, sorted.

    Raises DataError for what does not exist and for a folder without pictures.
    """
    readable = {suffix for suffix, kind in Image.registered_extensions().items() if kind in Image.OPEN}
    paths: list[Path] = []
    for source in sources:
        if source.is_dir():
            inside = sorted(path for path in source.rglob("*") if path.suffix.lower() in readable)
            if not inside:
                raise DataError(f"{source} holds no pictures")
            paths += inside
        elif source.is_file():
            paths.append(source)
        else:
            raise DataError(f"{source} does not exist")
    return paths


def predict(paths: list[Path], models: list[Model], aligned: bool, draw: Path | None) -> Iterator[Picture]:
    """Give each picture with its faces; one that cannot be read has a problem instead.

    models : of several, the mean of their probabilities counts, and the maps are those of the first. aligned : the
        picture is the face, cropped already. draw : folder for pictures with boxes, labels and maps.
    Raises UsageError where faces have to be found and no detector is installed, and for models of different classes.
    """
    if not aligned and not align.can_detect():
        raise UsageError(
            "finding faces takes a detector: `pip install 'ferbench[detect]'`; "
            "or give pictures that are faces already, with --aligned"
        )
    classes = models[0].classes
    for model in models:
        if model.classes != classes:
            raise UsageError(
                f"{model.title} knows other classes than {models[0].title}: "
                f"{', '.join(model.classes)}, not {', '.join(classes)}"
            )
    names: dict[str, Path] = {}
    views = list(dict.fromkeys(model.view for model in models))
    waiting: list[_Read] = []
    most = AT_ONCE if draw is None else 1  # pictures that are drawn into stay in memory, and may be large
    for number, path in enumerate(paths, 1):
        waiting.append(_read(path, aligned, views, keep=draw is not None))
        if number == len(paths) or sum(len(read.crops) for read in waiting) >= most:
            faces = iter(_classified(models, waiting))
            for read in waiting:
                picture = Picture(read.path, list(islice(faces, len(read.crops))), read.problem)
                if draw is not None and read.image is not None:
                    _save(drawn(read.image, picture.faces), path=read.path, folder=draw, names=names)
                yield picture
            waiting.clear()


@dataclass(frozen=True)
class _Read:
    """A picture with the crops of its faces, one dictionary for each with a crop for each view, or with a ``problem``.

    image : kept only where it is drawn into.
    """

    path: Path
    image: Image.Image | None = None
    detections: tuple[Found | None, ...] = ()
    crops: tuple[dict[View, np.ndarray], ...] = ()
    problem: str = ""


def _read(path: Path, aligned: bool, views: list[View], keep: bool) -> _Read:
    try:
        picture = decode(path.read_bytes(), str(path))
    except (DataError, OSError) as error:
        return _Read(path, problem=str(error))
    detections: list[Found | None] = [None] if aligned else [*align.detect(picture)]
    if not detections:
        return _Read(path, problem=NO_FACE)
    crops = tuple({view: _crop(picture, face, view) for view in views} for face in detections)
    return _Read(path, picture if keep else None, tuple(detections), crops)


def _crop(picture: Image.Image, face: Found | None, view: View) -> np.ndarray:
    """A face as a view, uint8 [S,S] or [S,S,3]. face : where it lies; None where it fills the picture."""
    if face is None:
        return view_of(picture, view)
    left, top, width, height = face.box
    return view_of(picture, view, "mtcnn", face.points, np.array([left, top, left + width, top + height], dtype=float))


def _classified(models: list[Model], pictures: list[_Read]) -> list[Face]:
    """The faces of all pictures with their expressions, which each model recognises together."""
    crops = [crop for picture in pictures for crop in picture.crops]
    if not crops:
        return []
    predictions = [model.predict_faces(np.stack([crop[model.view] for crop in crops])) for model in models]
    probabilities = np.mean([rows for rows, _ in predictions], axis=0).tolist()
    maps = predictions[0][1]
    detections = [detection for picture in pictures for detection in picture.detections]
    return [
        Face(detection, dict(zip(models[0].classes, row, strict=True)), None if maps is None else maps[number])
        for number, (detection, row) in enumerate(zip(detections, probabilities, strict=True))
    ]


def _save(image: Image.Image, path: Path, folder: Path, names: dict[str, Path]) -> None:
    """Write what was drawn into a picture. names : paths of pictures by the stems that are taken."""
    stem = path.stem if names.setdefault(path.stem, path) == path else f"{path.parent.name}-{path.stem}"
    with explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
        image.save(folder / f"{stem}.png")


def drawn(picture: Image.Image, faces: list[Face]) -> Image.Image:
    """Draw boxes, labels and both attention maps (eyes in orange, mouth in blue) into a copy of a picture."""
    scale = max(1, -(-_SMALL // max(picture.size)))
    canvas = picture.convert("RGB").resize((picture.width * scale, picture.height * scale))
    for face in faces:
        for attention, colour in zip(() if face.maps is None else face.maps, _COLOURS, strict=False):
            layer = _placed(attention, face.detection, canvas.size, scale)
            canvas.paste(Image.new("RGB", canvas.size, colour), mask=layer.point(lambda level: round(level * _OPACITY)))
    pen = ImageDraw.Draw(canvas)
    for face in faces:
        left, top, width, height = face.detection.box if face.detection else (0, 0, picture.width, picture.height)
        corner = (scale * left, scale * top)
        if face.detection:
            pen.rectangle((*corner, scale * (left + width), scale * (top + height)), outline="white", width=2)
        label = f"{face.expression} {face.probabilities[face.expression]:.0%}"
        size = max(12, scale * height // 12)
        place = (max(0, corner[0]), max(0, corner[1] - size - 4))
        pen.rectangle(pen.textbbox(place, label, font_size=size), fill="black")
        pen.text(place, label, fill="white", font_size=size)
    return canvas


def _placed(attention: np.ndarray, detection: Found | None, size: tuple[int, int], scale: int) -> Image.Image:
    """A map as grey levels where its face lies in the picture, ``scale`` times enlarged."""
    levels = Image.fromarray((attention * 255).round().astype(np.uint8))
    if detection is None:
        return levels.resize(size, Image.Resampling.BILINEAR)
    face = levels.resize((SIZE, SIZE), Image.Resampling.BILINEAR)
    # From the picture back to the template; Pillow counts from a pixel's corner, ours is its centre.
    matrix = align.similarity(align.TEMPLATE, (anchors(detection.points) + 0.5) * scale - 0.5)
    linear = matrix[:, :2]
    shift = matrix[:, 2] + 0.5 - linear @ np.array([0.5, 0.5])
    data = (*linear[0], shift[0], *linear[1], shift[1])
    return face.transform(size, Image.Transform.AFFINE, data, Image.Resampling.BILINEAR)
