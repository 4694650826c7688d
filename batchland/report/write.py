"""An Evaluation as files: summary.json, tables for analysts, and one page that people open.

files = write_report(evaluation, Path("report/"))
"""

import os
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, Field

from batchland.errors import OutputError, UsageError
from batchland.evaluation.saved import FILES
from batchland.system.files import check_writable, is_leftover, remove_leftovers, write_file
from batchland.system.options import Options

if TYPE_CHECKING:
    from batchland.evaluation.evaluate import Evaluation
    from batchland.evaluation.gates import GateResult


class ReportOptions(Options):
    """How the page is made. No figure depends on it."""

    picture_bytes: Annotated[int, Field(ge=0)] = 900_000
    """Of all thumbnails on the page together, as base64; 0 shows none."""
    thumbnail_side: Annotated[int, Field(ge=32, le=512)] = 168
    """Longest side of a thumbnail, pixels."""
    gallery: Annotated[int, Field(ge=0, le=500)] = 24
    """Images per gallery."""
    command: str | None = None
    """The command line, for the page's provenance."""
    overwrite: bool = False
    """Write into a folder that holds other things. They stay."""


class ReportFiles(NamedTuple):
    """Where the parts of a report are."""

    folder: Path
    summary: Path
    html: Path
    per_class: Path
    per_class_csv: Path
    confusion: Path
    mistakes: Path
    outcomes: Path


def write_report(
    evaluation: "Evaluation",
    out: str | os.PathLike[str],
    options: ReportOptions | None = None,
    *,
    gates: Sequence["GateResult"] = (),
) -> ReportFiles:
    """Write the report's files into the folder `out`; an earlier report there is replaced.

    Each file appears by rename, summary.json last and after the old one is gone: a folder with a summary is whole.
    gates: results to show on the page.

    Raises UsageError if the folder holds something else, OutputError if it cannot be written.
    """
    from batchland.report.page import render

    options = options or ReportOptions()
    folder = Path(out)
    check_folder(folder, overwrite=options.overwrite)
    tables = {name: getattr(evaluation, name) for name in ("per_class", "confusion", "mistakes", "outcomes")}
    write_folder(folder, tables, render(evaluation, options, gates), evaluation.summary)
    paths = (folder / name for name in FILES)
    return ReportFiles(folder, *paths)


def write_folder(folder: Path, tables: Mapping[str, pa.Table], html: str, summary: BaseModel) -> None:
    """Write tables (`per_class` as CSV, too), page and summary, the summary last. Raises OutputError."""
    from pyarrow import csv

    text = summary.model_dump_json(indent=2) + "\n"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        remove_leftovers(folder)
        (folder / "summary.json").unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"{folder}: the report cannot be written ({error.strerror or error})") from error
    for name, table in tables.items():
        write_file(folder / f"{name}.parquet", partial(pq.write_table, table, compression="zstd"))
    write_file(folder / "per_class.csv", partial(csv.write_csv, tables["per_class"]))
    write_file(folder / "report.html", html)
    write_file(folder / "summary.json", text)


def check_folder(folder: Path, *, overwrite: bool = False, names: Sequence[str] = FILES) -> None:
    """Raise UsageError if `folder` holds something that is not a report (only files called `names` are one's).

    Raises OutputError if nothing can be written there.
    """
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder}: is a file; a report is a folder, give another --out")
    check_writable(folder)
    if overwrite or not folder.exists():
        return
    foreign = sorted(path.name for path in folder.iterdir() if path.name not in names and not is_leftover(path.name))
    if foreign:
        raise UsageError(
            f"{folder}: holds {foreign[0]!r}, which is no part of a report; give another --out, or --overwrite to "
            f"write beside it"
        )
