"""Archives, read in place and never unpacked: zip, tar (plain, gz, bz2, xz), and such archives inside of a source.

An entry that leads out of its archive, a link, a device and a decompression bomb are never followed. What an archive
is, its first bytes decide, not its name.
"""

import bz2
import gzip
import io
import lzma
import os
import posixpath
import stat
import struct
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import IO, Any, Generic, TypeVar, cast

from ferbench.data.archive import MAX_FILE, Folder, SingleFile, Tree, by_comparable_form, comparable, is_ignored, shown
from ferbench.errors import DataError
from ferbench.files import explained

MAX_RATIO = 200  # of an entry's size to its packed size; text of pixels packs some 4:1, a bomb 1000:1
_RATIO_FLOOR = 1 << 20  # small entries of repeated text may pack better than that, and cannot hurt
MAX_INNER = 8 << 30  # bytes of an archive inside another; the largest honest one (CelebA's aligned images) has 1.4 GB
MAX_INNERS = 32  # archives inside of one source that are looked into
MAX_ENTRIES = 5_000_000
_CHUNK = 1 << 20
Entry = TypeVar("Entry")

_TABLES = (".csv", ".txt", ".tsv", ".lst", ".parquet")
_ENDINGS = (".zip", ".tar", ".tgz", ".tar.gz", ".tbz2", ".tar.bz2", ".txz", ".tar.xz")
_PACKED: dict[bytes, Callable[..., Any]] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\x00": lzma.open}
_FOREIGN = {b"7z\xbc\xaf\x27\x1c": "7z", b"Rar!\x1a\x07": "rar", b"\x28\xb5\x2f\xfd": "zstd"}
_DAMAGE = (
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    EOFError,
    OSError,
    RuntimeError,
    ValueError,
    OverflowError,
    IndexError,
)


class _Positioned(io.RawIOBase):
    """A file on disk, read at a position of its own: that of an ordinary open file is shared by forked processes."""

    def __init__(self, file: IO[bytes]):
        self._file, self._position = file, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: os.fstat(self._file.fileno()).st_size}
        self._position = start[whence] + offset
        return self._position

    def readinto(self, buffer: Any) -> int:
        count = os.preadv(self._file.fileno(), [buffer], self._position)
        self._position += count
        return count


def _positioned(file: IO[bytes]) -> IO[bytes]:
    """Return a file that forked processes can read at the same time, where the system has such reading."""
    return cast(IO[bytes], io.BufferedReader(_Positioned(file))) if hasattr(os, "preadv") else file


class _Entries(Generic[Entry]):
    """What is in an archive, by path."""

    name: str
    entries: dict[str, Entry]

    @cached_property
    def paths(self) -> list[str]:
        return sorted(self.entries)

    @cached_property
    def _comparable(self) -> dict[str, str]:
        return by_comparable_form(self.entries)

    def entry(self, path: str) -> Entry:
        """Return what lies at a path. Raises DataError where nothing does."""
        stored = path if path in self.entries else self._comparable.get(comparable(path), "")
        if not stored:
            raise DataError(f"{self.name} has no file {path}")
        return self.entries[stored]


class Zip(_Entries[zipfile.ZipInfo]):
    """A zip archive."""

    def __init__(self, file: zipfile.ZipFile, name: str):
        self.file, self.name = file, name
        self.entries = {}
        for entry in file.infolist():
            path = _safe(entry.filename, name)
            if not path or stat.S_ISLNK(entry.external_attr >> 16) or entry.is_dir():
                continue
            ratio = entry.file_size / max(entry.compress_size, 1)
            if entry.file_size > (MAX_INNER if _nested(path) else MAX_FILE) or (
                entry.file_size > _RATIO_FLOOR and ratio > MAX_RATIO
            ):
                raise DataError(
                    f"{entry.filename} in {name} would unpack to {entry.file_size / 1e6:,.0f} MB from "
                    f"{entry.compress_size / 1e6:,.1f} MB: a decompression bomb, no dataset"
                )
            self.entries[path] = entry

    def read(self, path: str, limit: int = -1) -> bytes:
        entry = self.entry(path)
        try:
            with self.file.open(entry) as file:
                return file.read(limit)
        except _DAMAGE as error:
            raise _unreadable(f"{path} in {self.name}", error) from None

    @contextmanager
    def stream(self, path: str) -> Iterator[IO[bytes]]:
        entry = self.entry(path)
        with ExitStack() as stack:
            with _whole(f"{path} in {self.name}"):
                file = stack.enter_context(self.file.open(entry))
            yield file


class Tar(_Entries[tarfile.TarInfo]):
    """A tar archive that is not packed, in a file that can seek."""

    def __init__(self, file: IO[bytes], name: str):
        self.file, self.name = file, name
        self.entries = {}
        with _whole(name):
            self.tar = tarfile.open(fileobj=file, mode="r:")  # noqa: SIM115
            for member in _members(self.tar, name):
                path = _safe(member.name, name)
                # Links, devices and pipes are left out, and sparse files, which may be huge and hold nothing.
                if not path or not member.isreg() or member.issparse():
                    continue
                if member.size > (MAX_INNER if _nested(path) else MAX_FILE):
                    raise DataError(f"{path} in {name} has {member.size / 1e6:,.0f} MB: not a file of a dataset")
                self.entries[path] = member

    def read(self, path: str, limit: int = -1) -> bytes:
        entry = self.entry(path)
        wanted = entry.size if limit < 0 else min(limit, entry.size)
        self.file.seek(entry.offset_data)
        content = self.file.read(wanted)
        if len(content) != wanted:
            raise DataError(f"{path} in {self.name} is cut: get the archive again")
        return content

    def stream(self, path: str) -> IO[bytes]:
        """Return an open file of an entry, which can seek as the archive can."""
        return cast(IO[bytes], self.tar.extractfile(self.entry(path)))


class Nested:
    """A source together with what the archives in it hold, one level deep: ``Image/aligned.zip/aligned/x.jpg``."""

    def __init__(self, outer: Tree, inner: dict[str, Tree]):
        self.outer, self.inner, self.name = outer, inner, outer.name
        self._of = {f"{at}/{path}": (tree, path) for at, tree in inner.items() for path in tree.paths}

    @cached_property
    def paths(self) -> list[str]:
        return sorted({*self.outer.paths, *self._of})

    @cached_property
    def _comparable(self) -> dict[str, str]:
        return by_comparable_form(self.paths)

    def read(self, path: str, limit: int = -1) -> bytes:
        if path not in self._of and (stored := self._comparable.get(comparable(path))):
            path = stored
        tree, at = self._of.get(path, (self.outer, path))
        return tree.read(at, limit)


@contextmanager
def opened(source: Path) -> Iterator[Tree]:
    """Open a folder, an archive, or the folder of a single file (a table given by its path).

    Raises DataError when there is nothing there or the archive is not whole.
    """
    with explained(source):
        if source.is_dir():
            yield Folder(source)
            return
        if not source.exists():
            raise DataError(f"{source} does not exist: give the folder or the archive of the dataset")
        if not source.is_file():
            raise DataError(f"{source} is a device or a pipe: give the folder or the archive of the dataset")
        with ExitStack() as stack:
            file = _positioned(stack.enter_context(source.open("rb")))
            tree = _archive(file, shown(source), source.suffix.lower() in _TABLES, stack)
            if tree is not None:
                yield tree
                return
    if source.suffix.lower() == ".zip":
        raise DataError(f"{source} is not a whole zip (its directory is missing): download it again")
    if source.suffix.lower() in _TABLES:
        yield SingleFile(source)
        return
    raise DataError(
        f"{source} is neither a folder, an archive (zip, tar) nor a table (CSV): unpack it and give the folder"
    )


@contextmanager
def looked_into(tree: Tree) -> Iterator[Nested | None]:
    """Open the archives that lie inside of a source; None where there are none. Those inside of them stay shut."""
    archives = [path for path in tree.paths if _nested(path)][:MAX_INNERS]
    if not archives or isinstance(tree, SingleFile | Nested):
        yield None
        return
    with ExitStack() as stack:
        inner: dict[str, Tree] = {}
        for path in archives:
            name = f"{path} in {tree.name}"
            with suppress(DataError):  # a damaged one may not be needed; if it is, its files are reported missing
                file = stack.enter_context(_inner(tree, path, name))
                if (archive := _archive(file, name, False, stack)) is not None:
                    inner[path] = archive
        yield Nested(tree, inner) if inner else None


@contextmanager
def _inner(tree: Tree, path: str, name: str) -> Iterator[IO[bytes]]:
    """Open an archive inside of a source as a file that can seek."""
    if isinstance(tree, Folder):
        with tree.located(path).open("rb") as file:
            yield _positioned(file)
    elif isinstance(tree, Tar):
        with tree.stream(path) as file:
            yield file
    else:
        with cast(Zip, tree).stream(path) as packed, _copied(packed, name, MAX_INNER) as file:
            yield file


def _archive(file: IO[bytes], name: str, table: bool, stack: ExitStack) -> Tree | None:
    """Return an open file as the archive that it is; None for what is none. table : it is called like a table."""
    head = file.read(512)
    file.seek(0)
    if not head:
        raise DataError(f"{name} is empty: download it again")
    for magic, kind in _FOREIGN.items():
        if head.startswith(magic):
            raise DataError(f"{name} is a {kind} archive, which ferbench does not read: unpack it and give the folder")
    for magic, unpack in _PACKED.items():
        if head.startswith(magic):
            packed = cast(IO[bytes], stack.enter_context(unpack(file, "rb")))
            copy = stack.enter_context(_copied(packed, name, 64 * MAX_FILE, file))
            if not _is_tar(copy):
                raise DataError(f"{name} is a packed file but no tar archive: unpack it and give the file")
            return Tar(copy, name)
    # Before zip, whose directory is looked for at a file's end: a tar may end with a zip.
    if not head.startswith(b"PK") and (head[257:262] == b"ustar" or (not table and _is_tar(file))):
        return Tar(file, name)
    if head.startswith(b"PK") or (not table and zipfile.is_zipfile(file)):
        try:
            tree = Zip(stack.enter_context(zipfile.ZipFile(file)), name)
        except _DAMAGE as error:
            raise DataError(f"{name} is not a whole zip ({error}): download it again") from None
        if "[Content_Types].xml" in tree.entries:
            raise DataError(f"{name} is an Excel workbook or another office document: save its table as CSV")
        return tree
    file.seek(0)
    return None


def _is_tar(file: IO[bytes]) -> bool:
    """Say whether a file begins with the header of a tar archive, and leave it at its beginning."""
    head = file.read(512)
    file.seek(0)
    try:
        tarfile.TarInfo.frombuf(head, tarfile.ENCODING, "surrogateescape")
    except (tarfile.TarError, ValueError):
        return False
    return True


def _members(tar: tarfile.TarFile, name: str) -> Iterator[tarfile.TarInfo]:
    """Yield the entries of a tar. Raises DataError where its chain of headers turns back or breaks off."""
    last, count = -1, 0
    while True:
        before = tar.offset
        member = tar.next()
        if member is None:
            break
        count += 1
        if member.offset <= last or member.size < 0 or count > MAX_ENTRIES:
            raise DataError(f"{name} is not a valid tar archive: its entries overlap, or are too many")
        last = member.offset
        yield member
        vars(tar)["members"] = []  # tarfile keeps them all; entries are kept here
    assert tar.fileobj is not None
    tar.fileobj.seek(before)
    if tar.fileobj.read(512).strip(b"\0"):
        raise DataError(f"{name} is damaged after {count:,} entries: get the archive again")


@contextmanager
def _copied(packed: IO[bytes], name: str, limit: int, source: IO[bytes] | None = None) -> Iterator[IO[bytes]]:
    """Give the plain bytes of a packed file in a nameless temporary file, so that they can be read in any order.

    source : the packed bytes, against which growth is watched.
    """
    with tempfile.TemporaryFile() as copy:
        size = 0
        while True:
            with _whole(name):
                part = packed.read(_CHUNK)
            if not part:
                break
            size += len(part)
            if size > limit or (source is not None and size > 16 * _RATIO_FLOOR and size > MAX_RATIO * source.tell()):
                raise DataError(
                    f"{name} unpacks to more than {size / 1e6:,.0f} MB: a decompression bomb, not a dataset"
                )
            copy.write(part)
        copy.seek(0)
        yield _positioned(copy)


@contextmanager
def _whole(what: str) -> Iterator[None]:
    """Turn what a damaged or encrypted archive raises into one line."""
    try:
        yield
    except _DAMAGE as error:
        raise _unreadable(what, error) from None


def _unreadable(what: str, error: Exception) -> DataError:
    return DataError(f"{what} cannot be unpacked ({error or type(error).__name__}): get the archive again")


def _safe(entry: str, name: str) -> str:
    """Return an entry's path inside of its archive, empty for files that are ignored. Raises DataError for one that
    leads out."""
    path = entry.replace("\\", "/").encode("utf-8", "backslashreplace").decode()
    if path.startswith("/") or ".." in path.split("/") or path[1:2] == ":":
        raise DataError(f"{name} has the entry {path!r}, which leads out of the archive: get a clean copy")
    path = posixpath.normpath(path)
    return "" if path == "." or is_ignored(path) else entry if path == entry else path  # one text in memory, not two


def _nested(path: str) -> bool:
    return path.lower().endswith(_ENDINGS)
