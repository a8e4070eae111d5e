"""Python modules of users: imported from their folder, with hashes of all files that influence their results.

Only one folder at a time is importable, so that modules of the same name in several folders are not confused. A module
is imported again if its files have changed.
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

from ferbench.errors import DataError, UsageError, one_line
from ferbench.files import canonical_json, sha256_of, sha256_of_file
from ferbench.text import printable

CODE = (".py", ".pyc", ".so")
_MAX_NAME = 255  # characters of a text in a module that may be the name of a file
# Files below these are part of Python, of installed packages, or of the operating system.
_INSTALLED = tuple(
    str(Path(place).resolve()) + os.sep
    for place in (
        *(str(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib", "purelib", "platlib")),
        str(Path(__file__).parent.parent),
        *("/proc", "/sys", "/dev", "/etc", "/usr/lib", "/usr/share"),
    )
)

_current: Path | None = None  # the folder that is importable now
_loaded_before: set[str] = set()  # modules that were loaded before this folder became importable
_inactive: dict[Path, dict[str, ModuleType]] = {}  # modules of folders that were importable earlier
_files: dict[str, dict[Path, str]] = {}  # by file of an imported module: SHA-256 of all files that it uses
_folders: dict[str, Path | None] = {}  # by file of an imported module: its folder, None for an installed module
_watchers: list[set[str]] = []
_hooked = False


def holds(folder: Path | None, name: str) -> bool:
    """Whether a folder has a module ``name``, or the package that it belongs to."""
    return folder is not None and _spec(name, folder) is not None


def activate(folder: Path) -> None:
    """Make the modules of a folder importable instead of those of the previous folder.

    The standard library has precedence over the folder, and the folder over installed packages.
    """
    global _current, _loaded_before
    folder = folder.resolve()
    if folder == _current:
        return
    if _current is not None:
        _inactive[_current] = _modules()
        for name in _inactive[_current]:
            del sys.modules[name]
        if str(_current) in sys.path:
            sys.path.remove(str(_current))
    _current, _loaded_before = folder, set(sys.modules)
    sys.modules.update(_inactive.pop(folder, {}))
    standard = str(sysconfig.get_path("stdlib"))
    places = [at for at, place in enumerate(sys.path) if place.startswith(standard) and "-packages" not in place]
    sys.path.insert(max(places, default=-1) + 1, str(folder))
    importlib.invalidate_caches()


def load(name: str, places: tuple[Path | None, ...] = ()) -> ModuleType:
    """Import a module from the first of ``places`` that has it, else an installed one.

    Raises DataError if it cannot be imported, for whatever reason, and if another module of that name has precedence.
    """
    folder = next((place.resolve() for place in places if place is not None and holds(place, name)), None)
    if folder:
        activate(folder)
        if _changed(_files.get(_file(sys.modules.get(name)), {})):
            for other in _modules():
                del sys.modules[other]
    fresh, known = name not in sys.modules, set(_modules().values())
    # Bytecode is outdated if the second of its file differs, but a file may change several times a second.
    written, sys.dont_write_bytecode = sys.dont_write_bytecode, True
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
        code = _closure(Path(file)) | {Path(str(new.__file__)) for new in _modules().values() if new not in known}
        _files[file] = {path: sha256_of_file(path) for path in code | _data(opened)}
        _folders[file] = folder
    return module


@contextmanager
def running(module: ModuleType) -> Iterator[None]:
    """Within the block the folder of a module is importable, and the files that the module opens are recorded."""
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
    """Return 16 digits of the SHA-256 of all files that a module uses: imported modules of its folder, files that its
    code names, and files that it opened. The module's file does not count. Empty if there are none."""
    file = _file(module)
    hashes = sorted(known for path, known in _files.get(file, {}).items() if path != Path(file).resolve())
    return sha256_of(canonical_json(hashes).encode())[:16] if hashes else ""


@contextmanager
def watched() -> Iterator[set[str]]:
    """Collect the absolute paths of the files that Python opens for reading within the block.

    Files that libraries open in native code are not reported.
    """
    global _hooked
    if not _hooked:
        sys.addaudithook(_record_open)  # it cannot be removed
        _hooked = True
    opened: set[str] = set()
    _watchers.append(opened)
    try:
        yield opened
    finally:
        _watchers.remove(opened)


def _record_open(event: str, arguments: tuple[Any, ...]) -> None:
    if event != "open" or not _watchers:
        return
    path, mode, flags = arguments
    writes = any(sign in mode for sign in "wax") if isinstance(mode, str) else (flags or 0) & os.O_WRONLY
    if isinstance(path, str | bytes) and not writes:
        for opened in _watchers:
            opened.add(os.path.realpath(os.fsdecode(path)))


def _file(module: ModuleType | None) -> str:
    return getattr(module, "__file__", None) or ""


def _spec(name: str, folder: Path) -> ModuleSpec | None:
    """The module or package of a folder that is the first part of a name."""
    top, *rest = name.split(".")
    spec = PathFinder.find_spec(top, [str(folder)])
    inside = folder.joinpath(top, *rest)
    # A folder without __init__.py may be any folder, such as one of images.
    named = rest and (inside.with_suffix(".py").is_file() or (inside / "__init__.py").is_file())
    return spec if spec and (spec.origin or named) else None


def _modules() -> dict[str, ModuleType]:
    """Modules that were imported from the current folder since it became importable."""
    loaded = {}
    for name, module in list(sys.modules.items()):
        top = name.partition(".")[0]
        if top not in _loaded_before and (spec := getattr(sys.modules.get(top), "__spec__", None)):
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
        except (SyntaxError, ValueError):  # of a module that may never be imported
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
            for module in (place, *place.parents):
                if root in module.parents:
                    yield from (path for path in (module.with_suffix(".py"), module / "__init__.py") if path.is_file())


def _named(tree: ast.AST, bases: set[Path]) -> set[Path]:
    """Data files whose names are texts in a module: one text, or a folder and a name."""
    texts = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    texts = {text for text in texts if text.strip("./") and len(text) <= _MAX_NAME and text.isprintable()}
    folders = {base / text for base in bases for text in texts if os.path.isdir(base / text)}
    return {path.resolve() for place in bases | folders for text in texts if _is_data(path := place / text)}


def timm_library() -> Any:
    """Import timm. Raises UsageError where it is not installed."""
    try:
        import timm
    except (ImportError, RuntimeError) as error:  # torchvision's, if it does not belong to the installed torch
        raise UsageError(
            f"timm cannot be imported ({printable(str(error))[:100]}): pip install 'ferbench[timm]'"
        ) from None
    return timm
