"""Confidence intervals of rates and differences, exact McNemar test, Holm adjustment, stratified variance."""

from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

BLEND: Final = 2.0
"""Images; see stratified_variance."""


class Bounds(NamedTuple):
    """Lower and upper end, elementwise."""

    low: Floats
    high: Floats


def z_score(confidence: float) -> float:
    """The normal quantile of a two-sided interval: 1.96 for 0.95."""
    from scipy.special import ndtri

    return float(ndtri(0.5 + confidence / 2))


def wilson(successes: npt.ArrayLike, trials: npt.ArrayLike, confidence: float = 0.95) -> Bounds:
    """Wilson score interval of a rate, elementwise; NaN where there were no trials. Exact 0 and 1 at the ends."""
    hits, n = np.asarray(successes, np.float64), np.asarray(trials, np.float64)
    z = z_score(confidence)
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
    losses, gains, n = (np.asarray(values, np.float64) for values in (only_a, only_b, pairs))
    lost, gained = (losses + 1) / (n + 2), (gains + 1) / (n + 2)
    centre = gained - lost
    half = z_score(confidence) * np.sqrt((gained + lost - centre**2) / (n + 2))
    low, high = np.clip(centre - half, -1, 1), np.clip(centre + half, -1, 1)
    return Bounds(np.where(n > 0, low, np.nan), np.where(n > 0, high, np.nan))


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
