"""Sort record batches of any number of rows: few in memory, many with DuckDB, which uses temporary files."""

import logging
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from importlib.util import find_spec
from itertools import chain
from tempfile import TemporaryFile
from typing import Final, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from batchland.system.cores import usable_cores

Order = Sequence[tuple[str, Literal["ascending", "descending"]]]

ROWS_IN_MEMORY: Final = 400_000
"""Up to this number of rows, DuckDB is not used."""
MEMORY: Final = "350MB"
"""Memory limit of one sort by DuckDB."""
_OUTPUT_ROWS: Final = 131_072
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


def merged_groups(sources: Sequence[Iterable[pa.RecordBatch]], key: str) -> Iterator[pa.RecordBatch]:
    """The rows of several sources, each sorted by the key: all rows with the same key are in one batch.

    In each batch, rows of the first source come first, in their order, then those of the next one.
    """
    streams = [whole_groups(source, key) for source in sources]
    heads = [next(stream, None) for stream in streams]
    while any(head is not None for head in heads):
        end = min(head[key][-1].as_py() for head in heads if head is not None)
        window = []
        for number, head in enumerate(heads):
            if head is not None:
                cut = len(head) if head[key][-1].as_py() == end else pc.less_equal(head[key], end).true_count
                window.append(head[:cut])
                heads[number] = head[cut:] if cut < len(head) else next(streams[number], None)
        yield pa.concat_batches(window)


def is_sorted(keys: Iterable[pa.Array]) -> bool:
    """Whether the blocks of keys are in ascending order."""
    last = None
    for block in keys:
        if len(block):
            if last is not None and block[0].as_py() < last:
                return False
            if pc.any(pc.less(block[1:], block[:-1])).as_py():
                return False
            last = block[-1].as_py()
    return True


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
    groups: npt.NDArray[np.int64] = np.r_[0, np.cumsum(changes)]
    return groups


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
