"""Parquet files of images and labels, as sets are handed on by public hubs: a column of encoded images, alone or with
their path, and one of labels, whose names may stand in the file. Read by pyarrow, the extra ``parquet``."""

import io
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ferbench.data.archive import MAX_FILE, Tree
from ferbench.data.samples import Aligned, decode, of_pixels, uncropped
from ferbench.errors import DataError, UsageError

_IMAGES, _LABELS = ("image", "img", "pixels"), ("label", "labels", "emotion")
_MOST = 5_000_000  # rows
_BATCH = 64


def named(path: str) -> bool:
    return path.lower().endswith(".parquet")


@dataclass
class Part:
    """One file. labels : of its rows, as text. names : of the labels by number, where the file has them."""

    labels: list[str]
    names: list[str] | None
    _batches: Callable[[], Any]
    _held: tuple[int, list[Any]] = (0, [])  # number of the first row at hand, and its batch
    _rest: Any = field(default=None)

    def face(self, place: int, where: str) -> Callable[[], Aligned]:
        """Return a call that reads the image of a row. Asked in order, each batch is read once."""

        def face() -> Aligned:
            value = self._value(place, where)
            if isinstance(value, str):
                return of_pixels(value, where)()
            content = value.get("bytes") if isinstance(value, dict) else value
            if not isinstance(content, bytes):
                raise DataError(f"{where}: no image bytes, perhaps only a path: export the set with its images inside")
            return uncropped(decode(content, where))

        return face

    def _value(self, place: int, where: str) -> Any:
        start, batch = self._held
        if self._rest is None or place < start:
            self._rest, start, batch = self._batches(), 0, []
        while place >= start + len(batch):
            start += len(batch)
            try:
                batch = next(self._rest)
            except StopIteration:
                raise DataError(f"{where} is not there: the file is cut") from None
            except Exception as error:
                raise DataError(f"{where} cannot be read ({_line(error)}): get the file again") from None
            self._held = (start, batch)
        return batch[place - start]


def opened(tree: Tree, path: str) -> Part:
    """Open a Parquet file. Raises UsageError without pyarrow, DataError for a file that is damaged or has no images."""
    try:
        import pyarrow
        import pyarrow.parquet as reading
    except ImportError:
        raise UsageError("Parquet files need pyarrow: `pip install 'ferbench[parquet]'`") from None
    content = tree.read(path)
    try:
        file = reading.ParquetFile(io.BytesIO(content))
        columns = {name.lower(): name for name in file.schema_arrow.names}
        image, label = (next((columns[n] for n in wanted if n in columns), None) for wanted in (_IMAGES, _LABELS))
        if image is None or label is None:
            raise DataError(
                f"{path} needs a column of images ({', '.join(_IMAGES)}) and one of labels "
                f"({', '.join(_LABELS)}); it has {', '.join(file.schema_arrow.names)[:80]}"
            )
        groups = [file.metadata.row_group(number) for number in range(file.metadata.num_row_groups)]
        if file.metadata.num_rows > _MOST or sum(group.total_byte_size for group in groups) > MAX_FILE:
            raise DataError(f"{path} would unpack to more than {MAX_FILE >> 30} GB or {_MOST:,} rows")
        kind = file.schema_arrow.field(image).type
        if not (
            pyarrow.types.is_struct(kind)
            or pyarrow.types.is_binary(kind)
            or pyarrow.types.is_large_binary(kind)
            or pyarrow.types.is_string(kind)
        ):
            raise DataError(f"{path}: the column {image} holds {kind}, not the bytes of images")
        labels = [str(value) for batch in file.iter_batches(columns=[label]) for value in batch.column(0).to_pylist()]
        names = _names(file.schema_arrow.metadata or {}, label)
    except (DataError, UsageError):
        raise
    except Exception as error:  # pyarrow's own errors and those of damaged text inside
        raise DataError(f"{path} is no whole Parquet file ({_line(error)}): get it again") from None

    def batches():
        for batch in file.iter_batches(batch_size=_BATCH, columns=[image]):
            yield batch.column(0).to_pylist()

    return Part(labels, names, batches)


def _names(metadata: dict[bytes, bytes], label: str) -> list[str] | None:
    """The names of the labels in order, from what the library ``datasets`` writes beside its columns."""
    try:
        names = json.loads(metadata[b"huggingface"])["info"]["features"][label]["names"]
    except (KeyError, TypeError, ValueError):
        return None
    return [str(name) for name in names] if isinstance(names, list) else None


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:120]
