"""A section of the trend page: figures of the last night, plots over the nights, changed classes."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from datetime import date
from functools import partial
from itertools import pairwise
from typing import Any, Final, NamedTuple

from batchland.evaluation.intervals import rate
from batchland.evaluation.schema import Figure
from batchland.monitoring.drift import MOVED_FAR, Drift
from batchland.system.text import count, interval, percent, visible
from batchland.trend.plots import Calendar, Columns, Plot, Row, Value, column_plot, line_plot, values_of

COLOURS: Final = 8
"""The most frequent classes have one colour each; the others share another."""
MEASURES: Final = {"class": "predicted classes", "confidence": "confidences"}
"""Drift is measured on these: prefix of the columns, and name."""


class NightMark(NamedTuple):
    """An event of one night, marked in the plots at `x`."""

    x: float
    title: str
    kind: str = "fault"
    """`fault`: did not end well. `suspicious`: by the monitor. `accepted`: suspicious, but accepted by a person."""
    raised: bool = False
    """Whether another mark of the night is below it."""


class Tile(NamedTuple):
    """A figure of the last night, in a box."""

    what: str
    value: str
    note: str


class Share(NamedTuple):
    """A class's share of the predictions, in the reference (`before`) and in the last night (`now`)."""

    label: str
    before: float | None
    now: float
    change: float | None


class ModelView(NamedTuple):
    """A section of the page: the nights of a lane (see timeline.py). A plot is None if no night has its values."""

    name: str
    """Of the current model."""
    anchor: str
    last: date | None
    """The last night with a complete partition."""
    tiles: tuple[Tile, ...]
    shares: tuple[Share, ...]
    """The most changed class first."""
    legend: tuple[str, ...]
    """Labels in the order of colours."""
    accuracy: Plot | None
    confidence: Plot | None
    mix: Columns | None
    psi: Plot | None
    js: Plot | None
    failed: Plot | None
    speed: Plot | None
    replaced: tuple[NightMark, ...]
    reference: tuple[float, ...]
    """x of the reference nights."""


def model_view(name: str, anchor: str, rows: Sequence[Row], calendar: Calendar) -> ModelView:
    """The section with these rows, at most one for each night, oldest first."""
    scored = [row for row in rows if row["images"] is not None]
    answered = [row for row in rows if has_answers(row)]
    legend = _legend(answered)

    def plot(*series: Callable[[Row], Value | None], **axis: Any) -> Plot | None:
        values = [values_of(calendar, rows, make) for make in series]
        known = any(value.value is not None for line in values for value in line)
        return line_plot(calendar, values, **axis) if known else None

    return ModelView(
        name=name,
        anchor=anchor,
        last=scored[-1]["date"] if scored else None,
        tiles=tuple(_tiles(scored[-1])) if scored else (),
        shares=tuple(_shares(answered)),
        legend=legend,
        accuracy=plot(accuracy_value, percent=True),
        confidence=plot(partial(_value, name="mean_confidence", text=percent), percent=True),
        mix=column_plot(calendar, [_column(row, legend) for row in answered]) if answered else None,
        psi=plot(*(partial(_drift, what=what, measure="psi") for what in MEASURES), low=0, high=MOVED_FAR),
        js=plot(*(partial(_drift, what=what, measure="js") for what in MEASURES), low=0, high=0.2),
        failed=plot(_failed, percent=True, low=0, high=0.01),
        speed=plot(partial(_value, name="images_per_second", text="{:,.1f}".format), low=0, high=1),
        replaced=tuple(
            NightMark(calendar(after["date"]), change_title(before, after)) for before, after in replacements(rows)
        ),
        reference=tuple(calendar(row["date"]) for row in rows if row["reference"]),
    )


def replacements(rows: Sequence[Row]) -> Iterator[tuple[Row, Row]]:
    """The nights before and after each change of the model to another file, by its content."""
    known = [row for row in rows if row["model_sha256"]]
    return ((before, row) for before, row in pairwise(known) if before["model_sha256"] != row["model_sha256"])


def change_title(before: Row, after: Row) -> str:
    """What changed between two nights with different models."""
    renamed = before["model"] != after["model"]
    what = f"{visible(before['model'])} replaced by {visible(after['model'])}" if renamed else "a new version"
    return f"{after['date']}: {what}, sha256 {after['model_sha256'][:12]}"


def shares(rows: Sequence[Row]) -> dict[str, float]:
    """Shares of the predicted classes over all these nights, the most frequent first."""
    counts: Counter[str] = Counter()
    for row in rows:
        counts.update({each["label"]: each["images"] for each in row["classes"]})
    total = counts.total()
    return {label: images / total for label, images in counts.most_common() if images}


def drift_of(row: Row, what: str) -> Drift | None:
    """The drift of a night, `what` being a key of MEASURES."""
    psi, limit, js = (row[f"{what}_{name}"] for name in ("psi", "psi_limit", "js"))
    return None if psi is None else Drift(psi, limit, js)


def has_answers(row: Row) -> bool:
    """Whether an image of the night was scored."""
    return any(each["images"] for each in row["classes"] or ())


def failed_figure(row: Row) -> Figure | None:
    """Share of a night's images that failed, with its interval; None without images."""
    return rate(row["failed"], row["images"], 0.95) if row["images"] else None


def _tiles(row: Row) -> Iterator[Tile]:
    if row["accuracy"] is not None:
        bounds = Figure(value=row["accuracy"], low=row["accuracy_low"], high=row["accuracy_high"])
        yield Tile("accuracy", percent(row["accuracy"]), interval(bounds))
    if row["estimated_accuracy"] is not None:
        yield Tile("estimated accuracy", percent(row["estimated_accuracy"]), interval(_estimate(row)))
    if row["mean_confidence"] is not None:
        yield Tile("mean confidence", percent(row["mean_confidence"]), "")
    for what, name in MEASURES.items():
        if found := drift_of(row, what):
            yield Tile(f"PSI of {name}", f"{found.psi:.2f}", f"{found.verdict}; by chance up to {found.psi_limit:.2f}")
    if failed := failed_figure(row):
        yield Tile("failed", percent(failed.value), f"{count(row['failed'])} of {count(row['images'])}")
    if row["images_per_second"] is not None:
        yield Tile("images/s", f"{row['images_per_second']:,.1f}", "")


def _shares(answered: Sequence[Row]) -> list[Share]:
    if not answered:
        return []
    before, now = shares(answered[-1]["reference_rows"]), shares(answered[-1:])
    found = [
        Share(
            label,
            before.get(label, 0.0) if before else None,
            now.get(label, 0.0),
            now.get(label, 0.0) - before.get(label, 0.0) if before else None,
        )
        for label in dict.fromkeys([*before, *now])
    ]
    return sorted(found, key=lambda share: -abs(share.now if share.change is None else share.change))


def _legend(answered: Sequence[Row]) -> tuple[str, ...]:
    """The most frequent classes over all nights: COLOURS of them, or one more if no others are left."""
    labels = list(shares(answered))
    return tuple(labels[: COLOURS + 1 if len(labels) == COLOURS + 1 else COLOURS])


def _value(row: Row, name: str, text: Callable[[float], str]) -> Value | None:
    value = row[name]
    return None if value is None else Value(row["date"], value, f"{row['date']}: {text(value)}")


def accuracy_value(row: Row) -> Value | None:
    """The accuracy of a night with its interval, marked if a gate failed; None without labels."""
    value = row["accuracy"]
    if value is None:
        return None
    bounds = interval(Figure(value=value, low=row["accuracy_low"], high=row["accuracy_high"]))
    title = f"{row['date']}: {percent(value)} ({bounds}) of {count(row['labelled'])} labelled images"
    return Value(row["date"], value, title, row["accuracy_low"], row["accuracy_high"], row["gates"] == "failed")


def estimate_value(row: Row) -> Value | None:
    """The accuracy of a night that was estimated without labels, with its interval; None if it was not."""
    value = row["estimated_accuracy"]
    if value is None:
        return None
    title = f"{row['date']}: estimated {percent(value)} ({interval(_estimate(row))})"
    return Value(row["date"], value, title, row["estimated_low"], row["estimated_high"])


def _estimate(row: Row) -> Figure:
    return Figure(value=row["estimated_accuracy"], low=row["estimated_low"], high=row["estimated_high"])


def _failed(row: Row) -> Value | None:
    figure = failed_figure(row)
    if figure is None:
        return None
    title = f"{row['date']}: {count(row['failed'])} of {count(row['images'])} images, {percent(figure.value)}"
    return Value(row["date"], figure.value, title)


def _drift(row: Row, what: str, measure: str) -> Value | None:
    found = drift_of(row, what)
    if found is None:
        return None
    title = f"{row['date']}, {MEASURES[what]}: PSI {found.psi:.3f} (by chance up to {found.psi_limit:.3f}), "
    title += f"Jensen-Shannon {found.js:.3f}, {found.verdict}"
    return Value(row["date"], found.psi if measure == "psi" else found.js, title, marked=found.moved)


def _column(row: Row, legend: Sequence[str]) -> tuple[date, list[float], str]:
    own = shares([row])
    named = [own.get(label, 0.0) for label in legend]
    others = sum(share for label, share in own.items() if label not in legend)
    text = ", ".join(f"{visible(label)} {percent(share)}" for label, share in zip(legend, named, strict=True) if share)
    return row["date"], [*named, others], f"{row['date']}: {text}" + (f", others {percent(others)}" if others else "")
