"""Reading a prepared set: ``images.npy`` (memory-mapped), ``samples.csv`` and ``card.json``."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from ferbench.errors import DataError
from ferbench.files import canonical_json, sha256_of
from ferbench.schema import Card, validated

SIZE = 48  # pixels, both ways: "cropped, resized and converted to 48×48 gray-scale" (section IV-B)

# The text columns of samples.csv, then one 0/1 column for each attribute a set of attributes has.
COLUMNS = ("id", "label", "subject", "sequence", "frame", "split", "source", "aligner", "sha256")


@dataclass(frozen=True)
class Faces:
    """A prepared set.

    images : uint8 [N, 48, 48], grey, memory-mapped and read-only.
    samples : N rows with :data:`COLUMNS`; ``frame`` is an integer (-1 where unknown), the others
        are text, empty where unknown. A set of attributes (CelebA) has further columns of 0/1.
    card : where it all came from.
    """

    images: np.ndarray
    samples: pd.DataFrame
    card: Card
    landmarks: np.ndarray | None = None

    def sequence(self, row: int) -> tuple[np.ndarray, np.ndarray | None]:
        """All frames of the sequence that a row belongs to, up to that row."""
        return self.images[row : row + 1], None

    def __len__(self) -> int:
        return len(self.samples)

    @property
    def name(self) -> str:
        return self.card.name

    @property
    def fingerprint(self) -> str:
        return self.card.fingerprint


def fingerprint(samples: pd.DataFrame) -> str:
    """Return the SHA-256 that identifies a set's content: everything in the table but where it lay.

    ``source`` and ``aligner`` are left out: the same pixels from another folder are the same data.
    """
    columns = [name for name in samples.columns if name not in ("source", "aligner")]
    text = samples[columns].to_csv(index=False, lineterminator="\n")
    return sha256_of((canonical_json(columns) + "\n" + text).encode())


def load(name: str, home: Path) -> Faces:
    """Open the prepared set ``home/name``.

    Raises DataError when it is not prepared (the message names the command) or is damaged.
    """
    folder = home / name
    if not (folder / "card.json").is_file():
        source = "" if name.startswith("synth") else " SOURCE"
        raise DataError(f"the dataset {name} is not prepared in {home}: run `ferbench data prepare "
                        f"{name}{source}`")  # fmt: skip
    card = load_card(name, home)
    try:
        samples = pd.read_csv(
            folder / "samples.csv", dtype={c: str for c in COLUMNS if c != "frame"}, keep_default_na=False
        )
        images = np.load(folder / "images.npy", mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise DataError(f"the prepared set {folder} is damaged ({error}): prepare it again") from None
    if images.shape != (len(samples), SIZE, SIZE) or images.dtype != np.uint8 or len(samples) != card.count:
        raise DataError(f"the prepared set {folder} is damaged (images {images.shape}, {len(samples)} rows, "
                        f"{card.count} on the card): prepare it again")  # fmt: skip
    return Faces(images, samples, card)


def load_card(name: str, home: Path) -> Card:
    """Read only the card of ``home/name``."""
    path = home / name / "card.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"{path} does not exist: run `ferbench data prepare {name}`") from None
    except ValueError as error:
        raise DataError(f"{path} is damaged ({error}): prepare the set again") from None
    return validated(Card, content, path)


def prepared(home: Path) -> list[str]:
    """Return the names of all prepared sets under ``home``, sorted."""
    return sorted(card.parent.name for card in home.glob("*/card.json") if not card.parent.name.startswith("."))
