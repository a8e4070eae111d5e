"""Python modules of users: imported from their own folder, with the files that decide what they compute.

One folder at a time is importable. A module of the same name in another folder is therefore never taken for it, and a
module whose files have changed since it was imported is imported again.
"""

import ast
import importlib
import os
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any

from ferbench.errors import DataError, one_line
from ferbench.files import canonical_json, sha256_of, sha256_of_file

CODE = (".py", ".pyc", ".so")
_LONGEST = 255  # characters of a text in a module that may be the name of a file
# Files below these are part of Python, of installed packages, or of the operating system.
_INSTALLED = tuple(
    str(Path(place).resolve()) + os.sep
    for place in (
        *(str(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib", "purelib", "platlib")),
        str(Path(__file__).parent.parent),
        *("/proc", "/sys", "/dev", "/etc", "/usr/lib", "/usr/share"),
    )
)

_current: Path | None = None  # the folder whose modules can be imported now
_before: set[str] = set()  # modules that were loaded before it
_others: dict[Path, dict[str, ModuleType]] = {}  # modules of the folders that were importable before
_files: dict[str, dict[Path, str]] = {}  # of each imported module by its file: SHA-256 of all files that it uses
_folders: dict[str, Path | None] = {}  # of each imported module by its file: its folder, None where it is installed
_watchers: list[set[str]] = []
_hooked = False


def holds(folder: Path | None, name: str) -> bool:
    """Whether a folder has a module ``name``, or the package that it belongs to."""
    return folder is not None and _spec(name, folder) is not None


def activate(folder: Path) -> None:
    """Make the modules of a folder importable instead of those of the folder before.

    The standard library stays first, installed packages come after.
    """
    global _current, _before
    folder = folder.resolve()
    if folder == _current:
        return
    if _current is not None:
        _others[_current] = _modules()
        for name in _others[_current]:
            del sys.modules[name]
        if str(_current) in sys.path:
            sys.path.remove(str(_current))
    _current, _before = folder, set(sys.modules)
    sys.modules.update(_others.pop(folder, {}))
    standard = str(sysconfig.get_path("stdlib"))
    places = [at for at, place in enumerate(sys.path) if place.startswith(standard) and "-packages" not in place]
    sys.path.insert(max(places, default=-1) + 1, str(folder))
    importlib.invalidate_caches()


def load(name: str, places: tuple[Path | None, ...] = ()) -> ModuleType:
    """Import a module from the first of ``places`` that has it, else an installed one.

    Raises DataError where it cannot be imported, whatever it raises, and where another module of that name comes first.
    """
    folder = next((place.resolve() for place in places if place is not None and holds(place, name)), None)
    if folder:
        activate(folder)
        if _changed(_files.get(_file(sys.modules.get(name)), {})):
            for other in _modules():
                del sys.modules[other]
    fresh, known = name not in sys.modules, set(_modules().values())
    written, sys.dont_write_bytecode = (
        sys.dont_write_bytecode,
        True,
    )  # it is compared by seconds, and files change faster
    try:
        with watched() as opened:
            module = importlib.import_module(name)
    except (Exception, SystemExit) as error:
        raise DataError(f"the module {name!r} cannot be imported ({one_line(error)})") from None
    finally:
        sys.dont_write_bytecode = written
    spec = _spec(name, folder) if folder else None
    expected = spec.origin if spec else None
    if expected and expected != _file(sys.modules[name.partition(".")[0]]):
        raise DataError(
            f"{expected} has the name of a module of Python or of an installed package, which comes first: "
            "rename the file"
        )
    file = _file(module)
    if file and not _installed(Path(file)) and (fresh or file not in _files):
        code = _closure(Path(file)) | {Path(str(one.__file__)) for one in _modules().values() if one not in known}
        _files[file] = {path: sha256_of_file(path) for path in code | _data(opened)}
        _folders[file] = folder
    return module


@contextmanager
def running(module: ModuleType) -> Iterator[None]:
    """While something of a module runs, its folder can be imported from, and the files that it opens are recorded."""
    file = _file(module)
    if folder := _folders.get(file):
        activate(folder)
    with watched() as opened:
        try:
            yield
        finally:
            if file in _files:
                new = _data(opened) - set(_files[file])
                _files[file].update({path: sha256_of_file(path) for path in new})


def digest(module: ModuleType) -> str:
    """Return 16 digits of the SHA-256 of the files that a module reads besides its own: modules of its folder that it
    imports, files that its code names, and files that it was seen to open. Empty where there are none."""
    file = _file(module)
    others = sorted(known for path, known in _files.get(file, {}).items() if path != Path(file).resolve())
    return sha256_of(canonical_json(others).encode())[:16] if others else ""


@contextmanager
def watched() -> Iterator[set[str]]:
    """Collect the absolute paths of the files that Python opens for reading meanwhile.

    Libraries that open files in native code do not report them.
    """
    global _hooked
    if not _hooked:
        sys.addaudithook(_heard)  # which cannot be removed again
        _hooked = True
    opened: set[str] = set()
    _watchers.append(opened)
    try:
        yield opened
    finally:
        _watchers.remove(opened)


def _heard(event: str, given: tuple[Any, ...]) -> None:
    if event != "open" or not _watchers:
        return
    path, mode, flags = given
    writes = any(sign in mode for sign in "wax") if isinstance(mode, str) else (flags or 0) & os.O_WRONLY
    if isinstance(path, str | bytes) and not writes:
        for opened in _watchers:
            opened.add(os.path.realpath(os.fsdecode(path)))


def _file(module: ModuleType | None) -> str:
    return getattr(module, "__file__", None) or ""


def _spec(name: str, folder: Path) -> ModuleSpec | None:
    """What a folder has as the module or package that a name begins with."""
    top, *rest = name.split(".")
    spec = PathFinder.find_spec(top, [str(folder)])
    inside = folder.joinpath(top, *rest)
    # Without a file of its own it is any folder, such as one of images.
    named = rest and (inside.with_suffix(".py").is_file() or (inside / "__init__.py").is_file())
    return spec if spec and (spec.origin or named) else None


def _modules() -> dict[str, ModuleType]:
    """Modules that were imported from the current folder since it is importable."""
    loaded = {}
    for name, module in list(sys.modules.items()):
        top = name.partition(".")[0]
        if top not in _before and (spec := getattr(sys.modules.get(top), "__spec__", None)):
            places = [spec.origin, *(spec.submodule_search_locations or ())]
            if any(place and Path(place).parent == _current for place in places):
                loaded[name] = module
    return loaded


def _changed(files: dict[Path, str]) -> bool:
    return any(not path.is_file() or sha256_of_file(path) != known for path, known in files.items())


def _installed(path: Path) -> bool:
    return str(path.resolve()).startswith(_INSTALLED)


def _data(opened: set[str]) -> set[Path]:
    return {path for path in map(Path, opened) if _is_data(path)}


def _is_data(path: Path) -> bool:
    return path.suffix not in CODE and os.path.isfile(path) and not _installed(path)


def _closure(start: Path) -> set[Path]:
    """A module's file, the modules of its folder that it imports, and the files whose names are texts in them."""
    start = start.resolve()
    root = start.parent
    while (root / "__init__.py").is_file():
        root = root.parent
    waiting, code, data = [start], set(), set()
    while waiting:
        file = waiting.pop()
        if file in code or file.suffix != ".py":
            continue
        code.add(file)
        try:
            tree = ast.parse(file.read_bytes())
        except (SyntaxError, ValueError):  # of a module that is imported later, if ever
            continue
        waiting += _imports(tree, file, root)
        data |= _named(tree, {file.parent, root, Path.cwd()})
    return code | data


def _imports(tree: ast.AST, file: Path, root: Path) -> Iterator[Path]:
    """Files below ``root`` that the imports in a module may load."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            places = [root.joinpath(*alias.name.split(".")) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = file.parents[min(node.level, len(file.parents)) - 1] if node.level else root
            base = base.joinpath(*(node.module or "").split("."))
            places = [base, *(base / alias.name for alias in node.names)]
        else:
            continue
        for place in places:
            for one in (place, *place.parents):
                if root in one.parents:
                    yield from (path for path in (one.with_suffix(".py"), one / "__init__.py") if path.is_file())


def _named(tree: ast.AST, bases: set[Path]) -> set[Path]:
    """Data files that texts in a module name: by one text, or by a folder and a name."""
    texts = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    texts = {text for text in texts if text.strip("./") and len(text) <= _LONGEST and text.isprintable()}
    folders = {base / text for base in bases for text in texts if os.path.isdir(base / text)}
    return {path.resolve() for place in bases | folders for text in texts if _is_data(path := place / text)}
