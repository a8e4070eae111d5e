"""Expressions of the faces in pictures, by a trained run or by the weights that come with the package."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from ferbench.data import align
from ferbench.data.align import SIZE, Found
from ferbench.data.samples import decode
from ferbench.errors import DataError, UsageError
from ferbench.files import explained
from ferbench.inference.models import Model

NO_FACE = "no face found; --aligned takes the picture as the face"
_COLOURS = ((255, 80, 0), (0, 120, 255))  # of the eyes' and the mouth's map
_OPACITY = 0.45  # of a map at its maximum
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
    for path in paths:
        try:
            picture = decode(path.read_bytes(), str(path))
        except (DataError, OSError) as error:
            yield Picture(path, [], str(error))
            continue
        detections: list[Found | None] = [None] if aligned else [*align.detect(picture)]
        if not detections:
            yield Picture(path, [], NO_FACE)
            continue
        crops = [align.aligned(picture, face.points) if face else align.resized(picture) for face in detections]
        faces = _classified(models, np.stack(crops), detections)
        if draw is not None:
            stem = path.stem if names.setdefault(path.stem, path) == path else f"{path.parent.name}-{path.stem}"
            with explained(draw):
                draw.mkdir(parents=True, exist_ok=True)
                drawn(picture, faces).save(draw / f"{stem}.png")
        yield Picture(path, faces)


def _classified(models: list[Model], crops: np.ndarray, detections: list[Found | None]) -> list[Face]:
    """The faces uint8 [N,48,48] with their expressions."""
    predictions = [model.predict_faces(crops) for model in models]
    probabilities = np.mean([rows for rows, _ in predictions], axis=0).tolist()
    maps = predictions[0][1]
    return [
        Face(detection, dict(zip(models[0].classes, row, strict=True)), None if maps is None else maps[number])
        for number, (detection, row) in enumerate(zip(detections, probabilities, strict=True))
    ]


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
    matrix = align.similarity(align.TEMPLATE, (detection.points + 0.5) * scale - 0.5)
    linear = matrix[:, :2]
    shift = matrix[:, 2] + 0.5 - linear @ np.array([0.5, 0.5])
    data = (*linear[0], shift[0], *linear[1], shift[1])
    return face.transform(size, Image.Transform.AFFINE, data, Image.Resampling.BILINEAR)
