"""Reliability bins, calibration errors, and accuracy against coverage.

Input is the probability of each first choice and whether that choice was right.
"""

from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from batchland.evaluation.intervals import Floats, Ints, wilson
from batchland.evaluation.schema import CoveragePoint, Figure, ReliabilityBin

ROUND_THRESHOLDS: Final = (0.0, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)
SHRINK: Final = 1.5
"""Standard errors; see calibration_error."""
CURVE_POINTS: Final = 60
"""Thresholds of the coverage curve besides the round ones, evenly spaced by images."""

Right = npt.NDArray[np.bool_]


def bins_of(probability: Floats, bins: int) -> Ints:
    """Equal-width bin (lower, upper] of each probability, from 0; 0 itself is in the first one."""
    edges = np.linspace(0, 1, bins + 1)
    return np.clip(np.searchsorted(edges, probability, side="left") - 1, 0, bins - 1).astype(np.int64)


def reliability(probability: Floats, right: Right, bins: int, confidence: float) -> tuple[ReliabilityBin, ...]:
    """Mean confidence and accuracy in equal-width bins (lower, upper] of the first choice's probability."""
    edges, number = np.linspace(0, 1, bins + 1), bins_of(probability, bins)
    images = np.bincount(number, minlength=bins)
    sums, hits = np.bincount(number, probability, bins), np.bincount(number, right, bins)
    bounds = wilson(hits, images, confidence)
    return tuple(
        ReliabilityBin(
            lower=float(edges[i]),
            upper=float(edges[i + 1]),
            images=int(images[i]),
            confidence=float(sums[i] / images[i]) if images[i] else None,
            accuracy=_figure(hits[i] / images[i], bounds.low[i], bounds.high[i]) if images[i] else None,
        )
        for i in range(bins)
    )


class Groups(NamedTuple):
    """Answers in groups, without empty ones: [groups]."""

    images: Ints
    confidence: Floats
    """Mean."""
    accuracy: Floats


def grouped(group: Ints, probability: Floats, right: Right) -> Groups:
    """Put the answers into groups. group: of each answer, from 0."""
    images = np.bincount(group)
    filled = images > 0
    sums, hits = np.bincount(group, probability)[filled], np.bincount(group, right)[filled]
    return Groups(images[filled], sums / images[filled], hits / images[filled])


def equal_counts(probability: Floats, bins: int) -> Ints:
    """Bin of each answer, from 0: bins with equal numbers of images. Equal probabilities share a bin."""
    bounds = np.sort(probability)[np.arange(1, bins) * len(probability) // bins]
    return np.searchsorted(np.unique(bounds), probability, side="right").astype(np.int64)


def calibration_error(groups: Groups, *, confidence: float, resamples: int, seed: int) -> Figure:
    """Mean distance of confidence and accuracy over the groups, by images, with a bootstrap interval.

    Chance enlarges the observed distances, in the test set as in resampled ones, and most where the true ones are 0. So
    the hits are drawn twice: with the observed distances, and with distances less SHRINK standard errors. Each gives a
    basic (bias-corrected) interval; the result contains both, and the figure.
    """
    images, stated, observed = groups
    share = images / images.sum()
    gap = observed - stated
    value = float((share * np.abs(gap)).sum())
    smoothed = (observed * images + stated) / (images + 1)  # no group is sure of its accuracy
    error = np.sqrt(smoothed * (1 - smoothed) / images)
    rng = np.random.default_rng(seed)
    low = high = value
    for shrink in (0.0, SHRINK):
        assumed = np.clip(stated + np.sign(gap) * np.maximum(np.abs(gap) - shrink * error, 0), 0, 1)
        drawn = rng.binomial(images, assumed, (resamples, len(images))) / images
        quantiles = np.quantile(np.abs(drawn - stated) @ share, [0.5 - confidence / 2, 0.5 + confidence / 2])
        excess = quantiles - (share * np.abs(assumed - stated)).sum()
        low, high = min(low, value - float(excess[1])), max(high, value - float(excess[0]))
    return Figure(value=value, low=max(low, 0.0), high=min(high, 1.0))


def coverage(probability: Floats, right: Right, confidence: float) -> tuple[CoveragePoint, ...]:
    """Coverage and accuracy by rising threshold: the round ones, and enough others to draw a curve.

    Thresholds are float32, like the probabilities in the files: a query with the same threshold gives the same counts.
    """
    total = len(probability)
    if not total:
        return ()
    order = np.argsort(probability, kind="stable")
    ranked, hits_above = probability[order], np.r_[np.cumsum(right[order][::-1])[::-1], 0]
    picks = ranked[np.linspace(0, total - 1, min(CURVE_POINTS, total)).astype(int)]
    thresholds = np.unique(np.r_[ROUND_THRESHOLDS, picks].astype(np.float32))
    start = np.searchsorted(ranked, thresholds, side="left")
    taken, hits = total - start, hits_above[start]
    bounds = wilson(hits, taken, confidence)
    return tuple(
        CoveragePoint(
            threshold=float(str(thresholds[i])),  # 0.9, not 0.8999999762
            taken=int(taken[i]),
            to_human=int(start[i]),
            coverage=float(taken[i] / total),
            accuracy=_figure(hits[i] / taken[i], bounds.low[i], bounds.high[i]) if taken[i] else None,
        )
        for i in range(len(thresholds))
    )


def _figure(value: float, low: float, high: float) -> Figure:
    return Figure(value=float(value), low=float(low), high=float(high))
