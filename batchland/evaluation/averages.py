"""Averages over classes (macro, weighted) of precision, recall and F1, with confidence intervals.

Resampling cannot give these intervals: with few images a class, resampled test sets have fewer classes that are ever
predicted and lower precisions than the test set itself, so that percentile intervals lie beside their own figure. Here,
the delta method gives the variance, a Wilson interval with the effective number of images follows from it, and the
interval is widened by the estimated bias of the figure. benchmarks/results/intervals.md has the coverage by simulation.
"""

from typing import Final, Literal, NamedTuple

import numpy as np

from batchland.evaluation.intervals import Floats, Ints, stratified_variance, wilson, z_score
from batchland.evaluation.schema import Figure

Kind = Literal["recall", "precision", "f1"]
Weighting = Literal["macro", "weighted"]

MIN_IMAGES_PER_CLASS: Final = 10
"""Mean number of images per class from which on averages of precision and F1 have an interval."""


class Cells(NamedTuple):
    """A confusion matrix without zeros: [cells]."""

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
        """Images per class whose first choice is right."""
        hit = self.truth == self.predicted
        return _sum_by(self.truth[hit], self.images[hit], self.classes)


def confusion_cells(truth: Ints, predicted: Ints, classes: int) -> tuple[Cells, Ints]:
    """Count (true, predicted) pairs; and the cell of each image. Cells are ordered by (truth, predicted)."""
    codes, cell, images = np.unique(truth * classes + predicted, return_inverse=True, return_counts=True)
    return Cells(codes // classes, codes % classes, images, classes), cell


class Average(NamedTuple):
    """A weighted mean of one figure of the classes, as a function of the confusion counts."""

    value: float
    weights: Floats
    """Of the classes; their sum is 1."""
    influence: Floats
    """Derivative of the value by the number of images in each cell, [cells]."""
    bias: float
    """Estimated expectation of the value less its value in an infinite test set of the same class mix."""
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
        value=min(float((weights * values).sum()), 1.0),  # rounding
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
    else:  # all right or all wrong: what the variance would be if all classes were alike
        present = cells.support > 0
        effective = 1 / float((found.weights[present] ** 2 / cells.support[present]).sum())
    low, high = wilson(found.value * effective, effective, confidence)
    return Figure(
        value=found.value,
        low=max(float(low) - max(found.bias, 0.0), 0.0),
        high=min(float(high) + max(-found.bias, 0.0), 1.0),
    )


def difference_bounds(a: Average, b: Average, truth: Ints, influence: Floats, confidence: float) -> tuple[float, float]:
    """Interval of b less a over the same images. influence: of b less a, per image [images]; truth: their classes."""
    variance = stratified_variance(truth, np.ones(len(truth), np.int64), influence, a.weights)
    half, bias, value = z_score(confidence) * variance**0.5, b.bias - a.bias, b.value - a.value
    return value - half - max(bias, 0.0), value + half + max(-bias, 0.0)


def _sum_by(index: Ints, images: Ints, classes: int) -> Ints:
    return np.bincount(index, images, classes).astype(np.int64)
