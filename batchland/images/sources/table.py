"""Images as bytes in a column of Parquet files: `train-{00000..00009}.parquet`, local or by URL.

Only that column is read, in order, page by page, so memory does not depend on the size of the row groups.
"""

import logging
import os
import threading
from bisect import bisect_right
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import accumulate
from typing import TYPE_CHECKING, Final

import pyarrow as pa
import pyarrow.parquet as pq

from batchland.errors import BatchlandError, ImageError, InputError, UsageError
from batchland.images.sources import refs
from batchland.images.sources.containers import Containers, vanished
from batchland.images.sources.file_patterns import display_location
from batchland.images.sources.random_access import Reader, RecentlyOpened, open_files
from batchland.images.sources.refs import Ignored, ImageFile, ImageRef
from batchland.system.urls import is_url

if TYPE_CHECKING:
    from batchland.images.sources.random_access import RandomAccess

COLUMNS: Final = ("image", "img", "bytes", "image_bytes", "content", "data", "jpg", "jpeg", "png", "webp")
"""Preferred names if several columns hold bytes."""
_BINARY: Final = (pa.binary(), pa.large_binary(), pa.binary_view())
_ROWS_PER_BYTE: Final = 1000
"""Largest number of rows per byte of a file. Even empty rows take space; a damaged footer may give any number."""
_BUFFER_BYTES: Final = 1024**2
_BATCH_ROWS: Final = 16
_KEPT_ROWS: Final = 64
_KEPT_BYTES: Final = 128 * 1024**2
"""Rows stay in memory, for slower threads, until they exceed both limits."""

_log = logging.getLogger("batchland")


@dataclass(frozen=True)
class Rows:
    """The Store of one file's rows. `path` is a row number."""

    location: str = field(repr=False)
    """Path or URL of the file, possibly with credentials."""

    def read(self, path: bytes) -> ImageFile:
        """See `Store.read`. The time is the file's. Raises ImageError `empty` for a null, `corrupt` for damage."""
        table = _open_tables.get(self.location)
        data = table.read(int(path))
        if data is None:
            raise ImageError("empty", "the table has no bytes here")
        refs.check_file_size(len(data))
        return ImageFile(data, len(data), table.modified_us)

    def facts(self, path: bytes) -> tuple[None, int | None]:  # noqa: ARG002
        """See `Store.facts`. No size, since only reading the row gives it; the time is the file's."""
        return None, open_files.get(self.location).modified_us


class Tables(Containers):
    """Parquet files as a Source. Images are named FILE#ROW, counted from 0.

    A file that cannot be read has one row, `unreadable`, named FILE/.
    """

    _store = Rows

    def __init__(self, pattern: str | os.PathLike[str]) -> None:
        _open_tables.close()
        pattern = os.fspath(pattern)
        folder = pattern.endswith("/") or os.path.isdir(pattern)  # noqa: PTH112
        super().__init__(f"{pattern.rstrip('/')}/*.parquet" if folder else pattern)  # as Spark writes them
        self.name = display_location(pattern).rstrip("/")
        self.countable = not is_url(pattern)

    def containers(self, ignored: Ignored) -> Iterator[str]:
        """The files' names. Raises UsageError if the first file is missing or has no images."""
        files = super().containers(ignored)
        first = next(iter(self.inputs()))
        try:
            _open_tables.get(first)
        except BatchlandError:
            raise
        except Exception as error:  # Arrow raises almost anything on damaged files; `images_in` makes a row of it
            _log.debug("%s: cannot be read as Parquet (%s)", display_location(first), _reason(error))
        return files

    def images_in(self, container: str, ignored: Ignored) -> Iterator[ImageRef]:  # noqa: ARG002
        """The rows of one file."""
        location = self._files.locations[container]
        try:
            count = refs.retries.call(lambda: _open_tables.get(location)).count
        except InputError:
            raise
        except Exception as error:  # Arrow raises almost anything on damaged files
            reason = f"the table cannot be read: {_reason(error)}"
            yield ImageRef(f"{container}/", b"", ("unreadable", reason))
            return
        store = Rows(location)
        for row in range(count):
            yield ImageRef(f"{container}#{row}", str(row).encode(), store=store)

    def retry_refs(self, name: str) -> Iterator[ImageRef]:
        """The row of that name, or all rows of FILE/."""
        file = self._files.file_of(name)
        if file is None:
            return vanished(name, "there is no such file any more")
        if name.endswith("/"):
            return self.images_in(file, Ignored())
        return iter([ImageRef(name, name[len(file) + 1 :].encode(), store=Rows(self._files.locations[file]))])


class _OpenTable:
    """A Parquet file for reading rows approximately in order. Thread-safe."""

    def __init__(self, location: str) -> None:
        file: RandomAccess = open_files.get(location)
        self.modified_us = file.modified_us
        # buffer_size without pre_buffer reads page by page; otherwise Arrow reads whole row groups.
        self._parquet = pq.ParquetFile(
            Reader(file), buffer_size=_BUFFER_BYTES, pre_buffer=False, page_checksum_verification=True
        )
        self._column = _column(self._parquet.schema_arrow, location)
        metadata = self._parquet.metadata
        self.count: int = metadata.num_rows
        groups = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
        if min(groups, default=0) < 0 or sum(groups) != self.count or self.count > _ROWS_PER_BYTE * file.size:
            raise OSError(f"its footer claims {self.count} rows")
        self._starts = list(accumulate(groups, initial=0))
        self._lock = threading.Lock()
        self._batches: Iterator[pa.RecordBatch] = iter(())
        self._reading: int | None = None
        """The row group that `_batches` reads."""
        self._next = 0
        self._kept: deque[tuple[int, pa.Array]] = deque()
        self._broken: dict[int, tuple[int, str]] = {}
        """Row group to the first row that cannot be decoded and the reason."""

    def read(self, row: int) -> bytes | None:
        """The bytes of a row. Raises OSError, or ImageError `corrupt`."""
        with self._lock:
            while (values := self._loaded_value(row)) is None:
                self._advance(row)
        return values.as_py()

    def _loaded_value(self, row: int) -> pa.Scalar | None:
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
        """Read the next few rows of the row's group, from its start if the row is behind."""
        group = self._group(row)
        try:
            if group != self._reading or row < self._next:
                self._reading, self._next = group, self._starts[group]
                self._batches = self._parquet.iter_batches(_BATCH_ROWS, [group], [self._column], use_threads=False)
            column = next(self._batches).column(0)
        except BatchlandError:
            raise
        except Exception as error:  # Arrow raises almost anything on damaged files
            self._reading = None
            if (
                isinstance(error, OSError) and error.errno
            ):  # of reading, may be temporary; decoding errors have no errno
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


def _column(schema: pa.Schema, location: str) -> str:
    """Path of the column with the images: bytes, or a struct of bytes and path as Hugging Face writes it."""
    found = {
        field.name: field.name if _is_binary(field.type) else f"{field.name}.bytes"
        for field in schema
        if _is_binary(field.type)
        or (
            pa.types.is_struct(field.type)
            and any(each.name == "bytes" and _is_binary(each.type) for each in field.type)
        )
    }
    twice = [name for name in found if schema.names.count(name) > 1]
    if twice:
        raise UsageError(
            f"{display_location(location)}: has {schema.names.count(twice[0])} columns {twice[0]}; keep one"
        )
    preferred = [name for name in COLUMNS if name in found] or list(found)
    if not preferred or (len(found) > 1 and preferred[0] not in COLUMNS):
        what, remedy = "no column with images as bytes", "give a table that has one"
        if found:
            what, remedy = "several columns of bytes, none of a usual name", "call that of the images image"
        columns = ", ".join(f"{field.name} {field.type}" for field in schema)
        raise UsageError(f"{display_location(location)}: has {what}, only {columns}; {remedy}")
    return found[preferred[0]]


def _is_binary(kind: pa.DataType) -> bool:
    """Bytes, or bytes by a dictionary."""
    return kind in _BINARY or (pa.types.is_dictionary(kind) and kind.value_type in _BINARY)


def _reason(error: Exception) -> str:
    return (getattr(error, "strerror", None) or str(error)).partition("\n")[0]


_open_tables: Final = RecentlyOpened(_OpenTable)
