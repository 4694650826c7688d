"""Coordinates of the trend's plots, in SVG units: values over nights, and stacked shares."""

import math
from collections.abc import Callable, Sequence
from datetime import date, timedelta
from itertools import groupby
from typing import Any, Final, NamedTuple

from batchland.report.plots import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, Scale, Tick

Row = dict[str, Any]
"""A row of TREND, with `reference_rows`: the rows that it is compared with, and `ended`: how its night ended."""
CROWDED: Final = 100
"""With more nights, only marked points and points without neighbours are drawn; the others are part of the line."""


class Value(NamedTuple):
    """A value of one night, with its interval."""

    day: date
    value: float | None
    title: str
    """Tooltip."""
    low: float | None = None
    high: float | None = None
    marked: bool = False


class Point(NamedTuple):
    """A night's value and interval, as coordinates."""

    x: float
    y: float
    low: float | None
    high: float | None
    title: str
    marked: bool


class Series(NamedTuple):
    """Values over nights: points, and lines and bands between neighbouring nights with a value."""

    lines: tuple[str, ...]
    bands: tuple[str, ...]
    points: tuple[Point, ...]


class Plot(NamedTuple):
    """One plot over nights."""

    series: tuple[Series, ...]
    ticks_x: tuple[Tick, ...]
    ticks_y: tuple[Tick, ...]


class Column(NamedTuple):
    """A night's shares: (y, height, index of the class in the legend)."""

    x: float
    width: float
    parts: tuple[tuple[float, float, int], ...]
    title: str


class Columns(NamedTuple):
    """Shares of classes over nights."""

    columns: tuple[Column, ...]
    ticks_x: tuple[Tick, ...]
    ticks_y: tuple[Tick, ...]


class Calendar:
    """The horizontal axis of plots of one width. `calendar(day)` is the x of a day."""

    def __init__(self, days: Sequence[date], width: int = WIDTH) -> None:
        """width: of the plots, in SVG units."""
        first, last = min(days).toordinal(), max(days).toordinal()
        self.days = tuple(days)
        """Dates of the nights, in order."""
        self._days = last - first + 1
        self._first = first
        self._scale = Scale(first - 0.5, last + 0.5, LEFT, width - RIGHT)
        self.max_ticks = 6 * width // WIDTH
        self.width = max(1.0, round((width - RIGHT - LEFT) / self._days * 0.8, 1))
        """Width of a column, in pixels."""

    def __call__(self, day: date) -> float:
        """x of the middle of a day."""
        return self._scale(day.toordinal())

    def ticks(self) -> tuple[Tick, ...]:
        """A few dates, evenly spaced from the first one."""
        step = max(1, math.ceil(self._days / self.max_ticks))
        form = "%d %b" if self._days < 300 else "%b %Y"
        days = (date.fromordinal(self._first) + timedelta(days=offset) for offset in range(0, self._days, step))
        return tuple(Tick(self(day), day.strftime(form).lstrip("0")) for day in days)


def values_of(calendar: Calendar, rows: Sequence[Row], make: Callable[[Row], Value | None]) -> list[Value]:
    """A value for each night of the page. A night without one breaks the line."""
    found = {row["date"]: make(row) for row in rows}
    return [found.get(day) or Value(day, None, "") for day in calendar.days]


def line_plot(
    calendar: Calendar,
    series: Sequence[Sequence[Value]],
    *,
    percent: bool = False,
    low: float | None = None,
    high: float = 0.0,
) -> Plot:
    """Lines over the nights. low: lower end of the vertical axis, None for automatic. high: least upper end."""
    ends = [end for values in series for value in values for end in (value.value, value.low, value.high)]
    known = [end for end in ends if end is not None]
    steps = _steps(
        min(known, default=0.0) if low is None else low, max([high, *known]), ceiling=1.0 if percent else None
    )
    y = Scale(steps[0], steps[-1], HEIGHT - BOTTOM, TOP)
    return Plot(
        tuple(_series(calendar, y, values) for values in series),
        calendar.ticks(),
        tuple(Tick(y(step), _percent(step) if percent else f"{step:,g}") for step in steps),
    )


def column_plot(calendar: Calendar, nights: Sequence[tuple[date, Sequence[float], str]]) -> Columns:
    """Stacked shares, [classes] per night, the first class at the bottom."""
    y = Scale(0, 1, HEIGHT - BOTTOM, TOP)
    columns = []
    for day, shares, title in nights:
        parts, foot = [], 0.0
        for index, share in enumerate(shares):
            if share > 0:
                upper, lower = y(foot + share), y(foot)
                parts.append((upper, round(lower - upper, 1), index))
            foot += share
        columns.append(Column(round(calendar(day) - calendar.width / 2, 1), calendar.width, tuple(parts), title))
    steps = (0, 0.25, 0.5, 0.75, 1)
    return Columns(tuple(columns), calendar.ticks(), tuple(Tick(y(step), _percent(step)) for step in steps))


def _series(calendar: Calendar, y: Scale, values: Sequence[Value]) -> Series:
    lines, bands, points = [], [], []
    for known, run in groupby(values, key=lambda value: value.value is not None):
        if not known:
            continue
        part = [
            Point(
                calendar(value.day),
                y(value.value or 0.0),
                None if value.low is None else y(value.low),
                None if value.high is None else y(value.high),
                value.title,
                value.marked,
            )
            for value in run
        ]
        crowded = len(values) > CROWDED and len(part) > 1
        points += [point for point in part if point.marked] if crowded else part
        if len(part) > 1:
            lines.append(" ".join(f"{point.x},{point.y}" for point in part))
            upper = [f"{point.x},{point.high}" for point in part if point.high is not None]
            lower = [f"{point.x},{point.low}" for point in reversed(part) if point.low is not None]
            bands += [" ".join((*upper, *lower))] if upper and lower else []
    return Series(tuple(lines), tuple(bands), tuple(points))


def _steps(low: float, high: float, *, ceiling: float | None) -> list[float]:
    """Three to seven round values that span `low` to `high`, and at least 0.04, so that a flat curve stays flat."""
    room = max(high - low, 0.04)
    size = 10.0 ** math.floor(math.log10(room / 4))
    step = next(size * factor for factor in (1, 2, 2.5, 5, 10) if room / (size * factor) <= 5)
    first = math.floor((high + low - room) / 2 / step + 1e-9)
    last = math.ceil((high + low + room) / 2 / step - 1e-9)
    steps = [round(step * number, 10) for number in range(max(first, 0), last + 1)]
    return [value for value in steps if ceiling is None or value <= ceiling]


def _percent(value: float) -> str:
    return f"{value * 100:g}%"
