"""A folder or a zip, seen the same way: safe relative paths, junk left out, sizes bounded."""

import stat
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Protocol

from ferbench.errors import DataError
from ferbench.files import explained

MAX_FILE = 2 << 30  # bytes of one entry; the largest honest one (icml_face_data.csv) has 0.3 GB
MAX_RATIO = 200  # of an entry's size to its packed size; text of pixels packs some 4:1, a bomb 1000:1
_RATIO_FLOOR = 1 << 20  # small entries of repeated text may pack better than that, and cannot hurt

_JUNK_NAMES = {".ds_store", "thumbs.db", "desktop.ini"}


class Tree(Protocol):
    """What a dataset reader sees.

    name : how the user called it. paths : POSIX paths relative to the root, sorted, junk left out.
    """

    name: str

    @property
    def paths(self) -> list[str]: ...

    def read(self, path: str) -> bytes:
        """Return a file's bytes. Raises DataError when it is damaged or too large."""
        ...


class Folder:
    """A folder on disk. Links that lead out of it are left out."""

    def __init__(self, root: Path):
        self.root, self.name = root, str(root)

    @cached_property
    def paths(self) -> list[str]:
        with explained(self.root):
            inside = self.root.resolve()
            found = []
            for path in self.root.rglob("*"):
                relative = path.relative_to(self.root).as_posix()
                if _junk(relative) or not path.is_file():
                    continue
                if path.is_symlink() and not path.resolve().is_relative_to(inside):
                    continue
                found.append(relative)
            return sorted(found)

    def read(self, path: str) -> bytes:
        if not (self.root / path).is_file():
            raise DataError(f"{self.name} has no file {path}")
        with explained(self.root / path):
            if (self.root / path).stat().st_size > MAX_FILE:
                raise DataError(f"{path} in {self.name} is larger than {MAX_FILE >> 30} GB: not a file of a dataset")
            return (self.root / path).read_bytes()


class Zip:
    """A zip archive, read in place and never unpacked."""

    def __init__(self, file: zipfile.ZipFile, name: str):
        self.file, self.name = file, name
        self._entries: dict[str, zipfile.ZipInfo] = {}
        for entry in file.infolist():
            path = entry.filename.replace("\\", "/")
            pure = PurePosixPath(path)
            if pure.is_absolute() or ".." in pure.parts or (len(path) > 1 and path[1] == ":"):
                raise DataError(f"{name} has the entry {path!r}, which leads out of the archive: get a clean copy")
            if stat.S_ISLNK(entry.external_attr >> 16) or entry.is_dir() or _junk(path):
                continue
            _bounded(entry, name)
            self._entries[pure.as_posix()] = entry

    @cached_property
    def paths(self) -> list[str]:
        return sorted(self._entries)

    def read(self, path: str) -> bytes:
        if path not in self._entries:
            raise DataError(f"{self.name} has no file {path}")
        try:
            return self.file.read(self._entries[path])
        except (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, ValueError) as error:
            raise DataError(f"{path} in {self.name} cannot be unpacked ({error}): get the archive again") from None


@contextmanager
def opened(source: Path) -> Iterator[Tree]:
    """Open a folder, a zip, or the folder of a single file (a CSV given by its path).

    Raises DataError when there is nothing there or the zip is not whole.
    """
    with explained(source):
        if source.is_dir():
            yield Folder(source)
            return
        if not source.exists():
            raise DataError(f"{source} does not exist: give the folder or the zip of the dataset")
    if zipfile.is_zipfile(source):
        try:
            with zipfile.ZipFile(source) as file:
                yield Zip(file, str(source))
        except zipfile.BadZipFile as error:
            raise DataError(f"{source} is not a whole zip ({error}): download it again") from None
        return
    if source.suffix.lower() == ".zip":
        raise DataError(f"{source} is not a whole zip (its directory is missing): download it again")
    if source.suffix.lower() in (".csv", ".txt"):
        yield SingleFile(source)
        return
    raise DataError(f"{source} is neither a folder, a zip nor a CSV file: unpack it and give the folder")


class SingleFile(Folder):
    """A folder of which only one file is looked for, though others may be read by the paths in it."""

    def __init__(self, file: Path):
        super().__init__(file.parent)
        self.name, self.only = str(file), file.name

    @cached_property
    def paths(self) -> list[str]:
        return [self.only]


def reader(tree: Tree, path: str) -> Callable[[], bytes]:
    """Return a call that reads ``path`` when its time comes."""
    return lambda: tree.read(path)


def filename(path: str) -> str:
    """The last part of a POSIX path."""
    return path.rpartition("/")[2]


def stem(path: str) -> str:
    """The file's name without its ending."""
    return filename(path).rpartition(".")[0]


def _junk(path: str) -> bool:
    """What operating systems leave behind: .DS_Store, ._resource forks, Thumbs.db, __MACOSX."""
    parts = path.split("/")
    return parts[-1].lower() in _JUNK_NAMES or parts[-1].startswith("._") or "__MACOSX" in parts


def _bounded(entry: zipfile.ZipInfo, name: str) -> None:
    ratio = entry.file_size / max(entry.compress_size, 1)
    if entry.file_size > MAX_FILE or (entry.file_size > _RATIO_FLOOR and ratio > MAX_RATIO):
        raise DataError(f"{entry.filename} in {name} would unpack to {entry.file_size / 1e6:,.0f} MB from "
                        f"{entry.compress_size / 1e6:,.1f} MB: a decompression bomb, not a dataset")  # fmt: skip
