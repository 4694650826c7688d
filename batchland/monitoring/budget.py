"""The allowed number of false alarms per year, and the factor on all limits for it.

The factors were measured: the table has the alarms in simulated clean years for each factor
(benchmarks/results/nights.md).
"""

from itertools import pairwise
from math import log
from typing import Final

DEFAULT: Final = 1.0
"""Default number of false alarms per year."""
_NIGHTS: Final = ((0.3, 1.0), (1.0, 0.87), (2.0, 0.8), (3.0, 0.76), (4.0, 0.73), (5.0, 0.71))
"""Alarms per year, and the factor that gave at most this number in simulated nights with much variation, of 50 and 150
images."""
_LABELLED: Final = ((0.3, 1.05), (1.0, 0.99), (2.0, 0.9), (3.0, 0.8), (4.0, 0.75), (5.0, 0.73))
"""The same with labelled photos as the reference."""
_GROWTH: Final = 0.15
"""Growth of the factor per natural logarithm of the number of images: chance hides rare large differences only between
small nights. Measured between 150 and 400 images, used up to 1,000; the factor is constant beyond."""
SMALLEST: Final = max(_NIGHTS[0][0], _LABELLED[0][0])
LARGEST: Final = min(_NIGHTS[-1][0], _LABELLED[-1][0])
"""Smallest and largest measured numbers of false alarms."""


def limit_of(budget: float, images: int, *, labelled: bool) -> float:
    """Factor on all limits of the monitor, interpolated between measured ones.

    budget: false alarms a year, from SMALLEST to LARGEST. images: of the night. labelled: labelled photos are the
    reference, not nights.
    """
    points = _LABELLED if labelled else _NIGHTS
    for (less, high), (more, low) in pairwise(points):
        if less <= budget <= more:
            return (high + (low - high) * (budget - less) / (more - less)) * size_factor(images)
    raise ValueError(f"a budget of {budget:g} false alarms a year was not measured")


def size_factor(images: int) -> float:
    """The part of the factor that depends on the number of images of a night; 1 for up to 150."""
    return 1 + _GROWTH * log(min(max(images, 150), 1000) / 150)
