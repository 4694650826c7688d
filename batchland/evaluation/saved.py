"""Write and read the folder of an evaluation or a comparison: summary.json, tables, and a given page."""

import csv
import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import BaseModel, ValidationError

from batchland.errors import OutputError, UsageError
from batchland.evaluation.schema import EvaluationSummary
from batchland.evaluation.table_file import StoredTable, TableFile
from batchland.predictions.layout import check_no_predictions
from batchland.predictions.storage import display_location, input_location
from batchland.system.csv_files import FORMULA, csv_text
from batchland.system.files import (
    Replaceable,
    cannot_write,
    check_new_file,
    check_no_input,
    check_writable,
    is_leftover,
    remove_leftovers,
    write_file,
)
from batchland.system.input_mark import HEAD_BYTES, has_mark, read_mark
from batchland.system.urls import is_url

MISTAKES_FILE: Final = "mistakes.parquet"
_PAGE: Final = "report.html"
_SIGNS: Final = {
    _PAGE: b'<meta name="generator" content="batchland ',
    "summary.json": b'"batchland.',
    "per_class.csv": b'"support",',
}
"""Text near the beginning of each of these files, if batchland wrote it."""
REPORT_FILES: Final = (
    "summary.json",
    "report.html",
    "per_class.parquet",
    "per_class.csv",
    "confusion.parquet",
    MISTAKES_FILE,
    "outcomes.parquet",
    "curves.parquet",
)
COMPARISON_FILES: Final = ("summary.json", "report.html", "per_class.parquet", "per_class.csv", "flips.parquet")


class Report(NamedTuple):
    """A report as `read_report` reads it."""

    folder: Path
    summary: EvaluationSummary
    per_class: pa.Table
    outcomes_file: StoredTable
    """Read block by block."""

    @property
    def outcomes(self) -> pa.Table:
        """All rows of outcomes_file, in memory."""
        return self.outcomes_file.read()


def read_report(folder: str | os.PathLike[str]) -> Report:
    """Read those parts of a report that comparisons and baselines need. Raises UsageError."""
    path = Path(folder)
    try:
        summary = read_summary(path)
        per_class = StoredTable(path / "per_class.parquet").read()
        outcomes = StoredTable(path / "outcomes.parquet")
    except (OSError, pa.ArrowException) as error:
        raise UsageError(f"{path}: its tables cannot be read ({error}); evaluate again") from error
    for name, columns, needed in (
        ("outcomes", outcomes.schema.names, {"image", "true_label", "predicted_label"}),
        ("per_class", per_class.schema.names, {"class_index", "label", "support"}),
    ):
        if missing := sorted(needed.difference(columns)):
            raise UsageError(f"{path}: its {name}.parquet has no column {missing[0]}; evaluate again")
    return Report(path, summary, per_class, outcomes)


def read_summary(folder: Path) -> EvaluationSummary:
    """The summary of a report folder. Raises UsageError."""
    path = folder / "summary.json"
    if not path.exists():
        raise UsageError(f"{folder}: holds no summary.json; give a folder that `batchland evaluate` wrote")
    try:
        return EvaluationSummary.model_validate_json(path.read_bytes())
    except ValidationError as error:
        field = ".".join(map(str, error.errors()[0]["loc"])) or "the file"
        raise UsageError(
            f"{path}: not a summary that this version of batchland can read ({field}); evaluate again"
        ) from error


def check_folder(
    folder: Path,
    names: Sequence[str],
    *,
    inputs: Sequence[str] = (),
    reads: Sequence[Path] = (),
    overwrite: bool = False,
) -> None:
    """Raise UsageError if a report must not be written into `folder`, OutputError if it cannot be.

    Always refused: a file instead of a folder, and a folder that is one of `inputs` or `reads`, or holds one of them
    under one of `names`. Refused without `overwrite`: files with other names, files of a report without its page, and
    a report that was made from other `inputs`, if these are given.
    """
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder}: is a file; a report is a folder", advice="other_out")
    given = [*reads, *(Path(each) for each in inputs if not is_url(each))]
    for path in (folder, *(folder / name for name in names)):
        check_no_input(path, given)
    check_writable(folder)
    if overwrite or not folder.exists():
        return
    found = sorted(path for path in folder.iterdir() if not is_leftover(path.name))
    foreign = [path.name for path in found if path.name not in names]
    for name, sign in _SIGNS.items():
        if _lacks(folder / name, sign):
            raise UsageError(f"{folder}: holds a {name} that batchland did not write", advice="overwrite_beside")
    if foreign:
        raise UsageError(
            f"{folder}: holds {foreign[0]!r}, which this command does not write", advice="overwrite_beside"
        )
    files = [path.name for path in found if path.is_file() and path.stat().st_size]
    if files and _PAGE not in files:
        raise UsageError(
            f"{folder}: holds a {files[0]} without a {_PAGE} that says what it was made from",
            advice="overwrite_beside",
        )
    if files and not has_mark(folder / _PAGE, inputs):
        older = "" if read_mark(folder / _PAGE) else ", or by an earlier version of batchland"
        raise UsageError(f"{folder}: holds a report that was made from other files{older}", advice="overwrite_beside")


def _lacks(path: Path, sign: bytes) -> bool:
    """Whether a file exists, is not empty, and does not contain this near its beginning."""
    if not path.is_file() or not path.stat().st_size:
        return False
    with path.open("rb") as file:
        return sign not in file.read(HEAD_BYTES)


def write_folder(folder: Path, tables: Mapping[str, pa.Table | TableFile], summary: BaseModel, page: str) -> None:
    """Write report.html, which says what the others are made from, the tables, and summary.json last.

    `per_class` is also written as CSV. Raises OutputError.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        remove_leftovers(folder)
        (folder / "summary.json").unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(cannot_write(folder, error)) from error
    write_file(folder / _PAGE, page)
    for name, table in tables.items():
        content = table.copy_to if isinstance(table, TableFile) else partial(pq.write_table, table, compression="zstd")
        write_file(folder / f"{name}.parquet", content)
    write_file(folder / "per_class.csv", partial(write_csv, tables["per_class"]))
    write_file(folder / "summary.json", summary.model_dump_json(indent=2) + "\n")


def check_new_table(path: Path, schema: pa.Schema, predictions: Iterable[str], *, overwrite: bool = False) -> None:
    """`check_new_file` for a table with the column `predictions`, .csv or .parquet, that is made from `predictions`.

    It replaces only an earlier table with the same columns and no rows of other predictions. overwrite: any file but
    predictions.
    """
    locations = [input_location(each) for each in predictions]
    given = set(map(display_location, locations))
    suffix = path.suffix.lower()
    if suffix not in (".csv", ".parquet"):
        raise UsageError(f"{path}: give a name that ends in .csv or .parquet")
    check_no_predictions(path)
    earlier = Replaceable(
        "an earlier table of the same predictions", lambda file: _is_table_of(file, schema.names, given)
    )
    reads = [each for each in locations if isinstance(each, Path)]
    check_new_file(path, suffix, reads, replaces=earlier, overwrite=overwrite)


def _is_table_of(path: Path, columns: list[str], predictions: set[str]) -> bool:
    """Whether a .csv or .parquet file has these columns, and only rows of these predictions."""
    with suppress(OSError, pa.ArrowException, UnicodeDecodeError, csv.Error):
        if path.suffix.lower() == ".csv":
            with path.open(encoding="utf-8-sig", newline="") as file:
                rows = csv.DictReader(file)
                known = set(map(csv_text, predictions))
                return rows.fieldnames == columns and {row["predictions"] for row in rows} <= known
        if pq.read_schema(path).names == columns:
            return set(pq.read_table(path, columns=["predictions"])["predictions"].to_pylist()) <= predictions
    return False


def write_csv(table: pa.Table, file: BinaryIO) -> None:
    """UTF-8 with a byte order mark, for Excel. Text that Excel would run as a formula gets an apostrophe before it."""
    from pyarrow import csv as arrow_csv

    for number, field in enumerate(table.schema):
        if pa.types.is_string(field.type):
            safe = pc.replace_substring_regex(table[field.name], FORMULA, r"'\1")
            table = table.set_column(number, field, safe)
    file.write(b"\xef\xbb\xbf")
    arrow_csv.write_csv(table, file)
