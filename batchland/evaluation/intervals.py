"""Confidence intervals of rates and differences, exact McNemar test, Holm adjustment, bootstrap."""

from collections.abc import Iterator
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

MAX_DRAWS: Final = 60_000_000
"""Most binomial draws of one bootstrap, about five seconds; larger data gets fewer resamples."""
MIN_RESAMPLES: Final = 200


class Bounds(NamedTuple):
    """Lower and upper end, elementwise."""

    low: Floats
    high: Floats


def wilson(successes: npt.ArrayLike, trials: npt.ArrayLike, confidence: float = 0.95) -> Bounds:
    """Wilson score interval of a rate, elementwise; NaN where there were no trials. Exact 0 and 1 at the ends."""
    from scipy.special import ndtri

    hits, n = np.asarray(successes, np.float64), np.asarray(trials, np.float64)
    z = float(ndtri(0.5 + confidence / 2))
    with np.errstate(divide="ignore", invalid="ignore"):
        rate = hits / n
        centre = (rate + z * z / (2 * n)) / (1 + z * z / n)
        half = z / (1 + z * z / n) * np.sqrt(rate * (1 - rate) / n + z * z / (4 * n * n))
    low = np.where(hits == 0, 0.0, np.clip(centre - half, 0, 1))
    high = np.where(hits == n, 1.0, np.clip(centre + half, 0, 1))
    return Bounds(np.where(n > 0, low, np.nan), np.where(n > 0, high, np.nan))


def mcnemar_exact(only_a: int, only_b: int) -> float:
    """Two-sided exact p-value that A and B are right equally often, from the images that only one of them got right."""
    from scipy.stats import binomtest

    discordant = only_a + only_b
    return float(binomtest(only_a, discordant, 0.5).pvalue) if discordant else 1.0


def paired_difference(only_a: npt.ArrayLike, only_b: npt.ArrayLike, pairs: npt.ArrayLike, confidence: float) -> Bounds:
    """Interval of B's rate less A's over the same images, elementwise; NaN where there are none.

    The adjusted Wald interval of Bonett and Price (2012), which keeps its level for few images, too.
    """
    from scipy.special import ndtri

    losses, gains, n = (np.asarray(values, np.float64) for values in (only_a, only_b, pairs))
    lost, gained = (losses + 1) / (n + 2), (gains + 1) / (n + 2)
    centre = gained - lost
    half = float(ndtri(0.5 + confidence / 2)) * np.sqrt((gained + lost - centre**2) / (n + 2))
    low, high = np.clip(centre - half, -1, 1), np.clip(centre + half, -1, 1)
    return Bounds(np.where(n > 0, low, np.nan), np.where(n > 0, high, np.nan))


def holm(p_values: npt.ArrayLike) -> Floats:
    """p-values adjusted for multiple testing by Holm's step-down method, in the order given."""
    p = np.asarray(p_values, np.float64)
    order = np.argsort(p, kind="stable")
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)), 1.0)
    return adjusted


def affordable_resamples(cells: int, wanted: int) -> int:
    """`wanted`, or fewer where `cells` draws per resample exceed MAX_DRAWS; at least MIN_RESAMPLES."""
    return min(wanted, max(MIN_RESAMPLES, MAX_DRAWS // max(cells, 1)))


def stratified_draws(strata: Ints, counts: Ints, resamples: int, seed: int) -> Iterator[tuple[Ints, Ints]]:
    """Bootstrap a table of counts: per stratum its cells (indices) and their drawn counts, [resamples, cells].

    Drawing the n images of a stratum with replacement gives its cells a multinomial distribution, so the cost depends
    on the number of cells, not of images. strata must be sorted.
    """
    rng = np.random.default_rng(seed)
    starts = np.flatnonzero(np.r_[True, strata[1:] != strata[:-1]]) if len(strata) else np.array([], np.int64)
    for start, stop in zip(starts, np.r_[starts[1:], len(strata)], strict=True):
        cells = np.arange(start, stop)
        total = counts[cells].sum()
        yield cells, rng.multinomial(total, counts[cells] / total, size=resamples)


def stratified_weights(strata: Ints, resamples: int, seed: int) -> Iterator[Ints]:
    """Bootstrap images: per resample, how often each is drawn, [images]. Every stratum keeps its number of images.

    strata: of each image, in any order.
    """
    rng = np.random.default_rng(seed)
    order = np.argsort(strata, kind="stable")
    _, starts, sizes = np.unique(strata[order], return_index=True, return_counts=True)
    start, size = np.repeat(starts, sizes), np.repeat(sizes, sizes)
    for _ in range(resamples):
        drawn = start + (rng.random(len(strata)) * size).astype(np.int64)
        yield np.bincount(order[drawn], minlength=len(strata))


def percentile_bounds(samples: Floats, confidence: float) -> tuple[float, float] | tuple[None, None]:
    """Percentile interval of bootstrap samples. None if all samples are equal, as they are without any mistake.

    An interval of width 0 would claim certainty that the data does not give.
    """
    if np.ptp(samples) == 0:
        return None, None
    low, high = np.quantile(samples, [0.5 - confidence / 2, 0.5 + confidence / 2])
    return float(low), float(high)
