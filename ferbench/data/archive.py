"""What dataset readers see of a source on disk, be it a folder, an archive or one file: safe relative paths, files
of operating systems ignored, sizes bounded; and the tables among them (see :mod:`ferbench.tables`). The archives
themselves are read by :mod:`ferbench.data.packed`."""

import os
import re
import unicodedata
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Protocol

from ferbench import tables
from ferbench.errors import DataError
from ferbench.files import explained
from ferbench.tables import Row, whole

MAX_FILE = 2 << 30  # bytes of one entry; the largest honest one (icml_face_data.csv) has 0.3 GB
HEAD = 1 << 14  # bytes in which a file shows what it is

# The end of an image file's name, in capitals or not, as a regular expression.
IMAGE = r"\.(?i:png|jpe?g|jpe|jfif|bmp|gif|tiff?|webp|p[bgp]m|jp2|tga|pcx|avif|heic)$"

_IGNORED_NAMES = {".ds_store", "thumbs.db", "desktop.ini"}


class Tree(Protocol):
    """What a dataset reader sees.

    name : how the user called it. paths : POSIX paths relative to the root, sorted, without files of operating systems.
    """

    name: str

    @property
    def paths(self) -> list[str]: ...

    def read(self, path: str, limit: int = -1) -> bytes:
        """Return a file's bytes, or the first ``limit`` of them. Raises DataError when it is damaged or too large.

        A path that is not there is taken for the only one that differs from it in capitals or Unicode form alone.
        """
        ...


class Folder:
    """A folder on disk. Links that lead out of it are left out."""

    def __init__(self, root: Path):
        self.root, self.name = root, str(root)

    @cached_property
    def paths(self) -> list[str]:
        with explained(self.root):
            return sorted(self._files)

    @cached_property
    def _files(self) -> dict[str, Path]:
        """Files by path; names that are not UTF-8 show their bytes as \\x.., since tables and cards are UTF-8."""
        inside, files = self.root.resolve(), {}
        for path in self.root.rglob("*"):
            relative = shown(path.relative_to(self.root))
            if is_ignored(relative) or not path.is_file():
                continue
            if path.is_symlink() and not path.resolve().is_relative_to(inside):
                continue
            files[relative] = path
        return files

    def located(self, path: str) -> Path:
        """Return where a file lies. Raises DataError where there is none."""
        file = self.root / path
        if not file.is_file():
            file = self._files.get(path) or self._files.get(self._comparable.get(comparable(path), ""), file)
            if not file.is_file():
                raise DataError(f"{self.name} has no file {path}")
        return file

    @cached_property
    def _comparable(self) -> dict[str, str]:
        return by_comparable_form(self._files)

    def read(self, path: str, limit: int = -1) -> bytes:
        try:
            file = self.located(path)
            with explained(file):
                if limit < 0 and file.stat().st_size > MAX_FILE:
                    raise DataError(f"{path} in {self.name} is larger than {MAX_FILE >> 30} GB: no file of a dataset")
                with file.open("rb") as opened:
                    return opened.read(limit)
        except OSError as error:
            raise DataError(f"{path} in {self.name} cannot be read ({error.strerror or error})") from None


class SingleFile(Folder):
    """A folder of which only one file is looked for, though others may be read by the paths in it."""

    def __init__(self, file: Path):
        super().__init__(file.parent)
        self.name, self.only = str(file), shown(Path(file.name))

    @cached_property
    def paths(self) -> list[str]:
        return [self.only]


def is_image(path: str) -> bool:
    """Whether a file's name ends as those of images do."""
    return re.search(IMAGE, path) is not None


def comparable(path: str) -> str:
    """Return what a path has in common with those that differ in capitals or Unicode form alone."""
    return unicodedata.normalize("NFC", path).casefold()


def by_comparable_form(paths: Iterable[str]) -> dict[str, str]:
    """Return paths by their comparable form, without those of which several have the same."""
    unique: dict[str, str] = {}
    for path in paths:
        key = comparable(path)
        unique[key] = "" if key in unique else path
    return unique


def filename(path: str) -> str:
    """The last part of a POSIX path."""
    return path.rpartition("/")[2]


def stem(path: str) -> str:
    """The file's name without its ending."""
    return filename(path).rpartition(".")[0]


def shown(path: Path) -> str:
    """Return a path of this machine as text that any UTF-8 file can hold."""
    return os.fsencode(path.as_posix()).decode("utf-8", "backslashreplace")


def is_ignored(path: str) -> bool:
    """Whether an operating system left a file behind: .DS_Store, ._resource forks, Thumbs.db, __MACOSX."""
    parts = path.split("/")
    return parts[-1].lower() in _IGNORED_NAMES or parts[-1].startswith("._") or "__MACOSX" in parts


__all__ = ["Row", "columns", "lines", "rows", "text", "whole"]


def text(tree: Tree, path: str) -> str:
    """Return a text file's content with plain line ends, whatever it was written with."""
    return tables.decoded(tree.read(path), path)


def lines(tree: Tree, path: str) -> Iterator[tuple[int, list[str]]]:
    """Yield number and words of each line that holds something, separated by blanks, commas or semicolons."""
    for number, line in tables.lines(text(tree, path)):
        if words := line.replace(",", " ").replace(";", " ").split():
            yield number, words


def rows(
    tree: Tree, path: str, needed: tuple[str, ...], optional: tuple[str, ...] = (), headless: tuple[str, ...] = ()
) -> list[Row]:
    """Return a CSV's rows (see :func:`ferbench.tables.rows`)."""
    return tables.rows(text(tree, path), path, needed, optional, headless)


def columns(tree: Tree, path: str, headless: tuple[str, ...] = ()) -> list[str]:
    """Return the names in a CSV's first line, in lower case; empty for what cannot be read or is no text.

    Only the beginning of the file is read.
    """
    try:
        head = tree.read(path, HEAD)
        even = (
            head[: len(head) // 4 * 4] if head[:2] in (b"\xff\xfe", b"\xfe\xff") else head.rpartition(b"\n")[0] or head
        )
        return tables.columns(tables.decoded(even, path), headless)
    except DataError:
        return []
