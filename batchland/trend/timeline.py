"""The time line of a job: accuracy over all nights, measured and estimated, across its models, with events."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import date
from functools import partial
from itertools import chain, groupby
from operator import itemgetter
from typing import Final, NamedTuple

from batchland.nightly.run_text import outcome_text
from batchland.system.text import visible
from batchland.trend.model_view import NightMark, accuracy_value, change_title, estimate_value, replacements
from batchland.trend.plots import Calendar, Plot, Row, Series, Value, line_plot, values_of

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
    measured, estimated = (
        [values_of(calendar, of_lane, partial(_named, make=make)) for of_lane in found.values()]
        for make in (accuracy_value, estimate_value)
    )
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
    """The nights that did not end well or were suspicious, for the foot of every plot. rows: oldest first.

    A suspicious night that failed for another reason has two marks, one above the other.
    """
    nights = (list(night) for _, night in groupby(rows, itemgetter("date")))
    return tuple(mark for night in nights for mark in _marks(night, calendar))


def _marks(night: Sequence[Row], calendar: Calendar) -> Iterator[NightMark]:
    """night: its rows, one for each model."""
    day, outcome, accepted = (night[0][name] for name in ("date", "outcome", "accepted"))
    suspicious = is_suspicious(night)
    since = min((row["since"] for row in night if row["since"]), default=None) if suspicious else None
    text = outcome_text(visible(outcome), suspicious=suspicious, accepted=accepted, since=since)
    fault = outcome not in ("ok", "suspicious")
    mark = NightMark(calendar(day), f"{day}: {text}", "fault")
    if fault:
        yield mark
    if suspicious:
        yield mark._replace(kind="accepted" if accepted else "suspicious", raised=fault)


def is_suspicious(night: Sequence[Row]) -> bool:
    """Whether the night's outcome is suspicious, or the monitor's verdict on one of its models is."""
    return any("suspicious" in (row["outcome"], row["monitor"]) for row in night)


def _named(row: Row, make: Callable[[Row], Value | None]) -> Value | None:
    """The value of a night, with the name of the model in its title."""
    value = make(row)
    return value and value._replace(title=f"{visible(row['model'])}, {value.title}")


def _changes(calendar: Calendar, found: Mapping[str, Sequence[Row]]) -> Iterator[ModelChange]:
    free = 0.0
    for day, text, title in sorted(chain(_replaced(found), _added_or_removed(found))):
        x = calendar(day)
        shown = x >= free
        free = x + LABEL_ROOM if shown else free
        yield ModelChange(x, text if shown else "", title)


_Change = tuple[date, str, str]
"""Its first night, a short text and a title."""


def _replaced(found: Mapping[str, Sequence[Row]]) -> Iterator[_Change]:
    for rows in found.values():
        for before, after in replacements(rows):
            name, same = visible(after["model"])[:12], before["model"] == after["model"]
            yield after["date"], f"{name}: new" if same else name, change_title(before, after)


def _added_or_removed(found: Mapping[str, Sequence[Row]]) -> Iterator[_Change]:
    """Models of a job with several that run only before or only after some night of the page."""
    days = sorted({row["date"] for rows in found.values() for row in rows})
    for name, rows in found.items() if len(found) > 1 else ():
        first, last = rows[0]["date"], rows[-1]["date"]
        if first > days[0]:
            yield first, f"{visible(name)[:12]}: added", f"{first}: {visible(name)} added"
        if last < days[-1]:
            after = days[days.index(last) + 1]
            yield after, f"{visible(name)[:12]}: gone", f"{after}: no longer {visible(name)}"
