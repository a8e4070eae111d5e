"""The registry of families by name. A family is imported at its first use."""

import sys
from functools import cache
from pathlib import Path

from ferbench.errors import DataError
from ferbench.files import sha256_of
from ferbench.methods import modules
from ferbench.methods.interface import Family

_SOURCES: dict[Family, str] = {}  # hashes of the code of families outside of this package


def is_module(name: str) -> bool:
    """Whether a text is the name of a module, not a path or anything else."""
    return len(name) <= 100 and all(part.isidentifier() for part in name.split("."))


def family(name: str, folder: Path | None = None) -> Family:
    """Return the family ``name``: a module with a ``FAMILY`` in ``folder``, any other module if the name has a dot, or
    a family of this package.

    folder : of the TOML file with the name. Raises DataError with the reason if the family cannot be loaded.
    """
    if not is_module(name):
        raise DataError(f"the family {name[:50]!r} cannot be loaded: its name is that of a module")
    in_folder = modules.holds(folder, name)
    if in_folder and folder:
        modules.activate(folder)  # for later imports of the family
    module = name if in_folder or "." in name else f"ferbench.methods.{name}"
    return _family(module, folder if in_folder else None)


@cache
def _family(name: str, folder: Path | None) -> Family:
    try:
        module = modules.load(name, (folder,))
    except DataError as error:
        raise DataError(
            f"the family {name.removeprefix('ferbench.methods.')!r} cannot be loaded ({error}): it is a module with a "
            "FAMILY, beside the method's TOML file or installed"
        ) from None
    family = getattr(module, "FAMILY", None)
    if not isinstance(family, Family):
        raise DataError(f"the module {name!r} has no FAMILY of the class ferbench.methods.interface.Family")
    source = sys.modules[type(family).__module__]
    if not source.__name__.startswith("ferbench.") and source.__file__:
        code, imported = sha256_of(Path(source.__file__).read_bytes())[:16], modules.digest(module)
        _SOURCES[family] = sha256_of((code + imported).encode())[:16] if imported else code
    return family


def source_hash(family: Family) -> str:
    """The first 16 digits of the SHA-256 of the code of a family outside of this package; else an empty text.

    It is part of the identity of runs, because users do not raise :attr:`Family.revision` at each change.
    """
    return _SOURCES.get(family, "")
