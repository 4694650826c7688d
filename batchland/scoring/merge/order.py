"""The rows of all shards in the order of the whole listing, none missing and none twice.

Files are read in parallel. Memory is bounded: one row group of every shard, and a block; for the shards of a plan, the
files that are read at once.
"""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from itertools import chain
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from batchland.errors import InputError, UsageError
from batchland.predictions.schema import complete_columns, full_schema, own_schema
from batchland.scoring.merge.check import FinishedShard
from batchland.scoring.shard import CONTAINER_SHIFT
from batchland.system.cores import usable_cores

BLOCK_SIZE: Final = 32768
"""Rows sorted at once: many of each shard, so that a thousand shards cost little more than ten."""


def ordered_rows(folder: str, shards: list[FinishedShard], block_size: int = BLOCK_SIZE) -> Iterator[pa.RecordBatch]:
    """Blocks without positions, of block_size rows or fewer.

    Raises UsageError if a row is missing or exists twice, InputError if a file cannot be read any more.
    """
    threads = usable_cores() * shards[0].common.parallel
    with ThreadPoolExecutor(threads, "read") as pool:
        if shards[0].info.dealt_by == "range":
            yield from _consecutive_rows(shards, pool, threads)
        else:
            yield from _sorted_rows(_Merger(folder, shards, block_size, pool), shards[0].info.dealt_by == "container")


def _consecutive_rows(shards: list[FinishedShard], pool: Executor, ahead: int) -> Iterator[pa.RecordBatch]:
    """The rows of one shard after the other, as of ranges of a plan. ahead: files to read ahead."""
    reading: deque[Future[list[pa.RecordBatch]]] = deque()
    for shard in shards:
        for file in shard.manifest.files:
            reading.append(pool.submit(lambda *given: list(_row_groups(*given)), shard, file.path))
            if len(reading) > ahead:
                yield from reading.popleft().result()
    while reading:
        yield from reading.popleft().result()


def _sorted_rows(merger: "_Merger", by_container: bool) -> Iterator[pa.RecordBatch]:
    position = 0
    while (head := merger.head) is not None:
        if by_container and head > position and not head % (1 << CONTAINER_SHIFT):
            position = head  # the first image of the next container that is not empty
        block = merger.take(position)
        position += block.num_rows
        yield block.drop_columns(["position"])


class _Merger:
    """Takes rows by their positions from all shards."""

    def __init__(self, folder: str, shards: list[FinishedShard], block_size: int, pool: Executor) -> None:
        self._folder = folder
        self._block_size = block_size
        self._pool = pool
        self._shards = list(pool.map(_Rows, shards))

    @property
    def head(self) -> int | None:
        """Position of the next row; None if there is none."""
        return min((shard.head for shard in self._shards if shard.rows is not None), default=None)

    def take(self, begin: int) -> pa.RecordBatch:
        """The next rows, from position `begin` on."""
        end = begin + self._block_size
        due = [shard for shard in self._shards if shard.rows is not None and shard.head < end]
        found = list(chain.from_iterable(self._pool.map(lambda shard: shard.take(end), due)))
        if not found:
            raise UsageError(f"{self._folder}: no shard has row {begin}", advice="overwrite_shards")
        table = pa.Table.from_batches(found).combine_chunks()
        positions = table["position"].to_numpy()
        order = np.argsort(positions, kind="stable")
        wrong = np.flatnonzero(positions[order] != np.arange(begin, begin + len(order)))
        if len(wrong):
            missing = positions[order][wrong[0]] > begin + wrong[0]
            what = f"no shard has row {begin + wrong[0]}" if missing else f"two shards have row {begin + wrong[0] - 1}"
            raise UsageError(f"{self._folder}: {what}", advice="overwrite_shards")
        return table.take(order).combine_chunks().to_batches()[0]


class _Rows:
    """Rows of a shard that are not merged yet, one row group at a time. Files are closed between row groups."""

    def __init__(self, shard: FinishedShard) -> None:
        files = shard.manifest.files
        self._groups = chain.from_iterable(_row_groups(shard, file.path, positions=True) for file in files)
        self._next_group()

    def _next_group(self) -> None:
        self.rows: pa.RecordBatch | None = next(self._groups, None)
        if self.rows is not None:
            self._positions: npt.NDArray[np.int64] = self.rows.column("position").to_numpy()

    @property
    def head(self) -> int:
        """Position of the first row. Only while there are rows."""
        return int(self._positions[0])

    def take(self, end: int) -> list[pa.RecordBatch]:
        """All rows with a position below `end`."""
        taken = []
        while self.rows is not None:
            count = int(np.searchsorted(self._positions, end))
            if count:
                taken.append(self.rows.slice(0, count))
            if count < self.rows.num_rows:
                self.rows, self._positions = self.rows.slice(count), self._positions[count:]
                break
            self._next_group()
        return taken


def _row_groups(shard: FinishedShard, file: str, *, positions: bool = False) -> Iterator[pa.RecordBatch]:
    path = f"{shard.folder}/{file}"
    try:
        with shard.common.opened(path) as opened:
            groups = pq.read_metadata(opened).num_row_groups
        for number in range(groups):
            with shard.common.opened(path) as opened, pq.ParquetFile(opened) as parquet:
                table = parquet.read_row_group(number, use_threads=False)
            for rows in table.replace_schema_metadata(None).combine_chunks().to_batches():
                known, own = full_schema(rows.schema, positions=positions), own_schema(rows.schema)
                yield complete_columns(rows, pa.schema([*known, *own]))
    except (OSError, pa.ArrowException) as error:
        raise InputError(
            f"{shard.common.name}/{path}: cannot be read any more ({error}); run the command again"
        ) from error
