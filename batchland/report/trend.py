"""Draw the trend's page: gathers what its template needs from the table of nights."""

from datetime import date
from typing import TYPE_CHECKING

from batchland import __version__
from batchland.drift import CHANCE, MOVED, MOVED_FAR
from batchland.report.page import render_page
from batchland.report.trend_findings import findings, headline
from batchland.report.trend_model import Mark, Row, model_view
from batchland.report.trend_plots import Calendar
from batchland.report.wording import visible

if TYPE_CHECKING:
    from batchland.trend import Trend


def render(trend: "Trend") -> str:
    """The trend as one HTML document that requests nothing."""
    every = _rows(trend)
    days = sorted({row["date"] for row in every})
    left_out, days = days[: -trend.options.nights], days[-trend.options.nights :]
    rows = [row for row in every if row["date"] >= days[0]]
    calendar = Calendar(days)
    names = dict.fromkeys(row["model"] for row in rows if row["model"] is not None)
    by_model = {name: [row for row in rows if row["model"] == name] for name in names}
    return render_page(
        "trend.html.j2",
        job=trend.job,
        options=trend.options,
        days=days,
        left_out=len(left_out),
        headline=headline(rows),
        findings=findings(rows, by_model),
        models=[
            model_view(name, f"model-{place}", rows, calendar) for place, (name, rows) in enumerate(by_model.items(), 1)
        ],
        column_width=calendar.width * 1.25,
        faults=_faults(rows, calendar),
        nights=sorted(rows, key=lambda row: row["date"], reverse=True),  # of one night, the job's order
        limits={"moved": MOVED, "moved_far": MOVED_FAR, "chance": CHANCE},
        version=__version__,
    )


def _rows(trend: "Trend") -> list[Row]:
    """The rows of the table, each with those that it is compared with at hand, as `reference_rows`."""
    rows: list[Row] = trend.table.to_pylist()
    by_night = {(row["model"], row["date"]): row for row in rows}
    for row in rows:
        row["reference_rows"] = [by_night[row["model"], night] for night in row["compared_with"] or ()]
    return rows


def _faults(rows: list[Row], calendar: Calendar) -> list[Mark]:
    """The nights that did not end well, for the foot of every plot."""
    outcomes: dict[date, str] = {row["date"]: row["outcome"] for row in rows}
    return [Mark(calendar(day), f"{day}: {visible(outcome)}") for day, outcome in outcomes.items() if outcome != "ok"]
