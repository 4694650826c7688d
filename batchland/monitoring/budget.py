"""The allowed number of false alarms per year, and the factor on all limits for it.

The factors were measured: the table has the alarms in simulated clean years for each factor
(benchmarks/results/nights.md).
"""

from itertools import pairwise
from typing import Final

DEFAULT: Final = 1.0
"""Default number of false alarms per year."""
_NIGHTS: Final = ((0.3, 1.1), (1.0, 0.93), (2.0, 0.87), (3.0, 0.82), (4.0, 0.78), (5.0, 0.75))
"""Alarms per year, and the factor with which the generator of nights with more variation had at most this number, on
the mean of nights of 50, 150 and 400 images."""
_LABELLED: Final = ((0.3, 1.05), (1.0, 0.99), (2.0, 0.9), (3.0, 0.8), (4.0, 0.75), (5.0, 0.73))
"""The same with labelled photos as the reference."""
SMALLEST: Final = max(_NIGHTS[0][0], _LABELLED[0][0])
LARGEST: Final = min(_NIGHTS[-1][0], _LABELLED[-1][0])
"""Smallest and largest measured numbers of false alarms."""


def limit_of(budget: float, *, labelled: bool) -> float:
    """Factor on all limits of the monitor, interpolated between measured ones.

    budget: false alarms a year, from SMALLEST to LARGEST. labelled: labelled photos are the reference, not nights.
    """
    points = _LABELLED if labelled else _NIGHTS
    for (less, high), (more, low) in pairwise(points):
        if less <= budget <= more:
            return high + (low - high) * (budget - less) / (more - less)
    raise ValueError(f"a budget of {budget:g} false alarms a year was not measured")
