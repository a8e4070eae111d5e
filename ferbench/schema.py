"""The schemas of what crosses the project's edges: TOML and JSON files, one model for each.

An unknown key is an error, and all errors of a file are reported at once.
"""

import json
import math
import re
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError

from ferbench.errors import DataError
from ferbench.files import canonical_json, read_bytes
from ferbench.text import SUSPECT, cleaned, printable


class Schema(BaseModel):
    """Frozen base of every schema; unknown keys are refused, and so are NaN and infinities."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def plain_name(name: str) -> str:
    """Return the name of a set; ValueError for one that is no plain name of a folder."""
    if not name or name[0] in ".~-" or re.search(r"[/\\:]", name) or printable(name) != name or len(name) > 100:
        raise ValueError(f"{name!r} is no plain name: letters, digits and - _ . +")
    return name


Name = Annotated[str, AfterValidator(plain_name)]


class Card(Schema):
    """``card.json`` of a prepared set: what was found on disk and what was made of it."""

    schema_version: Literal[1] = 1
    name: Name  # the prepared set's name, also its folder
    dataset: str  # the source that read it: ckplus, oulu, rafdb, celeba, fer2013, jaffe, kdef, manifest, synth
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


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file; DataError when it is missing or does not parse."""
    try:
        return tomllib.loads(read_bytes(path).decode())
    except FileNotFoundError:
        raise DataError(f"{path} does not exist") from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not valid TOML: {_reason(error)}") from None


def read_json(path: Path, missing: str = "", remedy: str = "") -> Any:
    """Read a JSON file as :func:`parse_json` does.

    missing : what to say where there is no such file. remedy : what to do about a file that does not parse.
    """
    try:
        content = read_bytes(path)
    except FileNotFoundError:
        raise DataError(missing or f"{path} does not exist") from None
    return parse_json(content, path, remedy)


def parse_json(content: bytes | str, origin: str | Path, remedy: str = "") -> Any:
    """Return what JSON says, its texts made printable; DataError for what does not parse, and for numbers that no
    JSON of ours has: NaN, infinities, whole numbers of more than 64 bits."""
    try:
        text = content if isinstance(content, str) else content.decode()
        found = _DECODER.decode(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{origin} is not valid JSON: {_reason(error)}{remedy and '; ' + remedy}") from None
    return cleaned(found) if SUSPECT.search(text) or _ESCAPE.search(text) else found


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
_ESCAPE = re.compile(r"\\[bfnrtu]")


def _reason(error: Exception) -> str:
    return "it is nested too deeply" if isinstance(error, RecursionError) else printable(str(error))[:200]
