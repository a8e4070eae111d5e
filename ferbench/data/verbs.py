"""What the commands of ``ferbench data`` do: prepare, verify, list, show, and draw a contact sheet."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast, get_args

import numpy as np
from PIL import Image, ImageDraw

from ferbench.data import faces
from ferbench.data.prepare import prepare, verify
from ferbench.data.sources import Options
from ferbench.data.synthetic import SYNTHETIC, ensure
from ferbench.data.views import Alignment, View, images
from ferbench.errors import DataError, UsageError
from ferbench.files import data_home
from ferbench.labels import ABBREVIATIONS
from ferbench.schema import KeptPictures
from ferbench.seeds import generator

Sections = list[tuple[str, dict[str, Any]]]
_CELL = 96  # pixels of a contact sheet's images
_CAMERAS, _LIGHTINGS = ("VL", "NI"), ("Strong", "Weak", "Dark")


def prepare_set(
    dataset: str,
    source: Path | None,
    home: Path | None,
    name: str,
    camera: str,
    lighting: str,
    align: str,
    ferplus: Path | None,
    labels: str,
    skip_corrupt: bool,
    incomplete: bool,
    tick: Callable[[int, int], None],
    keep: int,
) -> str:
    """Prepare a set from a source, or draw it. Returns the line that tells what was made."""
    home = data_home(home)
    if dataset in SYNTHETIC:
        from ferbench.data.synthetic.sets import prepare_synthetic

        if source is not None or name:
            raise UsageError(f"{dataset} is drawn: it takes neither a source nor another name")
        card = prepare_synthetic(dataset, home, tick)
    else:
        if source is None:
            raise UsageError(f"say where {dataset} is: `ferbench data prepare {dataset} FOLDER_OR_ARCHIVE`")
        if camera not in _CAMERAS or lighting not in _LIGHTINGS:
            raise UsageError(f"--camera is {' or '.join(_CAMERAS)}, --lighting {', '.join(_LIGHTINGS)}")
        if align not in ("frame", "sequence", "onet") or (align == "sequence" and dataset != "ckplus"):
            raise UsageError(
                "--align is frame, onet for faces that come cropped, or for ckplus sequence: other sets "
                "come without tracks of landmarks"
            )
        if ferplus is not None and dataset != "fer2013":
            raise UsageError("--ferplus belongs to fer2013; the dataset ferplus reads the folders of FERPlus")
        if labels and dataset != "manifest":
            raise UsageError("--labels belongs to manifest: what the numbers of other sets mean is known")
        options = Options(cast(Any, camera), cast(Any, lighting), cast(Any, align), ferplus, labels)
        card = prepare(dataset, source, home, name, options, skip_corrupt, not incomplete, tick, keep)
    sizes = {"images": card.count, "subjects": card.subjects, "sequences": card.sequences}
    counted = ", ".join(f"{number:,} {what}" for what, number in sizes.items() if number)
    lines = [f"{card.name}: {counted} ({card.layout}); fingerprint {card.fingerprint[:12]}"]
    for counts in card.counts.values():
        if counts:
            lines.append(", ".join(f"{key} {number:,}" for key, number in counts.items()))
    if card.pictures:
        lines.append(f"pictures: {_described(card.pictures)}")
    return "\n".join([*lines, *(f"note: {text}" for text in card.deviations)])


def _described(pictures: KeptPictures) -> str:
    return (
        f"{pictures.count:,} with more than 48 grey pixels, {pictures.bytes / 1e6:,.1f} MB; {pictures.colour:,} in "
        f"colour, {pictures.points:,} with landmarks; median side of a face {pictures.side} pixels"
    )


def verify_set(name: str, home: Path | None) -> Sections:
    """Verify a set; DataError with all that differs."""
    home = data_home(home)
    problems = verify(name, home)
    if problems:
        raise DataError(f"{home / name} is damaged: {'; '.join(problems)}; prepare it again")
    return [(name, {"pixels": "as noted", "table": "as on the card"})]


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
    summary = faces.load_card(name, home)
    sections: Sections = [
        (
            summary.name,
            {
                "dataset": summary.dataset,
                "layout": summary.layout,
                "source": summary.source,
                "options": summary.options,
                "images": summary.count,
                "subjects": summary.subjects or "unknown",
                "sequences": summary.sequences or "unknown",
                "aligned by": summary.aligners,
                "pictures": _described(summary.pictures) if summary.pictures else "none beside the 48 grey pixels",
                "fingerprint": summary.fingerprint,
                "versions": summary.versions,
            },
        )
    ]
    for what, numbers in summary.counts.items():
        expected = summary.expected.get(what, {})
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
    sections.append(("deviations", {str(i + 1): text for i, text in enumerate(summary.deviations)}))
    if summary.skipped:
        sections.append(("left out as corrupt", {str(i + 1): text for i, text in enumerate(summary.skipped)}))
    return sections


def contact_sheet(name: str, home: Path, path: Path, columns: int = 12) -> None:
    """Draw a PNG of a prepared dataset: one row for each class, its images spread over the set by a fixed seed. Where
    pictures are kept, below it one column for each of some faces: its picture with landmarks and box, and its views.

    A set of attributes gets rows of arbitrary images. Raises DataError where the path cannot be written.
    """
    prepared_set = faces.load(name, home)
    labels = prepared_set.samples["label"].to_numpy()
    rows = {label: np.flatnonzero(labels == label) for label in prepared_set.card.classes}
    if not rows:
        rows = {"": np.arange(len(prepared_set))}
        rows |= {" " * i: np.arange(len(prepared_set)) for i in range(1, 6)}
    tiles: list[tuple[str, list[Image.Image]]] = []
    for label, members in rows.items():
        chosen = generator(0, "sheet", name, label).permutation(members)[:columns]
        tiles.append((ABBREVIATIONS.get(label, ""), [Image.fromarray(prepared_set.images[row]) for row in chosen]))
    if prepared_set.kept is not None:
        chosen = np.sort(generator(0, "sheet", name).permutation(len(prepared_set))[:columns])
        tiles.append(("picture", [_annotated(prepared_set, int(row)) for row in chosen]))
        for alignment in get_args(Alignment):
            view = View(size=_CELL, colour="rgb", alignment=alignment)
            tiles.append((alignment, [Image.fromarray(face) for face in images(prepared_set, chosen, view)[:]]))
    margin = 60
    sheet = Image.new("RGB", (margin + columns * _CELL, len(tiles) * _CELL), "white")
    pen = ImageDraw.Draw(sheet)
    for number, (title, row_of_tiles) in enumerate(tiles):
        pen.text((6, number * _CELL + _CELL // 2 - 6), title, fill="black")
        for place, tile in enumerate(row_of_tiles):
            scale = _CELL / max(tile.size)
            size = max(1, round(tile.width * scale)), max(1, round(tile.height * scale))
            sheet.paste(
                tile.convert("RGB").resize(size, Image.Resampling.LANCZOS), (margin + place * _CELL, number * _CELL)
            )
    if path.suffix.lower() != ".png":
        raise DataError(f"{path} should end in .png")
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path)


def _annotated(prepared_set: faces.Faces, row: int) -> Image.Image:
    """A picture with its landmarks and its box, or the image of 48 pixels where it has none."""
    assert prepared_set.kept is not None
    picture = prepared_set.kept.picture(row)
    if picture is None:
        return Image.fromarray(prepared_set.images[row])
    scale = 2 * _CELL / max(picture.size)
    shown = picture.convert("RGB").resize((max(1, round(picture.width * scale)), max(1, round(picture.height * scale))))
    pen, known = ImageDraw.Draw(shown), prepared_set.kept.rows[row]
    if not np.isnan(known["box"]).any():
        pen.rectangle([float(place) * scale for place in known["box"]], outline=(0, 160, 255), width=3)
    for x, y in (known["points"] + 0.5) * scale:
        if not np.isnan(x):
            pen.ellipse([x - 4, y - 4, x + 4, y + 4], fill=(255, 80, 0))
    return shown
