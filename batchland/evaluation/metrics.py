"""Figures and tables of one model's outcomes, from confusion counts and probabilities."""

from collections.abc import Mapping, Sequence
from typing import get_args

import numpy as np
import pyarrow as pa

from batchland.evaluation.averages import Cells, Kind, Weighting, average_figure
from batchland.evaluation.calibration import calibration_error, equal_counts
from batchland.evaluation.counts import Sums
from batchland.evaluation.curves import ClassCurve, macro_figures
from batchland.evaluation.intervals import Floats, Ints, rate, wilson
from batchland.evaluation.options import EvaluateOptions
from batchland.evaluation.schema import CONFUSION, PER_CLASS, Bounds, ConfusedPair, Decisions, Figure, Figures
from batchland.evaluation.tally import Tally
from batchland.models.card import ClassName


def figures(tally: Tally, cells: Cells, curves: dict[int, ClassCurve], options: EvaluateOptions) -> Figures:
    """The headline numbers."""
    confidence = options.confidence
    scored, total = tally.scored, tally.images
    failures = {
        "top1_with_failures": rate(tally.right, total, confidence),
        "failed_rate": rate(total - scored, total, confidence),
    }
    if not scored:
        return Figures(**dict.fromkeys(Figures.model_fields) | failures)
    averages = {
        f"{weighting}_{kind}": average_figure(kind, weighting, cells, confidence)
        for weighting in get_args(Weighting)
        for kind in get_args(Kind)
    }
    top1 = rate(tally.right, scored, confidence)
    found = {
        "top1": top1,
        "top3": _top_accuracy(tally, 3, confidence),
        "top5": _top_accuracy(tally, 5, confidence),
        "balanced_accuracy": averages["macro_recall"],
        "mean_confidence": Figure(value=float(tally.bins.probability.sum() / scored)),
        "brier_top1": Figure(value=tally.squared_error / scored),
    }
    return Figures(
        **failures
        | averages
        | {"weighted_recall": top1}
        | found
        | _calibration(tally, options)
        | _proper_scores(tally)
        | macro_figures(curves, confidence)
    )


def per_class(
    tally: Tally, cells: Cells, classes: Sequence[ClassName], curves: Mapping[int, ClassCurve], confidence: float
) -> pa.Table:
    """The rows of `per_class.parquet`."""
    support, given, correct = cells.support, cells.given, cells.correct
    with np.errstate(divide="ignore", invalid="ignore"):
        accuracy, precision = correct / support, correct / given
        f1 = np.where(support > 0, 2 * correct / (support + given), np.nan)
        confidences = tally.by_truth.probability / support
    accuracy_bounds, precision_bounds = wilson(correct, support, confidence), wilson(correct, given, confidence)
    other, images = _confused_most_with(cells)
    labels = pa.array([name.label for name in classes], pa.string())
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
        **_areas(curves, len(classes), confidence),
        "most_confused_with": labels.take(pa.array(other, mask=images == 0)),
        "most_confused_images": images,
        "failed": tally.failed,
    }
    return pa.table(columns, schema=PER_CLASS)


def _areas(curves: Mapping[int, ClassCurve], classes: int, confidence: float) -> dict[str, pa.Array]:
    found = {}
    for name in ("average_precision", "auroc"):
        figures = {number: getattr(curve, name).figure(confidence) for number, curve in curves.items()}
        areas: list[Figure | None] = [figures.get(number) for number in range(classes)]
        for suffix, end in (("", "value"), ("_low", "low"), ("_high", "high")):
            found[name + suffix] = pa.array([getattr(area, end, None) for area in areas], pa.float64())
    return found


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


def most_confused(cells: Cells, classes: Sequence[ClassName]) -> tuple[ConfusedPair, ...]:
    """At most 20 (true, predicted) pairs, those with the most mistakes; ties by share, then index."""
    wrong = np.flatnonzero(cells.truth != cells.predicted)
    share = cells.images / cells.support[cells.truth]
    order = wrong[np.lexsort((wrong, -share[wrong], -cells.images[wrong]))][:20]
    return tuple(
        ConfusedPair(
            true_label=classes[cells.truth[cell]].label,
            predicted_label=classes[cells.predicted[cell]].label,
            images=int(cells.images[cell]),
            share=float(share[cell]),
        )
        for cell in order
    )


def _confused_most_with(cells: Cells) -> tuple[Ints, Ints]:
    """Per true class the wrong class with the most images (ties: the lower index), and their number."""
    other, images = np.zeros(cells.classes, np.int64), np.zeros(cells.classes, np.int64)
    wrong = np.flatnonzero(cells.truth != cells.predicted)
    order = wrong[np.lexsort((-cells.predicted[wrong], cells.images[wrong]))]  # the last write wins
    other[cells.truth[order]] = cells.predicted[order]
    images[cells.truth[order]] = cells.images[order]
    return other, images


def _top_accuracy(tally: Tally, k: int, confidence: float) -> Figure | None:
    if (tally.kept or 0) < min(k, tally.classes):
        return None
    return rate(int(tally.ranks[1 : k + 1].sum()), tally.scored, confidence)


def _calibration(tally: Tally, options: EvaluateOptions) -> dict[str, Figure]:
    cells = tally.scores.cells.of_all_classes()
    adaptive = Sums(options.bins)
    adaptive.add_cells(equal_counts(cells, options.bins), cells)
    groups = {"ece": tally.bins, "ece_adaptive": adaptive, "ece_classwise": tally.by_prediction}
    found = {
        name: calibration_error(sums, confidence=options.confidence, resamples=options.resamples, seed=options.seed)
        for name, sums in groups.items()
    }
    filled = tally.bins.images > 0
    distance = np.abs(tally.bins.right - tally.bins.probability)[filled] / tally.bins.images[filled]
    return found | {"mce": Figure(value=float(distance.max()))}


def _proper_scores(tally: Tally) -> dict[str, Figure | None]:
    if not tally.complete:
        return {"log_loss": None, "brier": None}
    return {
        "log_loss": Figure(value=float(tally.log_loss[0] / tally.scored)),
        "brier": Figure(value=float(tally.brier[0] / tally.scored)),
    }


def bounds(tally: Tally) -> dict[str, Bounds]:
    """Bounds of log_loss and brier, if the choices kept do not determine them."""
    if tally.complete or not tally.scored:
        return {}
    found = {"log_loss": tally.log_loss, "brier": tally.brier}
    return {
        name: Bounds(low=float(sums[0] / tally.scored), high=float(sums[1] / tally.scored))
        for name, sums in found.items()
    }


def decisions(tally: Tally, confidence: float) -> Decisions | None:
    """Accepted answers and wrong ones among them; None if the predictions have no decisions."""
    accepted, wrong, asked = tally.accepted, tally.accepted_wrong, tally.asked
    if not accepted + asked:
        return None
    error = rate(wrong, accepted, confidence) if accepted else None
    return Decisions(accepted=accepted, wrong=wrong, asked=asked, error=error)


def _nullable(values: Floats) -> pa.Array:
    return pa.array(values, mask=np.isnan(values))
