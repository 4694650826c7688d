"""Write predictions as parts that a later run can resume from, and put them together as one output.

Each part appears whole. At the end the parts become the output, a file or a folder of parts, and the manifest is
written last. A later run of the same fingerprint takes finished parts over. storage.py writes the files.
"""

import hashlib
import json
import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain, islice
from types import TracebackType
from typing import Any, Final, NamedTuple, Self

import pyarrow as pa

from batchland.images.sources.refs import ImageRef
from batchland.predictions.schema import METADATA_KEY, PREDICTIONS, Counts, WrittenFile
from batchland.predictions.storage import Output

CHECKPOINT_SECONDS: Final = 30.0
"""An unfinished part is written at this interval, so that a killed run loses at most this much work."""
_FINGERPRINT_KEY: Final = b"batchland.fingerprint"


class KeptRow(NamedTuple):
    """A known row that takes an image's position in the listing."""

    name: str
    rows: pa.RecordBatch
    """A batch with the schema PREDICTIONS."""
    number: int
    """Index of the row in `rows`."""

    def is_followed(self, entry: "Entry", distance: int) -> bool:
        """Whether `entry` is the row `distance` rows after this one, in the same block of rows."""
        return isinstance(entry, KeptRow) and entry.rows is self.rows and entry.number == self.number + distance


Entry = ImageRef | KeptRow


@dataclass
class _Part:
    """An unfinished part: its entries listed so far, and the rows of the first `count` of them."""

    index: int
    entries: list[Entry] = field(default_factory=list)
    rows: list[pa.RecordBatch] = field(default_factory=list)
    count: int = 0
    closed: bool = False
    """No more entries will come."""

    @property
    def whole(self) -> bool:
        return self.closed and self.count == len(self.entries)

    def append(self, rows: pa.RecordBatch) -> None:
        """Append the rows of the next images, and the kept rows between them."""
        self.append_kept()
        begin = 0
        while begin < rows.num_rows:
            end = begin + 1
            while end < rows.num_rows and isinstance(self.entries[self.count + end - begin], ImageRef):
                end += 1
            self._append(rows.slice(begin, end - begin))
            self.append_kept()
            begin = end
        assert self.count <= len(self.entries), "a batch must not reach into the next part"

    def append_kept(self) -> None:
        """Append the kept rows up to the next image."""
        while self.count < len(self.entries) and isinstance(first := self.entries[self.count], KeptRow):
            end = self.count + 1
            while end < len(self.entries) and first.is_followed(self.entries[end], end - self.count):
                end += 1
            self._append(first.rows.slice(first.number, end - self.count))

    def _append(self, rows: pa.RecordBatch) -> None:
        self.rows.append(rows)
        self.count += rows.num_rows


@dataclass(frozen=True)
class Survey:
    """Counts and fingerprints over all parts."""

    counts: Counts
    input_fingerprint: str
    names_sha256: str


class PredictionSink:
    """Context that takes batches of rows in listing order and writes one output. Holds the output's lock.

    fingerprint: everything that determines the rows; parts of another fingerprint are discarded. part_size: rows per
    part, rounded up to whole batches of batch_size, so that a resumed run computes the same batches. schema: of the
    rows. row_group_size: rows per row group in a folder of parts; None takes the whole part. `notes_dir` is a local
    folder for notes of the unfinished work, there from entering to publishing.

    Raises UsageError if the output exists (unless `overwrite`), LockedError if another run is writing it, OutputError
    if it cannot be written.
    """

    def __init__(
        self,
        output: Output,
        fingerprint: dict[str, Any],
        *,
        batch_size: int,
        part_size: int,
        schema: pa.Schema = PREDICTIONS,
        row_group_size: int | None = None,
        overwrite: bool = False,
        restart: bool = False,
    ) -> None:
        self.part_size = -(-part_size // batch_size) * batch_size
        self.resumed_images = self.kept_images = 0
        self.write_seconds = 0.0
        self.out = output.name
        self.notes_dir = output.notes_dir
        self._output = output
        self._schema = schema
        self._row_group_size = row_group_size
        self._fingerprint = json.dumps(fingerprint | {"part_size": self.part_size}, sort_keys=True)
        self._part_metadata = {_FINGERPRINT_KEY: hashlib.sha256(self._fingerprint.encode()).hexdigest().encode()}
        self._batch_size = batch_size
        self._overwrite = overwrite
        self._restart = restart
        self._pending: deque[_Part] = deque()
        self._parts = 0
        self._listed = 0
        self._listed_names = hashlib.sha256()
        self._last_checkpoint = time.monotonic()
        self._writer = ThreadPoolExecutor(1, "write")
        self._writing: Future[None] | None = None

    def __enter__(self) -> Self:
        self._output.__enter__()
        try:
            with self._output.errors():
                self._output.begin(self._fingerprint, overwrite=self._overwrite, restart=self._restart)
        except BaseException:
            self._output.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writer.shutdown(wait=True)
        self._output.__exit__(kind, error, trace)

    def pending_images(self, entries: Iterable[Entry]) -> Iterator[ImageRef | None]:
        """The images that have no row yet, neither kept nor in a finished part, in order.

        After each part comes a None: no batch may reach into the next one, so that a resumed run computes the same.
        Entries are taken one by one, but for a part that an interrupted run has left: of that, all at once.
        """
        entries = iter(entries)
        for first in entries:
            part = _Part(self._parts)
            self._parts += 1
            listed = islice(chain([first], entries), self.part_size)
            resumed = self._resumed_rows(part, listed) if self._has_part(part.index) else None
            if resumed is not None:
                part.rows, part.count = resumed.to_batches(), resumed.num_rows
                self.resumed_images += _images(part.entries[: part.count])
            self._pending.append(part)
            yield from (entry for entry in part.entries[part.count :] if isinstance(entry, ImageRef))
            for entry in listed:
                part.entries.append(entry)
                if isinstance(entry, ImageRef):
                    yield entry
            self._close(part, resumed.num_rows if resumed else 0)
            yield None

    def _close(self, part: _Part, resumed: int) -> None:
        """All entries of a part are listed. A part that waits for no more images is finished."""
        part.closed = True
        self._listed += len(part.entries)
        self.kept_images += len(part.entries) - _images(part.entries)
        self._listed_names.update(_joined(entry.name for entry in part.entries))
        if not any(isinstance(entry, ImageRef) for entry in part.entries[part.count :]):
            part.append_kept()
            self._pending.remove(part)
            if resumed < part.count:
                self._flush(part)

    def keep(self, blocks: Iterable[pa.RecordBatch]) -> Iterator[None]:
        """Take all rows of the output, in order and in blocks of any size.

        Yields None after each part. Finished parts of an interrupted run of the same fingerprint stay as they are.
        """
        for table in _in_parts(blocks, self.part_size):
            index = self._parts
            self._parts += 1
            self._listed += table.num_rows
            self.kept_images += table.num_rows
            self._listed_names.update(_joined(table["image"].to_pylist()))
            if not self._is_written(index, table.num_rows):
                self._flush_table(index, table)
            yield None

    def write(self, rows: pa.RecordBatch) -> None:
        """Take the rows of the next batch."""
        self._raise_write_errors(wait=False)
        part = self._pending[0]
        part.append(rows)
        if part.whole:
            self._pending.popleft()
            self._flush(part)
        elif time.monotonic() - self._last_checkpoint >= CHECKPOINT_SECONDS:
            self._flush(part)

    def checkpoint(self) -> None:
        """Put everything written so far on disk, for a later run to take over."""
        if self._pending and self._pending[0].rows:
            self._flush(self._pending[0])
        self._raise_write_errors(wait=True)

    def survey(self) -> Survey:
        """Count the rows and fingerprint the input as it was read.

        Checks, on what is on disk, that each listed image has exactly one row, under its name and in listing order. A
        run that breaks this publishes nothing.
        """
        self._raise_write_errors(wait=True)
        by_status: Counter[str] = Counter()
        by_code: Counter[str] = Counter()
        names, digest = hashlib.sha256(), hashlib.sha256()
        for part in range(self._parts):
            table = self._read_part(part)
            by_status.update(table["status"].to_pylist())
            by_code.update(code for code in table["error_code"].to_pylist() if code is not None)
            names.update(_joined(table["image"].to_pylist()))
            for fact in _facts(table):
                digest.update(repr(fact).encode())
        if self._pending or names.digest() != self._listed_names.digest():
            raise AssertionError(f"{self._listed} images listed, but the {by_status.total()} rows do not match them")
        counts = Counts(
            listed=self._listed,
            ok=by_status["ok"],
            failed=by_status["failed"],
            failed_by_code=dict(sorted(by_code.items())),
        )
        return Survey(counts, digest.hexdigest(), names.hexdigest())

    def assemble(self, info: str) -> list[WrittenFile]:
        """Assemble the output from the parts. info: JSON text for the Parquet metadata."""
        with self._timed():
            schema = self._schema.with_metadata({METADATA_KEY: info.encode()})
            return self._output.assemble(map(self._read_part, range(self._parts)), schema, self._row_group_size)

    def publish(self, manifest: str) -> None:
        """Make the output and its manifest visible, and remove the parts."""
        with self._timed():
            self._output.publish(manifest)

    @contextmanager
    def _timed(self) -> Iterator[None]:
        begin = time.monotonic()
        with self._output.errors():
            yield
        self.write_seconds += time.monotonic() - begin

    def _flush(self, part: _Part) -> None:
        self._flush_table(part.index, pa.Table.from_batches(part.rows, self._schema))

    def _flush_table(self, index: int, table: pa.Table) -> None:
        """Write a part in the background, one at a time."""
        self._raise_write_errors(wait=True)
        self._last_checkpoint = time.monotonic()
        self._writing = self._writer.submit(self._write_part, index, table)

    def _write_part(self, index: int, table: pa.Table) -> None:
        with self._timed():
            self._output.write_part(index, table, self._part_metadata)

    def _raise_write_errors(self, *, wait: bool) -> None:
        if self._writing is not None and (wait or self._writing.done()):
            writing, self._writing = self._writing, None
            writing.result()

    def _resumed_rows(self, part: _Part, listed: Iterator[Entry]) -> pa.Table | None:
        """Rows that an interrupted run left for the first entries of a part, if they still are what it read.

        Takes all entries of the part out of `listed`.
        """
        part.entries = list(listed)
        try:
            table = self._output.read_part(part.index)
        except (OSError, pa.ArrowException):
            return None
        entries = part.entries[: table.num_rows]
        in_step = len(entries) == len(part.entries) or _images(entries) % self._batch_size == 0
        if not in_step or len(entries) != table.num_rows:
            return None
        if (table.schema.metadata or {}).get(_FINGERPRINT_KEY) != self._part_metadata[_FINGERPRINT_KEY]:
            return None
        if not table.schema.equals(self._schema) or not _in_position(entries, table):
            return None
        unchanged = all(_unchanged(entry, *fact) for entry, fact in zip(entries, _facts(table), strict=True))
        return table.replace_schema_metadata(None) if unchanged else None

    def _is_written(self, index: int, rows: int) -> bool:
        """Whether a part is stored as this run would write it."""
        if not self._has_part(index):
            return False
        try:
            table = self._output.read_part(index)
        except (OSError, pa.ArrowException):
            return False
        metadata = table.schema.metadata or {}
        return table.num_rows == rows and metadata.get(_FINGERPRINT_KEY) == self._part_metadata[_FINGERPRINT_KEY]

    def _has_part(self, index: int) -> bool:
        with self._output.errors():
            return self._output.has_part(index)

    def _read_part(self, index: int) -> pa.Table:
        with self._output.errors():
            return self._output.read_part(index).replace_schema_metadata(None).combine_chunks()


def _in_parts(blocks: Iterable[pa.RecordBatch], size: int) -> Iterator[pa.Table]:
    """The same rows in tables of `size` rows; the last one may be shorter."""
    held: list[pa.RecordBatch] = []
    room = size
    for block in blocks:
        while block.num_rows >= room:
            yield pa.Table.from_batches([*held, block.slice(0, room)])
            block, held, room = block.slice(room), [], size
        if block.num_rows:
            held.append(block)
            room -= block.num_rows
    if held:
        yield pa.Table.from_batches(held)


def _facts(table: pa.Table) -> Iterator[tuple[str, int | None, int | None]]:
    """Name, size and modification time (microseconds) of each image, as they were read."""
    times = [chunk.view(pa.int64()) for chunk in table["modified_at"].chunks]  # `cast` would import pyarrow.compute
    modified = pa.chunked_array(times, pa.int64())
    return zip(table["image"].to_pylist(), table["file_size"].to_pylist(), modified.to_pylist(), strict=True)


def _images(entries: Iterable[Entry]) -> int:
    return sum(isinstance(entry, ImageRef) for entry in entries)


def _joined(names: Iterable[str]) -> bytes:
    """Names as bytes, each followed by a zero byte, which no file name contains."""
    return b"".join(name.encode() + b"\0" for name in names)


def _unchanged(entry: Entry, name: str, file_size: int | None, modified_us: int | None) -> bool:
    """Whether the file is as it was when its row was written. Files that could not be read then count as unchanged."""
    if name != entry.name:
        return False
    if file_size is None or isinstance(entry, KeptRow):
        return True
    try:
        size, time_us = entry.store.facts(entry.path)
    except OSError:
        return False
    return time_us == modified_us and size in (None, file_size)


def _in_position(entries: Iterable[Entry], table: pa.Table) -> bool:
    """Whether the rows of a shard have the positions of their images in the listing."""
    if "position" not in table.column_names:
        return True
    positions: list[int] = table["position"].to_pylist()
    return positions == [entry.position for entry in entries if isinstance(entry, ImageRef)]
