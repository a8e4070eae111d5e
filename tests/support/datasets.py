"""Small things that several tests build by hand."""

from pathlib import Path

import numpy as np
import pandas as pd

from ferbench.data import content
from ferbench.data.faces import COLUMNS, Faces, fingerprint
from ferbench.files import sha256_of
from ferbench.labels import in_order
from ferbench.protocol.protocol import Folds, Protocol
from ferbench.schema import Card


def make_faces(rows: list[dict], images: np.ndarray | None = None, name: str = "toy") -> Faces:
    """A prepared dataset in memory from rows of some of the columns; pixels are random unless given."""
    defaults = {"label": "", "subject": "", "sequence": "", "frame": -1, "split": "", "source": "", "aligner": "as-is"}
    if images is None:
        images = np.random.default_rng(0).integers(0, 256, (len(rows), 48, 48)).astype(np.uint8)
    full = [
        {
            "id": f"image{i:04d}",
            **defaults,
            "sha256": sha256_of(image.tobytes()),
            "content": content.digest(image),
            **row,
        }
        for i, (row, image) in enumerate(zip(rows, images, strict=True))
    ]
    extra = [key for key in full[0] if key not in COLUMNS]
    table = pd.DataFrame(full)[[*COLUMNS, *extra]]
    card = Card(
        name=name,
        dataset=name,
        layout="toy",
        source="memory",
        options={},
        classes=in_order([label for label in set(table["label"]) if label]),
        count=len(table),
        counts={},
        expected={},
        subjects=0,
        sequences=0,
        deviations=[],
        skipped=[],
        aligners={},
        fingerprint=fingerprint(table),
        versions={},
    )
    return Faces(images, table, card, signatures=content.signatures([content.thumbnail(image) for image in images]))


def lay_down(faces: Faces, home: Path) -> None:
    """Write a set into a data home, as preparing it would."""
    folder = home / faces.name
    folder.mkdir(parents=True)
    np.save(folder / "images.npy", faces.images)
    np.save(folder / "signatures.npy", faces.signatures)
    faces.samples.to_csv(folder / "samples.csv", index=False)
    (folder / "card.json").write_text(faces.card.model_dump_json())


def people(count: int, labels: list[str], frames: int = 3) -> list[dict]:
    """Rows of ``count`` subjects who each show every label in a sequence of ``frames`` frames."""
    return [
        {
            "id": f"S{s:03d}_{n:03d}_{f:02d}",
            "label": label,
            "subject": f"S{s:03d}",
            "sequence": f"S{s:03d}_{n:03d}",
            "frame": f,
        }
        for s in range(count)
        for n, label in enumerate(labels)
        for f in range(1, frames + 1)
    ]


CLASSES = ("anger", "happiness", "sadness")


def toy(rule: str = "step", count: int = 4, **more) -> Protocol:
    content = {
        "name": "toy",
        "version": 1,
        "description": "",
        "source": "",
        "dataset": "toy",
        "classes": CLASSES,
        "preset": "tiny",
        "attributes": "celeba",
        "folds": Folds(rule=rule, count=count),
        **more,
    }
    return Protocol(**content)
