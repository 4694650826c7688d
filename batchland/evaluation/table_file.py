"""A table in a temporary Parquet file: written block by block, read as a whole or in blocks."""

import shutil
import tempfile
import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, Final

import pyarrow as pa
import pyarrow.parquet as pq

_GROUP_ROWS: Final = 2**19
"""Rows of a row group."""


class TableFile:
    """Write with `append` and `close`, then read. The file is removed with this object."""

    def __init__(self, schema: pa.Schema) -> None:
        folder = tempfile.mkdtemp(prefix="batchland-")
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        self.schema, self.num_rows = schema, 0
        self._path = Path(folder, "table.parquet")
        # Encoding names and numbers as dictionaries takes more time than all the rest, and more space.
        texts = [field.name for field in schema if field.type == pa.string() and field.name != "image"]
        self._writer = pq.ParquetWriter(self._path, schema, compression="zstd", use_dictionary=texts)
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

    def read(self) -> pa.Table:
        """All rows, in memory."""
        return pq.ParquetFile(self._path).read()

    def batches(self, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
        """Blocks of rows, in order."""
        with pq.ParquetFile(self._path) as file:
            yield from file.iter_batches(columns=columns)

    def copy_to(self, file: BinaryIO) -> None:
        """Write the file's bytes."""
        with self._path.open("rb") as source:
            shutil.copyfileobj(source, file, 1024**2)

    def _flush(self) -> None:
        if self._held:
            self._writer.write_table(pa.concat_tables(self._held).cast(self.schema), row_group_size=_GROUP_ROWS)
        self._held = []
