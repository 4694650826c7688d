"""Sort record batches of any number of rows, or distribute them by ranges of a key, with temporary files.

Few rows are sorted in memory, many by DuckDB.
"""

import logging
import shutil
import tempfile
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from importlib.util import find_spec
from itertools import chain
from tempfile import TemporaryFile
from typing import IO, Final, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from batchland.system.cores import usable_cores

Order = Sequence[tuple[str, Literal["ascending", "descending"]]]

ROWS_IN_MEMORY: Final = 2**20
"""Up to this number of rows, DuckDB is not used."""
MEMORY: Final = "350MB"
"""Memory limit of one sort by DuckDB."""
_OUTPUT_ROWS: Final = 131_072
_RUN_ROWS: Final = 2**20
"""Rows that are distributed by range at once."""
_log: Final = logging.getLogger("batchland")


def sorted_batches(
    schema: pa.Schema, batches: Iterable[pa.RecordBatch], order: Order, rows_in_memory: int = ROWS_IN_MEMORY
) -> Iterator[pa.RecordBatch]:
    """The rows in order, strings by their bytes. Raises what `batches` raises.

    Without DuckDB, any number of rows is sorted in memory; a warning says so.
    """
    first, rows = [], 0
    source = iter(batches)
    for batch in source:
        first.append(batch)
        rows += len(batch)
        if rows > rows_in_memory:
            break
    if rows <= rows_in_memory:
        return _sort_in_memory(schema, first, order)
    if find_spec("duckdb") is None:
        _log.warning(
            "more than %s rows are sorted in memory; with DuckDB (pip install 'batchland[large]') memory does not grow",
            f"{rows_in_memory:,}",
        )
        return _sort_in_memory(schema, [*first, *source], order)
    return _sort_with_duckdb(schema, chain(first, source), order)


def whole_groups(batches: Iterable[pa.RecordBatch], key: str) -> Iterator[pa.RecordBatch]:
    """The rows in other batches, so that rows with the same key are in one batch. batches: sorted by the key."""
    held: pa.RecordBatch | None = None
    for batch in batches:
        if not len(batch):
            continue
        if held is not None:
            batch = pa.concat_batches([held, batch])
        groups = group_numbers(batch[key])
        last = int(np.searchsorted(groups, groups[-1]))
        held = batch[last:]
        if last:
            yield batch[:last]
    if held is not None:
        yield held


def range_starts(keys: Iterable[pa.Array], rows: int) -> pa.Array | None:
    """The first key of every range of `rows` keys, except the first range; None if the keys are not sorted."""
    last, seen = None, 0
    starts: list[str] = []
    for block in keys:
        if len(block):
            if last is not None and block[0].as_py() < last:
                return None
            if pc.any(pc.less(block[1:], block[:-1])).as_py():
                return None
            starts += block[rows - 1 - (seen - 1) % rows :: rows].to_pylist()
            seen += len(block)
            last = block[-1].as_py()
    return pa.array(starts[1:], pa.string())


def ranges_of_sorted(batches: Iterable[pa.RecordBatch], key: str, starts: pa.Array) -> Iterator[list[pa.RecordBatch]]:
    """The rows of each range of keys: those below the first start, then from each start to the next.

    batches: sorted by the key.
    """
    held: list[pa.RecordBatch] = []
    further = iter(starts)
    start = next(further, None)
    for batch in batches:
        while start is not None and len(batch) and not batch[key][-1].as_py() < start.as_py():
            cut = pc.less(batch[key], start).true_count
            yield [*held, batch[:cut]]
            held, batch, start = [], batch[cut:], next(further, None)
        held.append(batch)
    yield held


class RowRanges:
    """Rows in any order, distributed by ranges of a key, in a file. `rows` reads those of one range."""

    def __init__(
        self, file: IO[bytes], schema: pa.Schema, batches: Iterable[pa.RecordBatch], key: str, starts: pa.Array
    ) -> None:
        """file: a new, temporary one. starts: first keys of the ranges, except the first, which has no lower end."""
        self._pieces: list[list[int]] = [[] for _ in range(len(starts) + 1)]
        """Numbers of the stored batches, by range."""
        self.sizes = np.zeros(len(starts) + 1, np.int64)
        """Rows of each range."""
        written = 0
        with pa.ipc.new_file(file, schema) as out:
            for run in _runs(batches, _RUN_ROWS):
                block = pa.concat_batches(run)
                number = np.concatenate([_range_numbers(batch[key], starts) for batch in run])
                number = number.astype(np.min_scalar_type(len(starts)))
                if (number[1:] < number[:-1]).any():
                    order = np.argsort(number, kind="stable")  # of 16 bits: three times faster
                    block, number = block.take(pa.array(order)), number[order]
                found, first = np.unique(number, return_index=True)
                for each, begin, end in zip(found.tolist(), first, [*first[1:], len(number)], strict=True):
                    out.write_batch(block[begin:end])
                    self._pieces[each].append(written)
                    self.sizes[each] += end - begin
                    written += 1
        self._stored = pa.ipc.open_file(file)

    def rows(self, number: int) -> Iterator[pa.RecordBatch]:
        """The rows of a range, in their order."""
        return map(self._stored.get_batch, self._pieces[number])


def written_down(schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """The same batches, after all of them have been written to a temporary file."""
    with TemporaryFile() as file:
        with pa.ipc.new_stream(file, schema) as stream:
            for batch in batches:
                stream.write_batch(batch)
        file.seek(0)
        yield from pa.ipc.open_stream(file)


def group_numbers(keys: pa.Array) -> npt.NDArray[np.int64]:
    """Number of the group of equal keys that each key belongs to, from 0. keys: sorted, without nulls."""
    changes = pc.not_equal(keys[1:], keys[:-1]).to_numpy(zero_copy_only=False)
    return np.r_[0, np.cumsum(changes)]


def _runs(batches: Iterable[pa.RecordBatch], rows: int) -> Iterator[list[pa.RecordBatch]]:
    """The same batches, without empty ones, in lists of at least `rows` rows, except the last one."""
    held: list[pa.RecordBatch] = []
    for batch in filter(len, batches):
        held.append(batch)
        if sum(map(len, held)) >= rows:
            yield held
            held = []
    if held:
        yield held


def _range_numbers(keys: pa.Array, starts: pa.Array) -> npt.NDArray[np.int64]:
    """How many starts are not above each key, by binary search."""
    least, most = (bisect_right(starts.to_pylist(), end.as_py()) for end in pc.min_max(keys).values())
    below = np.full(len(keys), least)
    starts = starts[:most]
    step = 1 << (most - least).bit_length()
    while step := step >> 1:
        probe = below + (step - 1)
        reached = pc.less_equal(starts.take(pa.array(np.minimum(probe, most - 1))), keys)
        below += step * ((probe < most) & reached.to_numpy(zero_copy_only=False))
    return below


def _sort_in_memory(schema: pa.Schema, batches: Sequence[pa.RecordBatch], order: Order) -> Iterator[pa.RecordBatch]:
    table = pa.Table.from_batches(batches, schema)
    large = pa.schema([field.with_type(_large(field.type)) for field in schema])  # offsets of 2 GiB and more
    for batch in table.cast(large).sort_by(list(order)).to_batches(_OUTPUT_ROWS):
        yield batch.cast(schema)


def _large(kind: pa.DataType) -> pa.DataType:
    return pa.large_string() if kind == pa.string() else kind


def _sort_with_duckdb(schema: pa.Schema, batches: Iterable[pa.RecordBatch], order: Order) -> Iterator[pa.RecordBatch]:
    import duckdb  # slow to import

    failed: list[BaseException] = []

    def guarded() -> Iterator[pa.RecordBatch]:
        try:
            yield from batches
        except BaseException as error:
            failed.append(error)
            raise

    keys = ", ".join(f'"{name}" {direction.removesuffix("ending")}' for name, direction in order)
    folder = tempfile.mkdtemp(prefix="batchland-")
    config = {"temp_directory": folder, "memory_limit": MEMORY, "threads": usable_cores()}
    try:
        with duckdb.connect(config=config) as connection:  # type: ignore[arg-type]
            connection.execute("SET TimeZone = 'UTC'; SET enable_progress_bar = false")
            rows = pa.RecordBatchReader.from_batches(schema, guarded())
            for batch in connection.from_arrow(rows).order(keys).to_arrow_reader(_OUTPUT_ROWS):
                yield batch.cast(schema)
    except duckdb.Error as error:
        if failed:  # DuckDB wraps what its input raised
            raise failed[0] from None
        raise OSError(f"sorting in {folder} failed: {error}") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
