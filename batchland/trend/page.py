"""Render the page over the nights of a job, and the page over all jobs."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from batchland.monitoring.drift import CHANCE, MOVED, MOVED_FAR
from batchland.nightly.run_text import outcome_text
from batchland.report.html import check_new_page, render_page
from batchland.report.options import ReportOptions
from batchland.report.plots import WIDTH
from batchland.system.text import visible
from batchland.trend.findings import findings, headline
from batchland.trend.measure import Trend
from batchland.trend.model_view import model_view
from batchland.trend.overview import JobView, overview_headline
from batchland.trend.plots import Calendar, Row
from batchland.trend.timeline import WIDE, is_suspicious, lanes, marks, timeline

TEMPLATES: Final = Path(__file__).parent / "templates"
_TREND: Final = "trend.html.j2"


def render(trend: Trend, inputs: Sequence[str] = ()) -> str:
    """The trend as one HTML document that loads nothing else. inputs: as for `render_page`."""
    rows, found_lanes = _shown(trend)
    days = sorted({row["date"] for row in rows})
    calendar = Calendar(days)
    return render_page(
        _TREND,
        folder=TEMPLATES,
        inputs=inputs,
        scripts=("map.js", "night_map.js") if trend.maps else (),
        maps=trend.maps,
        job=trend.job,
        options=trend.options,
        days=days,
        hidden_nights=len(set(trend.table["date"].to_pylist())) - len(days),
        headline=headline(rows),
        findings=findings(rows, found_lanes),
        wide=timeline(rows, WIDE),
        narrow=timeline(rows, WIDTH),
        lanes=list(found_lanes),
        models=[
            model_view(lane or of_lane[-1]["model"], f"model-{number}", of_lane, calendar)
            for number, (lane, of_lane) in enumerate(found_lanes.items(), 1)
        ],
        model_names={row["model"] for row in rows if row["model"] is not None},
        column_width=calendar.width * 1.25,
        night_marks=marks(rows, calendar),
        estimated=any(row["estimated_accuracy"] is not None for row in rows),
        nights=sorted(rows, key=lambda row: row["date"], reverse=True),  # stable: models in the job's order
        limits={"moved": MOVED, "moved_far": MOVED_FAR, "chance": CHANCE},
    )


def check_trend_page(path: Path, options: ReportOptions) -> None:
    """Raise UsageError if `path` cannot become the page of the records `options.inputs`."""
    check_new_page(path, _TREND, f"an earlier page of {', '.join(options.inputs) or 'a job'}", options)


def render_overview(runs: Path, views: Sequence[JobView], written: str) -> str:
    """The page over all jobs as one HTML document that loads nothing else. written: ISO 8601."""
    return render_page(
        "index.html.j2",
        folder=TEMPLATES,
        scripts=("overdue.js",),
        runs=str(runs),
        jobs=views,
        headline=overview_headline(views),
        written=written,
    )


def terminal_summary(trend: Trend) -> str:
    """Headline and findings of the page, for a terminal. Ends with a newline."""
    rows, found_lanes = _shown(trend)
    lines = (f"{finding.kind}: {finding.text}" for finding in findings(rows, found_lanes))
    return "\n".join((headline(rows), *lines)) + "\n"


def _shown(trend: Trend) -> tuple[list[Row], dict[str, list[Row]]]:
    """The rows of the nights on the page, all and by lane.

    Each gets `reference_rows`, those it is compared with, and `ended`, its outcome and verdict in words.
    """
    every: list[Row] = trend.table.to_pylist()
    by_night = {
        (key, row["date"]): row
        for row in reversed(every)
        for key in (None, row["model"], row["model_sha256"])  # as run_of chooses the run of a night
    }
    suspicious = {row["date"] for row in every if is_suspicious([row])}
    for row in every:
        outcome = visible(row["outcome"])
        row["ended"] = outcome_text(outcome, suspicious=row["date"] in suspicious, accepted=row["accepted"])
        keys = (row["model_sha256"], row["model"], None)
        row["reference_rows"] = [
            next(by_night[key, night] for key in keys if (key, night) in by_night)
            for night in row["compared_with"] or ()
        ]
    days = sorted({row["date"] for row in every})[-trend.options.nights :]
    rows = [row for row in every if row["date"] >= days[0]]
    return rows, lanes(rows)
