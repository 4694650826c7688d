"""The rows of all shards in the order of the whole listing, none missing and none twice.

Memory is bounded: one row group of every shard, and a block.
"""

import heapq
from collections.abc import Iterator
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from batchland.errors import InputError, UsageError
from batchland.predictions.schema import complete_columns, full_schema, own_schema
from batchland.scoring.merge.check import FinishedShard
from batchland.scoring.shard import CONTAINER_SHIFT

BLOCK_SIZE: Final = 32768
"""Rows sorted at once: many of each shard, so that a thousand shards cost little more than ten."""


def ordered_rows(folder: str, shards: list[FinishedShard], block_size: int = BLOCK_SIZE) -> Iterator[pa.RecordBatch]:
    """Blocks without positions, of block_size rows or fewer.

    Raises UsageError if a row is missing or exists twice, InputError if a file cannot be read any more.
    """
    if shards[0].info.dealt_by == "range":
        for shard in shards:  # ranges of a plan follow each other
            yield from _row_groups(shard)
        return
    by_container = shards[0].info.dealt_by == "container"
    merger = _Merger(folder, shards, block_size)
    position = 0
    while (head := merger.head) is not None:
        if by_container and head > position and not head % (1 << CONTAINER_SHIFT):
            position = head  # the first image of the next container that is not empty
        block = merger.take(position)
        position += block.num_rows
        yield block.drop_columns(["position"])


class _Merger:
    """A heap of shards, the one with the next row first."""

    def __init__(self, folder: str, shards: list[FinishedShard], block_size: int) -> None:
        self._folder = folder
        self._block_size = block_size
        self._shards = [_Rows(shard) for shard in shards]
        self._heads = [(each.head, index) for index, each in enumerate(self._shards) if each.rows is not None]
        heapq.heapify(self._heads)

    @property
    def head(self) -> int | None:
        """Position of the next row; None if there is none."""
        return self._heads[0][0] if self._heads else None

    def take(self, begin: int) -> pa.RecordBatch:
        """The next rows, from position `begin` on."""
        found = list(self._below(begin + self._block_size))
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

    def _below(self, end: int) -> Iterator[pa.RecordBatch]:
        while self._heads and self._heads[0][0] < end:
            _, index = heapq.heappop(self._heads)
            shard = self._shards[index]
            yield from shard.take(end)
            if shard.rows is not None:
                heapq.heappush(self._heads, (shard.head, index))


class _Rows:
    """Rows of a shard that are not merged yet, one row group at a time. Files are closed between row groups."""

    def __init__(self, shard: FinishedShard) -> None:
        self._groups = _row_groups(shard, positions=True)
        self._next_group()

    def _next_group(self) -> None:
        self.rows: pa.RecordBatch | None = next(self._groups, None)
        if self.rows is not None:
            self._positions: npt.NDArray[np.int64] = self.rows.column("position").to_numpy()

    @property
    def head(self) -> int:
        """Position of the first row. Only while there are rows."""
        return int(self._positions[0])

    def take(self, end: int) -> Iterator[pa.RecordBatch]:
        """All rows with a position below `end`."""
        while self.rows is not None:
            count = int(np.searchsorted(self._positions, end))
            if count:
                yield self.rows.slice(0, count)
            if count < self.rows.num_rows:
                self.rows, self._positions = self.rows.slice(count), self._positions[count:]
                return
            self._next_group()


def _row_groups(shard: FinishedShard, *, positions: bool = False) -> Iterator[pa.RecordBatch]:
    for file in shard.manifest.files:
        path = f"{shard.folder}/{file.path}"
        try:
            for number in range(_count_groups(shard, path)):
                with shard.place.opened(path) as opened, pq.ParquetFile(opened) as parquet:
                    table = parquet.read_row_group(number, use_threads=False)
                for rows in table.replace_schema_metadata(None).combine_chunks().to_batches():
                    known, own = full_schema(rows.schema, positions=positions), own_schema(rows.schema)
                    yield complete_columns(rows, pa.schema([*known, *own]))
        except (OSError, pa.ArrowException) as error:
            raise InputError(
                f"{shard.place.name}/{path}: cannot be read any more ({error}); run the command again"
            ) from error


def _count_groups(shard: FinishedShard, path: str) -> int:
    with shard.place.opened(path) as opened:
        return int(pq.read_metadata(opened).num_row_groups)
