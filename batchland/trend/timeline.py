"""The time line of a job: accuracy over all nights, measured and estimated, across its models, with events."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import date
from itertools import groupby
from operator import itemgetter
from typing import Final, NamedTuple

from batchland.system.text import visible
from batchland.trend.model_view import NightMark, Row, accuracy_value, estimate_value, replacements
from batchland.trend.plots import Calendar, Plot, Series, Value, line_plot

WIDE: Final = 980
"""Width of the time line on a desktop, in SVG units."""
LABEL_ROOM: Final = 90.0
"""SVG units that the text of a change needs; changes that are closer together have only a tooltip."""


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
    """Measured on labels."""
    estimates: tuple[Series, ...]
    """Estimated without labels, in the same coordinates; empty without estimates."""
    changes: tuple[ModelChange, ...]
    marks: tuple[NightMark, ...]

    @property
    def measured(self) -> bool:
        """Whether a night has labels."""
        return any(series.points or series.lines for series in self.accuracy.series)


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
    """The time line of these rows, oldest first. None if no night has labels or an estimate."""
    calendar = Calendar(sorted({row["date"] for row in rows}), width)
    found = lanes(rows)
    measured = [_values(calendar, of_lane, accuracy_value) for of_lane in found.values()]
    estimated = [_values(calendar, of_lane, estimate_value) for of_lane in found.values()]
    if not any(value.value is not None for line in (*measured, *estimated) for value in line):
        return None
    plot = line_plot(calendar, [*measured, *estimated], percent=True)
    return Timeline(
        width,
        calendar,
        plot._replace(series=plot.series[: len(found)]),
        tuple(series for series in plot.series[len(found) :] if series.points or series.lines),
        tuple(_changes(calendar, found)),
        marks(rows, calendar),
    )


def marks(rows: Sequence[Row], calendar: Calendar) -> tuple[NightMark, ...]:
    """The nights that did not end well or were suspicious, for the foot of every plot. rows: oldest first."""
    nights = [list(night) for _, night in groupby(rows, itemgetter("date"))]
    return tuple(_mark(night, calendar) for night in nights if _is_suspicious(night) or night[0]["outcome"] != "ok")


def _mark(night: Sequence[Row], calendar: Calendar) -> NightMark:
    """night: its rows, one for each model."""
    day, outcome = night[0]["date"], night[0]["outcome"]
    fault = outcome not in ("ok", "suspicious")
    parts = [visible(outcome).replace("_", " ")] if fault else []
    if _is_suspicious(night):
        since = min((row["since"] for row in night if row["since"]), default=None)
        parts.append(f"suspicious since {since}" if since else "suspicious")
    if night[0]["accepted"]:
        parts.append("accepted")
    kind = "fault" if fault else "accepted" if night[0]["accepted"] else "suspicious"
    return NightMark(calendar(day), f"{day}: {', '.join(parts)}", kind)


def _is_suspicious(night: Sequence[Row]) -> bool:
    """Whether the night's outcome is suspicious, or, if the job only warns, the verdict on one of its models."""
    return any("suspicious" in (row["outcome"], row["monitor"]) for row in night)


def _values(calendar: Calendar, rows: Sequence[Row], make: Callable[[Row], Value | None]) -> list[Value]:
    """A value for each night of the page. A night without one breaks the line."""
    of_day = {row["date"]: row for row in rows}
    found = []
    for day in calendar.days:
        value = make(of_day[day]) if day in of_day else None
        name = visible(of_day[day]["model"]) if day in of_day else ""
        found.append(value._replace(title=f"{name}, {value.title}") if value else Value(day, None, ""))
    return found


def _changes(calendar: Calendar, found: Mapping[str, Sequence[Row]]) -> Iterator[ModelChange]:
    changes = sorted(
        ((after["date"], before, after) for rows in found.values() for before, after in replacements(rows)),
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
