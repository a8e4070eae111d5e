"""The schemas of what crosses the project's edges: TOML and JSON files, one model for each.

An unknown key is an error, and all errors of a file are reported at once.
"""

import json
import tomllib
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ferbench.errors import DataError
from ferbench.files import canonical_json, is_intact, sha256_of_file


class Schema(BaseModel):
    """Frozen base of every schema; unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Card(Schema):
    """``card.json`` of a prepared set: what was found on disk and what was made of it."""

    schema_version: Literal[1] = 1
    name: str  # the prepared set's name, also its folder
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
    files: dict[str, str] = Field(default_factory=dict)  # SHA-256 of the set's other files; none on a card of before
    digest: str = ""  # of this card (files.seal); empty on a card of before

    def changed(self, folder: Path) -> list[str]:
        """The files of the set in its folder that are missing or not what was prepared; none on a card of before."""
        there = {name: sha256_of_file(folder / name) for name in self.files if (folder / name).is_file()}
        return [name for name, digest in self.files.items() if there.get(name) != digest]


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
        raise DataError(f"{origin} is not valid: {problems}") from None


def read_sealed(schema: type[S], path: Path, remedy: str) -> S:
    """Read a JSON file that carries its own checksum (``files.seal``).

    remedy : what to do where it is damaged. Raises DataError, FileNotFoundError.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        reason = "" if is_intact(content) else "it is not what was written"
    except ValueError as error:
        reason = str(error)
    if reason:
        raise DataError(f"{path} is damaged ({reason}): {remedy}")
    try:
        return validated(schema, content, path)
    except DataError as error:
        raise DataError(f"{error}: {remedy}") from None


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file; DataError when it is missing or does not parse."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"{path} does not exist") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{path} is not valid TOML: {error}") from None


def read_json(path: Path) -> Any:
    """Read a JSON file; DataError when it is missing or does not parse."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"{path} does not exist") from None
    except (ValueError, UnicodeDecodeError) as error:
        raise DataError(f"{path} is not valid JSON: {error}") from None
