"""Where the marks of the trend's plots go, in SVG units: values over nights, and stacked shares. Knows no markup."""

import math
from collections.abc import Sequence
from datetime import date, timedelta
from itertools import groupby
from typing import Final, NamedTuple

from batchland.report.plots import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, Scale, Tick

CROWDED: Final = 100
"""Nights beyond which only marked and lonely ones are points, the others nothing but a line."""


class Value(NamedTuple):
    """What is known of one night."""

    day: date
    value: float | None
    title: str
    """What the point says when it is pointed at."""
    low: float | None = None
    high: float | None = None
    marked: bool = False


class Point(NamedTuple):
    """A night's value and where its interval ends."""

    x: float
    y: float
    low: float | None
    high: float | None
    title: str
    marked: bool


class Series(NamedTuple):
    """Values over nights: lines and bands between neighbouring nights that have one."""

    lines: tuple[str, ...]
    bands: tuple[str, ...]
    points: tuple[Point, ...]


class Plot(NamedTuple):
    """One plot over nights."""

    series: tuple[Series, ...]
    ticks_x: tuple[Tick, ...]
    ticks_y: tuple[Tick, ...]


class Column(NamedTuple):
    """A night's shares: (y, height, place of the class in the legend)."""

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
    """The horizontal axis that all plots of a page share."""

    def __init__(self, days: Sequence[date]) -> None:
        first, last = min(days).toordinal(), max(days).toordinal()
        self.days = tuple(days)
        """Of the nights, in order."""
        self._days = last - first + 1
        self._first = first
        self._scale = Scale(first - 0.5, last + 0.5, LEFT, WIDTH - RIGHT)
        self.width = max(1.0, round((WIDTH - RIGHT - LEFT) / self._days * 0.8, 1))
        """Of a column."""

    def __call__(self, day: date) -> float:
        """The place of a day's middle."""
        return self._scale(day.toordinal())

    def ticks(self, most: int = 6) -> tuple[Tick, ...]:
        """At most so many dates, evenly spaced from the first one."""
        step = max(1, math.ceil(self._days / most))
        form = "%d %b" if self._days < 300 else "%b %Y"
        days = (date.fromordinal(self._first) + timedelta(days=place) for place in range(0, self._days, step))
        return tuple(Tick(self(day), day.strftime(form).lstrip("0")) for day in days)


def line_plot(
    calendar: Calendar,
    series: Sequence[Sequence[Value]],
    *,
    percent: bool = False,
    low: float | None = None,
    high: float = 0.0,
) -> Plot:
    """Lines over the nights. low: where the vertical axis begins, None follows the values. high: its least top."""
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
    """Stacked shares, [classes] per night, the first class at the foot."""
    y = Scale(0, 1, HEIGHT - BOTTOM, TOP)
    columns = []
    for day, shares, title in nights:
        parts, foot = [], 0.0
        for place, share in enumerate(shares):
            if share > 0:
                upper, lower = y(foot + share), y(foot)
                parts.append((upper, round(lower - upper, 1), place))
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
    """Round values from below `low` to above `high`, three to seven of them; a flat curve is not blown up."""
    room = max(high - low, 0.04)
    size = 10.0 ** math.floor(math.log10(room / 4))
    step = next(size * factor for factor in (1, 2, 2.5, 5, 10) if room / (size * factor) <= 5)
    first = math.floor((high + low - room) / 2 / step + 1e-9)
    last = math.ceil((high + low + room) / 2 / step - 1e-9)
    steps = [round(step * place, 10) for place in range(max(first, 0), last + 1)]
    return [value for value in steps if ceiling is None or value <= ceiling]


def _percent(value: float) -> str:
    return f"{value * 100:g}%"
