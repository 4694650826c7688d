"""The rows of all shards in the order of the whole listing, with none lacking and none twice.

Memory is bounded: one row group of every shard, and a block. Knows nothing of outputs.
"""

import heapq
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from batchland.errors import InputError, UsageError
from batchland.predictions.schema import SHARD_PREDICTIONS
from batchland.scoring.merge.check import FinishedShard
from batchland.scoring.shard import PLACE_BITS

BLOCK_SIZE: Final = 32768
"""Rows put in order at once: many of each shard, so that a thousand shards cost little more than ten."""
ADVICE: Final = "which no undisturbed shards leave behind; score all shards again with --overwrite"


def ordered_rows(folder: Path, shards: list[FinishedShard]) -> Iterator[pa.RecordBatch]:
    """Blocks of schema PREDICTIONS, of BLOCK_SIZE rows or fewer.

    Raises UsageError where a row is lacking or there twice, InputError if a file cannot be read any more.
    """
    by_container = shards[0].info.dealt_by == "container"
    merger = _Merger(folder, shards)
    position = 0
    while (head := merger.head) is not None:
        if by_container and head > position and not head % (1 << PLACE_BITS):
            position = head  # the next container that holds anything
        block = merger.take(position)
        position += block.num_rows
        yield block.drop_columns(["position"])


class _Merger:
    """The shards under way, the one with the next row first."""

    def __init__(self, folder: Path, shards: list[FinishedShard]) -> None:
        self._folder = folder
        self._shards = [_Rows(shard) for shard in shards]
        self._heads = [(each.head, index) for index, each in enumerate(self._shards) if each.rows is not None]
        heapq.heapify(self._heads)

    @property
    def head(self) -> int | None:
        """Position of the next row; None if there is none."""
        return self._heads[0][0] if self._heads else None

    def take(self, begin: int) -> pa.RecordBatch:
        """The next rows, from position `begin` on."""
        found = list(self._below(begin + BLOCK_SIZE))
        if not found:
            raise UsageError(f"{self._folder}: no shard has row {begin}, {ADVICE}")
        table = pa.Table.from_batches(found).combine_chunks()
        positions = table["position"].to_numpy()
        order = np.argsort(positions, kind="stable")
        wrong = np.flatnonzero(positions[order] != np.arange(begin, begin + len(order)))
        if len(wrong):
            lacking = positions[order][wrong[0]] > begin + wrong[0]
            what = f"no shard has row {begin + wrong[0]}" if lacking else f"two have row {begin + wrong[0] - 1}"
            raise UsageError(f"{self._folder}: {what}, {ADVICE}")
        return table.take(order).combine_chunks().to_batches()[0]

    def _below(self, end: int) -> Iterator[pa.RecordBatch]:
        while self._heads and self._heads[0][0] < end:
            _, index = heapq.heappop(self._heads)
            shard = self._shards[index]
            yield from shard.take(end)
            if shard.rows is not None:
                heapq.heappush(self._heads, (shard.head, index))


class _Rows:
    """Rows of a shard that are not merged yet, a row group at a time; its files are not kept open."""

    def __init__(self, shard: FinishedShard) -> None:
        self._groups = _row_groups(shard)
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


def _row_groups(shard: FinishedShard) -> Iterator[pa.RecordBatch]:
    for file in shard.manifest.files:
        path = shard.folder / file.path
        try:
            for number in range(pq.read_metadata(path).num_row_groups):
                with path.open("rb") as opened, pq.ParquetFile(opened) as parquet:
                    table = parquet.read_row_group(number, use_threads=False)
                yield from table.replace_schema_metadata(None).cast(SHARD_PREDICTIONS).combine_chunks().to_batches()
        except (OSError, pa.ArrowException) as error:
            raise InputError(f"{path}: cannot be read any more ({error}); run the same command again") from error
