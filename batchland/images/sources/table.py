"""Images inside Parquet files, as bytes in a column: `train-{00000..00009}.parquet`, here or behind a URL.

Only that column is read, in order, page by page, whatever the size of the row groups. Knows nothing of pixels.
"""

import os
import threading
from bisect import bisect_right
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import accumulate
from typing import TYPE_CHECKING, Final

import pyarrow as pa
import pyarrow.parquet as pq

from batchland.errors import ImageError, UsageError
from batchland.images.sources import refs
from batchland.images.sources.patterns import Files, shown_pattern
from batchland.images.sources.random_access import Reader, Recent, open_files
from batchland.images.sources.refs import Ignored, ImageFile, ImageRef
from batchland.system.urls import is_url

if TYPE_CHECKING:
    from batchland.images.sources.random_access import RandomAccess

COLUMNS: Final = ("image", "img", "bytes", "image_bytes", "content", "data", "jpg", "jpeg", "png", "webp")
"""Preferred names, where more than one column holds bytes."""
_BINARY: Final = (pa.binary(), pa.large_binary(), pa.binary_view())
_BUFFER_BYTES: Final = 1024**2
_BATCH_ROWS: Final = 16
_KEPT_ROWS: Final = 64
_KEPT_BYTES: Final = 128 * 1024**2
"""Rows stay in memory, for threads that come late, until they are more than both."""


class Tables:
    """Parquet files as a Source. An image is called FILE#ROW, counted from 0.

    A file that cannot be read has one row, `unreadable`, called FILE/.
    """

    def __init__(self, pattern: str | os.PathLike[str]) -> None:
        pattern = os.fspath(pattern)
        self.name = shown_pattern(pattern).rstrip("/")
        self.countable = not is_url(pattern)
        if pattern.endswith("/") or os.path.isdir(pattern):  # noqa: PTH112
            pattern = f"{pattern.rstrip('/')}/*.parquet"  # as Spark writes them
        self._files = Files(pattern)

    def images(self, ignored: Ignored) -> Iterator[ImageRef]:
        """File by file, in the pattern's order, row by row. Raises UsageError without a first file with images."""
        return (ref for file in self.containers(ignored) for ref in self.images_in(file, ignored))

    def containers(self, ignored: Ignored) -> Iterator[str]:  # noqa: ARG002
        """The files' names. Raises UsageError without a first one that holds images."""
        names = self._files.names()
        first = self._files.places[names[0]]
        try:
            _open_tables.get(first)
        except (pa.ArrowException, OSError) as error:
            raise UsageError(f"{shown_pattern(first)}: cannot be read as Parquet ({_reason(error)})") from error
        return iter(names)

    def images_in(self, container: str, ignored: Ignored) -> Iterator[ImageRef]:  # noqa: ARG002
        """The rows of one file."""
        where = self._files.places[container]
        try:
            count = refs.retries.call(lambda: _open_tables.get(where)).count
        except (pa.ArrowException, OSError, UsageError) as error:
            reason = f"the table cannot be read: {_reason(error)}"
            yield ImageRef(f"{container}/", b"", ("unreadable", reason))
            return
        store = Rows(where)
        for row in range(count):
            yield ImageRef(f"{container}#{row}", str(row).encode(), store=store)

    def inputs(self) -> Iterable[str]:
        """All files."""
        return self._files.places.values()

    def again(self, name: str) -> Iterator[ImageRef]:
        """A row by its name, or all of FILE/."""
        file = self._files.holding(name)
        if file is None:
            return iter([ImageRef(name, b"", ("vanished", "there is no such file any more"))])
        if name.endswith("/"):
            return self.images_in(file, Ignored())
        return iter([ImageRef(name, name[len(file) + 1 :].encode(), store=Rows(self._files.places[file]))])


@dataclass(frozen=True)
class Rows:
    """The Store of one file's rows: `path` is a row's number."""

    where: str = field(repr=False)
    """The file's path or URL, perhaps with credentials."""

    def read(self, path: bytes) -> ImageFile:
        """As the Store says. The time is the file's. Raises ImageError `empty` for a null, `corrupt` for damage."""
        table = _open_tables.get(self.where)
        data = table.read(int(path))
        if data is None:
            raise ImageError("empty", "the table has no bytes here")
        if len(data) > refs.MAX_FILE_BYTES:
            raise ImageError("too_large", f"{len(data)} bytes, more than {refs.MAX_FILE_BYTES}")
        return ImageFile(data, len(data), table.modified_us)

    def facts(self, path: bytes) -> tuple[None, int]:  # noqa: ARG002
        """No size: who knows it has read the row. The time is the file's."""
        return None, open_files.get(self.where).modified_us


class _OpenTable:
    """A Parquet file whose rows are read more or less in order. For threads to share."""

    def __init__(self, where: str) -> None:
        file: RandomAccess = open_files.get(where)
        self.modified_us = file.modified_us
        # Without pre_buffer and with a buffer: page by page, where a row group would be read whole.
        self._parquet = pq.ParquetFile(
            Reader(file), buffer_size=_BUFFER_BYTES, pre_buffer=False, page_checksum_verification=True
        )
        self._column = _column(self._parquet.schema_arrow, where)
        metadata = self._parquet.metadata
        self.count: int = metadata.num_rows
        groups = (metadata.row_group(group).num_rows for group in range(metadata.num_row_groups))
        self._starts = list(accumulate(groups, initial=0))
        self._lock = threading.Lock()
        self._batches: Iterator[pa.RecordBatch] = iter(())
        self._reading: int | None = None
        """The row group that `_batches` are of."""
        self._next = 0
        self._kept: deque[tuple[int, pa.Array]] = deque()
        self._broken: dict[int, tuple[int, str]] = {}
        """By row group: the row from which on it cannot be decoded, and why."""

    def read(self, row: int) -> bytes | None:
        """The bytes of a row. Raises OSError, or ImageError `corrupt`."""
        with self._lock:
            while (values := self._known(row)) is None:
                self._advance(row)
        value: bytes | None = values.as_py()
        return value

    def _known(self, row: int) -> pa.Scalar | None:
        for start, values in self._kept:
            if start <= row < start + len(values):
                return values[row - start]
        if row >= self.count:
            raise ImageError("vanished", "the table has no such row any more")
        broken, reason = self._broken.get(self._group(row), (self.count, ""))
        if row >= broken:
            raise ImageError("corrupt", reason)
        return None

    def _advance(self, row: int) -> None:
        """Keep the next few rows, or those where the row's group begins if it does not lie ahead in this one."""
        group = self._group(row)
        try:
            if group != self._reading or row < self._next:
                self._reading, self._next = group, self._starts[group]
                self._batches = self._parquet.iter_batches(_BATCH_ROWS, [group], [self._column], use_threads=False)
            column = next(self._batches).column(0)
        except (pa.ArrowException, OSError) as error:
            self._reading = None
            if isinstance(error, OSError) and error.errno:  # of reading, which may pass; decoding gives no number
                raise
            self._broken[group] = (
                self._next,
                f"the table cannot be decoded from row {self._next} on: {_reason(error)}",
            )
            return
        self._kept.append((self._next, column.flatten()[0] if pa.types.is_struct(column.type) else column))
        self._next += len(column)
        while len(self._kept) * _BATCH_ROWS > _KEPT_ROWS and sum(kept.nbytes for _, kept in self._kept) > _KEPT_BYTES:
            self._kept.popleft()

    def _group(self, row: int) -> int:
        return bisect_right(self._starts, row) - 1


def _column(schema: pa.Schema, where: str) -> str:
    """Path of the column with the images: bytes, or Hugging Face's struct of bytes and path."""
    found = {
        field.name: field.name if field.type in _BINARY else f"{field.name}.bytes"
        for field in schema
        if field.type in _BINARY or (pa.types.is_struct(field.type) and _holds_bytes(field.type))
    }
    preferred = [name for name in COLUMNS if name in found] or list(found)
    if not preferred or (len(found) > 1 and preferred[0] not in COLUMNS):
        what = "no column with images as bytes" if not found else "several columns of bytes, none of a usual name"
        columns = ", ".join(f"{field.name} {field.type}" for field in schema)
        raise UsageError(f"{shown_pattern(where)}: has {what}, only {columns}; call it image")
    return found[preferred[0]]


def _holds_bytes(struct: pa.StructType) -> bool:
    place = struct.get_field_index("bytes")
    return place >= 0 and struct.field(place).type in _BINARY


def _reason(error: Exception) -> str:
    return (getattr(error, "strerror", None) or str(error)).partition("\n")[0]


_open_tables: Final = Recent(_OpenTable)
