"""A table in a Parquet file, of a report or temporary: written block by block, read as a whole or in blocks."""

import shutil
import tempfile
import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, Final

import pyarrow as pa
import pyarrow.parquet as pq

from batchland.system.arrow import parquet_batches
from batchland.system.files import read_error

_GROUP_ROWS: Final = 2**19
"""Rows of a row group."""


class StoredTable:
    """Reads a Parquet file of a report. Methods raise UsageError or InputError, the constructor what pyarrow raises."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with pq.ParquetFile(path) as file:
            self.schema, self.num_rows = file.schema_arrow, file.metadata.num_rows

    def read(self) -> pa.Table:
        """All rows, in memory."""
        return pa.Table.from_batches(self.batches(), self.schema)

    def batches(self, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
        """Blocks of rows, in order."""
        try:
            with pq.ParquetFile(self._path) as file:
                yield from parquet_batches(file, columns)
        except (OSError, pa.ArrowException) as error:
            raise read_error(error, str(self._path), "evaluate again") from error


class TableFile(StoredTable):
    """Write with `append` and `close`, then read. The file is removed with this object."""

    def __init__(self, schema: pa.Schema) -> None:
        folder = tempfile.mkdtemp(prefix="batchland-")
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        self.schema, self.num_rows = schema, 0
        self._path = Path(folder, "table.parquet")
        # Encoding names and numbers as dictionaries takes more time than all the rest, and more space.
        texts = [field.name for field in schema if field.type == pa.string() and field.name != "image"]
        deltas = {field.name: "DELTA_BINARY_PACKED" for field in schema if field.type in (pa.int32(), pa.int64())}
        self._writer = pq.ParquetWriter(
            self._path, schema, compression="zstd", use_dictionary=texts, column_encoding=deltas
        )
        self._held: list[pa.Table] = []

    def append(self, rows: pa.Table) -> None:
        """Add rows of the table's schema."""
        self.num_rows += rows.num_rows
        self._held.append(rows)
        if sum(table.num_rows for table in self._held) >= _GROUP_ROWS:
            self._flush()

    def close(self) -> "TableFile":
        """Finish writing."""
        self._flush()
        self._writer.close()
        return self

    def copy_to(self, file: BinaryIO) -> None:
        """Write the file's bytes."""
        with self._path.open("rb") as source:
            shutil.copyfileobj(source, file, 1024**2)

    def _flush(self) -> None:
        if self._held:
            self._writer.write_table(pa.concat_tables(self._held).cast(self.schema), row_group_size=_GROUP_ROWS)
        self._held = []
