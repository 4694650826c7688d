"""Write the page over a job's nights with its table, and the page over all jobs."""

import logging
from collections.abc import Callable
from contextlib import suppress
from datetime import date, datetime
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from batchland.errors import BatchlandError, OutputError, UsageError
from batchland.nightly.dates import without_future
from batchland.nightly.record_files import read_runs
from batchland.predictions.layout import check_no_predictions
from batchland.report.html import is_page_of
from batchland.report.options import ReportOptions
from batchland.system.files import Replaceable, cannot_write, check_new_file, remove_leftovers, write_file
from batchland.system.lock import locked
from batchland.trend.measure import Trend, measure
from batchland.trend.overview import TREND_FILE, job_views
from batchland.trend.page import check_trend_page, render, render_overview
from batchland.trend.schema import TREND

OVERVIEW_FILE: Final = "index.html"
LOCK_WAIT: Final = 30.0
"""Seconds to wait for another job that writes the page over all jobs."""

_log = logging.getLogger("batchland")


class TrendFiles(NamedTuple):
    """The written files."""

    html: Path
    parquet: Path


def write_trend(trend: Trend, out: Path, options: ReportOptions | None = None) -> TrendFiles:
    """Write the page to `out` and the table beside it, as `*.parquet`.

    options: its `inputs` are the folder of the records; not all other options are used.

    Raises UsageError if `out` does not end in .html, or if a file would be replaced that is not of a trend, or a page
    of other `inputs` (unless `overwrite`); OutputError.
    """
    options = options or ReportOptions()
    files = TrendFiles(out, out.with_suffix(".parquet"))
    check_trend_page(files.html, options)
    earlier = Replaceable("the table of a trend", _is_trend)
    check_no_predictions(files.parquet)
    check_new_file(files.parquet, ".parquet", replaces=earlier, overwrite=options.overwrite)
    page = render(trend, options.inputs)
    write_file(files.parquet, partial(pq.write_table, trend.table, compression="zstd"))
    write_file(files.html, page)
    return files


def write_overview(runs: Path, today: date) -> Path:
    """Write `index.html` over all jobs into the folder of their records, and return its path.

    Jobs that end at the same time write one after the other, so that the page always has the latest night. today: later
    nights are left out. Raises UsageError without that folder, or if another index.html is there; OutputError.
    """
    out = runs / OVERVIEW_FILE
    if not runs.is_dir():
        raise UsageError(f"{runs}: there is no such folder; give the folder with the records of the jobs")
    try:
        with locked(runs / f".{OVERVIEW_FILE}.lock", str(out), wait=LOCK_WAIT):
            if out.exists() and out.stat().st_size and not is_page_of(out, "index.html.j2"):
                raise UsageError(f"{out}: is not an earlier page over all jobs; move it to another place")
            written = datetime.now().astimezone().isoformat(timespec="seconds")
            write_file(out, render_overview(runs, job_views(runs, today), written))
    except OSError as error:
        raise OutputError(cannot_write(out, error)) from error
    return out


def write_night_pages(folder: Path, today: date) -> None:
    """After a night: write the trend of the job with the records `folder` (`runs/NAME`), and the page over all jobs.

    Old temporary files of killed processes are removed there, too. Errors are logged as warnings, because no page may
    change how a night ends.
    """

    def trend() -> None:
        if records := without_future(read_runs(folder), today):
            options = ReportOptions(inputs=(str(folder),), overwrite=True)
            write_trend(measure(records), folder / TREND_FILE, options)

    if not folder.parent.is_dir():  # no record could be written, as the error of the night says
        return
    steps: list[Callable[[], object]] = [trend, partial(write_overview, folder.parent, today)]
    steps += [partial(remove_leftovers, place) for place in (folder, folder.parent) if place.is_dir()]
    for step in steps:
        try:
            step()
        except BatchlandError as error:
            _log.warning("%s", error)
        except Exception as error:  # of the storage, or a bug
            _log.warning("%s: a page cannot be written (%s: %s)", folder, type(error).__name__, error)


def _is_trend(table: Path) -> bool:
    """Whether the file is the table of a trend, also of an earlier version with fewer columns."""
    with suppress(OSError, pa.ArrowException):
        return {"outcome", "exit_code", "gates"} <= set(pq.read_schema(table).names) <= set(TREND.names)
    return False
