"""A prepared dataset: ``images.npy`` (memory-mapped), ``samples.csv``, ``signatures.npy``, ``card.json``, and
``landmarks.npy`` where the source has landmarks. One person has one spelling, and one sequence is of one person."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ferbench.data.landmarks import COUNT
from ferbench.errors import DataError, UsageError, refusal
from ferbench.files import canonical_json, sha256_of
from ferbench.schema import Card, plain_name, read_sealed
from ferbench.tables import read_array, read_csv

if TYPE_CHECKING:
    import pandas as pd

    from ferbench.data.pictures import Pictures
    from ferbench.data.views import View


LANDMARKS = "landmarks.npy"  # of a prepared dataset that has some
SIGNATURES = "signatures.npy"
PICTURES = ("pictures.bin", "pictures.npy")  # of a prepared dataset whose pictures are kept (data.pictures)
SIZE = 48  # pixels, both ways: "cropped, resized and converted to 48×48 gray-scale" (section IV-B)

_ROWS = 1024  # of a table, that are held as text at once

# The text columns of samples.csv, then one 0/1 column for each attribute a set of attributes has.
COLUMNS = ("id", "label", "subject", "sequence", "frame", "split", "source", "aligner", "sha256", "content")


@dataclass(frozen=True)
class Faces:
    """A prepared dataset.

    images : uint8 [N, 48, 48], grey, memory-mapped and read-only.
    samples : N rows with :data:`COLUMNS`; ``frame`` is an integer (-1 where unknown), the others
        are text, empty where unknown. A set of attributes (CelebA) has further columns of 0/1.
    card : where it all came from.
    signatures : uint8 [N, 32], of the source pictures (``data.content``); None, as ``content`` is empty, in a set that
        was prepared before there were any.
    landmarks : float32 [N, 68, 2], x and y in pixels of the images, memory-mapped; NaN for images without, None where
        the set has none at all.
    folder : where the set lies, with its pictures; None for one in memory.
    """

    images: np.ndarray
    samples: pd.DataFrame
    card: Card
    landmarks: np.ndarray | None = None
    signatures: np.ndarray | None = None
    folder: Path | None = None

    def pixels(self, rows: np.ndarray) -> np.ndarray:
        """Return the images of some rows, uint8 [N,48,48], to be read only: of consecutive rows, such as those of an
        official split, no copy but a part of the memory-mapped file."""
        if len(rows) and np.array_equal(rows, np.arange(rows[0], rows[0] + len(rows))):
            return self.images[rows[0] : rows[0] + len(rows)]
        return self.images[rows]

    def sequence(self, row: int) -> tuple[np.ndarray, np.ndarray | None]:
        """Return the frames of the sequence that a row belongs to, in order, up to that row: uint8 [T,48,48], and their
        landmarks float32 [T,68,2], None where any of them has none. An image of no sequence is one of one frame."""
        rows = self.frames(row)
        points = None if self.landmarks is None else np.array(self.landmarks[rows])
        return np.array(self.images[rows]), None if points is None or np.isnan(points).any() else points

    def frames(self, row: int) -> list[int]:
        """Return the rows of the frames of the sequence that a row belongs to, in order, up to that row."""
        rows = self._members.get(self.samples["sequence"].iloc[row], [row])
        return rows[: rows.index(row) + 1]

    def pictures_identity(self, view: View) -> dict[str, str]:
        """What identifies the pictures of a view beside the fingerprint, for the recipe of a run: nothing for the view
        that ``images.npy`` holds, and where no pictures are kept."""
        kept = self.card.pictures
        return {} if view.is_default or kept is None else {"pictures": kept.fingerprint[:16]}

    @cached_property
    def kept(self) -> Pictures | None:
        """The pictures beside the images of 48 pixels; None where none are kept. Raises DataError for damaged ones."""
        if self.card.pictures is None or self.folder is None:
            return None
        _verify(self.card, self.folder, PICTURES)
        from ferbench.data.pictures import Pictures

        return Pictures(self.folder, len(self))

    @cached_property
    def pictures(self) -> np.ndarray:
        """Numbers int64 [N]: rows with the same number show one picture. Their source pictures are the same (unknown in
        a dataset that was prepared before these were recorded), or the faces that were cut out of them are."""
        pixels = self.samples["sha256"]
        return linked(pixels, self.samples["content"].where(self.samples["content"] != "", pixels))

    @cached_property
    def _members(self) -> dict[str, list[int]]:
        """Rows by sequence, in the order of their frames."""
        ordered = self.samples["frame"].reset_index(drop=True).sort_values(kind="stable")
        names = self.samples["sequence"].to_numpy()
        members: dict[str, list[int]] = {}
        for row in ordered.index:
            if names[row]:
                members.setdefault(names[row], []).append(int(row))
        return members

    def __len__(self) -> int:
        return len(self.samples)

    @property
    def name(self) -> str:
        return self.card.name

    @property
    def fingerprint(self) -> str:
        return self.card.fingerprint


def fingerprint(samples: pd.DataFrame, landmarks: np.ndarray | None = None) -> str:
    """Return the SHA-256 that identifies a set's content: everything in the table but where it lay, and landmarks.

    ``source``, ``aligner`` and ``content`` are left out: the same faces from another folder, or cut out of pictures
    that were stored in another way, are the same data.
    """
    columns = [name for name in samples.columns if name not in ("source", "aligner", "content")]
    digest = hashlib.sha256(f"{canonical_json(columns)}\n".encode())
    for start in range(0, max(1, len(samples)), _ROWS):
        part = samples[columns].iloc[start : start + _ROWS]
        digest.update(part.to_csv(index=False, header=not start, lineterminator="\n").encode())
    if landmarks is not None:
        digest.update(np.ascontiguousarray(landmarks).data)
    return digest.hexdigest()


def linked(*columns: pd.Series) -> np.ndarray:
    """Number rows int64 [N] so that those share a number which agree in a column, directly or through other rows."""
    import pandas as pd

    codes = [pd.factorize(column)[0] for column in columns]
    numbers, before = np.arange(len(codes[0])), None
    while before is None or (numbers != before).any():
        before = numbers
        for code in codes:
            lowest = np.full(len(code), len(code))
            np.minimum.at(lowest, code, numbers)
            numbers = lowest[code]
    return numbers


def unaligned(count: int, total: int) -> str:
    """Say in one sentence that some images are no aligned faces, for the card, the plan and the tables."""
    return (
        f"{count:,} of {total:,} images are cropped at the centre of raw pictures, not aligned: there were no "
        "landmarks, and no face was found (detector: `pip install 'ferbench[detect]'`)"
    )


def load(name: str, home: Path, verify: bool = True) -> Faces:
    """Open the prepared dataset ``home/name``.

    verify : hold all files against the checksums on the card (or, of a set prepared before there were any, images and
        table against their fingerprints), so that nothing is computed from other pixels or labels than were prepared.
        Pictures are verified when a view is made of them (``data.views``).
    Raises DataError when it is not prepared (the message names the command) or is damaged.
    """
    folder = place(name, home)
    card = load_card(name, home)
    if verify:
        _verify(card, folder, card.files.keys() - PICTURES)
    try:
        samples = read_csv(folder / "samples.csv", dtype={c: str for c in COLUMNS if c != "frame"})
        images = read_array(folder / "images.npy")
        file = folder / LANDMARKS
        landmarks = read_array(file) if file.is_file() else None
        file = folder / SIGNATURES
        signatures = read_array(file) if file.is_file() else None
    except (OSError, DataError) as error:
        raise DataError(
            refusal(error, folder) or f"the prepared dataset {folder} is damaged ({error}): prepare it again"
        ) from None
    if "content" not in samples and signatures is None:
        samples.insert(len(COLUMNS) - 1, "content", "")
    if missing := [name for name in COLUMNS if name not in samples]:
        raise DataError(f"the prepared dataset {folder} is damaged (samples.csv lacks {missing[0]}): prepare it again")
    whole = [name for name in samples if name == "frame" or name not in COLUMNS]
    if odd := [name for name in whole if samples[name].dtype != np.int64]:
        raise DataError(
            f"the prepared dataset {folder} is damaged (samples.csv has no whole numbers under {odd[0]}): "
            "prepare it again"
        )
    if images.shape != (len(samples), SIZE, SIZE) or images.dtype != np.uint8 or len(samples) != card.count:
        raise DataError(
            f"the prepared dataset {folder} is damaged (images {images.shape}, {len(samples)} rows, "
            f"{card.count} on the card): prepare it again"
        )
    if landmarks is not None and (landmarks.shape != (len(samples), COUNT, 2) or landmarks.dtype != np.float32):
        raise DataError(
            f"the prepared dataset {folder} is damaged (landmarks {landmarks.shape}, {len(samples)} rows): "
            "prepare it again"
        )
    if signatures is not None and (signatures.shape != (len(samples), 32) or signatures.dtype != np.uint8):
        raise DataError(
            f"the prepared dataset {folder} is damaged (signatures {signatures.shape}, {len(samples)} rows): "
            "prepare it again"
        )
    prepared_set = Faces(images, samples, card, landmarks, signatures, folder)
    if verify and not card.files and (problems := differences(prepared_set)):
        raise DataError(f"the prepared dataset {folder} is damaged ({'; '.join(problems)}): prepare it again")
    return prepared_set


def _verify(card: Card, folder: Path, files: Collection[str]) -> None:
    """Raise DataError where one of these files of a prepared dataset is not what was prepared."""
    if changed := card.changed(folder, files):
        raise DataError(f"{folder / changed[0]} is damaged (it is not what was prepared): prepare {folder.name} again")


def differences(faces: Faces) -> list[str]:
    """Hash a set's pixels, table and landmarks and say what is not as it was prepared: one sentence each."""
    noted = faces.samples["sha256"].to_numpy()
    wrong = [row for row, image in enumerate(faces.images) if sha256_of(image.tobytes()) != noted[row]]
    problems = []
    if wrong:
        problems.append(
            f"{len(wrong)} of {len(faces)} images have other pixels than noted, such as "
            f"{faces.samples['id'].iloc[wrong[0]]}"
        )
    if fingerprint(faces.samples, faces.landmarks) != faces.fingerprint:
        problems.append("the table of samples, or the landmarks, have another fingerprint than the card")
    return problems


def place(name: str, home: Path) -> Path:
    """Return the folder of a prepared dataset. Raises UsageError for a name that would lead elsewhere."""
    try:
        return home / plain_name(name)
    except ValueError as error:
        raise UsageError(f"a prepared dataset cannot be called so: {error}") from None


def load_card(name: str, home: Path) -> Card:
    """Read only the card of ``home/name``."""
    path = place(name, home) / "card.json"
    try:
        return read_sealed(Card, path, "prepare the set again")
    except FileNotFoundError:
        source = "" if name.startswith("synth") else " SOURCE"
        near = get_close_matches(name, prepared(home), n=1, cutoff=0.8)
        did_you_mean = f"did you mean {near[0]}? Or run" if near else "run"
        raise DataError(
            f"the dataset {name} is not prepared in {home}: {did_you_mean} `ferbench data prepare {name}{source}`"
        ) from None


def prepared(home: Path) -> list[str]:
    """Return the names of all prepared datasets under ``home``, sorted."""
    return sorted(card.parent.name for card in home.glob("*/card.json") if not card.parent.name.startswith("."))


def person(subject: str) -> str:
    """Return what all usual spellings of a subject have in common: ``S010`` and ``s010``; ``10``, ``010`` and ``10.0``.

    Unicode forms, capitals, surrounding blanks, leading zeros of numbers and an empty fraction make no difference.
    """
    word = unicodedata.normalize("NFKC", subject).strip().casefold()
    word = re.sub(r"^(\d+)\.0+$", r"\1", word)
    return re.sub(r"(?<!\d)0+(?=\d)", "", word)


def spellings(subjects: Iterable[str]) -> dict[str, str]:
    """Return each spelling of the subjects that have several, with the one that stands for all: the first in order."""
    people: dict[str, list[str]] = {}
    for subject in sorted(set(subjects)):
        people.setdefault(person(subject), []).append(subject)
    several = [spelled for spelled in people.values() if len(spelled) > 1]
    return {subject: min(map(str.strip, spelled)) for spelled in several for subject in spelled}


def repeated(pairs: Iterable[tuple[str, str]]) -> list[str]:
    """Return the names of sequences that several known subjects have, sorted. pairs : subject and sequence."""
    known = {(subject, sequence) for subject, sequence in pairs if subject and sequence}
    return sorted(name for name, count in Counter(sequence for _, sequence in known).items() if count > 1)


def check_names(name: str, samples: pd.DataFrame) -> None:
    """Raise DataError for a dataset that was prepared before these names were made unique, whose folds would leak."""
    if several := spellings(samples["subject"].unique()):
        first, second = list(several)[:2]
        raise DataError(f"the prepared dataset {name} has one subject as {first!r} and as {second!r}: prepare it again")
    if names := repeated(zip(samples["subject"], samples["sequence"], strict=True)):
        raise DataError(
            f"the prepared dataset {name} has sequences of several subjects under one name, such as {names[0]!r}: "
            "prepare it again"
        )
