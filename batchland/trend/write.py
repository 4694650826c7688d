"""Write the trend page and, beside it, its table."""

from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from batchland.errors import UsageError
from batchland.system.files import write_file
from batchland.trend.measure import Trend
from batchland.trend.page import render
from batchland.trend.schema import TREND


class TrendFiles(NamedTuple):
    """The written files."""

    html: Path
    parquet: Path


def write_trend(trend: Trend, out: Path) -> TrendFiles:
    """Write the page to `out` and the table beside it, as `*.parquet`.

    Raises UsageError if `out` does not end in .html or would replace a table that is not a trend's; OutputError.
    """
    if out.suffix.lower() not in (".html", ".htm"):
        raise UsageError(f"{out}: the trend is a page; its name must end in .html")
    files = TrendFiles(out, out.with_suffix(".parquet"))
    if files.parquet.exists() and not _is_trend(files.parquet):
        raise UsageError(f"{files.parquet}: would be replaced, but is not the table of a trend", advice="other_out")
    page = render(trend)
    write_file(files.parquet, partial(pq.write_table, trend.table, compression="zstd"))
    write_file(files.html, page)
    return files


def _is_trend(table: Path) -> bool:
    """An earlier version's has fewer columns."""
    with suppress(OSError, pa.ArrowException):
        return {"outcome", "exit_code", "gates"} <= set(pq.read_schema(table).names) <= set(TREND.names)
    return False
