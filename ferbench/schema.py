"""The schemas of what crosses the project's edges: TOML and JSON files, one model for each.

An unknown key is an error, and all errors of a file are reported at once.
"""

import json
import math
import re
import tomllib
from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from ferbench.errors import DataError
from ferbench.files import canonical_json, is_intact, read_bytes, sha256_of_file
from ferbench.text import cleaned, is_plain, printable


class Schema(BaseModel):
    """Frozen base of every schema; unknown keys are refused, and so are NaN and infinities."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def plain_name(name: str) -> str:
    """Return the name of a set; ValueError for one that is no plain name of a folder."""
    if not name or name[0] in ".~-" or re.search(r"[/\\:]", name) or printable(name) != name or len(name) > 100:
        raise ValueError(f"{name!r} is no plain name: letters, digits and - _ . +")
    return name


Name = Annotated[str, AfterValidator(plain_name)]


class KeptPictures(Schema):
    """Of the pictures of a prepared dataset (``data.pictures``)."""

    count: int  # pictures; the other rows have no more than their 48 grey pixels
    keep: int  # pixels of the longest side (--keep)
    bytes: int  # of all files
    colour: int  # pictures whose channels differ
    side: int  # median side of the face, in pixels
    points: int  # pictures with known landmarks
    fingerprint: str  # SHA-256 over the digests of the pictures' pixels, landmarks and boxes, in order


class Card(Schema):
    """``card.json`` of a prepared dataset: its source on disk and its content."""

    schema_version: Literal[1] = 1
    name: Name  # the prepared dataset's name, also its folder
    dataset: str  # the source that read it: a name of data.sources, or of a drawn set
    layout: str  # which of the dataset's layouts was recognised
    source: str  # the folder or archive, as the user gave it
    options: dict[str, Any]  # the reader's options, resolved (camera, lighting, …)
    classes: list[str]  # emotions present, in the one order; empty for a set of attributes
    count: int
    counts: dict[str, dict[str, int]]  # found: {"class": {...}, "split": {...}}
    expected: dict[str, dict[str, int]]  # the same from the literature; empty where it is unknown
    subjects: int  # 0 where subjects are unknown
    sequences: int  # 0 where sequences are unknown
    deviations: list[str]  # one sentence each: what differs from what was expected
    skipped: list[str]  # images left out by --skip-corrupt: "path: reason"
    aligners: dict[str, int]  # how many images each aligner handled
    fingerprint: str  # SHA-256 over ids, labels, subjects, sequences, splits and pixels, in order
    versions: dict[str, str]  # ferbench, numpy, pillow (and the detector's, where one was used)
    files: dict[Name, str] = Field(default_factory=dict)  # SHA-256 of the set's other files; none on an older card
    pictures: KeptPictures | None = None  # beside the images of 48 pixels
    digest: str = ""  # of this card (files.seal); empty on an older card

    def changed(self, folder: Path, names: Collection[str] | None = None) -> list[str]:
        """The files of the set (or those of some ``names``) in its folder that are missing or not what was prepared;
        none on an older card."""
        files = {name: digest for name, digest in self.files.items() if names is None or name in names}
        present = {name: sha256_of_file(folder / name) for name in files if (folder / name).is_file()}
        return [name for name, digest in files.items() if present.get(name) != digest]


S = TypeVar("S", bound=BaseModel)


def plain(content: Any) -> Any:
    """Return a value as it will be read back from JSON (tuples are lists), so that both compare equal."""
    return json.loads(canonical_json(content))


def validated(schema: type[S], content: Any, origin: str | Path) -> S:
    """Return ``content`` as ``schema``; DataError lists every problem in one line."""
    try:
        return schema.model_validate(content)
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(str(part) for part in problem['loc']) or 'file'}: {problem['msg']}"
            for problem in error.errors()
        )
        raise DataError(f"{origin} is not valid: {problems.replace(': Value error, ', ': ')}") from None


def read_sealed(schema: type[S], path: Path, remedy: str) -> S:
    """Read a JSON file that carries its own checksum (``files.seal``).

    remedy : what to do where it is damaged. Raises DataError, FileNotFoundError.
    """
    try:
        raw = read_bytes(path)
        content = _parsed(raw)
        reason = "" if is_intact(content) else "it is not what was written"
        content = content if is_plain(raw) else cleaned(content)
    except (ValueError, RecursionError) as error:
        reason = _reason(error)
    if reason:
        raise DataError(f"{path} is damaged ({reason}): {remedy}")
    try:
        return validated(schema, content, path)
    except DataError as error:
        raise DataError(f"{error}: {remedy}") from None


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file; DataError when it is missing or does not parse."""
    try:
        return tomllib.loads(read_bytes(path).decode())
    except FileNotFoundError:
        raise DataError(f"{path} does not exist") from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not valid TOML: {_reason(error)}") from None


def read_json(path: Path) -> Any:
    """Read a JSON file; DataError when it is missing or :func:`parse_json` refuses it."""
    try:
        content = read_bytes(path)
    except FileNotFoundError:
        raise DataError(f"{path} does not exist") from None
    return parse_json(content, path)


def parse_json(content: bytes | str, origin: str | Path) -> Any:
    """Return what JSON says, its texts made printable; DataError for what does not parse, and for numbers that no
    JSON of ours has: NaN, infinities, whole numbers of more than 64 bits."""
    try:
        return cleaned(_parsed(content))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{origin} is not valid JSON: {_reason(error)}") from None


def _parsed(content: bytes | str) -> Any:
    return _DECODER.decode(content if isinstance(content, str) else content.decode())


def _whole(text: str) -> int:
    number = int(text)
    if number.bit_length() > 64:
        raise ValueError(f"a whole number of {len(text)} digits")
    return number


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"the number {text}")
    return number


def _constant(text: str) -> None:
    raise ValueError(f"the number {text}")


_DECODER = json.JSONDecoder(parse_int=_whole, parse_float=_finite, parse_constant=_constant)


def _reason(error: Exception) -> str:
    return "it is nested too deeply" if isinstance(error, RecursionError) else printable(str(error))[:200]
