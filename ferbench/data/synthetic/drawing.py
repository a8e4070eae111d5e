"""Drawing a face: identity, action units and view in, grey picture and landmarks out."""

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from ferbench.data.synthetic.anatomy import Person, Shape, Units, landmarks68, shape

UNITS = 48.0  # width and height of the template's coordinates
_OVERSAMPLED = 4  # drawn at this multiple and averaged down: smooth edges


@dataclass(frozen=True)
class View:
    """How a face is seen: placed, turned, lit and degraded. The defaults are the plain aligned view."""

    scale: float = 1.0
    roll: float = 0.0  # degrees
    shift: tuple[float, float] = (0.0, 0.0)  # template units
    yaw: float = 0.0  # features slide by this many units over the face
    pitch: float = 0.0
    light: float = 0.0  # −1 from the left .. 1 from the right
    gain: float = 1.0
    background: float = 128.0
    noise: float = 0.0  # standard deviation in grey levels
    blur: float = 0.0  # radius in units

    @classmethod
    def draw(cls, rng: np.random.Generator, wild: float) -> "View":
        """Draw a view; ``wild`` 0 is a plain laboratory, 1 is the street."""
        spread = 0.2 + 0.8 * wild
        return cls(
            scale=float(np.exp(rng.normal(0, 0.05 * spread))),
            roll=rng.normal(0, 6 * spread),
            shift=tuple(rng.normal(0, 1.0 * spread, 2)),
            yaw=rng.normal(0, 1.4 * spread),
            pitch=rng.normal(0, 1.0 * spread),
            light=rng.normal(0, 0.45 * spread),
            gain=float(np.exp(rng.normal(0, 0.18 * spread))),
            background=rng.uniform(20, 230),
            noise=rng.uniform(2, 5) + 9 * wild * rng.random(),
            blur=wild * rng.uniform(0, 0.8),
        )


def render(
    person: Person,
    units: Units,
    view: View,
    rng: np.random.Generator,
    size: tuple[int, int] = (48, 48),
    face: float = 1.0,
    centre: tuple[float, float] = (0.5, 0.5),
) -> tuple[np.ndarray, np.ndarray]:
    """Draw a face: uint8 [height,width] and its 68 landmarks [68,2] in pixel-centre coordinates.

    size : (width, height) in pixels. face : height of the template's square as a share of the picture's.
    centre : where the square's centre lies in the picture.
    """
    width, height = size
    unit = face * height / UNITS  # pixels a unit
    zoom = unit * (_OVERSAMPLED if height <= 128 else 2)
    canvas = (round(width * zoom / unit), round(height * zoom / unit))
    points = shape(person, units)
    place = _placement(view, zoom, (centre[0] * canvas[0], centre[1] * canvas[1]))
    picture = _paint(person, units, points, view, canvas, place, zoom)
    if view.blur:
        picture = picture.filter(ImageFilter.GaussianBlur(view.blur * zoom))
    small = np.asarray(picture.resize(size, Image.Resampling.BOX), dtype=np.float32)
    across = np.linspace(-1, 1, width, dtype=np.float32)[None, :]
    lit = small * view.gain * (1 + view.light * 0.6 * across)
    noisy = lit + view.noise * rng.standard_normal(lit.shape, dtype=np.float32)
    landmarks = place(landmarks68(points)) * (unit / zoom) - 0.5
    return np.clip(np.rint(noisy), 0, 255).astype(np.uint8), landmarks


def _placement(view: View, zoom: float, centre: tuple[float, float]):
    """Template units → canvas pixels (corner coordinates): slide features, scale, roll, shift."""
    angle = np.deg2rad(view.roll)
    turn = view.scale * np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])

    def place(points: np.ndarray, depth: float = 1.0) -> np.ndarray:
        # +0.5: template coordinates count from pixel centres. Depth: the nose slides more than the outline.
        moved = np.asarray(points) + 0.5 + depth * np.array([view.yaw, view.pitch])
        return ((moved - UNITS / 2) @ turn + np.array(view.shift)) * zoom + np.array(centre)

    return place


def _paint(
    person: Person, units: Units, points: Shape, view: View, canvas: tuple[int, int], place, zoom: float
) -> Image.Image:
    picture = Image.new("L", canvas, int(view.background))
    pen = ImageDraw.Draw(picture)

    def grey(value: float) -> int:
        return int(np.clip(value, 0, 255))

    def area(outline: np.ndarray, value: float, depth: float = 1.0) -> None:
        pen.polygon([tuple(point) for point in place(outline, depth)], fill=grey(value))

    def stroke(line: np.ndarray, value: float, width: float, depth: float = 1.0) -> None:
        dots = [tuple(point) for point in place(line, depth)]
        pen.line(dots, fill=grey(value), width=max(1, round(width * zoom)), joint="curve")

    def ellipse(centre: np.ndarray, radius: float, value: float) -> None:
        (x, y), r = place(np.asarray(centre)[None])[0], radius * zoom
        pen.ellipse([x - r, y - r, x + r, y + r], fill=grey(value))

    skin, shade = person.skin, person.skin * 0.78
    top = 24 + np.array(
        [[np.cos(a) * person.width * 1.02, np.sin(a) * 21 - 4] for a in np.linspace(np.pi, 2 * np.pi, 24)]
    )
    back = 24 + np.array(
        [[np.cos(a) * person.width * 1.22, np.sin(a) * 26 - 4] for a in np.linspace(np.pi, 2 * np.pi, 24)]
    )
    if person.style == "long":
        area(np.concatenate([back, [[24 + person.width * 1.3, 60], [24 - person.width * 1.3, 60]]]), person.hair, 0.2)
    elif person.style != "bald":
        area(np.concatenate([back, [[24 + person.width * 1.1, 26], [24 - person.width * 1.1, 26]]]), person.hair, 0.2)
    area(np.array([[15, 40], [33, 40], [36, 70], [12, 70]]), shade, 0.3)  # neck
    for mirror in (-1, 1):
        ellipse(np.array([24 + mirror * person.width, 23.0]), 2.4, shade)  # ears
    area(np.concatenate([points.outline, top[::-1]]), skin, 0.4)
    if person.style != "bald":
        hairline = {"short": 1.5, "bangs": 8.0, "long": 3.0}[person.style]
        fringe = [[24 + x, hairline - 2.5 * np.cos(x / 6)] for x in np.linspace(person.width, -person.width, 9)]
        area(
            np.concatenate([back, [[24 + person.width * 1.06, 14]], fringe, [[24 - person.width * 1.06, 14]]]),
            person.hair,
            0.3,
        )
    _paint_eyes(person, units, points, skin, area, stroke, ellipse)
    _paint_nose(person, units, points, skin, stroke)
    _paint_mouth(person, units, points, skin, area, stroke)
    if person.glasses:
        _paint_glasses(points, place, pen, zoom)
    return picture


def _paint_eyes(person: Person, units: Units, points: Shape, skin: float, area, stroke, ellipse) -> None:
    for eye, pupil, brow in zip(points.eyes, points.pupils, points.brows, strict=True):
        area(eye + np.array([0, -0.35]), skin * 0.7)  # the lid's shadow
        area(eye, 238)
        opening = eye[4:, 1].mean() - eye[1:3, 1].mean()
        ellipse(pupil, min(1.55, max(0.35, opening * 0.52)), 35)
        stroke(eye[:4], skin * 0.32, 0.55)
        stroke(eye[[3, 4, 5, 0]], skin * 0.62, 0.3)
        half = person.brow / 2 * np.array([0.9, 1.0, 1.0, 0.8, 0.45])
        half = half if brow[0, 0] > 24 else half[::-1]
        band = np.concatenate([brow - np.stack([0 * half, half], 1), (brow + np.stack([0 * half, half], 1))[::-1]])
        area(band, min(person.hair, skin * 0.6))
    knit = units.get("4", 0.0) + 0.7 * units.get("9", 0.0)
    if knit > 0.15:
        for mirror in (-1, 1):
            x = 24 + mirror * 1.3
            stroke(np.array([[x, 11.2], [x + mirror * 0.3, 14.6]]), skin * (1 - 0.3 * min(knit, 1)), 0.45)
    raised = units.get("1", 0.0) + units.get("2", 0.0)
    if raised > 0.4:
        for y in (6.3, 8.3):
            line = [[24 + x, y - 0.8 + (x / 9) ** 2] for x in np.linspace(-8, 8, 7)]
            stroke(np.array(line), skin * (1 - 0.13 * min(raised, 1.5)), 0.4)


def _paint_nose(person: Person, units: Units, points: Shape, skin: float, stroke) -> None:
    stroke(points.nose[4:], skin * 0.62, 0.6, 1.3)
    side = points.nose[:4] + np.array([1.5, 0])
    stroke(side[1:], skin * 0.86, 0.7, 1.3)
    wrinkle = units.get("9", 0.0)
    if wrinkle > 0.15:
        for y in (19.5, 21.2, 22.9):
            for mirror in (-1, 1):
                stroke(
                    np.array([[24 + mirror * 0.4, y], [24 + mirror * 2.6, y - 1.0]]),
                    skin * (1 - 0.38 * min(wrinkle, 1)),
                    0.45,
                    1.3,
                )
    for name, mirror in (("L", -1), ("R", 1)):
        smile = units.get("12", 0.0) + units.get(f"12{name}", 0.0) + 0.8 * units.get("10", 0.0)
        fold = 0.05 + 0.10 * person.age + 0.28 * min(smile, 1.0)
        corner = points.mouth[0] if mirror < 0 else points.mouth[6]
        start = np.array([24 + mirror * (person.nose + 0.8), 28.3 - units.get("9", 0.0)])
        end = corner + np.array([mirror * 1.6, -0.5])
        middle = (start + end) / 2 + np.array([mirror * 1.0, -0.6])
        stroke(np.stack([start, middle, end]), skin * (1 - fold), 0.5)
        dimple = units.get(f"14{name}", 0.0) + units.get("14", 0.0)
        if dimple > 0.1:
            at = corner + np.array([mirror * 1.3, 0])
            stroke(
                np.stack([at + [0, -1.6], at + [mirror * 0.5, 0], at + [0, 1.4]]),
                skin * (1 - 0.45 * min(dimple, 1)),
                0.6,
            )


def _paint_mouth(person: Person, units: Units, points: Shape, skin: float, area, stroke) -> None:
    if person.beard in ("moustache", "goatee"):
        stroke(np.array([[18.5, 33.0], [21.5, 31.8], [24, 32.2], [26.5, 31.8], [29.5, 33.0]]), person.hair, 1.8)
    if person.beard == "goatee":
        drop = points.mouth[9, 1]
        area(np.array([[20.5, drop + 1.6], [27.5, drop + 1.6], [26.5, drop + 6.5], [21.5, drop + 6.5]]), person.hair)
    area(points.mouth, skin * 0.58)
    if points.opening > 0.35:
        area(points.inner, 28)
        if points.opening > 0.8:  # upper teeth
            teeth = points.inner[:5].copy()
            low = teeth[::-1] + np.array([0, min(1.3, 0.45 * points.opening)])
            area(np.concatenate([teeth[1:4], low[1:4]]), 225)
    else:
        stroke(points.inner[:5], skin * 0.3, 0.5)
    chin = units.get("17", 0.0)
    if chin > 0.15:
        y = points.mouth[9, 1] + 1.9
        stroke(np.array([[20.5, y + 0.9], [24, y], [27.5, y + 0.9]]), skin * (1 - 0.35 * min(chin, 1)), 0.6)


def _paint_glasses(points: Shape, place, pen: ImageDraw.ImageDraw, zoom: float) -> None:
    width = max(1, round(0.75 * zoom))
    for pupil in points.pupils:
        frame = pupil + np.array([[-5.4, -3.6], [5.4, -3.6], [5.0, 4.2], [-5.0, 4.2], [-5.4, -3.6]])
        pen.line([tuple(point) for point in place(frame)], fill=25, width=width, joint="curve")
    middle = points.pupils.mean(axis=0)
    bridge = middle + np.array([[-3.2, -1.0], [0, -1.9], [3.2, -1.0]])
    pen.line([tuple(point) for point in place(bridge)], fill=25, width=width)
