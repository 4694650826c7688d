"""Averages over classes (macro, weighted) of precision, recall and F1, with confidence intervals.

These intervals do not use resampling. With few images per class, a resampled test set has fewer predicted classes and
lower precisions than the test set itself, so a percentile interval can exclude the figure that it belongs to. Instead,
the delta method gives the variance, the variance gives the effective number of images for a Wilson interval, and the
estimated bias of the figure widens this interval. benchmarks/results/intervals.md has the simulated coverage.
"""

from typing import Final, Literal, NamedTuple

import numpy as np

from batchland.evaluation.intervals import Floats, Ints, stratified_variance, wilson, z_score
from batchland.evaluation.schema import Figure

Kind = Literal["recall", "precision", "f1"]
Weighting = Literal["macro", "weighted"]

MIN_IMAGES_PER_CLASS: Final = 10
"""Averages of precision and F1 have no interval if the mean number of images per class is below this."""


class Cells(NamedTuple):
    """The non-zero cells of a confusion matrix. Each array has the shape [cells]."""

    truth: Ints
    predicted: Ints
    images: Ints
    classes: int

    @property
    def support(self) -> Ints:
        """Images per true class."""
        return _sum_by(self.truth, self.images, self.classes)

    @property
    def given(self) -> Ints:
        """Images per predicted class."""
        return _sum_by(self.predicted, self.images, self.classes)

    @property
    def correct(self) -> Ints:
        """Correctly classified images per class."""
        hit = self.truth == self.predicted
        return _sum_by(self.truth[hit], self.images[hit], self.classes)


def confusion_cells(truth: Ints, predicted: Ints, classes: int) -> tuple[Cells, Ints]:
    """Count (true, predicted) pairs. Returns the cells, sorted by these pairs, and the cell index of each image."""
    codes, cell, images = np.unique(truth * classes + predicted, return_inverse=True, return_counts=True)
    return Cells(codes // classes, codes % classes, images, classes), cell


class Average(NamedTuple):
    """A weighted mean of one figure over the classes, and its derivatives with respect to the confusion counts."""

    value: float
    weights: Floats
    """Weight of each class, [classes]; the sum is 1."""
    influence: Floats
    """Derivative of the value with respect to the number of images in each cell, [cells]."""
    bias: float
    """Estimated bias: expected value minus the value in an infinite test set with the same class mix."""
    has_interval: bool
    """Whether there are enough images per class."""


def average(kind: Kind, weighting: Weighting, cells: Cells) -> Average:
    """Recall, precision or F1, averaged over the classes with support. Precision is 0 for a class never predicted."""
    support, given, correct = cells.support, cells.given, cells.correct
    present = support > 0
    weights = present / present.sum() if weighting == "macro" else support / support.sum()
    hit = cells.truth == cells.predicted
    total, factor = {"recall": (support, 1), "precision": (given, 1), "f1": (support + given, 2)}[kind]
    total = np.maximum(total, 1)
    values = factor * correct / total
    by_correct = factor * weights / total
    by_given = np.zeros(cells.classes) if kind == "recall" else -weights * values / total
    bias = 0.0
    if kind != "recall":  # the second-order term of the delta method
        size = support[cells.truth]
        spread = cells.images * (1 - cells.images / size) * size / np.maximum(size - 1, 1)
        variance_given = np.bincount(cells.predicted, spread, cells.classes)
        variance_correct = np.bincount(cells.truth[hit], spread[hit], cells.classes)
        bias = float((weights * (values * variance_given - factor * variance_correct) / total**2).sum())
    return Average(
        value=min(float((weights * values).sum()), 1.0),  # rounding errors can exceed 1
        weights=weights,
        influence=by_given[cells.predicted] + np.where(hit, by_correct[cells.truth], 0.0),
        bias=bias,
        has_interval=kind == "recall" or support.sum() >= MIN_IMAGES_PER_CLASS * present.sum(),
    )


def average_figure(kind: Kind, weighting: Weighting, cells: Cells, confidence: float) -> Figure:
    """The average with its interval; without one if the classes have too few images."""
    found = average(kind, weighting, cells)
    if not found.has_interval:
        return Figure(value=found.value)
    variance = stratified_variance(cells.truth, cells.images, found.influence, found.weights)
    if variance > 0 and 0 < found.value < 1:
        effective = found.value * (1 - found.value) / variance
    else:  # the estimated variance is 0; use the effective size for classes with equal variance
        present = cells.support > 0
        effective = 1 / float((found.weights[present] ** 2 / cells.support[present]).sum())
    low, high = wilson(found.value * effective, effective, confidence)
    return Figure(
        value=found.value,
        low=max(float(low) - max(found.bias, 0.0), 0.0),
        high=min(float(high) + max(-found.bias, 0.0), 1.0),
    )


def difference_bounds(a: Average, b: Average, truth: Ints, influence: Floats, confidence: float) -> tuple[float, float]:
    """Interval of b - a over the same images. truth: true classes; influence: that of b - a; both [images]."""
    variance = stratified_variance(truth, np.ones(len(truth), np.int64), influence, a.weights)
    half, bias, value = z_score(confidence) * variance**0.5, b.bias - a.bias, b.value - a.value
    return value - half - max(bias, 0.0), value + half + max(-bias, 0.0)


def _sum_by(index: Ints, images: Ints, classes: int) -> Ints:
    return np.bincount(index, images, classes).astype(np.int64)
