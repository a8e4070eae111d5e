"""Finds the family that a recipe names. Families are imported when they are first asked for."""

import importlib
import sys
from functools import cache
from pathlib import Path

from ferbench.errors import DataError
from ferbench.files import sha256_of
from ferbench.methods.interface import Family


def is_module(name: str) -> bool:
    """Whether a text is a module's name and nothing else, such as a path."""
    return len(name) <= 100 and all(part.isidentifier() for part in name.split("."))


@cache
def family(name: str, folder: Path | None = None) -> Family:
    """Return the family ``name``: one of this package or, where the name has a dot or ``folder`` is given and holds it,
    an importable module with a ``FAMILY``.

    folder : of the TOML file that names it, searched first.
    Raises DataError where there is none, with what went wrong.
    """
    if not is_module(name):
        raise DataError(f"the family {name[:50]!r} cannot be loaded: its name is that of a module")
    own = folder is not None and (folder / f"{name.partition('.')[0]}.py").is_file()
    if own and str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    module = name if own or "." in name else f"ferbench.methods.{name}"
    try:
        found = importlib.import_module(module).FAMILY
    except (ImportError, AttributeError) as error:
        raise DataError(
            f"the family {name!r} cannot be loaded ({error}): it is a module with a FAMILY, beside the "
            "method's TOML file or installed"
        ) from None
    if not isinstance(found, Family):
        raise DataError(f"{module}.FAMILY is no ferbench.methods.interface.Family")
    return found


def source_hash(found: Family) -> str:
    """The first 16 digits of the SHA-256 of a family's file where it is not of this package; else an empty text.

    It is part of what its runs are told apart by, since nobody raises :attr:`Family.revision` for every change.
    """
    module = sys.modules[type(found).__module__]
    if module.__name__.startswith("ferbench.") or not module.__file__:
        return ""
    return sha256_of(Path(module.__file__).read_bytes())[:16]
