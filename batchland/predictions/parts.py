"""Score a listing part by part: find the images of a part that still need rows, and store finished and unfinished
parts.

A part is a fixed number of consecutive entries of a listing. This process or another one writes each part separately;
a part appears whole. writer.py joins the parts of a run.
"""

import hashlib
import json
import time
from bisect import bisect_right
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, Self

import pyarrow as pa

from batchland.images.sources.refs import ImageRef
from batchland.predictions.copied_row import CopiedRow
from batchland.predictions.schema import PREDICTIONS, own_schema
from batchland.predictions.storage import Output
from batchland.system.arrow import plain_values

CHECKPOINT_SECONDS: Final = 30.0
"""An unfinished part is written at least at this interval, so that a killed run loses at most this much work."""
_FIRST_CHECKPOINT_SECONDS: Final = 0.5
"""After this time it is written first."""
_INTERVAL_GROWTH: Final = 1.5
"""Each interval is longer by this factor, up to the given one: a run that is killed loses about a third of its work."""
_NOTHING: Final = pa.schema([])
_FINGERPRINT_KEY: Final = b"batchland.fingerprint"


class KeptRow(NamedTuple):
    """A known row that takes an image's position in the listing."""

    name: str
    rows: pa.RecordBatch
    """A batch with the schema of the run, without positions."""
    number: int
    """Index of the row in `rows`."""
    own: tuple[Any, ...] = ()
    """Values of own columns, as in ImageRef."""

    def is_followed(self, entry: "Entry", distance: int) -> bool:
        """Whether `entry` is the row `distance` rows after this one, in the same block of rows."""
        return isinstance(entry, KeptRow) and entry.rows is self.rows and entry.number == self.number + distance


Entry = ImageRef | KeptRow | CopiedRow
Find = Callable[[int, Iterable[Entry]], Iterator[Entry]]
"""Given the index of a part and its entries, replaces images that have a known row by that row; keeps the order."""


def find_nothing(part: int, entries: Iterable[Entry]) -> Iterator[Entry]:  # noqa: ARG001 - a Find
    """The entries as they are."""
    return iter(entries)


class PartSpec(NamedTuple):
    """How the rows of a run are stored. With this, another process can write some of the parts. Picklable.

    fingerprint: everything that determines the rows of the run. part_size: rows per part, a multiple of batch_size, so
    that a resumed run computes the same batches. schema: schema of the scored rows. row_group_size: rows per row group
    in a folder of parts; None means one row group per part. own: own columns; they follow the columns of `schema`, and
    the entries have their values.
    """

    fingerprint: str
    batch_size: int
    part_size: int
    schema: pa.Schema = PREDICTIONS
    row_group_size: int | None = None
    own: pa.Schema = _NOTHING

    @classmethod
    def of(
        cls,
        fingerprint: dict[str, Any],
        *,
        batch_size: int,
        part_size: int,
        schema: pa.Schema = PREDICTIONS,
        row_group_size: int | None = None,
        own: pa.Schema = _NOTHING,
    ) -> Self:
        """Round `part_size` up to whole batches."""
        part_size = -(-part_size // batch_size) * batch_size
        text = json.dumps(fingerprint | {"part_size": part_size}, sort_keys=True)
        return cls(text, batch_size, part_size, schema, row_group_size, own)

    @property
    def stored(self) -> pa.Schema:
        """The schema of the output."""
        return pa.schema([*self.schema, *self.own])

    @property
    def metadata(self) -> dict[bytes, bytes]:
        """Metadata of the files of an unfinished run. A later run recognises its own parts by it."""
        return {_FINGERPRINT_KEY: hashlib.sha256(self.fingerprint.encode()).hexdigest().encode()}

    def is_ours(self, table: pa.Table) -> bool:
        """Whether a run with the same fingerprint has written that part."""
        return bool((table.schema.metadata or {}).get(_FINGERPRINT_KEY) == self.metadata[_FINGERPRINT_KEY])


class PartSummary(NamedTuple):
    """Counts and digests of a finished part, as read back from storage."""

    number: int
    rows: int
    failed_by_code: dict[str, int]
    names_sha256: bytes
    """Hash of the images' names, each followed by a zero byte."""
    facts_sha256: bytes
    """Hash of the images' names, sizes, modification times and own columns."""
    decisions: dict[str, int]
    """Good images by decision."""
    resumed: int = 0
    """Number of images with a row from an interrupted run."""
    kept: int = 0
    """Number of rows that were known before the run."""

    @property
    def failed(self) -> int:
        """Number of failed rows."""
        return sum(self.failed_by_code.values())


def summarize(index: int, table: pa.Table) -> PartSummary:
    """Counts and digests of a stored part."""
    codes = Counter(code for code in table["error_code"].to_pylist() if code is not None)
    facts = hashlib.sha256("".join(map(repr, _facts(table))).encode())
    own = table.select(own_schema(table.schema).names)
    facts.update("".join(_texts(own.columns)).encode("utf-8", "surrogatepass"))
    names = names_digest(table["image"].to_pylist())
    decisions = Counter(decision for decision in table["decision"].to_pylist() if decision is not None)
    return PartSummary(index, table.num_rows, dict(codes), names, facts.digest(), dict(decisions))


def names_digest(names: Iterable[str]) -> bytes:
    """SHA-256 over names, each followed by a zero byte, which no file name contains."""
    return hashlib.sha256(joined(names)).digest()


def joined(names: Iterable[str]) -> bytes:
    """Names as bytes, each followed by a zero byte."""
    return "\0".join([*names, ""]).encode()


@dataclass
class UnfinishedPart:
    """A part in progress: its entries listed so far, and the rows of the first `count` of them."""

    number: int
    entries: list[Entry] = field(default_factory=list)
    rows: list[pa.RecordBatch] = field(default_factory=list)
    count: int = 0
    resumed: int = 0
    """Number of images with a row from an interrupted run."""
    closed: bool = False
    """Whether all entries are listed."""
    stored: int = 0
    """Number of rows from an interrupted run."""
    copy: Callable[[CopiedRow], pa.RecordBatch] | None = None
    """Makes the row of a CopiedRow; None if the part has none."""
    _starts: list[int] = field(default_factory=lambda: [0])
    """Index of the first row of each element of `rows`, as far as it was computed."""

    @property
    def waits_for_rows(self) -> bool:
        """Whether all images have a row; kept and copied rows may still be missing."""
        return self.closed and not any(isinstance(entry, ImageRef) for entry in self.entries[self.count :])

    @property
    def images(self) -> int:
        """Number of images with a row, without the kept rows."""
        return count_images(self.entries[: self.count])

    @property
    def kept(self) -> int:
        """Number of entries that are known rows."""
        return len(self.entries) - count_images(self.entries)

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
        """Append the kept and copied rows up to the next image."""
        while self.count < len(self.entries) and not isinstance(first := self.entries[self.count], ImageRef):
            if isinstance(first, CopiedRow):
                assert self.copy is not None
                self._append(self.copy(first))
                continue
            end = self.count + 1
            while end < len(self.entries) and first.is_followed(self.entries[end], end - self.count):
                end += 1
            self._append(first.rows.slice(first.number, end - self.count))

    def row(self, number: int) -> pa.RecordBatch:
        """One of the rows so far."""
        assert number < self.count, "a row is copied only after it exists"
        while len(self._starts) < len(self.rows):
            self._starts.append(self._starts[-1] + self.rows[len(self._starts) - 1].num_rows)
        batch = bisect_right(self._starts, number) - 1
        return self.rows[batch].slice(number - self._starts[batch], 1)

    def _append(self, rows: pa.RecordBatch) -> None:
        self.rows.append(rows)
        self.count += rows.num_rows


class PartWriter:
    """Context that takes batches of rows, in the order of `pending`, and stores them part by part.

    on_part: called with the summary of each stored part, in order, in another thread. checkpoint_seconds: an unfinished
    part is written at least at this interval. clock: seconds.
    """

    def __init__(
        self,
        output: Output,
        spec: PartSpec,
        on_part: Callable[[PartSummary], None] | None = None,
        *,
        checkpoint_seconds: float = CHECKPOINT_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.spec = spec
        self.write_seconds = 0.0
        self.resumed_images = self.kept_images = 0
        self._output = output
        self._on_part = on_part
        self._pending: deque[UnfinishedPart] = deque()
        self._read: tuple[int, pa.Table] | None = None
        """The part from which rows were last copied."""
        self._clock = clock
        self._last_checkpoint = clock()
        self._max_interval = checkpoint_seconds
        self._interval = min(_FIRST_CHECKPOINT_SECONDS, checkpoint_seconds)
        self._writer = ThreadPoolExecutor(1, "write")
        self._writing: Future[None] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._writer.shutdown(wait=True)

    def pending(
        self, parts: Iterable[tuple[int, Iterable[Entry]]], find: Find = find_nothing
    ) -> Iterator[ImageRef | None]:
        """The images of these parts that have neither a kept nor a stored row, in order.

        parts: pairs of index and entries. After each part, None is yielded: a batch must not contain images of two
        parts, so that a resumed run computes the same batches. Entries are read one by one; those of a part that an
        interrupted run has begun are read all at once. find: looks for rows of images in parts that are not stored
        whole.
        """
        for index, entries in parts:
            part = UnfinishedPart(index, copy=self._copied_row)
            listed, resumed = iter(entries), None
            if self._has_part(index):
                resumed = self._resumed_rows(part, listed, find)
            else:
                listed = find(index, listed)
            if resumed is not None:
                part.rows, part.count, part.stored = resumed.to_batches(), resumed.num_rows, resumed.num_rows
                part.resumed = part.images
                self.resumed_images += part.resumed
            self._pending.append(part)
            yield from (entry for entry in part.entries[part.count :] if isinstance(entry, ImageRef))
            for entry in listed:
                part.entries.append(entry)
                if isinstance(entry, ImageRef):
                    yield entry
            self._close(part)
            yield None

    def write(self, rows: pa.RecordBatch) -> None:
        """Take the rows of the next batch."""
        self._raise_write_errors(wait=False)
        part = self._pending[0]
        part.append(rows)
        if part.waits_for_rows:
            self._finish_first()
        elif self._clock() - self._last_checkpoint >= self._interval:
            self._interval = min(_INTERVAL_GROWTH * self._interval, self._max_interval)
            self._flush(part)

    def checkpoint(self) -> None:
        """Store all rows written so far, so that a later run can continue from them."""
        if self._pending and self._pending[0].rows:
            self._flush(self._pending[0])
        self.wait()

    def wait(self) -> None:
        """Wait until all rows that were passed on are stored."""
        self._raise_write_errors(wait=True)

    @property
    def unfinished_images(self) -> int:
        """Images with a row in parts that are not finished."""
        return sum(part.images for part in self._pending)

    def _close(self, part: UnfinishedPart) -> None:
        """Mark a part as completely listed. If it waits for no image and no copied row, finish it."""
        part.closed = True
        self.kept_images += part.kept
        if part is self._pending[0]:
            self._finish_first()
        elif all(isinstance(entry, KeptRow) for entry in part.entries[part.count :]):
            self._finish(part)

    def _finish_first(self) -> None:
        """Finish the first parts that wait for no image; all rows that they copy exist then."""
        while self._pending and self._pending[0].waits_for_rows:
            self._finish(self._pending[0])

    def _finish(self, part: UnfinishedPart) -> None:
        part.append_kept()
        self._pending.remove(part)
        if part.stored < part.count:
            self._flush(part, finished=True)
        elif self._on_part is not None:
            self._in_background(self._summarize, part)

    def _copied_row(self, copied: CopiedRow) -> pa.RecordBatch:
        """The row of an image that has the same file as an earlier image."""
        if copied.part == self._pending[0].number:
            return copied.row_like(self._pending[0].row(copied.row))
        self.wait()
        if self._read is None or self._read[0] != copied.part:
            self._read = (copied.part, self._read_part(copied.part))
        return copied.row_like(self._read[1].slice(copied.row, 1).to_batches()[0])

    def _flush(self, part: UnfinishedPart, *, finished: bool = False) -> None:
        self._last_checkpoint = self._clock()
        rows = pa.Table.from_batches(part.rows, self.spec.schema)
        own = own_columns(part.entries[: part.count], self.spec.own)
        table = pa.Table.from_arrays([*rows.columns, *own], schema=self.spec.stored)
        self._in_background(self._store, part, table, finished)

    def _store(self, part: UnfinishedPart, table: pa.Table, finished: bool) -> None:
        self._write_part(part.number, table)
        if finished:  # while a checkpoint is written, the other thread may append the last rows
            self._summarize(part)

    def _summarize(self, part: UnfinishedPart) -> None:
        """Report a finished part. Reads it back and checks that each entry has its row."""
        if self._on_part is None:
            return
        summary = summarize(part.number, self._read_part(part.number))
        if summary.names_sha256 != names_digest(entry.name for entry in part.entries):
            raise AssertionError(f"the {summary.rows} rows of part {part.number} do not match what was listed")
        self._on_part(summary._replace(resumed=part.resumed, kept=part.kept))

    def _in_background(self, action: Callable[..., None], *given: object) -> None:
        """Run `action` in the writing thread, which runs one action at a time."""
        self._raise_write_errors(wait=True)
        self._writing = self._writer.submit(action, *given)

    def _write_part(self, index: int, table: pa.Table) -> None:
        with self._timed():
            self._output.write_part(index, table, self.spec.metadata)

    @contextmanager
    def _timed(self) -> Iterator[None]:
        begin = time.monotonic()
        with self._output.errors():
            yield
        self.write_seconds += time.monotonic() - begin

    def _raise_write_errors(self, *, wait: bool) -> None:
        if self._writing is not None and (wait or self._writing.done()):
            writing, self._writing = self._writing, None
            writing.result()

    def _resumed_rows(self, part: UnfinishedPart, listed: Iterator[Entry], find: Find) -> pa.Table | None:
        """Rows that an interrupted run stored for the first entries of a part, if the files have not changed since.

        Consumes all entries of the part from `listed`. If the part is not stored whole, looks for other rows.
        """
        part.entries = list(listed)
        table = None
        with suppress(OSError, pa.ArrowException):
            table = self._output.read_part(part.number)
        if table is None or table.num_rows != len(part.entries):
            part.entries = list(find(part.number, part.entries))
        if table is None:
            return None
        entries = part.entries[: table.num_rows]
        in_step = len(entries) == len(part.entries) or count_images(entries) % self.spec.batch_size == 0
        if not in_step or len(entries) != table.num_rows or not self.spec.is_ours(table):
            return None
        if not table.schema.equals(self.spec.stored) or not _in_position(entries, table):
            return None
        rows, own = table.select(self.spec.schema.names), table.select(self.spec.own.names)
        if _texts(own.columns) != _texts(own_columns(entries, self.spec.own)):
            return None
        unchanged = all(_unchanged(entry, *fact) for entry, fact in zip(entries, _facts(table), strict=True))
        return rows.replace_schema_metadata(None) if unchanged else None

    def _has_part(self, index: int) -> bool:
        with self._output.errors():
            return self._output.has_part(index)

    def _read_part(self, index: int) -> pa.Table:
        with self._output.errors():
            return read_own_part(self._output, self.spec, index)


def read_own_part(output: Output, spec: PartSpec, index: int) -> pa.Table:
    """A stored part without metadata. Raises OSError, also if another run has written it."""
    table = output.read_part(index)
    if not spec.is_ours(table):
        raise OSError(None, f"another run has replaced part {index}")
    return table.replace_schema_metadata(None).combine_chunks()


def count_images(entries: Iterable[Entry]) -> int:
    """Number of entries that are images, not kept or copied rows."""
    return sum(isinstance(entry, ImageRef) for entry in entries)


def own_columns(entries: Sequence[Entry], own: pa.Schema) -> list[pa.Array]:
    """The entries' values of own columns; null for entries that have none."""
    values = [entry.ref.own if isinstance(entry, CopiedRow) else entry.own for entry in entries]
    return [
        pa.array([each[number] if each else None for each in values], field.type) for number, field in enumerate(own)
    ]


def _texts(columns: Iterable[pa.Array | pa.ChunkedArray]) -> list[str]:
    """Columns as texts. Equal values give equal texts, also NaN."""
    return [repr(plain_values(column)) for column in columns]


def _facts(table: pa.Table) -> Iterator[tuple[str, int | None, int | None]]:
    """Name, size and modification time (microseconds) of each image, as they were read."""
    times = [chunk.view(pa.int64()) for chunk in table["modified_at"].chunks]  # `cast` would import pyarrow.compute
    modified = pa.chunked_array(times, pa.int64())
    return zip(table["image"].to_pylist(), table["file_size"].to_pylist(), modified.to_pylist(), strict=True)


def _unchanged(entry: Entry, name: str, file_size: int | None, modified_us: int | None) -> bool:
    """Whether the file has not changed since its row was written. A file that could not be read counts as unchanged."""
    if name != entry.name:
        return False
    if file_size is None or isinstance(entry, KeptRow):
        return True
    ref = entry.ref if isinstance(entry, CopiedRow) else entry
    try:
        facts = ref.store.facts(ref.path)
    except OSError:
        return False
    return facts is None or (facts[1] == modified_us and facts[0] in (None, file_size))


def _in_position(entries: Iterable[Entry], table: pa.Table) -> bool:
    """Whether the rows of a shard have the positions of their images in the listing."""
    if "position" not in table.column_names:
        return True
    positions: list[int] = table["position"].to_pylist()
    return positions == [entry.position for entry in entries if isinstance(entry, ImageRef)]
