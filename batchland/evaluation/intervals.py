"""Intervals of rates and differences, exact tests of McNemar and Fisher, Holm's adjustment, stratified variance.

Does not import scipy, which takes up to a second.
"""

from statistics import NormalDist
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from batchland.evaluation.schema import Figure

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

BLEND: Final = 2.0
"""Images; see stratified_variance."""
_TAILS: Final = 20
"""Standard deviations; the probability beyond them is below 1e-80."""


class Ends(NamedTuple):
    """Lower and upper end, elementwise."""

    low: Floats
    high: Floats


def z_score(confidence: float) -> float:
    """The normal quantile of a two-sided interval: 1.96 for 0.95."""
    return NormalDist().inv_cdf(0.5 + confidence / 2)


def wilson(successes: npt.ArrayLike, trials: npt.ArrayLike, confidence: float = 0.95) -> Ends:
    """Wilson score interval of a rate, elementwise; NaN where there were no trials. Exact 0 and 1 at the ends."""
    hits, n = np.asarray(successes, np.float64), np.asarray(trials, np.float64)
    z = z_score(confidence)
    with np.errstate(divide="ignore", invalid="ignore"):
        rate = hits / n
        centre = (rate + z * z / (2 * n)) / (1 + z * z / n)
        half = z / (1 + z * z / n) * np.sqrt(rate * (1 - rate) / n + z * z / (4 * n * n))
    low = np.where(hits == 0, 0.0, np.clip(centre - half, 0, 1))
    high = np.where(hits == n, 1.0, np.clip(centre + half, 0, 1))
    return Ends(np.where(n > 0, low, np.nan), np.where(n > 0, high, np.nan))


def rate(hits: int, total: int, confidence: float) -> Figure:
    """A rate with its Wilson interval. total > 0."""
    low, high = wilson(hits, total, confidence)
    return Figure(value=hits / total, low=float(low), high=float(high))


def mcnemar_exact(only_a: int, only_b: int) -> float:
    """Two-sided exact p-value that A and B are right equally often, from the images that only one of them got right."""
    discordant, fewer = only_a + only_b, min(only_a, only_b)
    first, number = _around(discordant / 2, discordant**0.5 / 2, 0, discordant)
    chances = _chances((discordant - number[:-1]) / (number[:-1] + 1))
    return min(2 * float(chances[: max(fewer - first + 1, 0)].sum()), 1.0)


def fisher_exact(right: int, images: int, all_right: int, all_images: int) -> float:
    """Two-sided p-value of Fisher's exact test of the hypothesis that these images are right as often as all others.

    right, images: of these; all_right, all_images: of all, these included.
    """
    first, chances = _hypergeometric(images, all_right, all_images)
    if not 0 <= right - first < len(chances):
        return 0.0
    return min(float(chances[chances <= chances[right - first] * (1 + 1e-7)].sum()), 1.0)


def fisher_weaker(right: int, images: int, all_right: int, all_images: int) -> float:
    """One-sided p-value, likewise, against the alternative that these are right less often."""
    first, chances = _hypergeometric(images, all_right, all_images)
    return min(float(chances[: max(right - first + 1, 0)].sum()), 1.0)


def _hypergeometric(drawn: int, right: int, images: int) -> tuple[int, Floats]:
    """The first of consecutive numbers of right ones among the drawn images, and the probability of each number."""
    mean = drawn * right / images
    deviation = (mean * (1 - right / images) * (images - drawn) / max(images - 1, 1)) ** 0.5
    first, number = _around(mean, deviation, max(0, drawn + right - images), min(drawn, right))
    before = number[:-1]
    return first, _chances((right - before) * (drawn - before) / ((before + 1) * (images - right - drawn + before + 1)))


def _around(mean: float, deviation: float, least: int, most: int) -> tuple[int, Floats]:
    """The first of the numbers from `least` to `most` that are not practically impossible, and all of these."""
    spread = _TAILS * (1 + deviation)
    first = max(least, int(mean - spread))
    return first, np.arange(first, min(most, int(mean + spread) + 1) + 1, dtype=np.float64)


def _chances(ratios: Floats) -> Floats:
    """Probabilities of consecutive numbers. ratios: of each, but the first, to the one before."""
    logs = np.r_[0.0, np.log(ratios).cumsum()]
    chances = np.exp(logs - logs.max())
    return chances / chances.sum()


def paired_difference(only_a: npt.ArrayLike, only_b: npt.ArrayLike, pairs: npt.ArrayLike, confidence: float) -> Ends:
    """Interval of B's rate minus A's over the same images, elementwise; NaN where there are none.

    The adjusted Wald interval of Bonett and Price (2012), which keeps its level for few images, too.
    """
    losses, gains, n = (np.asarray(values, np.float64) for values in (only_a, only_b, pairs))
    lost, gained = (losses + 1) / (n + 2), (gains + 1) / (n + 2)
    centre = gained - lost
    half = z_score(confidence) * np.sqrt((gained + lost - centre**2) / (n + 2))
    low, high = np.clip(centre - half, -1, 1), np.clip(centre + half, -1, 1)
    return Ends(np.where(n > 0, low, np.nan), np.where(n > 0, high, np.nan))


def holm(p_values: npt.ArrayLike) -> Floats:
    """p-values adjusted for multiple testing by Holm's step-down method, in the order given."""
    p = np.asarray(p_values, np.float64)
    order = np.argsort(p, kind="stable")
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)), 1.0)
    return adjusted


def stratified_variance(strata: Ints, counts: Ints, influence: Floats, weights: Floats) -> float:
    """Variance of a statistic of stratified images by the delta method.

    strata: of each cell, an index into `weights`; counts: images in each cell; influence: derivative of the statistic
    by the count of each cell. weights: shares of the strata in the statistic, with sum 1.

    Each stratum's own variance is blended with the one that all strata share, which counts like BLEND more images: a
    single image, or a few that are all right, do not show their own variance.
    """
    images = np.bincount(strata, counts, len(weights))
    present = images > 0
    images, scale = np.where(present, images, 1.0), np.where(present, weights / np.where(present, images, 1.0), 1.0)
    mean = np.bincount(strata, counts * influence, len(weights)) / images
    squares = np.bincount(strata, counts * (influence - mean[strata]) ** 2, len(weights))
    own = squares * images / np.maximum(images - 1, 1)
    # On a common scale, all strata's images have the same mean and variance if the strata are alike.
    centre = float((weights * mean / scale)[present].sum())
    deviation = np.bincount(strata, counts * (influence / scale[strata] - centre) ** 2, len(weights)) / images
    shared = scale**2 * images * float((weights * deviation)[present].sum())
    blended = ((images - 1) * own + BLEND * shared) / (images - 1 + BLEND)
    return float(blended[present].sum())
