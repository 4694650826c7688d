"""Reliability bins, calibration errors, and accuracy against coverage.

Input is the probability of each first choice and whether that choice was right.
"""

from typing import Final

import numpy as np
import numpy.typing as npt

from batchland.evaluation.counts import ScoreCells, Sums
from batchland.evaluation.intervals import Floats, Ints, rate, z_score
from batchland.evaluation.schema import CoveragePoint, Figure, ReliabilityBin

ROUND_THRESHOLDS: Final = (0.0, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)
CURVE_POINTS: Final = 60
"""Thresholds of the coverage curve besides the round ones, evenly spaced by images."""


def bins_of(probability: Floats, bins: int) -> Ints:
    """Equal-width bin (lower, upper] of each probability, from 0; 0 itself is in the first one."""
    edges = np.linspace(0, 1, bins + 1)
    found = np.zeros(len(probability), np.int64)
    for edge in edges[1:-1]:  # for few edges faster than np.searchsorted
        found += probability > edge
    return found


def reliability(sums: Sums, confidence: float) -> tuple[ReliabilityBin, ...]:
    """Mean confidence and accuracy in equal-width bins (lower, upper] of the first choice's probability."""
    images, hits, bins = sums.images, sums.right, len(sums.images)
    edges = np.linspace(0, 1, bins + 1)
    return tuple(
        ReliabilityBin(
            lower=float(edges[i]),
            upper=float(edges[i + 1]),
            images=int(images[i]),
            confidence=float(sums.probability[i] / images[i]) if images[i] else None,
            accuracy=rate(int(hits[i]), int(images[i]), confidence) if images[i] else None,
        )
        for i in range(bins)
    )


def equal_counts(cells: ScoreCells, bins: int) -> Ints:
    """Bin of each cell, from 0: bins with equal numbers of images. Equal probabilities share a bin.

    cells: of one class, or of all together.
    """
    ends = np.cumsum(cells.images)
    bounds = np.searchsorted(ends, np.arange(1, bins) * ends[-1] // bins, side="right")
    return np.searchsorted(np.unique(bounds), np.arange(len(ends)), side="right").astype(np.int64)


def calibration_error(sums: Sums, *, confidence: float, resamples: int, seed: int) -> Figure:
    """Mean distance of confidence and accuracy over the groups, by images, with an interval.

    Chance enlarges the observed distances, by the most if the model is calibrated. So the lower end is that of a basic
    bootstrap interval, the smaller one of two: with hits drawn by the observed accuracies, and by the confidences. For
    the upper end, the observed value is large enough already; it gets the normal quantile of the mean accuracy's error.
    """
    filled = sums.images > 0
    images, right = sums.images[filled], sums.right[filled]
    stated, share = np.clip(sums.probability[filled] / images, 0, 1), images / images.sum()
    value = float(share @ np.abs(right / images - stated))
    rng = np.random.default_rng(seed)
    low = value
    for assumed in (stated, (right + 1) / (images + 2)):  # no group is sure of its accuracy
        drawn = rng.binomial(images, assumed, (resamples, len(images))) / images
        most = np.quantile(np.abs(drawn - stated) @ share, 0.5 + confidence / 2)
        low = min(low, value - float(most - share @ np.abs(assumed - stated)))
    smoothed = (right + stated) / (images + 1)
    error = float((share**2 * smoothed * (1 - smoothed) / images).sum()) ** 0.5
    return Figure(value=value, low=max(low, 0.0), high=min(value + z_score(confidence) * error, 1.0))


def coverage(cells: ScoreCells, round_counts: Sums, confidence: float) -> tuple[CoveragePoint, ...]:
    """Coverage and accuracy by rising threshold: the round ones, and enough others to draw a curve.

    cells: of all classes. round_counts: images between the round thresholds, by `round_group`. Thresholds are float32,
    like the probabilities in the files: a query with the same threshold gives the same counts.
    """
    total = int(cells.images.sum())
    if not total:
        return ()
    ranks = np.linspace(0, total - 1, min(CURVE_POINTS, total)).astype(int)
    chosen = np.unique(np.searchsorted(np.cumsum(cells.images), ranks, side="right"))
    images_above, hits_above = (np.cumsum(counts[::-1])[::-1] for counts in (cells.images, cells.hits))
    found = {cells.low[i]: (int(images_above[i]), int(hits_above[i])) for i in chosen}
    for i, threshold in enumerate(np.array(ROUND_THRESHOLDS, np.float32)):
        found[threshold] = int(round_counts.images[i + 1 :].sum()), int(round_counts.right[i + 1 :].sum())
    return tuple(
        CoveragePoint(
            threshold=float(str(threshold)),  # 0.9, not 0.8999999762
            taken=taken,
            to_human=total - taken,
            coverage=taken / total,
            accuracy=rate(hits, taken, confidence) if taken else None,
        )
        for threshold, (taken, hits) in sorted(found.items())
    )


def round_group(probability: npt.NDArray[np.float32]) -> Ints:
    """Number of round thresholds that each probability reaches."""
    return (probability >= np.array(ROUND_THRESHOLDS, np.float32)[:, None]).sum(axis=0)
