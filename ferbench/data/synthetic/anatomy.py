"""A person and an expression: identity and action units in, the points of a face out.

Geometry lives in the coordinates of the alignment template (48 units wide, eyes and mouth where
``align.TEMPLATE`` has them), so a face seen straight on is an aligned face. Expressions are sets of
action units (Ekman & Friesen 1978) in the combinations of EMFACS; each moves points of brows, lids,
nose and mouth. Everything is decided by the generator that is passed in.
"""

from dataclasses import dataclass, replace

import numpy as np

from ferbench.labels import CELEBA_ATTRIBUTES

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
class Person:
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
    def draw(cls, rng: np.random.Generator, **fixed: object) -> "Person":
        """Draw a person. Features that are attributes keep a gap between present and absent."""
        bushy, arched, narrow, full = rng.random(4) < (0.15, 0.15, 0.14, 0.25)
        skin = rng.uniform(105, 225)
        person = cls(
            width=rng.uniform(16.0, 19.5),
            chin=rng.uniform(45.5, 49.5),
            jaw=rng.random(),
            skin=skin,
            hair=rng.uniform(15, 90) if rng.random() < 0.75 else rng.uniform(110, 190),
            style=str(rng.choice(["bald", "short", "bangs", "long"], p=[0.08, 0.4, 0.2, 0.32])),
            brow=rng.uniform(2.3, 2.9) if bushy else rng.uniform(0.9, 1.5),
            arch=rng.uniform(2.0, 2.6) if arched else rng.uniform(0.2, 0.9),
            eye=rng.uniform(3.2, 3.9),
            lid=rng.uniform(0.75, 0.95) if narrow else rng.uniform(1.4, 1.9),
            spread=rng.uniform(-0.6, 0.6),
            nose=rng.uniform(2.6, 3.8),
            lips=rng.uniform(1.9, 2.4) if full else rng.uniform(0.8, 1.25),
            mouth=rng.uniform(6.0, 7.6),
            glasses=bool(rng.random() < 0.14),
            beard=str(rng.choice(["none", "moustache", "goatee"], p=[0.84, 0.08, 0.08])),
            age=rng.random(),
        )
        return replace(person, **fixed)  # type: ignore[arg-type]


Units = dict[str, float]  # action units and their strength, 0 at rest .. about 1


def expression(emotion: str, rng: np.random.Generator) -> Units:
    """Draw how one person shows an emotion at its peak: strengths vary, and a unit may be almost absent."""
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


def shape(person: Person, units: Units) -> Shape:
    """Place all points of a face. Each line that names a unit says what that muscle does."""

    def unit(name: str, side: str = "") -> float:
        return units.get(name, 0.0) + (units.get(name + side, 0.0) if side else 0.0)

    brows, eyes, pupils = [], [], []
    for side, mirror in (("L", -1), ("R", 1)):
        x = 24 + mirror * (8.5 + person.spread / 2)
        inner, outer = x - mirror * 4.6, x + mirror * 5.0
        rise = np.array([2.6 * unit("1", side), 1.2 * unit("1", side), 0, 0, 0])  # AU1: inner brow up
        rise += np.array([0, 0.5, 1.6, 2.2, 2.0]) * unit("2", side)  # AU2: outer brow up
        rise -= np.array([2.6, 2.2, 1.6, 1.0, 0.6]) * unit("4", side)  # AU4: brow down …
        across = np.linspace(inner, outer, 5) - mirror * np.array([1.1, 0.6, 0.2, 0, 0]) * unit("4", side)  # … and in
        curve = person.arch * np.array([0, 0.75, 1.0, 0.7, -0.15])
        brow = np.stack([across, 12.9 - curve - rise], axis=1)
        brows.append(brow if mirror > 0 else brow[::-1])
        upper = person.lid + 0.9 * unit("5", side) - 0.45 * person.lid * unit("7", side)  # AU5 opens, AU7 tightens
        upper -= 0.25 * unit("4", side)
        lower = 0.75 * person.lid - 0.55 * person.lid * (0.9 * unit("6", side) + 0.6 * unit("7", side))  # AU6: cheek up
        upper, lower = max(upper, 0.15), max(lower, 0.1)
        ring = np.array([[-1, 0.1], [-0.45, -upper], [0.4, -upper], [1, -0.05], [0.4, lower], [-0.45, lower]])
        ring[:, 0] *= person.eye * mirror
        eye = ring + [x, 18.5]
        eyes.append(eye if mirror > 0 else eye[[3, 2, 1, 0, 5, 4]])
        pupils.append([x, 18.5 + 0.1 * (lower - upper)])
    lift = 1.2 * unit("9") + 0.5 * unit("10")  # AU9 pulls the nose up
    wing = person.nose + 0.6 * unit("9")
    bridge = np.stack([np.full(4, 24.0), np.linspace(18.5, 27.0 - lift, 4)], axis=1)
    under = np.array([[-wing, 28.6], [-wing / 2, 29.4], [0, 29.8], [wing / 2, 29.4], [wing, 28.6]]) - [0, lift]
    nose = np.concatenate([bridge, under + [24, 0]])
    return Shape(
        _outline(person, 3.4 * unit("26")),
        (brows[0], brows[1]),
        (eyes[0], eyes[1]),
        np.array(pupils),
        nose,
        *_mouth(person, unit),
    )


def _mouth(person: Person, unit) -> tuple[np.ndarray, np.ndarray, float]:
    opening = max(0.0, 1.5 * unit("25") + 5.0 * unit("26"))  # AU25 parts the lips, AU26 drops the jaw
    press = min(1.0, unit("23"))  # AU23 tightens the lips
    lip = person.lips * (1 - 0.6 * press) * (1 - 0.25 * min(1.0, unit("12")))
    corners = []
    for side, mirror in (("L", -1), ("R", 1)):
        out = 2.2 * unit("12", side) + 2.2 * unit("20") + 0.5 * unit("14", side) - 1.0 * press  # AU12, AU20 widen
        out -= 2.0 * unit("26") * 0.5
        down = 2.1 * unit("15", side) - 2.6 * unit("12", side) - 0.6 * unit("14", side) + 0.7 * unit("20")
        corners.append([24 + mirror * (person.mouth + out), 37.0 + down])
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


def _outline(person: Person, drop: float) -> np.ndarray:
    """The jaw from the left temple over the chin to the right one: seventeen points."""
    angle = np.linspace(np.pi, 0, 17)
    power = 0.75 + 0.35 * (1 - person.jaw)
    x = 24 + person.width * np.sign(np.cos(angle)) * np.abs(np.cos(angle)) ** power
    y = 20 + (person.chin + drop - 20) * np.sin(angle) ** 0.8
    return np.stack([x, y], axis=1)


def landmarks68(points: Shape) -> np.ndarray:
    """All points in the order of Multi-PIE's 68: jaw, brows, nose, eyes, outer and inner mouth: [68,2]."""
    return np.concatenate([points.outline, *points.brows, points.nose, *points.eyes, points.mouth, points.inner])


def attributes(person: Person, units: Units) -> dict[str, int]:
    """The attributes of CelebA that are true of a drawn face; whatever is never drawn is absent."""
    style, full = (
        person.style,
        {
            "Arched_Eyebrows": person.arch >= 2.0,
            "Bald": person.style == "bald",
            "Bangs": person.style == "bangs",
            "Big_Lips": person.lips >= 1.9,
            "Big_Nose": person.nose > 3.5,
            "Bushy_Eyebrows": person.brow >= 2.3,
            "Eyeglasses": person.glasses,
            "Goatee": person.beard == "goatee",
            "Mustache": person.beard in ("moustache", "goatee"),
            "No_Beard": person.beard == "none",
            "Mouth_Slightly_Open": units.get("25", 0) + units.get("26", 0) > 0.35,
            "Narrow_Eyes": person.lid < 1.0,
            "Smiling": units.get("12", 0) > 0.35,
            "Pale_Skin": person.skin > 210,
            "Pointy_Nose": person.nose < 2.9,
        },
    )
    if style != "bald":
        full |= {
            "Black_Hair": person.hair < 45,
            "Brown_Hair": 45 <= person.hair < 100,
            "Blond_Hair": person.hair >= 100,
        }
    return {name: int(full.get(name, False)) for name in CELEBA_ATTRIBUTES}
