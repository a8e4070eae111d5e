"""Finds the family that a recipe names. Families are imported when they are first asked for."""

import sys
from functools import cache
from pathlib import Path

from ferbench.errors import DataError
from ferbench.files import sha256_of
from ferbench.methods import modules
from ferbench.methods.interface import Family

_SOURCES: dict[Family, str] = {}  # hashes of the code of families that are not of this package


def is_module(name: str) -> bool:
    """Whether a text is a module's name and nothing else, such as a path."""
    return len(name) <= 100 and all(part.isidentifier() for part in name.split("."))


def family(name: str, folder: Path | None = None) -> Family:
    """Return the family ``name``: one of this package or, where the name has a dot or ``folder`` is given and holds it,
    an importable module with a ``FAMILY``.

    folder : of the TOML file that names it, searched first.
    Raises DataError where there is none, with what went wrong.
    """
    if not is_module(name):
        raise DataError(f"the family {name[:50]!r} cannot be loaded: its name is that of a module")
    own = modules.holds(folder, name)
    if own and folder:
        modules.activate(folder)  # for what the family imports later
    return _family(name if own or "." in name else f"ferbench.methods.{name}", folder if own else None)


@cache
def _family(name: str, folder: Path | None) -> Family:
    try:
        module = modules.load(name, (folder,))
    except DataError as error:
        raise DataError(
            f"the family {name.removeprefix('ferbench.methods.')!r} cannot be loaded ({error}): it is a module with a "
            "FAMILY, beside the method's TOML file or installed"
        ) from None
    found = getattr(module, "FAMILY", None)
    if not isinstance(found, Family):
        raise DataError(f"the module {name!r} has no FAMILY of the class ferbench.methods.interface.Family")
    source = sys.modules[type(found).__module__]
    if not source.__name__.startswith("ferbench.") and source.__file__:
        own, others = sha256_of(Path(source.__file__).read_bytes())[:16], modules.digest(module)
        _SOURCES[found] = sha256_of((own + others).encode())[:16] if others else own
    return found


def source_hash(found: Family) -> str:
    """The first 16 digits of the SHA-256 of a family's file, and of the files that it uses, where it is not of this
    package; else an empty text.

    It is part of what its runs are told apart by, since nobody raises :attr:`Family.revision` for every change.
    """
    return _SOURCES.get(found, "")
