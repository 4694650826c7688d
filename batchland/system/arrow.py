"""Keep pyarrow from importing pandas, choose columns of simple types, and read Parquet in constant memory.

The first `pyarrow.array` of a process imports pandas where it is installed, which takes one to three seconds, to find
out whether its argument is a pandas object.
"""

import sys
from collections.abc import Iterator, Sequence
from importlib.abc import MetaPathFinder
from types import ModuleType
from typing import TYPE_CHECKING

import pyarrow as pa

if TYPE_CHECKING:
    import pyarrow.parquet as pq


class _NoPandas(MetaPathFinder):
    def find_spec(self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None) -> None:  # noqa: ARG002
        if fullname == "pandas":
            raise ModuleNotFoundError("pandas is kept out")


def keep_pandas_out() -> None:
    """Make pyarrow treat pandas as not installed, unless it is already imported. Only for processes of batchland.

    pyarrow tries the import once. In other programs, this would change how pyarrow converts pandas objects.
    """
    if "pandas" not in sys.modules:
        finder = _NoPandas()
        sys.meta_path.insert(0, finder)
        try:
            pa.array([])
        finally:
            sys.meta_path.remove(finder)


def plain_columns(schema: pa.Schema) -> pa.Schema:
    """The columns of simple types, each name once: text, numbers, booleans, dates and times.

    Categories are text, and so are decimals, which keeps every digit.
    """
    fields = [
        pa.field(field.name, pa.string() if _is_text(field.type) else field.type)
        for field in schema
        if field.name and schema.names.count(field.name) == 1
    ]
    return pa.schema([field for field in fields if is_plain(field.type)])


def is_plain(kind: pa.DataType) -> bool:
    """Whether it is text, a number, a boolean, a date or a time."""
    return _is_text(kind) or pa.types.is_primitive(kind)


def _is_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        return _is_text(kind.value_type)
    return pa.types.is_decimal(kind) or kind in (pa.string(), pa.large_string(), pa.string_view())


def parquet_batches(
    file: "pq.ParquetFile", columns: Sequence[str] | None = None, rows: int = 65_536
) -> Iterator[pa.RecordBatch]:
    """Blocks of at most `rows` rows of a file, in order, from one row group after the other.

    If it reads several row groups, pyarrow keeps the bytes of all of them until the file is closed.
    """
    for group in range(file.num_row_groups):
        yield from file.iter_batches(rows, row_groups=[group], columns=columns)
