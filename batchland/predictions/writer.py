"""Write predictions as parts from which a later run can resume, and join them as one output.

At the end the parts become the output, a file or a folder of parts, and the manifest is written last. A later run with
the same fingerprint keeps finished parts. parts.py writes the parts, storage.py writes the files.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any, Self, TypeVar

import pyarrow as pa

from batchland.images.sources.refs import ImageRef
from batchland.predictions.parts import (
    CHECKPOINT_SECONDS,
    Entry,
    Find,
    PartSpec,
    PartSummary,
    PartWriter,
    UnfinishedPart,
    find_nothing,
    joined,
    names_digest,
    read_own_part,
    summarize,
)
from batchland.predictions.schema import METADATA_KEY, Counts, WrittenFile
from batchland.predictions.storage import Output
from batchland.system.cores import usable_cores

Result = TypeVar("Result")
WriteAll = Callable[[pa.Schema, list[PartSummary]], list[WrittenFile]]
"""Writes the files of a folder of parts, one for each summary, with a schema that has the output's metadata."""


@dataclass(frozen=True)
class Survey:
    """Counts and fingerprints over all parts."""

    counts: Counts
    input_fingerprint: str
    names_sha256: str
    facts_sha256: tuple[str, ...] = ()
    """Digests of the parts, from which the input fingerprint is computed."""


class PredictionSink(PartWriter):
    """Context that takes batches of rows in listing order and writes one output. Holds the output's lock.

    Parts of an earlier run with another fingerprint than that of `spec` are discarded. Other processes may write parts
    as well; `add` records those. `notes_dir` is a local folder for notes of the unfinished work; it exists from
    entering the context to publishing.

    Raises UsageError if the output exists (unless `overwrite`), LockedError if another run is writing it, OutputError
    if it cannot be written.
    """

    def __init__(
        self,
        output: Output,
        spec: PartSpec,
        *,
        overwrite: bool = False,
        restart: bool = False,
        checkpoint_seconds: float = CHECKPOINT_SECONDS,
    ) -> None:
        super().__init__(output, spec, checkpoint_seconds=checkpoint_seconds)
        self.part_size = spec.part_size
        self.out = output.name
        self.notes_dir = output.notes_dir
        self._overwrite = overwrite
        self._restart = restart
        self._parts = 0
        self._listed = 0
        self._listed_names = hashlib.sha256()
        self._digests: list[bytes | None] = []
        """Digest of the names listed in each part; None if another process lists the part."""
        self._elsewhere: dict[int, PartSummary] = {}

    def __enter__(self) -> Self:
        self._output.__enter__()
        try:
            with self._output.errors():
                self._output.begin(self.spec.fingerprint, overwrite=self._overwrite, restart=self._restart)
        except BaseException:
            self._output.__exit__(None, None, None)
            raise
        return self

    def __exit__(self, *exc: Any) -> None:
        super().__exit__(*exc)
        self._output.__exit__(*exc)

    def pending_images(self, entries: Iterable[Entry], find: Find = find_nothing) -> Iterator[ImageRef | None]:
        """The images of a listing that have no row yet, in order, with a None after each part. See `pending`."""
        return self.pending(enumerate(cut(entries, self.part_size)), find)

    def hand_out(
        self, parts: Iterable[Iterable[Entry]], find: Find = find_nothing
    ) -> Iterator[tuple[int, Iterable[Entry]]]:
        """Indices and entries of parts, for other processes to score. They list a part that is not a list.

        find: looks for known rows of images in parts that are lists; gives no copied rows.
        """
        for part in parts:
            if isinstance(part, list):
                self._list(part)
                yield self._parts - 1, list(find(self._parts - 1, part))
            else:
                self._parts += 1
                self._digests.append(None)
                yield self._parts - 1, part

    def add(self, summary: PartSummary) -> None:
        """Record a part that another process has stored."""
        self._elsewhere[summary.number] = summary
        if self._digests[summary.number] is None:
            self._listed += summary.rows
        self.resumed_images += summary.resumed
        self.kept_images += summary.kept

    def errors(self) -> AbstractContextManager[None]:
        """Context that turns an OSError into an OutputError."""
        return self._output.errors()

    def keep(self, blocks: Iterable[pa.RecordBatch]) -> Iterator[None]:
        """Store all rows of the output, given in order and in blocks of any size.

        Yields None after each part. Finished parts of an interrupted run with the same fingerprint are not changed.
        """
        for table in _in_parts(blocks, self.part_size):
            index = self._parts
            self.kept_images += table.num_rows
            self._list_names(table["image"].to_pylist())
            if not self._is_written(index, table.num_rows):
                self._in_background(self._write_part, index, table)
            yield None

    def survey(self) -> Survey:
        """Count the rows, and compute the fingerprint of the input as it was read.

        Checks in the stored parts that each listed image has exactly one row, with its name, in listing order. If not,
        nothing is published.
        """
        self.wait()
        failed, decisions = Counter[str](), Counter[str]()
        rows, facts = 0, list[bytes]()
        wrong = bool(self._pending)
        for part, found in enumerate(_in_parallel(self._summary, self._parts)):
            rows += found.rows
            failed.update(found.failed_by_code)
            decisions.update(found.decisions)
            facts.append(found.facts_sha256)
            wrong = wrong or self._digests[part] not in (None, found.names_sha256)
        if wrong or rows != self._listed:
            raise AssertionError(f"{self._listed} images listed, but the {rows} rows do not match them")
        hexadecimal = tuple(each.hex() for each in facts)
        counts = Counts.of(rows, failed, decisions)
        return Survey(counts, input_fingerprint(facts), self._listed_names.hexdigest(), hexadecimal)

    def _summary(self, part: int) -> PartSummary:
        return self._elsewhere.get(part) or summarize(part, self._read_part(part))

    def assemble(self, info: str, write_all: WriteAll | None = None) -> list[WrittenFile]:
        """Assemble the output from the parts. info: JSON text for the Parquet metadata.

        write_all: if given, writes the files of a folder; otherwise this process writes them.
        """
        with self._timed():
            schema = self.spec.stored.with_metadata({METADATA_KEY: info.encode()})
            if self._output.is_file:
                return [self._output.assemble_file(map(self._read_part, range(self._parts)), schema)]
            self._output.begin_files()
            if write_all is not None:
                files = write_all(schema, [self._elsewhere[part] for part in range(self._parts)])
            else:
                groups = self.spec.row_group_size
                files = list(
                    _in_parallel(
                        lambda part: self._output.write_file(part, self._read_part(part), schema, groups), self._parts
                    )
                )
            self._output.end_files(files)
            return files

    def publish(self, manifest: str) -> None:
        """Make the output and its manifest visible, and remove the parts."""
        with self._timed():
            self._output.publish(manifest)

    def _close(self, part: UnfinishedPart) -> None:
        self._list(part.entries)
        super()._close(part)

    def _list(self, entries: list[Entry]) -> None:
        self._list_names([entry.name for entry in entries])

    def _list_names(self, names: list[str]) -> None:
        """Add the names of one more part."""
        self._parts += 1
        self._listed += len(names)
        self._listed_names.update(joined(names))
        self._digests.append(names_digest(names))

    def _is_written(self, index: int, rows: int) -> bool:
        """Whether a part is stored as this run would write it."""
        if not self._has_part(index):
            return False
        try:
            table = self._output.read_part(index)
        except (OSError, pa.ArrowException):
            return False
        return table.num_rows == rows and self.spec.is_ours(table)


def _in_parallel(action: Callable[[int], Result], parts: int) -> Iterator[Result]:
    """Results of an action on each part, in order. As many are done at once as there are cores."""
    if parts < 2:
        yield from map(action, range(parts))
        return
    with ThreadPoolExecutor(usable_cores(), "parts") as pool:
        yield from pool.map(action, range(parts))


def input_fingerprint(facts: Iterable[bytes]) -> str:
    """The fingerprint of an input, computed from the digests of its parts."""
    return hashlib.sha256(b"".join(facts)).hexdigest()


def cut(entries: Iterable[Entry], size: int) -> Iterator[Iterable[Entry]]:
    """The parts of a listing. Each must be consumed before the next one is requested."""
    entries = iter(entries)
    for first in entries:
        yield chain([first], islice(entries, size - 1))


def write_file(output: Output, spec: PartSpec, schema: pa.Schema, expected: PartSummary) -> WrittenFile:
    """Write one file of a folder of parts from the part that `expected` describes.

    schema: has the output's metadata. Raises OutputError if the file cannot be written, or if another run has replaced
    the part.
    """
    with output.errors():
        table = read_own_part(output, spec, expected.number)
        if summarize(expected.number, table).facts_sha256 != expected.facts_sha256:
            raise OSError(None, f"another run has replaced part {expected.number}")
        return output.write_file(expected.number, table, schema, spec.row_group_size)


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
