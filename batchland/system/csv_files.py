"""Read small CSV files that people edit, with commas, semicolons or tabs, and find the faulty line of any CSV file."""

import csv
from collections.abc import Sequence
from itertools import chain
from pathlib import Path

import pyarrow as pa

from batchland.errors import UsageError
from batchland.system.files import read_error
from batchland.system.regular_files import read_regular
from batchland.system.text import counted, first_line


def read_columns(path: Path, names: Sequence[str], what: str) -> list[list[str]]:
    """Columns of a CSV file as text, in the order of `names`. what: the kind of file, for errors: "a plan".

    Raises UsageError if the file is missing, is no CSV in UTF-8 or lacks a column; InputError if the storage fails.
    """
    from pyarrow import csv as arrow_csv

    expected = f"{what}, with the columns {', '.join(names)}"
    try:
        header = read_regular(path).decode("utf-8-sig").partition("\n")[0]
        table = arrow_csv.read_csv(
            path,
            parse_options=arrow_csv.ParseOptions(delimiter=max(",;\t", key=header.count)),
            convert_options=arrow_csv.ConvertOptions(column_types=dict.fromkeys(names, pa.string())),
        )
    except OSError as error:
        raise read_error(error, str(path), expected=expected) from error
    except (UnicodeDecodeError, pa.ArrowException) as error:
        reason = first_fault(path) or first_line(error)
        raise UsageError(f"{path}: is not {expected} ({reason})") from error
    for name in names:
        if (number := table.column_names.count(name)) != 1:
            has = f"{number} columns {name!r}" if number else f"no column {name!r}"
            raise UsageError(f"{path}: is not {expected}; it has {has}")
    return [table[name].to_pylist() for name in names]


def first_fault(path: Path, filled: str = "") -> str | None:
    """The first faulty line of a CSV file: `line 7: has 3 values, the header has 2`. None if no fault is found.

    filled: the name of a column that may not be empty.
    """
    line = 1
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as text:
        first = text.readline()
        rows = csv.reader(chain([first], text), delimiter=max(",;\t", key=first.count), strict=True)
        header: list[str] = []
        try:
            for row in rows:
                header = header or row
                if any("\udc80" <= sign <= "\udcff" for sign in "".join(row)):  # bytes that could not be decoded
                    return f"line {line}: is not UTF-8"
                if row and len(row) != len(header):
                    return f"line {line}: has {counted(len(row), 'value')}, the header has {len(header)}"
                if row and filled and not row[header.index(filled)]:
                    return f"line {line}: has no {filled}"
                line = rows.line_num + 1
        except csv.Error as error:
            unclosed = "end of data" in str(error) or "field larger" in str(error)
            return f"line {line}: {'a quote is not closed' if unclosed else error}"
    return None
