"""Clean nights of one job, drawn from scored photos, and spoiled ones.

A year has a mean class mix that wanders, nights that differ around it, shares of mild variations that come and go for
days, light that changes what is photographed, and weekdays. The wild generator does all of it more, and has nights on
which
one variation is everywhere.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from batchland.monitoring.observations import Observations

Random = np.random.Generator
_WEEK: Final = (1.0, 1.0, 1.05, 1.0, 0.95, 0.7, 0.65)


@dataclass(frozen=True)
class Habits:
    """How much the nights of a job differ."""

    night_mix: float
    """Concentration of the Dirichlet distribution of a night's class mix around the mean of the season."""
    season: float
    """Deviation per night of the logarithms of the mean class mix, which returns to the base within some 30 nights."""
    variant_share: float
    """Median share of each mild variation."""
    variant_spread: float
    """Deviation of its logarithm from night to night; half of it lasts for some five nights."""
    light: float
    """Deviation, between nights, of the pull to bright or dark photos, per deviation of brightness."""
    volume: float
    """Deviation of the logarithm of the number of images, beside the weekday."""
    burst: float
    """Probability that one variation has a share of 15 to 40 % of a night."""


CALM: Final = Habits(40, 0.03, 0.02, 0.5, 0.1, 0.08, 0.0)
WILD: Final = Habits(15, 0.06, 0.025, 0.9, 0.25, 0.2, 0.03)


class World(NamedTuple):
    """All scored pictures that clean nights are drawn from."""

    images: Observations
    kind: npt.NDArray[np.intp]
    """0: the photo as it is; others: mild variations, [n]."""
    label: npt.NDArray[np.intp]
    """True class, [n]."""
    light: npt.NDArray[np.float64]
    """Brightness in deviations from the mean, [n]."""


def clean_nights(world: World, habits: Habits, images: int, rng: Random) -> Iterator[npt.NDArray[np.intp]]:
    """Rows of `world` of one night after the other, without end. images: of a working day."""
    kinds, classes = int(world.kind.max()) + 1, int(world.label.max()) + 1
    groups = [
        [np.flatnonzero((world.kind == kind) & (world.label == label)) for label in range(classes)]
        for kind in range(kinds)
    ]
    base = np.log([max(len(group), 1) for group in groups[0]])
    season, weather = np.zeros(classes), np.zeros(kinds - 1)
    day = int(rng.integers(7))
    while True:
        day += 1
        season = 0.97 * season + rng.normal(0, habits.season, classes)
        mix = np.exp(base + season)
        mix = rng.dirichlet(habits.night_mix * mix / mix.sum())
        weather = 0.8 * weather + rng.normal(0, 0.6, kinds - 1)
        shares = habits.variant_share * np.exp(habits.variant_spread * weather)
        if rng.random() < habits.burst:
            shares[rng.integers(kinds - 1)] = rng.uniform(0.15, 0.4)
        shares = np.concatenate([[max(1 - shares.sum(), 0.1)], shares])
        number = max(round(images * _WEEK[day % 7] * np.exp(rng.normal(0, habits.volume))), 5)
        counts = rng.multinomial(number, np.outer(shares / shares.sum(), mix).ravel()).reshape(kinds, classes)
        pull = rng.normal(0, habits.light)
        rows = [
            _drawn(group, world.light[group], pull, count, rng)
            for line, numbers in zip(groups, counts, strict=True)
            for group, count in zip(line, numbers, strict=True)
            if count and len(group)
        ]
        yield np.concatenate(rows)


def _drawn(
    group: npt.NDArray[np.intp], light: npt.NDArray[np.float64], pull: float, count: int, rng: Random
) -> npt.NDArray[np.intp]:
    cumulated = np.cumsum(np.exp(pull * light))
    rows: npt.NDArray[np.intp] = group[np.searchsorted(cumulated, rng.random(count) * cumulated[-1])]
    return rows
