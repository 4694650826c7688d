"""Figures and tables of one model's outcomes, from confusion counts and probabilities."""

from collections.abc import Sequence
from typing import get_args

import numpy as np
import pyarrow as pa

from batchland.evaluation.averages import Cells, Kind, Weighting, average_figure
from batchland.evaluation.calibration import Right, bins_of, calibration_error, equal_counts, grouped
from batchland.evaluation.intervals import Floats, Ints, wilson
from batchland.evaluation.label_errors import SUSPECTED_FROM, label_error_probabilities
from batchland.evaluation.options import EvaluateOptions
from batchland.evaluation.outcomes import Outcomes
from batchland.evaluation.schema import CONFUSION, MISTAKES, PER_CLASS, ConfusedPair, Figure, Figures
from batchland.models.card import ClassName


def figures(outcomes: Outcomes, cells: Cells, options: EvaluateOptions) -> Figures:
    """The headline numbers."""
    confidence = options.confidence
    scored, total = int(outcomes.ok.sum()), len(outcomes.ok)
    right = int(cells.correct.sum())
    failures = {
        "top1_with_failures": rate(right, total, confidence),
        "failed_rate": rate(total - scored, total, confidence),
    }
    if not scored:
        return Figures(**dict.fromkeys(Figures.model_fields) | failures)
    averages = {
        f"{weighting}_{kind}": average_figure(kind, weighting, cells, confidence)
        for weighting in get_args(Weighting)
        for kind in get_args(Kind)
    }
    top1 = rate(right, scored, confidence)
    probability, hit = outcomes.probability[outcomes.ok], (outcomes.predicted == outcomes.truth)[outcomes.ok]
    found = {
        "top1": top1,
        "top3": _top(outcomes, 3, cells.classes, confidence),
        "top5": _top(outcomes, 5, cells.classes, confidence),
        "balanced_accuracy": averages["macro_recall"],
        "mean_confidence": Figure(value=float(probability.mean())),
        "brier_top1": Figure(value=float(np.mean((probability - hit) ** 2))),
    }
    calibration = _calibration(probability, hit, outcomes.predicted[outcomes.ok], options)
    return Figures(
        **failures
        | averages
        | {"weighted_recall": top1}
        | found
        | calibration
        | _proper_scores(outcomes, cells.classes)
    )


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


def mistakes(outcomes: Outcomes, table: pa.Table, classes: int, seed: int) -> pa.Table:
    """The rows of `mistakes.parquet`, from those of `outcomes.parquet`: see MISTAKES."""
    wrong = np.flatnonzero(outcomes.ok & (outcomes.truth != outcomes.predicted))
    suspicion = (outcomes.probability - np.nan_to_num(outcomes.true_probability))[wrong]
    probability = label_error_probabilities(outcomes, classes, seed)[wrong]
    found = table.select([name for name in MISTAKES.names if name in table.schema.names]).take(wrong)
    found = found.append_column("suspicion", pa.array(suspicion.astype(np.float32)))
    found = found.append_column("suspected_label_error", pa.array(probability >= SUSPECTED_FROM))
    found = found.append_column("label_error_probability", pa.array(probability.astype(np.float32)))
    return found.sort_by([("probability", "descending"), ("image", "ascending")]).cast(MISTAKES)


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


def _calibration(probability: Floats, right: Right, predicted: Ints, options: EvaluateOptions) -> dict[str, Figure]:
    groups = {
        "ece": bins_of(probability, options.bins),
        "ece_adaptive": equal_counts(probability, options.bins),
        "ece_classwise": predicted,
    }
    found = {
        name: calibration_error(
            grouped(group, probability, right),
            confidence=options.confidence,
            resamples=options.resamples,
            seed=options.seed,
        )
        for name, group in groups.items()
    }
    bins = grouped(groups["ece"], probability, right)
    return found | {"mce": Figure(value=float(np.abs(bins.accuracy - bins.confidence).max()))}


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
