"""Read small CSV files that people edit, with commas, semicolons or tabs, and find the faulty line of any CSV file."""

import csv
import re
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Final, NamedTuple, TextIO

import pyarrow as pa

from batchland.errors import UsageError
from batchland.system.files import read_error
from batchland.system.regular_files import read_regular
from batchland.system.text import count, counted, first_line

FORMULA: Final = r"^('*[=+\-@\t\r])"
"""The beginning of text that a spreadsheet runs as a formula, or that looks like text of `csv_text`."""
BOM: Final = "\ufeff"
"""Byte order mark, which some editors write at the start of a file. Joined files may have several, also inside."""
_QUOTED: Final = re.compile(r'"(?:[^"]|"")*"')
_SEPARATOR_LINE: Final = re.compile(r'"?sep=([,;|:\t])"?\s*', re.I)


class CsvError(csv.Error):
    """A row that cannot be read."""

    def __init__(self, line: int, error: csv.Error) -> None:
        reason = str(error)
        if "end of data" in reason:
            reason = "a quote is not closed"
        elif "field larger" in reason:
            reason = f"a value has more than {count(csv.field_size_limit())} characters; shorten it, or close its quote"
        super().__init__(f"line {line}: {reason}")


class CsvRows:
    """Iterate over the rows of an open CSV file, each with the number of its first line. Raises CsvError.

    One line, `sep=;`, may stand before the header to tell Excel the separator.
    """

    def __init__(self, text: TextIO) -> None:
        first = text.readline().lstrip(BOM)
        named = _SEPARATOR_LINE.fullmatch(first)
        self.separator: str = named[1] if named else max(",;\t", key=_QUOTED.sub("", first).count)
        self._before = 1 if named else 0
        self._rows = csv.reader(text if named else chain([first], text), delimiter=self.separator, strict=True)

    @property
    def lines(self) -> int:
        """Number of lines that have been read."""
        return self._before + self._rows.line_num

    def __iter__(self) -> Iterator[tuple[int, list[str]]]:
        line = self.lines + 1
        try:
            for row in self._rows:
                yield line, row
                line = self.lines + 1
        except csv.Error as error:
            raise CsvError(line, error) from error


def csv_text(text: str) -> str:
    """Text for a CSV file: with an apostrophe before what a spreadsheet would run as a formula."""
    return re.sub(FORMULA, r"'\1", text)


def plain_text(text: str) -> str:
    """The text of which `csv_text` made this; other text stays as it is."""
    return text[1:] if text.startswith("'") and re.match(FORMULA, text) else text


def read_columns(path: Path, names: Sequence[str], what: str, optional: Sequence[str] = ()) -> list[list[str]]:
    """Columns of a CSV file as text, in the order of `names` and `optional`. what: for errors, like "a plan".

    Names of columns may have capital letters and blanks around them. An optional column that is missing is empty.
    Raises UsageError if the file is missing, is no CSV in UTF-8 or lacks a column; InputError if the storage fails.
    """
    from pyarrow import csv as arrow_csv

    expected = f"{what}, with the columns {', '.join(names)}"
    try:
        content = pa.BufferReader(read_regular(path))
        header = read_header(path)
        found = [name.lower() for name in header.names]
        table = arrow_csv.read_csv(
            content,
            read_options=arrow_csv.ReadOptions(skip_rows=header.lines, column_names=found),
            parse_options=arrow_csv.ParseOptions(delimiter=header.separator),
            convert_options=arrow_csv.ConvertOptions(column_types=dict.fromkeys(found, pa.string())),
        )
    except OSError as error:
        raise read_error(error, str(path), expected=expected) from error
    except (UnicodeDecodeError, csv.Error, pa.ArrowException) as error:
        reason = first_fault(path) or first_line(error)
        raise UsageError(f"{path}: is not {expected} ({reason})") from error
    for name in (*names, *optional):
        number = found.count(name)
        if number > 1 or (not number and name in names):
            has = f"{number} columns {name!r}" if number else f"no column {name!r}"
            raise UsageError(f"{path}: is not {expected}; it has {has}")
    empty = [""] * len(table)
    return [table[name].to_pylist() if name in found else empty for name in (*names, *optional)]


class Header(NamedTuple):
    """The first row of a CSV file."""

    names: list[str]
    """Without blanks around them."""
    separator: str
    lines: int
    """Number of lines up to the end of the header."""
    alone: bool
    """Whether nothing follows it."""


def read_header(path: Path) -> Header:
    """Read the header of a CSV file. Raises OSError, UnicodeDecodeError or csv.Error."""
    with path.open(encoding="utf-8-sig", newline="") as text:
        rows = CsvRows(text)
        _, names = next(iter(rows), (1, []))
        return Header([name.strip() for name in names or [""]], rows.separator, rows.lines, alone=not text.read(1))


def first_fault(path: Path, filled: str = "") -> str | None:
    """The first faulty line of a CSV file: `line 7: has 3 values, the header has 2`. None if no fault is found.

    filled: the name of a column that may not be empty.
    """
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as text:
        header: list[str] = []
        try:
            for line, row in CsvRows(text):
                header = header or row
                if any("\udc80" <= sign <= "\udcff" for sign in "".join(row)):  # bytes that could not be decoded
                    return f"line {line}: is not UTF-8"
                if row and len(row) != len(header):
                    return f"line {line}: has {counted(len(row), 'value')}, the header has {len(header)}"
                if row and filled in header and not row[header.index(filled)]:
                    return f"line {line}: has no {filled}"
        except CsvError as error:
            return str(error)
    return None
