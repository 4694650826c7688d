"""Draw the trend's page: gathers what its template needs from the table of nights."""

from datetime import date
from typing import TYPE_CHECKING

from batchland._version import __version__
from batchland.monitoring.drift import CHANCE, MOVED, MOVED_FAR
from batchland.report.html import render_page
from batchland.system.text import visible
from batchland.trend.findings import findings, headline
from batchland.trend.model_view import Mark, Row, model_view
from batchland.trend.plots import Calendar

if TYPE_CHECKING:
    from batchland.trend.measure import Trend


def render(trend: "Trend") -> str:
    """The trend as one HTML document that requests nothing."""
    rows, by_model = _shown(trend)
    days = sorted({row["date"] for row in rows})
    calendar = Calendar(days)
    return render_page(
        "trend.html.j2",
        job=trend.job,
        options=trend.options,
        days=days,
        left_out=len(set(trend.table["date"].to_pylist())) - len(days),
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


def terminal_summary(trend: "Trend") -> str:
    """What the page says first, for a terminal. Ends with a newline."""
    rows, by_model = _shown(trend)
    told = (f"{finding.kind}: {finding.text}" for finding in findings(rows, by_model))
    return "\n".join((headline(rows), *told)) + "\n"


def _shown(trend: "Trend") -> tuple[list[Row], dict[str, list[Row]]]:
    """The rows of the nights on the page, all and by model; each has those that it is compared with at hand."""
    every: list[Row] = trend.table.to_pylist()
    by_night = {(row["model"], row["date"]): row for row in every}
    for row in every:
        row["reference_rows"] = [by_night[row["model"], night] for night in row["compared_with"] or ()]
    days = sorted({row["date"] for row in every})[-trend.options.nights :]
    rows = [row for row in every if row["date"] >= days[0]]
    names = dict.fromkeys(row["model"] for row in rows if row["model"] is not None)
    return rows, {name: [row for row in rows if row["model"] == name] for name in names}


def _faults(rows: list[Row], calendar: Calendar) -> list[Mark]:
    """The nights that did not end well, for the foot of every plot."""
    outcomes: dict[date, str] = {row["date"]: row["outcome"] for row in rows}
    return [Mark(calendar(day), f"{day}: {visible(outcome)}") for day, outcome in outcomes.items() if outcome != "ok"]
