"""Drawing a face: identity, action units and view in, grey picture and landmarks out.

Geometry lives in the coordinates of the alignment template (48 units wide, eyes and mouth where
``align.TEMPLATE`` has them), so a face drawn straight on is an aligned face. Expressions are sets of
action units (Ekman & Friesen 1978) in the combinations of EMFACS; each moves points of brows, lids,
nose and mouth. Everything is decided by the generator that is passed in.
"""

from dataclasses import dataclass, replace

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

UNITS = 48.0  # width and height of the template's coordinates
_OVERSAMPLED = 4  # drawn at this multiple and averaged down: smooth edges

# Action units by emotion with their usual strength. L and R: on one side of the picture only.
EMOTION_UNITS: dict[str, dict[str, float]] = {
    "neutral": {},
    "happiness": {"6": 0.8, "12": 1.0, "25": 0.5},
    "sadness": {"1": 1.0, "4": 0.45, "15": 0.9, "17": 0.5},
    "surprise": {"1": 1.0, "2": 1.0, "5": 0.8, "25": 0.8, "26": 0.9},
    "fear": {"1": 0.9, "2": 0.45, "4": 0.6, "5": 0.9, "20": 0.9, "25": 0.5},
    "anger": {"4": 1.0, "7": 0.6, "23": 0.9, "17": 0.4},
    "disgust": {"4": 0.4, "7": 0.5, "9": 1.0, "10": 0.9, "17": 0.3},
    "contempt": {"12R": 0.8, "14R": 0.9},
}


@dataclass(frozen=True)
class Identity:
    """What stays the same in all pictures of a person. Lengths in template units, greys in 0..255."""

    width: float  # half-width of the face at the cheekbones
    chin: float  # y of the chin
    jaw: float  # 0 pointed .. 1 square
    skin: float
    hair: float  # grey of hair and brows
    style: str  # bald, short, bangs, long
    brow: float  # thickness
    arch: float  # height of the brow's middle above its ends
    eye: float  # half-width of an eye
    lid: float  # opening at rest
    spread: float  # distance of the eyes beyond the template's
    nose: float  # half-width of the nostrils
    lips: float  # thickness of a lip
    mouth: float  # half-width at rest
    glasses: bool
    beard: str  # none, moustache, goatee
    age: float  # strength of lines

    @classmethod
    def draw(cls, rng: np.random.Generator, **fixed: object) -> "Identity":
        """Draw a person. Features that are attributes keep a gap between present and absent."""
        bushy, arched, narrow, full = rng.random(4) < (0.15, 0.15, 0.14, 0.25)
        skin = rng.uniform(105, 225)
        found = cls(
            width=rng.uniform(16.0, 19.5), chin=rng.uniform(45.5, 49.5), jaw=rng.random(), skin=skin,
            hair=rng.uniform(15, 90) if rng.random() < 0.75 else rng.uniform(110, 190),
            style=str(rng.choice(["bald", "short", "bangs", "long"], p=[0.08, 0.4, 0.2, 0.32])),
            brow=rng.uniform(2.3, 2.9) if bushy else rng.uniform(0.9, 1.5),
            arch=rng.uniform(2.0, 2.6) if arched else rng.uniform(0.2, 0.9),
            eye=rng.uniform(3.2, 3.9), lid=rng.uniform(0.75, 0.95) if narrow else rng.uniform(1.4, 1.9),
            spread=rng.uniform(-0.6, 0.6), nose=rng.uniform(2.6, 3.8),
            lips=rng.uniform(1.9, 2.4) if full else rng.uniform(0.8, 1.25),
            mouth=rng.uniform(6.0, 7.6), glasses=bool(rng.random() < 0.14),
            beard=str(rng.choice(["none", "moustache", "goatee"], p=[0.84, 0.08, 0.08])), age=rng.random(),
        )  # fmt: skip
        return replace(found, **fixed)  # type: ignore[arg-type]


Units = dict[str, float]  # action units and their strength, 0 at rest .. about 1


def expression(emotion: str, rng: np.random.Generator) -> Units:
    """Draw how one person shows an emotion at its peak: strengths vary, and a unit may stay almost away."""
    units = {}
    for name, strength in EMOTION_UNITS[emotion].items():
        faint = rng.random() < 0.15
        units[name] = strength * (rng.uniform(0.1, 0.4) if faint else rng.uniform(0.65, 1.15))
    if emotion != "happiness" and rng.random() < 0.2:
        units["25"] = units.get("25", 0.0) + rng.uniform(0.1, 0.5)  # lips part in any emotion
    if "12R" in units and rng.random() < 0.5:
        units = {name.replace("R", "L"): strength for name, strength in units.items()}
    return units


def scaled(units: Units, intensity: float) -> Units:
    """All units at a share of their strength."""
    return {name: strength * intensity for name, strength in units.items()}


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
            scale=float(np.exp(rng.normal(0, 0.05 * spread))), roll=rng.normal(0, 6 * spread),
            shift=tuple(rng.normal(0, 1.0 * spread, 2)), yaw=rng.normal(0, 1.4 * spread),
            pitch=rng.normal(0, 1.0 * spread), light=rng.normal(0, 0.45 * spread),
            gain=float(np.exp(rng.normal(0, 0.18 * spread))), background=rng.uniform(20, 230),
            noise=rng.uniform(2, 5) + 9 * wild * rng.random(), blur=wild * rng.uniform(0, 0.8),
        )  # fmt: skip


@dataclass(frozen=True)
class Shape:
    """The points of a face, [n,2] arrays in template units, before the view."""

    outline: np.ndarray
    brows: tuple[np.ndarray, np.ndarray]  # five points each, from the picture's left
    eyes: tuple[np.ndarray, np.ndarray]  # six points each: corner, two upper, corner, two lower
    pupils: np.ndarray  # [2,2]
    nose: np.ndarray  # nine points: four down the bridge, five under the tip
    mouth: np.ndarray  # twelve points of the outer contour from the left corner, clockwise
    inner: np.ndarray  # eight points of the inner contour
    opening: float


def shape(who: Identity, units: Units) -> Shape:
    """Place all points of a face. Each line that names a unit says what that muscle does."""

    def unit(name: str, side: str = "") -> float:
        return units.get(name, 0.0) + (units.get(name + side, 0.0) if side else 0.0)

    brows, eyes, pupils = [], [], []
    for side, mirror in (("L", -1), ("R", 1)):
        x = 24 + mirror * (8.5 + who.spread / 2)
        inner, outer = x - mirror * 4.6, x + mirror * 5.0
        rise = np.array([2.6 * unit("1", side), 1.2 * unit("1", side), 0, 0, 0])  # AU1: inner brow up
        rise += np.array([0, 0.5, 1.6, 2.2, 2.0]) * unit("2", side)  # AU2: outer brow up
        rise -= np.array([2.6, 2.2, 1.6, 1.0, 0.6]) * unit("4", side)  # AU4: brow down …
        across = np.linspace(inner, outer, 5) - mirror * np.array([1.1, 0.6, 0.2, 0, 0]) * unit("4", side)  # … and in
        curve = who.arch * np.array([0, 0.75, 1.0, 0.7, -0.15])
        brow = np.stack([across, 12.9 - curve - rise], axis=1)
        brows.append(brow if mirror > 0 else brow[::-1])
        upper = who.lid + 0.9 * unit("5", side) - 0.45 * who.lid * unit("7", side)  # AU5 opens, AU7 tightens
        upper -= 0.25 * unit("4", side)
        lower = 0.75 * who.lid - 0.55 * who.lid * (0.9 * unit("6", side) + 0.6 * unit("7", side))  # AU6: cheek up
        upper, lower = max(upper, 0.15), max(lower, 0.1)
        ring = np.array([[-1, 0.1], [-0.45, -upper], [0.4, -upper], [1, -0.05], [0.4, lower], [-0.45, lower]])
        ring[:, 0] *= who.eye * mirror
        eye = ring + [x, 18.5]
        eyes.append(eye if mirror > 0 else eye[[3, 2, 1, 0, 5, 4]])
        pupils.append([x, 18.5 + 0.1 * (lower - upper)])
    lift = 1.2 * unit("9") + 0.5 * unit("10")  # AU9 pulls the nose up
    wing = who.nose + 0.6 * unit("9")
    bridge = np.stack([np.full(4, 24.0), np.linspace(18.5, 27.0 - lift, 4)], axis=1)
    under = np.array([[-wing, 28.6], [-wing / 2, 29.4], [0, 29.8], [wing / 2, 29.4], [wing, 28.6]]) - [
        0,
        lift,
    ]
    nose = np.concatenate([bridge, under + [24, 0]])
    return Shape(
        _outline(who, 3.4 * unit("26")), (brows[0], brows[1]), (eyes[0], eyes[1]), np.array(pupils), nose,
        *_mouth(who, unit),
    )  # fmt: skip


def _mouth(who: Identity, unit) -> tuple[np.ndarray, np.ndarray, float]:
    opening = max(0.0, 1.5 * unit("25") + 5.0 * unit("26"))  # AU25 parts the lips, AU26 drops the jaw
    press = min(1.0, unit("23"))  # AU23 tightens the lips
    lip = who.lips * (1 - 0.6 * press) * (1 - 0.25 * min(1.0, unit("12")))
    corners = []
    for side, mirror in (("L", -1), ("R", 1)):
        out = 2.2 * unit("12", side) + 2.2 * unit("20") + 0.5 * unit("14", side) - 1.0 * press  # AU12, AU20 widen
        out -= 2.0 * unit("26") * 0.5
        down = 2.1 * unit("15", side) - 2.6 * unit("12", side) - 0.6 * unit("14", side) + 0.7 * unit("20")
        corners.append([24 + mirror * (who.mouth + out), 37.0 + down])
    raised = 1.5 * unit("10") + 0.8 * unit("9") - 0.4 * unit("12")  # AU10 lifts the upper lip
    chin = 1.3 * unit("17")  # AU17 pushes the lower lip up
    t = np.linspace(-1, 1, 7)
    left, right = np.array(corners)
    line = left + (t[:, None] + 1) / 2 * (right - left)
    bow = 1 - t**2
    sag = (37.0 - line[:, 1].mean()) * bow * 0.9  # the middle stays where the corners leave
    top = line.copy()
    top[:, 1] += sag - bow * (raised + 0.25 * opening)
    bottom = line.copy()
    bottom[:, 1] += sag + bow * (0.75 * opening - chin - 0.35 * raised)
    bottom[:, 1] = np.maximum(bottom[:, 1], top[:, 1])
    above, below = top.copy(), bottom.copy()
    above[:, 1] -= lip * bow**0.5 * (1 - 0.25 * (t == 0))  # cupid's bow
    below[:, 1] += 1.25 * lip * bow**0.5
    outer = np.concatenate([above, below[-2:0:-1]])
    inner = np.concatenate([top[[0, 2, 3, 4, 6]], bottom[[4, 3, 2]]])
    return outer, inner, float((bottom - top)[3, 1])


def _outline(who: Identity, drop: float) -> np.ndarray:
    """The jaw from the left temple over the chin to the right one: seventeen points."""
    angle = np.linspace(np.pi, 0, 17)
    power = 0.75 + 0.35 * (1 - who.jaw)
    x = 24 + who.width * np.sign(np.cos(angle)) * np.abs(np.cos(angle)) ** power
    y = 20 + (who.chin + drop - 20) * np.sin(angle) ** 0.8
    return np.stack([x, y], axis=1)


def landmarks68(points: Shape) -> np.ndarray:
    """All points in the order of Multi-PIE's 68: jaw, brows, nose, eyes, outer and inner mouth: [68,2]."""
    return np.concatenate([points.outline, *points.brows, points.nose, *points.eyes, points.mouth, points.inner])


def render(
    who: Identity, units: Units, view: View, rng: np.random.Generator,
    size: tuple[int, int] = (48, 48), face: float = 1.0, centre: tuple[float, float] = (0.5, 0.5),
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Draw a face: uint8 [height,width] and its 68 landmarks [68,2] in pixel-centre coordinates.

    size : (width, height) in pixels. face : height of the template's square as a share of the picture's.
    centre : where the square's centre lies in the picture.
    """
    width, height = size
    unit = face * height / UNITS  # pixels a unit
    zoom = unit * (_OVERSAMPLED if height <= 128 else 2)
    canvas = (round(width * zoom / unit), round(height * zoom / unit))
    points = shape(who, units)
    place = _placement(view, zoom, (centre[0] * canvas[0], centre[1] * canvas[1]))
    picture = _paint(who, units, points, view, canvas, place, zoom)
    if view.blur:
        picture = picture.filter(ImageFilter.GaussianBlur(view.blur * zoom))
    small = np.asarray(picture.resize(size, Image.Resampling.BOX), dtype=np.float32)
    across = np.linspace(-1, 1, width, dtype=np.float32)[None, :]
    lit = small * view.gain * (1 + view.light * 0.6 * across)
    noisy = lit + view.noise * rng.standard_normal(lit.shape, dtype=np.float32)
    found = place(landmarks68(points)) * (unit / zoom) - 0.5
    return np.clip(np.rint(noisy), 0, 255).astype(np.uint8), found


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
    who: Identity, units: Units, points: Shape, view: View, canvas: tuple[int, int], place, zoom: float
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

    skin, shade = who.skin, who.skin * 0.78
    top = 24 + np.array([[np.cos(a) * who.width * 1.02, np.sin(a) * 21 - 4] for a in np.linspace(np.pi, 2 * np.pi, 24)])
    back = 24 + np.array(
        [[np.cos(a) * who.width * 1.22, np.sin(a) * 26 - 4] for a in np.linspace(np.pi, 2 * np.pi, 24)]
    )
    if who.style == "long":
        area(np.concatenate([back, [[24 + who.width * 1.3, 60], [24 - who.width * 1.3, 60]]]), who.hair, 0.2)
    elif who.style != "bald":
        area(np.concatenate([back, [[24 + who.width * 1.1, 26], [24 - who.width * 1.1, 26]]]), who.hair, 0.2)
    area(np.array([[15, 40], [33, 40], [36, 70], [12, 70]]), shade, 0.3)  # neck
    for mirror in (-1, 1):
        ellipse(np.array([24 + mirror * who.width, 23.0]), 2.4, shade)  # ears
    area(np.concatenate([points.outline, top[::-1]]), skin, 0.4)
    if who.style != "bald":
        hairline = {"short": 1.5, "bangs": 8.0, "long": 3.0}[who.style]
        fringe = [[24 + x, hairline - 2.5 * np.cos(x / 6)] for x in np.linspace(who.width, -who.width, 9)]
        area(
            np.concatenate([back, [[24 + who.width * 1.06, 14]], fringe, [[24 - who.width * 1.06, 14]]]),
            who.hair,
            0.3,
        )
    _paint_eyes(who, units, points, skin, area, stroke, ellipse)
    _paint_nose(who, units, points, skin, stroke)
    _paint_mouth(who, units, points, skin, area, stroke)
    if who.glasses:
        _paint_glasses(points, place, pen, zoom)
    return picture


def _paint_eyes(who: Identity, units: Units, points: Shape, skin: float, area, stroke, ellipse) -> None:
    for eye, pupil, brow in zip(points.eyes, points.pupils, points.brows, strict=True):
        area(eye + np.array([0, -0.35]), skin * 0.7)  # the lid's shadow
        area(eye, 238)
        opening = eye[4:, 1].mean() - eye[1:3, 1].mean()
        ellipse(pupil, min(1.55, max(0.35, opening * 0.52)), 35)
        stroke(eye[:4], skin * 0.32, 0.55)
        stroke(eye[[3, 4, 5, 0]], skin * 0.62, 0.3)
        half = who.brow / 2 * np.array([0.9, 1.0, 1.0, 0.8, 0.45])
        half = half if brow[0, 0] > 24 else half[::-1]
        band = np.concatenate([brow - np.stack([0 * half, half], 1), (brow + np.stack([0 * half, half], 1))[::-1]])
        area(band, min(who.hair, skin * 0.6))
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


def _paint_nose(who: Identity, units: Units, points: Shape, skin: float, stroke) -> None:
    stroke(points.nose[4:], skin * 0.62, 0.6, 1.3)
    side = points.nose[:4] + np.array([1.5, 0])
    stroke(side[1:], skin * 0.86, 0.7, 1.3)
    wrinkle = units.get("9", 0.0)
    if wrinkle > 0.15:
        for y in (19.5, 21.2, 22.9):
            for mirror in (-1, 1):
                stroke(np.array([[24 + mirror * 0.4, y], [24 + mirror * 2.6, y - 1.0]]),
                       skin * (1 - 0.38 * min(wrinkle, 1)), 0.45, 1.3)  # fmt: skip
    for name, mirror in (("L", -1), ("R", 1)):
        smile = units.get("12", 0.0) + units.get(f"12{name}", 0.0) + 0.8 * units.get("10", 0.0)
        fold = 0.05 + 0.10 * who.age + 0.28 * min(smile, 1.0)
        corner = points.mouth[0] if mirror < 0 else points.mouth[6]
        start = np.array([24 + mirror * (who.nose + 0.8), 28.3 - units.get("9", 0.0)])
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


def _paint_mouth(who: Identity, units: Units, points: Shape, skin: float, area, stroke) -> None:
    if who.beard in ("moustache", "goatee"):
        stroke(np.array([[18.5, 33.0], [21.5, 31.8], [24, 32.2], [26.5, 31.8], [29.5, 33.0]]), who.hair, 1.8)
    if who.beard == "goatee":
        drop = points.mouth[9, 1]
        area(
            np.array([[20.5, drop + 1.6], [27.5, drop + 1.6], [26.5, drop + 6.5], [21.5, drop + 6.5]]),
            who.hair,
        )
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


def attributes(who: Identity, units: Units) -> dict[str, int]:
    """The attributes of CelebA that are true of a drawn face; whatever is never drawn is absent."""
    style, full = who.style, {
        "Arched_Eyebrows": who.arch >= 2.0, "Bald": who.style == "bald", "Bangs": who.style == "bangs",
        "Big_Lips": who.lips >= 1.9, "Big_Nose": who.nose > 3.5, "Bushy_Eyebrows": who.brow >= 2.3,
        "Eyeglasses": who.glasses, "Goatee": who.beard == "goatee",
        "Mustache": who.beard in ("moustache", "goatee"), "No_Beard": who.beard == "none",
        "Mouth_Slightly_Open": units.get("25", 0) + units.get("26", 0) > 0.35, "Narrow_Eyes": who.lid < 1.0,
        "Smiling": units.get("12", 0) > 0.35, "Pale_Skin": who.skin > 210, "Pointy_Nose": who.nose < 2.9,
    }  # fmt: skip
    if style != "bald":
        full |= {
            "Black_Hair": who.hair < 45,
            "Brown_Hair": 45 <= who.hair < 100,
            "Blond_Hair": who.hair >= 100,
        }
    from ferbench.labels import CELEBA_ATTRIBUTES

    return {name: int(full.get(name, False)) for name in CELEBA_ATTRIBUTES}
