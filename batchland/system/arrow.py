"""Describe columns, choose those of simple types, read Parquet in constant memory, keep pyarrow from importing pandas.

The first `pyarrow.array` of a process imports pandas where it is installed, which takes one to three seconds, to find
out whether its argument is a pandas object.
"""

import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from importlib.abc import MetaPathFinder
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa

from batchland.system.names import display_name

if TYPE_CHECKING:
    import pyarrow.parquet as pq


_TEXTS: Final = (
    (pa.string(), pa.binary()),
    (pa.large_string(), pa.large_binary()),
    (pa.string_view(), pa.binary_view()),
)
"""Types of text, each with the binary type of the same layout."""


class _NoPandas(MetaPathFinder):
    def find_spec(self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None) -> None:  # noqa: ARG002
        if fullname == "pandas":
            raise ModuleNotFoundError("pandas is kept out")


def column(name: str, kind: pa.DataType, description: str, *, nullable: bool = True) -> pa.Field:
    """A column that carries its own description; it is stored in the files, too."""
    return pa.field(name, kind, nullable=nullable, metadata={"description": description})


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
    counts = Counter(schema.names)
    fields = [
        pa.field(field.name, pa.string() if _is_text(field.type) else field.type)
        for field in schema
        if field.name and counts[field.name] == 1
    ]
    return pa.schema([field for field in fields if is_plain(field.type)])


def is_plain(kind: pa.DataType) -> bool:
    """Whether it is text, a number, a boolean, a date or a time."""
    return _is_text(kind) or pa.types.is_primitive(kind)


def _is_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        return _is_text(kind.value_type)
    return pa.types.is_decimal(kind) or any(kind == text for text, _ in _TEXTS)


def plain_values(column: pa.Array | pa.ChunkedArray) -> list[Any]:
    r"""The values of a column of `plain_columns` as Python objects; `pyarrow.array` makes the same column of them.

    Dates and times are numbers in the unit of their type, because Python has no nanoseconds, no years beyond 9999 and
    not every time zone. Decimals are text. In text, bytes that are not UTF-8 become `\xNN`.
    """
    if isinstance(column, pa.ChunkedArray):
        return [value for chunk in column.chunks for value in plain_values(chunk)]
    kind = column.type
    if pa.types.is_dictionary(kind):
        values = plain_values(column.dictionary)
        return [None if index is None else values[index] for index in column.indices.to_pylist()]
    if pa.types.is_decimal(kind):
        return [None if value is None else str(value) for value in column.to_pylist()]
    if pa.types.is_temporal(kind):
        column = column.view(pa.int32() if kind.bit_width == 32 else pa.int64())
    try:
        return list(column.to_pylist())
    except UnicodeDecodeError:
        return [None if value is None else _shown(value) for value in text_bytes(column)]


def text_bytes(column: pa.Array) -> list[bytes | None]:
    """The texts of a column, which need not be valid UTF-8."""
    if pa.types.is_dictionary(column.type):
        values = text_bytes(column.dictionary)
        return [None if index is None else values[index] for index in column.indices.to_pylist()]
    binary = next(kind for text, kind in _TEXTS if text == column.type)
    return list(column.view(binary).to_pylist())


def _shown(text: bytes) -> str:
    try:
        return text.decode()
    except UnicodeDecodeError:
        return display_name(text)


def parquet_batches(
    file: "pq.ParquetFile", columns: Sequence[str] | None = None, rows: int = 65_536
) -> Iterator[pa.RecordBatch]:
    """Blocks of at most `rows` rows of a file, in order, from one row group after the other.

    If it reads several row groups, pyarrow keeps the bytes of all of them until the file is closed.
    """
    for group in range(file.num_row_groups):
        yield from file.iter_batches(rows, row_groups=[group], columns=columns)
