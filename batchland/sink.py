"""Write predictions so that nothing is lost and nobody reads half a file.

Rows gather as parts in a hidden folder beside the output; each part is a file that appears by rename. At the end the
parts become the output, a file or a folder of parts, again by rename, and the manifest is written last. A later run of
the same fingerprint takes finished parts over. Knows nothing of models or pixels.

What lies beside an output `p.parquet` while a run is under way, or was killed:

    .p.parquet.lock     the lock, with its holder
    .p.parquet.parts/   run.json (the fingerprint), part-000000.parquet ..., `publishing` once all parts are there
    .p.parquet.new      the output being put together
    .p.parquet.old      of a folder that is being overwritten: the old one, between two renames
"""

import errno
import hashlib
import json
import os
import shutil
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from types import TracebackType
from typing import Any, Final, NamedTuple, Self

import pyarrow as pa
import pyarrow.parquet as pq

from batchland.errors import OutputError, UsageError
from batchland.exchange import exchange
from batchland.lock import locked
from batchland.schemas import METADATA_KEY, PREDICTIONS, Counts, WrittenFile
from batchland.source import ImageRef

CHECKPOINT_SECONDS: Final = 30.0
"""An unfinished part is written this often, so that a killed run loses no more than that."""
_FINGERPRINT_KEY: Final = b"batchland.fingerprint"


def manifest_path(out: Path) -> Path:
    """Where the manifest of an output is: inside a folder, beside a file."""
    return out.with_suffix(".manifest.json") if is_file_output(out) else out / "_manifest.json"


def is_file_output(out: Path) -> bool:
    """`--out preds.parquet` is one file; any other name is a folder of parts."""
    return out.suffix == ".parquet"


class KeptRow(NamedTuple):
    """A row that is known already, in an image's place in the listing."""

    name: str
    rows: pa.RecordBatch
    """Of schema PREDICTIONS; the row is number `place` of them."""
    place: int

    def is_followed(self, entry: "Entry", distance: int) -> bool:
        """Whether `entry` is the row of that distance behind this one, in the same batch."""
        return isinstance(entry, KeptRow) and entry.rows is self.rows and entry.place == self.place + distance


Entry = ImageRef | KeptRow


@dataclass
class _Part:
    """A part under way: its entries as far as they are listed, and the rows of the first `count` of them."""

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
        """Rows of the next images; kept rows come in between them by themselves."""
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
        """The kept rows that are next."""
        while self.count < len(self.entries) and isinstance(first := self.entries[self.count], KeptRow):
            end = self.count + 1
            while end < len(self.entries) and first.is_followed(self.entries[end], end - self.count):
                end += 1
            self._append(first.rows.slice(first.place, end - self.count))

    def _append(self, rows: pa.RecordBatch) -> None:
        self.rows.append(rows)
        self.count += rows.num_rows


@dataclass(frozen=True)
class Survey:
    """What the parts hold when all are written."""

    counts: Counts
    input_fingerprint: str


class PredictionSink:
    """Context that takes batches of rows in listing order and leaves one output. Holds the output's lock.

    fingerprint: everything that decides what the rows are; parts of another one are discarded. part_size: rows per
    part, rounded up to whole batches of batch_size, so that a resumed run computes the same batches. Rows are of
    schema PREDICTIONS. `parts_dir` is the folder of the unfinished work, there from entering to publishing.

    Raises UsageError if the output exists (unless `overwrite`), LockedError if another run is writing it, OutputError
    if it cannot be written.
    """

    def __init__(
        self,
        out: Path,
        fingerprint: dict[str, Any],
        *,
        batch_size: int,
        part_size: int,
        overwrite: bool = False,
        restart: bool = False,
    ) -> None:
        self.out = out
        self.part_size = -(-part_size // batch_size) * batch_size
        self.resumed_images = self.kept_images = 0
        self.write_seconds = 0.0
        self._fingerprint = fingerprint | {"part_size": self.part_size}
        self._batch_size = batch_size
        self._overwrite = overwrite
        self._restart = restart
        self.parts_dir = out.parent / f".{out.name}.parts"
        self._assembly = out.parent / f".{out.name}.new"
        self._replaced = out.parent / f".{out.name}.old"
        self._publishing = self.parts_dir / "publishing"
        self._lock = locked(out.parent / f".{out.name}.lock", str(out))
        self._pending: deque[_Part] = deque()
        self._parts = 0
        self._listed = 0
        self._listed_names = hashlib.sha256()
        self._last_checkpoint = time.monotonic()
        self._writer = ThreadPoolExecutor(1, "write")
        self._writing: Future[None] | None = None

    def __enter__(self) -> Self:
        with _output_errors(self.out):
            self.out.parent.mkdir(parents=True, exist_ok=True)
            self._lock.__enter__()
        try:
            with _output_errors(self.out):
                self._prepare()
        except BaseException:
            self._lock.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writer.shutdown(wait=True)
        if error is not None:
            with suppress(OSError):
                _remove(self._assembly)  # of no use to a later run, and it may have filled the disk
        self._lock.__exit__(kind, error, trace)

    def _prepare(self) -> None:
        if self._replaced.exists():  # an overwriting run was killed between its two renames
            if not self.out.exists():
                self._replaced.rename(self.out)
            _remove(self._replaced)
        _remove(self._assembly)
        text = json.dumps(self._fingerprint, sort_keys=True)
        note = self.parts_dir / "run.json"
        known = note.read_text("utf-8") if note.exists() else None
        # Killed while it published, this very run had begun to replace what is there, and goes on with it.
        completing = known == text and self._publishing.exists()
        if self.out.exists() and not self._overwrite and not completing:
            raise UsageError(f"{self.out}: exists; give --overwrite to replace it, or another --out")
        if self.out.exists() and self.out.is_dir() == is_file_output(self.out):
            kind = "folder" if self.out.is_dir() else "file"
            raise UsageError(f"{self.out}: is a {kind}; an output named *.parquet is a file, any other is a folder")
        if self.out.is_dir() and any(self.out.iterdir()) and not manifest_path(self.out).exists():
            raise UsageError(f"{self.out}: is a folder that batchland did not write; give another --out")
        if known != text or self._restart:
            _remove(self.parts_dir)
            self.parts_dir.mkdir()
            _publish(note, lambda path: path.write_text(text, "utf-8"))

    def unscored(self, entries: Iterable[Entry]) -> Iterator[ImageRef | None]:
        """Pass on the images without a row, kept or in a finished part, in order.

        After each part comes a None: no batch may reach into the next one, so that a resumed run computes the same.
        Entries are taken one by one, but for a part that an interrupted run has left: of that, all at once.
        """
        entries = iter(entries)
        for first in entries:
            part = _Part(self._parts)
            self._parts += 1
            listed = islice(chain([first], entries), self.part_size)
            resumed = self._resumed_rows(part, listed) if self._part_path(part.index).exists() else None
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
        """All entries of a part are listed. One that waits for no more images is done."""
        part.closed = True
        self._listed += len(part.entries)
        self.kept_images += len(part.entries) - _images(part.entries)
        self._listed_names.update(_joined(entry.name for entry in part.entries))
        if not any(isinstance(entry, ImageRef) for entry in part.entries[part.count :]):
            part.append_kept()
            self._pending.remove(part)
            if resumed < part.count:
                self._flush(part)

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

        Every listed image must have its one row by now, under its own name and in its place: that is checked here, on
        what is on disk, and a run that breaks it publishes nothing.
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
            raise AssertionError(f"{self._listed} images listed, but the {by_status.total()} rows are not theirs")
        counts = Counts(
            listed=self._listed,
            ok=by_status["ok"],
            failed=by_status["failed"],
            failed_by_code=dict(sorted(by_code.items())),
        )
        return Survey(counts, digest.hexdigest())

    def assemble(self, info: str) -> list[WrittenFile]:
        """Put the output together out of the parts, unseen yet. info: JSON text for the Parquet metadata."""
        metadata = {METADATA_KEY: info.encode()}
        with self._timed():
            if is_file_output(self.out):
                schema = PREDICTIONS.with_metadata(metadata)
                with self._assembly.open("wb") as file, pq.ParquetWriter(file, schema, compression="zstd") as writer:
                    for part in range(self._parts):
                        writer.write_table(self._read_part(part).cast(schema))
                _sync(self._assembly)
                return [_describe_file(self._assembly, self.out.name)]
            self._assembly.mkdir()
            for part in range(self._parts):
                _write_table(self._read_part(part), self._assembly / _part_name(part), metadata)
                _sync(self._assembly / _part_name(part))
            return [_describe_file(path, path.name) for path in sorted(self._assembly.iterdir())]

    def publish(self, manifest: str) -> None:
        """Let the output appear, with its manifest, and drop the parts."""
        with self._timed():
            _publish(self._publishing, lambda path: path.touch())
            if is_file_output(self.out):
                manifest_path(self.out).unlink(missing_ok=True)
                self._assembly.replace(self.out)
                _sync(self.out.parent)
                _publish(manifest_path(self.out), lambda path: path.write_text(manifest, "utf-8"))
            else:
                _publish(self._assembly / manifest_path(self.out).name, lambda path: path.write_text(manifest, "utf-8"))
                if self.out.exists() and exchange(self._assembly, self.out):
                    self._assembly.rename(self._replaced)
                else:
                    if self.out.exists():
                        self.out.rename(self._replaced)
                    self._assembly.rename(self.out)
                _sync(self.out.parent)
                _remove(self._replaced)
            self.parts_dir.rename(self._assembly)  # at one stroke: half a parts folder would be taken for an old one
            _remove(self._assembly)

    @contextmanager
    def _timed(self) -> Iterator[None]:
        begin = time.monotonic()
        with _output_errors(self.out):
            yield
        self.write_seconds += time.monotonic() - begin

    def _flush(self, part: _Part) -> None:
        """Write a part in the background, one at a time."""
        self._raise_write_errors(wait=True)
        self._last_checkpoint = time.monotonic()
        table = pa.Table.from_batches(part.rows, PREDICTIONS)
        self._writing = self._writer.submit(self._write_part, part.index, table)

    def _write_part(self, index: int, table: pa.Table) -> None:
        metadata = {_FINGERPRINT_KEY: self._fingerprint_digest()}
        with self._timed():
            _publish(self._part_path(index), lambda path: _write_table(table, path, metadata))

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
            table = _read_table(self._part_path(part.index))
        except (OSError, pa.ArrowException):
            return None
        entries = part.entries[: table.num_rows]
        in_step = len(entries) == len(part.entries) or _images(entries) % self._batch_size == 0
        if not in_step or len(entries) != table.num_rows:
            return None
        if (table.schema.metadata or {}).get(_FINGERPRINT_KEY) != self._fingerprint_digest():
            return None
        unchanged = all(_unchanged(entry, *fact) for entry, fact in zip(entries, _facts(table), strict=True))
        return table.replace_schema_metadata(None) if unchanged else None

    def _read_part(self, index: int) -> pa.Table:
        return _read_table(self._part_path(index)).replace_schema_metadata(None).combine_chunks()

    def _part_path(self, index: int) -> Path:
        return self.parts_dir / _part_name(index)

    def _fingerprint_digest(self) -> bytes:
        return hashlib.sha256(json.dumps(self._fingerprint, sort_keys=True).encode()).hexdigest().encode()


def _part_name(index: int) -> str:
    return f"part-{index:06d}.parquet"


def _facts(table: pa.Table) -> Iterator[tuple[str, int | None, int | None]]:
    """Name, size and modification time (microseconds) of each image, as they were read."""
    modified = table["modified_at"].cast(pa.int64())
    return zip(table["image"].to_pylist(), table["file_size"].to_pylist(), modified.to_pylist(), strict=True)


def _images(entries: Iterable[Entry]) -> int:
    return sum(isinstance(entry, ImageRef) for entry in entries)


def _joined(names: Iterable[str]) -> bytes:
    """Names as bytes, each with its end; no file name holds a zero byte."""
    return b"".join(name.encode() + b"\0" for name in names)


def _unchanged(entry: Entry, name: str, file_size: int | None, modified_us: int | None) -> bool:
    """Whether a row still describes the file; one that could not be read then has no facts to compare."""
    if name != entry.name:
        return False
    if file_size is None or isinstance(entry, KeptRow):
        return True
    try:
        size, time_us = entry.store.facts(entry.path)
    except OSError:
        return False
    return time_us == modified_us and size in (None, file_size)


def _read_table(path: Path) -> pa.Table:
    with pq.ParquetFile(path) as file:  # pq.read_table would import pyarrow.dataset, and that pandas
        return file.read()


def _write_table(table: pa.Table, path: Path, metadata: dict[bytes, bytes]) -> None:
    table = table.combine_chunks().replace_schema_metadata(metadata)
    # A file of ours is closed even where its last bytes find no room; Arrow's own would stay open, and keep the space.
    with path.open("wb") as file:
        pq.write_table(table, file, compression="zstd", row_group_size=max(1, table.num_rows))


def _describe_file(path: Path, name: str) -> WrittenFile:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return WrittenFile(path=name, rows=pq.read_metadata(path).num_rows, bytes=path.stat().st_size, sha256=digest)


def _publish(path: Path, write: Callable[[Path], object]) -> None:
    """Write beside, fsync, rename, fsync the folder. A failure leaves nothing behind, least of all on a full disk."""
    temporary = path.with_name(f".{path.name}.new")
    try:
        write(temporary)
        _sync(temporary)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    temporary.replace(path)
    _sync(path.parent)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def _output_errors(out: Path) -> Iterator[None]:
    """Say what an error of the file system means for the run."""
    try:
        yield
    except OSError as error:
        reason, advice = _told(error)
        raise OutputError(f"{out}: cannot be written ({reason}); {advice}") from error


def _told(error: OSError) -> tuple[str, str]:
    """What went wrong, and what to do. Arrow's errors carry the number, but a text of their own around it."""
    reason = os.strerror(error.errno) if error.errno else str(error).partition("\n")[0]
    if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.ENAMETOOLONG):
        return reason, "give an --out that this user may write"
    todo = "free some space" if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) else "mend that"
    return reason, f"finished parts are kept: {todo}, then run the same command again to go on"
