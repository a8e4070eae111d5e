"""Synthetic faces in the official file layouts of datasets, which test every reader without the data."""

import io
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from ferbench.data.synthetic.anatomy import Person, attributes, expression, scaled
from ferbench.data.synthetic.drawing import View, render
from ferbench.data.synthetic.sets import everyday
from ferbench.errors import UsageError
from ferbench.files import new_folder
from ferbench.labels import CELEBA_ATTRIBUTES, CKPLUS, FER2013, OULU, RAFDB
from ferbench.seeds import generator

LAYOUTS = ("ckplus", "oulu", "rafdb", "celeba", "fer2013")
Files = Iterator[tuple[str, bytes]]
_LEFT_EYE, _RIGHT_EYE = slice(36, 42), slice(42, 48)  # of the 68 landmarks


def write_layout(
    layout: str, out: Path, subjects: int, seed: int, tick: Callable[[int, int], None] = lambda done, total: None
) -> dict[str, int]:
    """Write ``subjects`` synthetic people into the folder ``out`` in the file layout of the dataset ``layout``.

    Returns counts of what was written. Raises UsageError for an unknown layout or a folder that is not empty.
    """
    if layout not in LAYOUTS:
        raise UsageError(f"unknown layout {layout!r}: it is {', '.join(LAYOUTS)}")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"{out} is not an empty folder: choose a new one")
    people = {"ckplus": _ckplus, "oulu": _oulu, "rafdb": _rafdb, "celeba": _celeba, "fer2013": _fer2013}[layout]
    tables: dict[str, list[str]] = {}
    counts = {"people": subjects, "images": 0}
    with new_folder(out) as folder:
        for number in range(subjects):
            for path, content in people(number, generator(seed, layout, number), tables):
                target = folder / path
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(content)
                counts["images"] += path.endswith((".png", ".jpg", ".jpeg"))
            tick(number + 1, subjects)
        for path, lines in tables.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text("\n".join([*_header(path, len(lines)), *lines]) + "\n", "utf-8")
        if layout == "fer2013":
            counts["images"] = sum(map(len, tables.values()))
    return counts


def _header(path: str, count: int) -> list[str]:
    """The header lines of a table."""
    return {
        "list_attr_celeba.txt": [str(count), " ".join(CELEBA_ATTRIBUTES) + " "],
        "list_landmarks_align_celeba.txt": [
            str(count),
            "lefteye_x lefteye_y righteye_x righteye_y nose_x nose_y leftmouth_x leftmouth_y rightmouth_x rightmouth_y",
        ],
        "fer2013.csv": ["emotion,pixels,Usage"],
    }.get(path, [])


def _ckplus(number: int, rng: np.random.Generator, tables: dict[str, list[str]]) -> Files:
    """Sequences from neutral to peak as raw 640×490 frames; one emotion file at the peak of the labelled ones."""
    person, subject = Person.draw(rng), f"S{number + 5:03d}"
    # Seven classes go round, three a person: three people show them all.
    codes = [(number * 3 + place) % len(CKPLUS) + 1 for place in range(4)]
    for place, code in enumerate(codes):
        sequence = f"{subject}/{place + 1:03d}"
        length, view = int(rng.integers(6, 9)), _frame_view(rng)
        units = expression(CKPLUS[code], rng)
        labelled = place < 3  # the last one stays unlabelled, with an empty folder, as 266 of the 593 are
        for frame in range(1, length + 1):
            stem = f"{subject}_{place + 1:03d}_{frame:08d}"
            share = (frame - 1) / (length - 1)
            picture, points = render(person, scaled(units, share), view, rng, (640, 490), 0.55, (0.5, 0.52))
            yield f"cohn-kanade-images/{sequence}/{stem}.png", _encoded(picture, "PNG")
            rows = "\n".join(f"   {x: .7e}   {y: .7e}" for x, y in points)
            yield f"Landmarks/{sequence}/{stem}_landmarks.txt", (rows + "\n").encode()
        if labelled:
            stem = f"{subject}_{place + 1:03d}_{length:08d}"
            yield f"Emotion/{sequence}/{stem}_emotion.txt", f"   {float(code):.7e}\n".encode()


def _oulu(number: int, rng: np.random.Generator, tables: dict[str, list[str]]) -> Files:
    """All six expressions of a person in visible light, strong illumination: 320×240 frames from 000."""
    person = Person.draw(rng)
    for folder, emotion in OULU.items():
        length, view, units = int(rng.integers(6, 9)), _frame_view(rng), expression(emotion, rng)
        for frame in range(length):
            picture, _ = render(person, scaled(units, frame / (length - 1)), view, rng, (320, 240), 0.75)
            path = f"B_OriginalImg/OriginalImg/VL/Strong/P{number + 1:03d}/{folder}/{frame:03d}.jpeg"
            yield path, _encoded(picture, "JPEG")


def _rafdb(number: int, rng: np.random.Generator, tables: dict[str, list[str]]) -> Files:
    """Seven wild faces a person, aligned 100×100, with the list of labels and five landmarks each."""
    labels = tables.setdefault("basic/EmoLabel/list_patition_label.txt", [])
    for code, emotion in RAFDB.items():
        split = "test" if (number * 7 + code) % 5 == 0 else "train"
        count = 1 + sum(line.startswith(split) for line in labels)
        stem = f"{split}_{count:05d}" if split == "train" else f"{split}_{count:04d}"
        picture, points = _wild(rng, emotion, (100, 100), 0.8)
        labels.append(f"{stem}.jpg {code}")
        yield f"basic/Image/aligned/{stem}_aligned.jpg", _encoded(picture, "JPEG")
        rows = "\n".join(f"{x:.6f}\t{y:.6f}" for x, y in _five(points))
        yield f"basic/Annotation/manual/{stem}_manu_attri.txt", f"{rows}\n{number % 2}\n0\n2\n".encode()


def _celeba(number: int, rng: np.random.Generator, tables: dict[str, list[str]]) -> Files:
    """Four everyday faces a person, 178×218, with attributes, landmarks, identity and partition."""
    person = Person.draw(rng)
    for _ in range(4):
        listed = tables.setdefault("list_attr_celeba.txt", [])
        name, units = f"{len(listed) + 1:06d}.jpg", everyday(rng)
        # The template's square of 48 units is 110 pixels high here, its eyes at 69 and 108, 111.
        picture, points = render(person, units, View.draw(rng, 0.3), rng, (178, 218), 110.1 / 218, (0.4972, 0.5667))
        flags = attributes(person, units)
        listed.append(f"{name} " + " ".join(f"{1 if flags[a] else -1:2d}" for a in CELEBA_ATTRIBUTES))
        five = " ".join(f"{value:4.0f}" for value in _five(points).flatten())
        tables.setdefault("list_landmarks_align_celeba.txt", []).append(f"{name} {five}")
        tables.setdefault("identity_CelebA.txt", []).append(f"{name} {number + 1}")
        tables.setdefault("list_eval_partition.txt", []).append(f"{name} {(0, 0, 0, 0, 0, 0, 0, 0, 1, 2)[number % 10]}")
        yield f"img_align_celeba/{name}", _encoded(picture, "JPEG")


def _fer2013(number: int, rng: np.random.Generator, tables: dict[str, list[str]]) -> Files:
    """Seven wild faces a person, as text in one CSV: 8 people in 10 for Training."""
    usage = {8: "PublicTest", 9: "PrivateTest"}.get(number % 10, "Training")
    for code, emotion in FER2013.items():
        picture, _ = _wild(rng, emotion, (48, 48), 1.0)
        row = f"{code},{' '.join(map(str, picture.flatten()))},{usage}"
        tables.setdefault("fer2013.csv", []).append(row)
    yield from ()


def _wild(rng: np.random.Generator, emotion: str, size: tuple[int, int], face: float) -> tuple[np.ndarray, np.ndarray]:
    units = scaled(expression(emotion, rng), rng.uniform(0.6, 1.1))
    return render(Person.draw(rng), units, View.draw(rng, 0.8), rng, size, face)


def _frame_view(rng: np.random.Generator) -> View:
    return View.draw(rng, 0.1)


def _five(points: np.ndarray) -> np.ndarray:
    """Eyes, nose and mouth corners of the 68 landmarks: [5,2]."""
    return np.stack(
        [points[_LEFT_EYE].mean(axis=0), points[_RIGHT_EYE].mean(axis=0), points[30], points[48], points[54]]
    )


def _encoded(picture: np.ndarray, kind: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, kind, **({"quality": 92} if kind == "JPEG" else {"compress_level": 1}))
    return buffer.getvalue()
