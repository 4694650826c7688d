"""The time line of a job: accuracy over all nights, across its models, with what happened in between."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from itertools import pairwise
from typing import Final, NamedTuple

from batchland.system.text import visible
from batchland.trend.model_view import NightMark, Row, accuracy_value
from batchland.trend.plots import Calendar, Plot, Value, line_plot

WIDE: Final = 980
"""Width of the time line on a desktop, in SVG units."""
LABEL_ROOM: Final = 90.0
"""SVG units that the text of a change needs; closer ones have a tooltip only."""


class ModelChange(NamedTuple):
    """The first night of another model or version."""

    x: float
    text: str
    """Empty where it would overlap the one before."""
    title: str


class Timeline(NamedTuple):
    """One drawing of the time line, for screens of one width."""

    width: int
    """SVG units."""
    calendar: Calendar
    accuracy: Plot
    changes: tuple[ModelChange, ...]
    marks: tuple[NightMark, ...]


def current_first(rows: Sequence[Row]) -> list[str]:
    """The names of the models: the one that ran last comes first; among equals, in the job's order."""
    last: dict[str, date] = {}
    for row in rows:
        if row["model"] is not None:
            last[row["model"]] = row["date"]
    return sorted(last, key=last.__getitem__, reverse=True)


def lanes(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Rows by line of the plot: one line if no night has two models, else one for each name, the current one first."""
    models = [row for row in rows if row["model"] is not None]
    if max(Counter(row["date"] for row in models).values(), default=0) <= 1:
        return {"": models} if models else {}
    return {name: [row for row in models if row["model"] == name] for name in current_first(rows)}


def timeline(rows: Sequence[Row], width: int) -> Timeline | None:
    """The time line of these rows, oldest first. None if no night has labels."""
    calendar = Calendar(sorted({row["date"] for row in rows}), width)
    found = lanes(rows)
    values = [_values(calendar, of_lane) for of_lane in found.values()]
    if not any(value.value is not None for line in values for value in line):
        return None
    return Timeline(
        width,
        calendar,
        line_plot(calendar, values, percent=True),
        tuple(_changes(calendar, found)),
        marks(rows, calendar),
    )


def marks(rows: Sequence[Row], calendar: Calendar) -> tuple[NightMark, ...]:
    """The nights that did not end well, for the foot of every plot."""
    outcomes: dict[date, str] = {row["date"]: row["outcome"] for row in rows}
    return tuple(
        NightMark(calendar(day), f"{day}: {visible(outcome).replace('_', ' ')}", "fault")
        for day, outcome in outcomes.items()
        if outcome != "ok"
    )


def _values(calendar: Calendar, rows: Sequence[Row]) -> list[Value]:
    """A value for each night of the page. A night without one breaks the line."""
    of_day = {row["date"]: row for row in rows}
    found = []
    for day in calendar.days:
        value = accuracy_value(of_day[day]) if day in of_day else None
        name = visible(of_day[day]["model"]) if day in of_day else ""
        found.append(value._replace(title=f"{name}, {value.title}") if value else Value(day, None, ""))
    return found


def _changes(calendar: Calendar, found: Mapping[str, Sequence[Row]]) -> Iterator[ModelChange]:
    changes = sorted(
        ((after["date"], before, after) for rows in found.values() for before, after in _replacements(rows)),
        key=lambda change: change[0],
    )
    free = 0.0
    for day, before, after in changes:
        x = calendar(day)
        other = before["model"] != after["model"]
        what = f"{visible(before['model'])} replaced by {visible(after['model'])}" if other else "a new version"
        text = f"{visible(after['model'])[:12]}{'' if other else ': new'}" if x >= free else ""
        free = x + LABEL_ROOM if text else free
        yield ModelChange(x, text, f"{day}: {what}, sha256 {after['model_sha256'][:12]}")


def _replacements(rows: Sequence[Row]) -> Iterator[tuple[Row, Row]]:
    known = [row for row in rows if row["model_sha256"]]
    return (
        (before, after)
        for before, after in pairwise(known)
        if (before["model"], before["model_sha256"]) != (after["model"], after["model_sha256"])
    )
