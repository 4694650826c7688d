"""Precision-recall and ROC curves of each class against all others, and the areas under them.

A class's score for an image is its probability. If the predictions hold only the choices kept, other classes have the
score 0, the lowest. The logarithms of all probabilities are counted by their 16 bits, so the order of the images is
that of the stored values; with very many classes, neighbouring values share a bin (see `MAX_BINS`). Choices kept are
used exactly, up to EXACT of them; more are counted in the same bins.

All intervals are Wilson's, for an effective number of images; benchmarks/results/intervals.md has their coverage.
"""

from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from batchland.evaluation.averages import MIN_IMAGES_PER_CLASS
from batchland.evaluation.counts import ScoreCells, ScoreCounts
from batchland.evaluation.intervals import Floats, Ints, wilson
from batchland.evaluation.schema import CURVES, Figure

EXACT: Final = 2**20
"""Up to this number of choices, scores are not binned."""
MAX_BINS: Final = 2**25
"""Largest number of bins of all classes together. Up to 1,533 classes have a bin for each half float; with more, which
have only the choices kept by default, neighbouring ones share a bin."""
POINTS: Final = 60
"""Most points of a curve in `curves.parquet`."""
_LAST: Final = 0x5576
"""Bits of the half float 87.4. Logarithms are at least -87.4, that of the smallest normal float32."""
_AT_ONCE: Final = 2**23
"""Probabilities that are counted at once."""
_ONE: Final = np.int32(1)
"""With the type of the counts, `numpy.add.at` is thirty times faster."""


class CurveCounts:
    """Counts scores by class, score and whether the class is the true one, block by block."""

    def __init__(self, classes: int, exact: int = EXACT, max_bins: int = MAX_BINS) -> None:
        self._classes, self._exact, self._entries = classes, exact, 0
        self._few = ScoreCounts(limit=2 * exact)
        """Choices, until there are more than `exact`."""
        self._shift = 0
        while classes * ((_LAST >> self._shift) + 1) > max_bins:
            self._shift += 1
        self._counts: npt.NDArray[np.int32] | None = None
        """[all images or hits, class, bin], by falling score; None until bins are needed."""

    def add(self, classes: Ints, scores: npt.NDArray[np.float32], hits: npt.NDArray[np.bool_]) -> None:
        """Add choices; all arrays of the same length."""
        self._entries += len(classes)
        if self._entries <= self._exact:
            self._few.add(classes, scores, hits)
            return
        images, of_hits = (counts.ravel() for counts in self._binned)
        keys = classes * (len(images) // self._classes) + self._bins_of(_logs(scores))
        np.add.at(images, keys, _ONE)
        np.add.at(of_hits, keys[hits], _ONE)

    def add_all(self, logs: npt.NDArray[np.float16], truth: Ints) -> None:
        """Add images with the logarithms of all probabilities, [images, classes], and their true classes."""
        images, hits = self._binned
        size = max(_AT_ONCE // self._classes, 1)
        for start in range(0, len(logs), size):
            bins = np.ascontiguousarray(self._bins_of(logs[start : start + size]).T)
            for number, of_class in enumerate(bins):
                counts = np.bincount(of_class)
                images[number, : len(counts)] += counts
            true = truth[start : start + size]
            np.add.at(hits.ravel(), true * hits.shape[1] + bins[true, np.arange(len(true))], _ONE)

    def of_class(self, number: int) -> ScoreCells:
        """The scores of one class."""
        few = self._few.cells.of_class(number)
        if self._counts is None:
            return few
        images, hits = self._counts[:, number].astype(np.int64)
        bins = self._bins_of(_logs(few.low))
        np.add.at(images, bins, few.images)
        np.add.at(hits, bins, few.hits)
        found = np.flatnonzero(images)[::-1]  # by rising score
        low, score = self._edges()
        return ScoreCells(np.full(len(found), number), low[found], score[found], images[found], hits[found])

    @property
    def _binned(self) -> npt.NDArray[np.int32]:
        if self._counts is None:
            self._counts = np.zeros((2, self._classes, (_LAST >> self._shift) + 1), np.int32)
        return self._counts

    def _bins_of(self, logs: npt.NDArray[np.float16]) -> npt.NDArray[np.uint16]:
        """Bins of logarithms, by falling score."""
        found = logs.view(np.uint16) & np.uint16(0x7FFF)  # without the sign
        np.minimum(found, _LAST, out=found)
        found >>= self._shift
        return found

    def _edges(self) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float64]]:
        """Smallest probability that is rounded into each bin, and the mean of the stored ones, by falling score."""
        first = np.arange(0, _LAST + 1, 1 << self._shift)
        last = np.minimum(first + (1 << self._shift) - 1, _LAST)
        start, end, after = (
            -each.astype(np.uint16).view(np.float16).astype(np.float64) for each in (first, last, last + 1)
        )
        low = np.exp((end + after) / 2).astype(np.float32)
        low[-1] = 0
        return low, (np.exp(start) + np.exp(end)) / 2


class Area(NamedTuple):
    """The area under one curve of a class."""

    value: float
    images: float
    """Effective number of images, for Wilson's interval."""
    bias: float = 0.0
    """Estimated bias: expected value minus the value in an infinite test set with the same class mix."""

    def figure(self, confidence: float) -> Figure:
        """The area with its interval."""
        low, high = wilson(self.value * self.images, self.images, confidence)
        return Figure(value=self.value, low=float(low), high=float(high))


class ClassCurve(NamedTuple):
    """The curve of one class: cumulative counts by falling threshold, and its areas."""

    thresholds: npt.NDArray[np.float32]
    hits: Ints
    """Images of the class with at least that score."""
    false: Ints
    """Other images with at least that score."""
    positives: int
    negatives: int
    average_precision: Area
    auroc: Area


def class_curve(cells: ScoreCells, positives: int, negatives: int) -> ClassCurve | None:
    """The curve of one class; None without images of the class or of others. cells: of this class."""
    if not positives or not negatives:
        return None
    hits, false = np.cumsum(cells.hits[::-1]), np.cumsum((cells.images - cells.hits)[::-1])
    thresholds = cells.low[::-1]
    if not len(hits) or thresholds[-1] > 0:  # the images for which the class was not kept have the score 0
        hits, false = np.r_[hits, positives], np.r_[false, negatives]
        thresholds = np.r_[thresholds, np.float32(0)]
    else:
        hits[-1], false[-1] = positives, negatives
    areas = _average_precision(hits, false), _auroc(hits, false)
    return ClassCurve(thresholds, hits, false, positives, negatives, *areas)


def _average_precision(hits: Ints, false: Ints) -> Area:
    """The effective number of images is the number of images of the class."""
    gained, taken, recall = np.diff(hits, prepend=0), hits + false, hits / hits[-1]
    value = float(gained @ (hits / taken) / hits[-1])
    # Each image of the class counts in its own precision; the second-order term of the delta method.
    bias = float(gained @ (false * ((1 - recall) / taken**2 + recall * hits / taken**3)) / hits[-1])
    return Area(min(value, 1.0), float(hits[-1]), bias)


def _auroc(hits: Ints, false: Ints) -> Area:
    """The effective number of images is the smaller one of two: by DeLong's variance, which is too small if few images
    are all ranked well, and by Hanley and McNeil's, which assumes exponential scores. Of the two terms of the latter,
    the larger one is used for the kind with fewer images.
    """
    positives, negatives = int(hits[-1]), int(false[-1])
    gained, lost = np.diff(hits, prepend=0), np.diff(false, prepend=0)
    # Of each image, the share of images of the other kind that it is ranked right against; ties count half.
    of_positive = (negatives - false + lost / 2) / negatives
    of_negative = (hits - gained / 2) / positives
    value = min(float(gained @ of_positive / positives), 1.0)
    delong = sum(
        float(counts @ (shares - value) ** 2) / max(total - 1, 1) / total
        for counts, shares, total in ((gained, of_positive, positives), (lost, of_negative, negatives))
    )
    few, many = sorted((positives, negatives))
    right = max(value, 1 - value)
    images = few * many / (1 + (many - 1) * right / (1 + right) + (few - 1) * (1 - right) / (2 - right))
    if 0 < value < 1 and delong > 0:
        images = min(images, value * (1 - value) / delong)
    return Area(value, images)


def class_curves(counts: CurveCounts, support: Ints) -> dict[int, ClassCurve]:
    """The curves of all classes that have one. support: scored images by class."""
    total = int(support.sum())
    found = {
        number: class_curve(counts.of_class(number), int(support[number]), total - int(support[number]))
        for number in range(len(support))
    }
    return {number: curve for number, curve in found.items() if curve}


def macro_figures(curves: dict[int, ClassCurve], confidence: float) -> dict[str, Figure | None]:
    """Means over the classes. That of average precision has no interval if the classes have too few images."""
    found = list(curves.values())
    enough = sum(curve.positives for curve in found) >= MIN_IMAGES_PER_CLASS * len(found)
    return {
        "macro_average_precision": _mean([curve.average_precision for curve in found], confidence, interval=enough),
        "macro_auroc": _mean([curve.auroc for curve in found], confidence),
    }


def curves_table(curves: dict[int, ClassCurve], labels: list[str]) -> pa.Table:
    """The rows of `curves.parquet`: the points of each class's curve, by falling threshold, then those of the means."""
    rows = [_points(labels[number], curve) for number, curve in curves.items()]
    if curves:
        rows.append(_macro_points(list(curves.values())))
    return pa.concat_tables([CURVES.empty_table(), *rows]).combine_chunks()


def _points(label: str, curve: ClassCurve) -> pa.Table:
    count = len(curve.hits)
    # Evenly along the curve: points are chosen by the images of both kinds that they add.
    way = curve.hits / curve.positives + curve.false / curve.negatives
    at = np.unique(np.r_[0, np.searchsorted(way, np.linspace(0, way[-1], POINTS)).clip(max=count - 1), count - 1])
    hits, false = curve.hits[at], curve.false[at]
    columns = [
        [label] * len(at), curve.thresholds[at], hits / curve.positives, hits / (hits + false), false / curve.negatives,
    ]  # fmt: skip
    return pa.table(columns, schema=CURVES)


def _macro_points(curves: list[ClassCurve]) -> pa.Table:
    """Mean precision at the same recall, and mean recall at the same false positive rate; label and threshold null."""
    grid = np.linspace(0, 1, POINTS + 1)
    precision = np.mean([_precision_at(curve, grid) for curve in curves], axis=0)
    recall = np.mean(
        [
            np.interp(grid, np.r_[0, curve.false / curve.negatives], np.r_[0, curve.hits / curve.positives])
            for curve in curves
        ],
        axis=0,
    )
    nothing = pa.nulls(len(grid), pa.float64())
    parts = ((grid, precision, nothing), (recall, nothing, grid))
    labels, thresholds = pa.nulls(len(grid), pa.string()), pa.nulls(len(grid), pa.float32())
    return pa.concat_tables([pa.table([labels, thresholds, *part], schema=CURVES) for part in parts])


def _precision_at(curve: ClassCurve, recall: Floats) -> Floats:
    precision, reached = curve.hits / (curve.hits + curve.false), curve.hits / curve.positives
    best = np.maximum.accumulate(precision[::-1])[::-1]  # the best precision of any threshold with that recall
    return best[np.searchsorted(reached, recall).clip(max=len(best) - 1)]


def _mean(areas: list[Area], confidence: float, *, interval: bool = True) -> Figure | None:
    """The mean with its interval, widened by the bias.

    Its variance is twice that of independent areas, because most images count in two areas: that of their own class,
    and that of one other class. With two classes, both AUROCs are the same.
    """
    if not areas:
        return None
    value, inverse, bias = np.mean([(area.value, 1 / area.images, area.bias) for area in areas], axis=0).tolist()
    mean = Area(value, len(areas) / (2 * inverse)).figure(confidence)
    if not interval:
        return Figure(value=value)
    return mean.model_copy(update={"low": max((mean.low or 0.0) - bias, 0.0)})


def _logs(scores: npt.NDArray[np.float32]) -> npt.NDArray[np.float16]:
    """Logarithms, rounded as in the predictions' column `log_probabilities`."""
    return np.log(np.clip(scores, np.float32(2.0**-126), np.float32(1))).astype(np.float16)
