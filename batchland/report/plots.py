"""Coordinates of the plots on the page, in SVG units. The templates draw them."""

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np

from batchland.evaluation.schema import CoveragePoint, ReliabilityBin
from batchland.system.text import images, percent

WIDTH: Final = 420
HEIGHT: Final = 300
LEFT: Final = 56
RIGHT: Final = 22
TOP: Final = 22
BOTTOM: Final = 42
TEXT_WIDTH: Final = 30
TEXT_HEIGHT: Final = 14
"""Size of a mark's text with the space around it."""
AXES: Final = (
    (0.95, 0.01), (0.9, 0.02), (0.8, 0.05), (0.7, 0.1), (0.6, 0.1), (0.5, 0.1), (0.4, 0.2), (0.2, 0.2), (0.0, 0.2),
)  # fmt: skip
"""(start, tick step) of an axis that ends at 1."""


class Scale(NamedTuple):
    """Maps a value to SVG units, along x or (upside down) y."""

    low: float
    high: float
    start: float
    stop: float

    def __call__(self, value: float) -> float:
        """The coordinate of `value`, to a tenth."""
        return round(self.start + (value - self.low) / (self.high - self.low) * (self.stop - self.start), 1)


class Tick(NamedTuple):
    """A grid line and its text."""

    at: float
    text: str


class Bar(NamedTuple):
    """One reliability bin: a dot with its interval, and the histogram bar below it."""

    x: float
    y: float
    low: float
    high: float
    bar_x: float
    bar_width: float
    bar_y: float
    bar_height: float
    title: str
    lower: float
    upper: float
    """Smallest and largest 32-bit number in the bin, percent."""
    images: int


class ReliabilityPlot(NamedTuple):
    """Confidence against accuracy."""

    bars: tuple[Bar, ...]
    diagonal: tuple[float, float, float, float]
    ticks_x: tuple[Tick, ...]
    ticks_y: tuple[Tick, ...]
    floor: float


class Mark(NamedTuple):
    """A dot with its text above it."""

    x: float
    y: float
    text: str

    def touches(self, other: "Mark") -> bool:
        """Whether the texts would overlap, or nearly."""
        return abs(self.x - other.x) < TEXT_WIDTH and abs(self.y - other.y) < TEXT_HEIGHT


class CoveragePlot(NamedTuple):
    """Coverage against accuracy: line, interval band, and marked thresholds (those whose texts do not overlap)."""

    line: str
    band: str
    marks: tuple[Mark, ...]
    ticks_x: tuple[Tick, ...]
    ticks_y: tuple[Tick, ...]


def reliability_plot(curve: Sequence[ReliabilityBin]) -> ReliabilityPlot:
    """Dots with intervals over the diagonal; the lowest fifth of the plot is a histogram of the images."""
    floor = HEIGHT - BOTTOM
    x, y = Scale(0, 1, LEFT, WIDTH - RIGHT), Scale(0, 1, floor, TOP)
    most = max((part.images for part in curve), default=0)
    bars = []
    for part in curve:
        if part.accuracy is None or part.confidence is None or part.accuracy.low is None or part.accuracy.high is None:
            continue
        tall = round(part.images / most * (floor - TOP) * 0.2, 1)
        title = (
            f"{images(part.images)} at {part.lower:.0%} to {part.upper:.0%}: mean confidence "
            f"{percent(part.confidence)}, accuracy {percent(part.accuracy.value)}"
        )
        left, right = x(part.lower), x(part.upper)
        low, high = y(part.accuracy.low), y(part.accuracy.high)
        bars.append(
            Bar(
                x(part.confidence), y(part.accuracy.value), low, high,
                left + 1, max(round(right - left - 2, 1), 1), round(floor - tall, 1), tall, title,
                *_ends(part), part.images,
            )
        )  # fmt: skip
    ticks = (0, 0.2, 0.4, 0.6, 0.8, 1)
    return ReliabilityPlot(
        tuple(bars),
        (x(0), y(0), x(1), y(1)),
        tuple(Tick(x(value), f"{value:.0%}") for value in ticks),
        tuple(Tick(y(value), f"{value:.0%}") for value in ticks),
        floor,
    )


def _ends(part: ReliabilityBin) -> tuple[float, float]:
    """`lower` and `upper` of a bar: the bin is (lower, upper], the first one has 0, too."""
    low, high = np.float32(part.lower), np.float32(part.upper)
    if float(low) <= part.lower and part.lower:
        low = np.nextafter(low, np.float32(2))
    if float(high) > part.upper:
        high = np.nextafter(high, np.float32(0))
    return round(100 * float(str(low)), 9), round(100 * float(str(high)), 9)


def coverage_plot(curve: Sequence[CoveragePoint], marked: Sequence[float]) -> CoveragePlot:
    """The curve, from few confident answers (left) to all (right). The y axis starts below the lowest accuracy.

    marked: thresholds to mark.
    """
    points = [point for point in curve if point.accuracy is not None and point.taken]
    values = [(point, point.accuracy.value, point.accuracy.low or 0.0, point.accuracy.high or 1.0)
              for point in points if point.accuracy is not None]  # fmt: skip
    # The axis follows the line, not the intervals: the leftmost points come from few images and have wide ones.
    lowest = min((value for _, value, _, _ in values), default=0.0)
    bottom, step = next((axis for axis in AXES if axis[0] < lowest), AXES[-1])
    x, y = Scale(0, 1, LEFT, WIDTH - RIGHT), Scale(bottom, 1, HEIGHT - BOTTOM, TOP)
    line = " ".join(f"{x(point.coverage)},{y(value)}" for point, value, _, _ in values)
    upper = [f"{x(point.coverage)},{y(high)}" for point, _, _, high in values]
    lower = [f"{x(point.coverage)},{y(max(low, bottom))}" for point, _, low, _ in reversed(values)]
    marks: list[Mark] = []
    is_dot = len({point.coverage for point in points}) == 1  # the line has no length
    for point, value, _, _ in values:
        mark = Mark(x(point.coverage), y(value), f"{point.threshold:g}")
        inside = 0.02 < point.coverage < 0.995 or is_dot
        if point.threshold in marked and inside and not any(map(mark.touches, marks)):
            marks.append(mark)
    steps = [bottom + step * part for part in range(round((1 - bottom) / step) + 1)]
    return CoveragePlot(
        line,
        " ".join((*upper, *lower)),
        tuple(marks),
        tuple(Tick(x(value), f"{value:.0%}") for value in (0, 0.2, 0.4, 0.6, 0.8, 1)),
        tuple(Tick(y(value), f"{value * 100:g}%") for value in (round(step, 4) for step in steps)),
    )
