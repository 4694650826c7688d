"""Read small CSV files that people edit, with commas, semicolons or tabs."""

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa

from batchland.errors import UsageError
from batchland.system.files import read_error
from batchland.system.regular_files import read_regular


def read_columns(path: Path, names: Sequence[str], what: str) -> list[list[str]]:
    """Columns of a CSV file as text, in the order of `names`. what: the kind of file, for errors: "a plan".

    Raises UsageError if the file is missing, is no CSV in UTF-8 or lacks a column; InputError if the storage fails.
    """
    from pyarrow import csv

    expected = f"{what}, with the columns {', '.join(names)}"
    try:
        header = read_regular(path).decode("utf-8-sig").partition("\n")[0]
        table = csv.read_csv(
            path,
            parse_options=csv.ParseOptions(delimiter=max(",;\t", key=header.count)),
            convert_options=csv.ConvertOptions(column_types=dict.fromkeys(names, pa.string())),
        )
    except OSError as error:
        raise read_error(error, str(path), expected=expected) from error
    except (UnicodeDecodeError, pa.ArrowException) as error:
        reason = str(error).partition("\n")[0]
        raise UsageError(f"{path}: is not {expected} ({reason})") from error
    for name in names:
        if (number := table.column_names.count(name)) != 1:
            has = f"{number} columns {name!r}" if number else f"no column {name!r}"
            raise UsageError(f"{path}: is not {expected}; it has {has}")
    return [table[name].to_pylist() for name in names]
