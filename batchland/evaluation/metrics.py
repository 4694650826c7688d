"""Figures and tables of one model's outcomes.

They are computed from confusion counts without zeros, so that a thousand resampled test sets cost little more than one
and 1,000 classes do not need a matrix of a million cells. Tests compare the figures with scikit-learn's.
"""

import math
from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
import pyarrow as pa

from batchland.evaluation.calibration import Right
from batchland.evaluation.intervals import (
    Floats,
    Ints,
    affordable_resamples,
    percentile_bounds,
    stratified_draws,
    wilson,
)
from batchland.evaluation.outcomes import Outcomes
from batchland.evaluation.schema import CONFUSION, MISTAKES, PER_CLASS, ConfusedPair, Figure, Figures
from batchland.models.card import ClassName

SURE: Final = 0.8
"""Accuracy of the answers that may accuse a label."""


class Cells(NamedTuple):
    """The confusion matrix without zeros, ordered by (truth, predicted)."""

    truth: Ints
    predicted: Ints
    images: Ints
    classes: int

    @property
    def support(self) -> Ints:
        """Scored images per true class."""
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


def confusion_cells(outcomes: Outcomes, classes: int) -> Cells:
    """Count (true, predicted) pairs over the scored images."""
    codes, images = np.unique(
        outcomes.truth[outcomes.ok] * classes + outcomes.predicted[outcomes.ok], return_counts=True
    )
    return Cells(codes // classes, codes % classes, images, classes)


class ClassAverages(NamedTuple):
    """Means over the classes with support, of one confusion table (scalars) or of many ([...])."""

    macro_precision: Floats
    macro_recall: Floats
    macro_f1: Floats
    weighted_precision: Floats
    weighted_f1: Floats


def class_averages(support: Ints, given: Ints, correct: Ints) -> ClassAverages:
    """Precision, recall and F1, averaged over the last axis (classes). Precision is 0 for a class never predicted."""
    present = support > 0
    with np.errstate(divide="ignore", invalid="ignore"):
        precision = np.where(given > 0, correct / given, 0.0)
        recall = correct / support
        f1 = 2 * correct / (support + given)
    weights = support / support.sum()

    def macro(values: Floats) -> Floats:
        return np.asarray(values[..., present].mean(axis=-1))

    def weighted(values: Floats) -> Floats:
        return np.asarray((values[..., present] * weights[present]).sum(axis=-1))

    return ClassAverages(macro(precision), macro(recall), macro(f1), weighted(precision), weighted(f1))


def figures(
    outcomes: Outcomes, cells: Cells, *, confidence: float, resamples: int, seed: int, calibration: tuple[float, float]
) -> tuple[Figures, int]:
    """The headline numbers, and the number of resamples drawn. calibration: (ECE, MCE)."""
    scored, total = int(outcomes.ok.sum()), len(outcomes.ok)
    right = int(cells.correct.sum())
    failures = {
        "top1_with_failures": rate(right, total, confidence),
        "failed_rate": rate(total - scored, total, confidence),
    }
    if not scored:
        return Figures(**dict.fromkeys(Figures.model_fields) | failures), 0
    drawn = affordable_resamples(len(cells.images), resamples)
    spread = bootstrap_averages(cells, drawn, seed)
    means = class_averages(cells.support, cells.given, cells.correct)
    averages = {
        name: Figure(value=float(mean), low=low, high=high)
        for name, mean, samples in zip(ClassAverages._fields, means, spread, strict=True)
        for low, high in [percentile_bounds(samples, confidence)]
    }
    top1 = rate(right, scored, confidence)
    probability, hit = outcomes.probability[outcomes.ok], (outcomes.predicted == outcomes.truth)[outcomes.ok]
    ece, mce = calibration
    found = (
        failures
        | averages
        | {
            "top1": top1,
            "top3": _top(outcomes, 3, cells.classes, confidence),
            "top5": _top(outcomes, 5, cells.classes, confidence),
            "balanced_accuracy": averages["macro_recall"],
            "weighted_recall": top1,
            "mean_confidence": Figure(value=float(probability.mean())),
            "brier_top1": Figure(value=float(np.mean((probability - hit) ** 2))),
            "ece": Figure(value=ece),
            "mce": Figure(value=mce),
        }
        | _proper_scores(outcomes, cells.classes)
    )
    return Figures(**found), drawn


def bootstrap_averages(cells: Cells, resamples: int, seed: int) -> ClassAverages:
    """Class averages of resampled test sets, [resamples] each. Every class keeps its number of images."""
    given = np.zeros((resamples, cells.classes), np.int64)
    correct = np.zeros((resamples, cells.classes), np.int64)
    for members, drawn in stratified_draws(cells.truth, cells.images, resamples, seed):
        given[:, cells.predicted[members]] += drawn
        hit = cells.predicted[members] == cells.truth[members]
        correct[:, cells.truth[members[0]]] = drawn[:, hit].sum(axis=1)
    return class_averages(cells.support, given, correct)


def rate(hits: int, total: int, confidence: float) -> Figure:
    """A rate with its Wilson interval. total > 0."""
    low, high = wilson(hits, total, confidence)
    return Figure(value=hits / total, low=float(low), high=float(high))


def per_class(outcomes: Outcomes, cells: Cells, classes: Sequence[ClassName], confidence: float) -> pa.Table:
    """The rows of `per_class.parquet`."""
    support, given, correct = cells.support, cells.given, cells.correct
    with np.errstate(divide="ignore", invalid="ignore"):
        accuracy, precision = correct / support, correct / given
        f1 = np.where(support > 0, 2 * correct / (support + given), np.nan)
        confidences = (
            np.bincount(outcomes.truth[outcomes.ok], outcomes.probability[outcomes.ok], len(classes)) / support
        )
    accuracy_bounds, precision_bounds = wilson(correct, support, confidence), wilson(correct, given, confidence)
    other, images = _most_confused(cells)
    labels = pa.array([name.label for name in classes], pa.string())
    failed = np.bincount(outcomes.truth[~outcomes.ok], minlength=len(classes))
    columns = {
        "class_index": np.arange(len(classes), dtype=np.int32),
        "folder": [name.folder for name in classes],
        "label": labels,
        "support": support,
        "correct": correct,
        "accuracy": _nullable(accuracy),
        "accuracy_low": _nullable(accuracy_bounds.low),
        "accuracy_high": _nullable(accuracy_bounds.high),
        "predicted": given,
        "precision": _nullable(precision),
        "precision_low": _nullable(precision_bounds.low),
        "precision_high": _nullable(precision_bounds.high),
        "f1": _nullable(f1),
        "mean_confidence": _nullable(confidences),
        "most_confused_with": labels.take(pa.array(other, mask=images == 0)),
        "most_confused_images": images,
        "failed": failed,
    }
    return pa.table(columns, schema=PER_CLASS)


def confusion_table(cells: Cells, classes: Sequence[ClassName]) -> pa.Table:
    """The rows of `confusion.parquet`."""
    labels = pa.array([name.label for name in classes], pa.string())
    columns = {
        "true_index": cells.truth.astype(np.int32),
        "true_label": labels.take(pa.array(cells.truth)),
        "predicted_index": cells.predicted.astype(np.int32),
        "predicted_label": labels.take(pa.array(cells.predicted)),
        "images": cells.images,
        "share": cells.images / cells.support[cells.truth],
    }
    return pa.table(columns, schema=CONFUSION)


def most_confused(cells: Cells, classes: Sequence[ClassName], limit: int = 20) -> tuple[ConfusedPair, ...]:
    """The (true, predicted) pairs with the most mistakes; ties by share, then index."""
    wrong = np.flatnonzero(cells.truth != cells.predicted)
    share = cells.images / cells.support[cells.truth]
    order = wrong[np.lexsort((wrong, -share[wrong], -cells.images[wrong]))][:limit]
    return tuple(
        ConfusedPair(
            true_label=classes[cells.truth[cell]].label,
            predicted_label=classes[cells.predicted[cell]].label,
            images=int(cells.images[cell]),
            share=float(share[cell]),
        )
        for cell in order
    )


def mistakes(outcomes: Outcomes, table: pa.Table, classes: int) -> pa.Table:
    """The rows of `mistakes.parquet`, from those of `outcomes.parquet`: see MISTAKES."""
    ok, right = outcomes.ok, outcomes.truth == outcomes.predicted
    wrong = np.flatnonzero(ok & ~right)
    own = np.nan_to_num(outcomes.true_probability)
    with np.errstate(divide="ignore", invalid="ignore"):
        usual = np.bincount(outcomes.truth[ok], own[ok], classes) / np.bincount(outcomes.truth[ok], minlength=classes)
    suspected = (outcomes.probability >= usual[outcomes.predicted]) & (own < usual[outcomes.truth])
    suspected &= outcomes.probability >= _sure_from(outcomes.probability[ok], right[ok])
    found = table.select([name for name in MISTAKES.names if name in table.schema.names]).take(wrong)
    found = found.append_column("suspicion", pa.array((outcomes.probability - own)[wrong].astype(np.float32)))
    found = found.append_column("suspected_label_error", pa.array(suspected[wrong]))
    return found.sort_by([("probability", "descending"), ("image", "ascending")]).cast(MISTAKES)


def _sure_from(probability: Floats, right: Right) -> float:
    """The lowest probability from which on at least SURE of the answers are right; infinite if there is none."""
    thresholds, images = np.unique(-probability, return_counts=True)
    hits = np.bincount(np.searchsorted(thresholds, -probability), right, len(thresholds))
    enough = np.flatnonzero(np.cumsum(hits) >= SURE * np.cumsum(images))
    return float(-thresholds[enough[-1]]) if len(enough) else math.inf


def _sum_by(index: Ints, images: Ints, classes: int) -> Ints:
    return np.bincount(index, images, classes).astype(np.int64)


def _most_confused(cells: Cells) -> tuple[Ints, Ints]:
    """Per true class the wrong class with the most images (ties: the lower index), and their number."""
    other, images = np.zeros(cells.classes, np.int64), np.zeros(cells.classes, np.int64)
    wrong = np.flatnonzero(cells.truth != cells.predicted)
    order = wrong[np.lexsort((-cells.predicted[wrong], cells.images[wrong]))]  # the last write wins
    other[cells.truth[order]] = cells.predicted[order]
    images[cells.truth[order]] = cells.images[order]
    return other, images


def _top(outcomes: Outcomes, k: int, classes: int, confidence: float) -> Figure | None:
    if outcomes.kept < min(k, classes):
        return None
    rank = outcomes.true_rank[outcomes.ok]
    return rate(int(((rank > 0) & (rank <= k)).sum()), len(rank), confidence)


def _proper_scores(outcomes: Outcomes, classes: int) -> dict[str, Figure | None]:
    if outcomes.kept < classes:
        return {"log_loss": None, "brier": None}
    true = outcomes.true_probability[outcomes.ok]
    smallest = np.finfo(np.float32).eps
    log_loss = -np.log(np.clip(true, smallest, 1 - smallest)).mean()
    return {
        "log_loss": Figure(value=float(log_loss)),
        "brier": Figure(value=float((outcomes.squares[outcomes.ok] - 2 * true + 1).mean())),
    }


def _nullable(values: Floats) -> pa.Array:
    return pa.array(values, mask=np.isnan(values))
