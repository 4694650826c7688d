"""Tables that list images: CSV, Parquet and ORC files with a column of paths, and further columns of their own."""

import io
import logging
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import repeat
from operator import itemgetter
from typing import IO, TYPE_CHECKING, Any, Final, NamedTuple, TextIO, cast

from batchland.errors import UsageError
from batchland.images.sources.list_content import COLUMNS, problem_with
from batchland.system.csv_files import BOM, CsvError, CsvRows
from batchland.system.names import display_name, is_utf8
from batchland.system.text import first_line
from batchland.system.urls import split_url

if TYPE_CHECKING:
    import pyarrow as pa

Read = Callable[[list[str]], Iterable[Any]]
"""Gives some columns of a table, in blocks of rows."""
TRUTH: Final = "label"
"""Column of the true class. It is for evaluation and is not copied, because predictions have their own `label`."""
_OF_PREDICTIONS: Final = frozenset(("image", "status", "error_code", "class_index"))
"""A table with all of these columns contains predictions; every version writes these columns."""
_TEXT_TABLES: Final = (".csv", ".tsv")
_COLUMN_TABLES: Final = (".parquet", ".orc")
TABLE_SUFFIXES: Final = (*_TEXT_TABLES, *_COLUMN_TABLES)
"""Lists with these endings are tables; others have one path per line."""
PEEKED_BYTES: Final = 64 * 1024

_log = logging.getLogger("batchland")


class Entry(NamedTuple):
    """One entry of a list."""

    path: bytes
    """A path or a URL; empty for a blank line."""
    own: tuple[Any, ...] = ()
    """Its values of the own columns."""


class CsvTable:
    """A CSV file, separated by commas, semicolons or tabs. Its further columns are text; an empty cell is null.

    Raises UsageError if it is not a CSV file with a column of paths.
    """

    def __init__(self, text: TextIO, list_name: str) -> None:
        self._name, self._warned = list_name, False
        self._rows = CsvRows(text)
        _, self._header = next(self._checked(), (1, []))
        if not is_utf8(os.fsencode("".join(self._header))):
            raise UsageError(f"{list_name}: its header is not UTF-8 text; save the table as UTF-8")
        self._path = _path_column(self._header, list_name)
        self._own = _own_names(self._header, self._path, list_name)

    def own(self) -> "pa.Schema":
        """Its own columns."""
        import pyarrow as pa

        return pa.schema([(name, pa.string()) for name in self._own])

    def entries(self) -> Iterator[Entry]:
        """Its rows."""
        places = {name: place for place, name in enumerate(self._header)}
        path, *own = (places[name] for name in (self._path, *self._own))
        for line, row in self._checked():
            if any(row[len(self._header) :]):
                raise UsageError(f"{self._name}, line {line}: has {len(row)} values, the header {len(self._header)}")
            if not self._warned and self._rows.lines > line:
                self._warned = True
                _log.warning("%s, line %d: a value contains a line break; is a quote missing?", self._name, line)
            cells = (row[place] if place < len(row) else "" for place in own)
            values = tuple(display_name(os.fsencode(cell)) or None for cell in cells)
            yield Entry(os.fsencode(row[path].lstrip(BOM)) if len(row) > path else b"", values)

    def _checked(self) -> Iterator[tuple[int, list[str]]]:
        try:
            yield from self._rows
        except CsvError as error:
            raise UsageError(f"{self._name}: cannot be read as CSV ({error})") from error


class ColumnTable:
    """A Parquet or ORC file. Its own columns have the table's types. Raises UsageError as CsvTable does."""

    def __init__(self, file: IO[bytes], list_name: str, *, orc: bool = False) -> None:
        self._name, self._kind = list_name, "ORC" if orc else "Parquet"
        try:
            self._schema, self._read = (open_orc if orc else open_parquet)(file)
        except Exception as error:  # Arrow raises almost anything on damaged files
            raise self._unreadable(error) from error
        self._path = _path_column(self._schema.names, list_name)
        if not orc:
            self._check_type(self._schema.field(self._path).type)

    def own(self) -> "pa.Schema":
        """Its own columns: those of simple types. A warning names the others."""
        own, others = self._own()
        if others:
            _log.warning("%s: left out, because they hold no simple values: %s", self._name, ", ".join(others))
        return own

    def entries(self) -> Iterator[Entry]:
        """Its rows."""
        names = self._own()[0].names
        from batchland.system.arrow import plain_values

        try:
            for rows in self._read([self._path, *names]):
                own = [plain_values(rows.column(name)) for name in names]
                values = zip(*own, strict=True) if own else repeat(())
                yield from map(Entry, _paths(rows.column(self._path)), values)
        except Exception as error:  # as above
            if isinstance(error, OSError) and error.errno:  # of reading; decoding errors have no errno
                raise
            raise self._unreadable(error) from error

    def _own(self) -> tuple["pa.Schema", list[str]]:
        """Its own columns of simple types, and the names of the others."""
        import pyarrow as pa

        from batchland.system.arrow import plain_columns

        names = _own_names(self._schema.names, self._path, self._name)
        own = plain_columns(pa.schema([self._schema.field(name) for name in names]))
        kept = set(own.names)
        return own, [name for name in names if name not in kept]

    def _check_type(self, kind: "pa.DataType") -> None:
        import pyarrow as pa

        text = kind.value_type if pa.types.is_dictionary(kind) else kind
        if text not in (pa.string(), pa.large_string(), pa.string_view()):
            raise UsageError(f"{self._name}: column {self._path} holds {kind}, not paths")

    def _unreadable(self, error: Exception) -> UsageError:
        reason = first_line(error)
        return UsageError(f"{self._name}: cannot be read as {self._kind} ({reason}); write it again")


@contextmanager
def open_table(file: IO[bytes], list_name: str) -> Iterator[CsvTable | ColumnTable | None]:
    """The table in a file, by the suffix of its name; None if it is a list of lines. Raises UsageError."""
    suffix = os.path.splitext(split_url(list_name).path)[1].lower()  # noqa: PTH122
    if suffix in _TEXT_TABLES:
        check_content(problem_with(cast("io.BufferedReader", file).peek(PEEKED_BYTES)), list_name)
        with io.TextIOWrapper(file, "utf-8", errors="surrogateescape", newline="") as text:
            yield CsvTable(text, list_name)
    else:
        yield ColumnTable(file, list_name, orc=suffix == ".orc") if suffix in _COLUMN_TABLES else None


def open_parquet(file: IO[bytes]) -> "tuple[pa.Schema, Read]":
    """The schema of a Parquet file, and a function that reads some of its columns."""
    import pyarrow.parquet as pq

    from batchland.system.arrow import parquet_batches

    parquet = pq.ParquetFile(file)
    return parquet.schema_arrow, lambda columns: parquet_batches(parquet, columns)


def open_orc(file: IO[bytes]) -> "tuple[pa.Schema, Read]":
    """The same of an ORC file."""
    from pyarrow.orc import ORCFile

    orc = ORCFile(file)
    return orc.schema, lambda columns: (orc.read_stripe(number, columns=columns) for number in range(orc.nstripes))


def _path_column(names: Sequence[str], list_name: str) -> str:
    exact = [name for column in COLUMNS for name in names if name == column]
    found = exact or [name for column in COLUMNS for name in names if name.lower() == column]
    if not found:
        raise UsageError(f"{list_name}: has no column {', '.join(COLUMNS)}, only {', '.join(names) or 'nothing'}")
    same = [name for name in found if name.lower() == found[0].lower()]
    if len(same) > 1:
        raise UsageError(f"{list_name}: has {len(same)} columns {found[0]}; keep one")
    return found[0]


def _own_names(names: Sequence[str], path: str, list_name: str) -> list[str]:
    """The further columns. Predictions that serve as a list have none. Raises UsageError if two have one name."""
    if set(names) >= _OF_PREDICTIONS:
        return []
    own = [name for name in names if name not in ("", path, TRUTH)]
    twice, count = max(Counter(own).items(), key=itemgetter(1), default=("", 0))
    if count > 1:
        raise UsageError(f"{list_name}: has {count} columns {twice}; keep one, or rename them")
    return own


def _paths(column: "pa.Array") -> list[bytes]:
    from batchland.system.arrow import text_bytes

    try:
        return [os.fsencode(path or "") for path in column.to_pylist()]
    except UnicodeDecodeError:
        return [path or b"" for path in text_bytes(column)]


def check_content(problem: str | None, list_name: str) -> None:
    """Raise UsageError if there is a problem with the content of a list."""
    if problem:
        raise UsageError(f"{list_name}: {problem}; a list has one path per line, or is a .csv, .parquet or .orc table")
