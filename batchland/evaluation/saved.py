"""Read a saved evaluation back: the files in a report folder."""

import os
from pathlib import Path
from typing import Final, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ValidationError

from batchland.errors import UsageError
from batchland.evaluation.schema import EvaluationSummary

FILES: Final = (
    "summary.json",
    "report.html",
    "per_class.parquet",
    "per_class.csv",
    "confusion.parquet",
    "mistakes.parquet",
    "outcomes.parquet",
)


class Report(NamedTuple):
    """A report as it was read back."""

    folder: Path
    summary: EvaluationSummary
    per_class: pa.Table
    outcomes: pa.Table


def read_report(folder: str | os.PathLike[str]) -> Report:
    """Read what `compare` and baselines need of a report. Raises UsageError."""
    path = Path(folder)
    try:
        summary = read_summary(path)
        tables = [pq.ParquetFile(path / name).read() for name in ("per_class.parquet", "outcomes.parquet")]
    except (OSError, pa.ArrowException) as error:
        raise UsageError(f"{path}: its tables cannot be read ({error}); evaluate again") from error
    return Report(path, summary, *tables)


def read_summary(folder: Path) -> EvaluationSummary:
    """The summary of a report folder. Raises UsageError."""
    path = folder / "summary.json"
    if not path.exists():
        raise UsageError(f"{folder}: holds no summary.json; give a folder that `batchland evaluate` wrote")
    try:
        return EvaluationSummary.model_validate_json(path.read_bytes())
    except ValidationError as error:
        where = ".".join(map(str, error.errors()[0]["loc"])) or "the file"
        raise UsageError(f"{path}: is no summary that this batchland reads ({where}); evaluate again") from error
