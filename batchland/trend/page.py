"""Render the page over the nights of a job, and the page over all jobs."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from batchland.monitoring.drift import CHANCE, MOVED, MOVED_FAR
from batchland.report.html import check_new_page, render_page
from batchland.report.options import ReportOptions
from batchland.report.plots import WIDTH
from batchland.trend.findings import findings, headline
from batchland.trend.measure import Trend
from batchland.trend.model_view import Row, model_view
from batchland.trend.overview import JobView, overview_headline
from batchland.trend.plots import Calendar
from batchland.trend.timeline import WIDE, current_first, lanes, marks, timeline

TEMPLATES: Final = Path(__file__).parent / "templates"
_TREND: Final = "trend.html.j2"


def render(trend: Trend, inputs: Sequence[str] = ()) -> str:
    """The trend as one HTML document that loads nothing else. inputs: as for `render_page`."""
    rows, by_model = _shown(trend)
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
        findings=findings(rows, by_model),
        wide=timeline(rows, WIDE),
        narrow=timeline(rows, WIDTH),
        lanes=list(lanes(rows)),
        models=[
            model_view(name, f"model-{number}", rows, calendar)
            for number, (name, rows) in enumerate(by_model.items(), 1)
        ],
        column_width=calendar.width * 1.25,
        night_marks=marks(rows, calendar),
        estimated=any(row["estimated_accuracy"] is not None for row in rows),
        nights=sorted(rows, key=lambda row: row["date"], reverse=True),  # stable: models in the job's order
        limits={"moved": MOVED, "moved_far": MOVED_FAR, "chance": CHANCE},
    )


def check_trend_page(path: Path, options: ReportOptions) -> None:
    """Raise UsageError if the page of the records `options.inputs` cannot become the file `path`."""
    check_new_page(path, _TREND, "an earlier page of the same job", options)


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
    rows, by_model = _shown(trend)
    lines = (f"{finding.kind}: {finding.text}" for finding in findings(rows, by_model))
    return "\n".join((headline(rows), *lines)) + "\n"


def _shown(trend: Trend) -> tuple[list[Row], dict[str, list[Row]]]:
    """The rows of the nights on the page, all and by model, the current model first.

    Each gets `reference_rows`, those it is compared with.
    """
    every: list[Row] = trend.table.to_pylist()
    by_night = {(row["model"], row["date"]): row for row in every}
    for row in every:
        row["reference_rows"] = [by_night[row["model"], night] for night in row["compared_with"] or ()]
    days = sorted({row["date"] for row in every})[-trend.options.nights :]
    rows = [row for row in every if row["date"] >= days[0]]
    return rows, {name: [row for row in rows if row["model"] == name] for name in current_first(rows)}
