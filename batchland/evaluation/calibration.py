"""Reliability bins, calibration errors (ECE, MCE), and accuracy against coverage.

Input is the probability of each first choice and whether that choice was right.
"""

from typing import Final

import numpy as np
import numpy.typing as npt

from batchland.evaluation.intervals import Floats, wilson
from batchland.evaluation.schema import CoveragePoint, Figure, ReliabilityBin

ROUND_THRESHOLDS: Final = (0.0, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)
CURVE_POINTS: Final = 60
"""Thresholds of the coverage curve besides the round ones, evenly spaced by images."""

Right = npt.NDArray[np.bool_]


def reliability(probability: Floats, right: Right, bins: int, confidence: float) -> tuple[ReliabilityBin, ...]:
    """Mean confidence and accuracy in equal-width bins (lower, upper] of the first choice's probability."""
    edges = np.linspace(0, 1, bins + 1)
    number = np.clip(np.searchsorted(edges, probability, side="left") - 1, 0, bins - 1)
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


def calibration_errors(curve: tuple[ReliabilityBin, ...]) -> tuple[float, float]:
    """(ECE, MCE): the mean distance of confidence and accuracy over the bins, weighted by images; the largest one."""
    total = sum(part.images for part in curve)
    gaps = [
        (part.images, abs(part.accuracy.value - part.confidence))
        for part in curve
        if part.accuracy is not None and part.confidence is not None
    ]
    if not gaps:
        return 0.0, 0.0
    return sum(images * gap for images, gap in gaps) / total, max(gap for _, gap in gaps)


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
