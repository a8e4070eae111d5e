"""What ``ferbench data`` shows of prepared datasets: facts as plain tables, and a contact sheet."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from ferbench.data import faces
from ferbench.data.synthetic import SYNTHETIC, ensure
from ferbench.errors import DataError
from ferbench.labels import ABBREVIATIONS
from ferbench.seeds import generator

Sections = list[tuple[str, dict[str, Any]]]


def prepared(home: Path) -> Sections:
    """List the prepared datasets of a data home: images, subjects, layout, fingerprint."""
    sets = {}
    for name in faces.prepared(home):
        card = faces.load_card(name, home)
        sets[name] = f"{card.count:,} images, {card.subjects} subjects, {card.layout}, {card.fingerprint[:12]}"
    missing = [name for name in SYNTHETIC if name not in sets]
    if missing:
        sets["drawn when needed"] = ", ".join(missing)
    return [(f"prepared datasets in {home}", sets)]


def card(name: str, home: Path) -> Sections:
    """Show one prepared dataset: what was found against what is expected, and what deviates."""
    ensure(name, home)
    found = faces.load_card(name, home)
    sections: Sections = [
        (
            found.name,
            {
                "dataset": found.dataset,
                "layout": found.layout,
                "source": found.source,
                "options": found.options,
                "images": found.count,
                "subjects": found.subjects or "unknown",
                "sequences": found.sequences or "unknown",
                "aligned by": found.aligners,
                "fingerprint": found.fingerprint,
                "versions": found.versions,
            },
        )
    ]
    for what, numbers in found.counts.items():
        expected = found.expected.get(what, {})
        keys = dict.fromkeys([*numbers, *expected])
        sections.append(
            (
                f"images by {what}",
                {
                    key: f"{numbers.get(key, 0):,}" + (f" of {expected[key]:,} expected" if key in expected else "")
                    for key in keys
                },
            )
        )
    sections.append(("deviations", {str(i + 1): text for i, text in enumerate(found.deviations)}))
    if found.skipped:
        sections.append(("left out as corrupt", {str(i + 1): text for i, text in enumerate(found.skipped)}))
    return sections


def contact_sheet(name: str, home: Path, path: Path, columns: int = 12) -> None:
    """Draw a PNG of a prepared dataset: one row for each class, its images spread over the set by a fixed seed.

    A set of attributes gets rows of arbitrary images. Raises DataError where the path cannot be written.
    """
    prepared_set = faces.load(name, home)
    labels = prepared_set.samples["label"].to_numpy()
    rows = {label: np.flatnonzero(labels == label) for label in prepared_set.card.classes}
    if not rows:
        rows = {"": np.arange(len(prepared_set))}
        rows |= {" " * i: np.arange(len(prepared_set)) for i in range(1, 6)}
    zoom, margin = 2, 34
    cell = faces.SIZE * zoom
    sheet = Image.new("L", (margin + columns * cell, len(rows) * cell), 255)
    pen = ImageDraw.Draw(sheet)
    for number, (label, members) in enumerate(rows.items()):
        chosen = generator(0, "sheet", name, label).permutation(members)[:columns]
        pen.text((6, number * cell + cell // 2 - 6), ABBREVIATIONS.get(label, ""), fill=0)
        for place, row in enumerate(chosen):
            face = Image.fromarray(prepared_set.images[row]).resize((cell, cell), Image.Resampling.LANCZOS)
            sheet.paste(face, (margin + place * cell, number * cell))
    if path.suffix.lower() != ".png":
        raise DataError(f"{path} should end in .png")
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path)
