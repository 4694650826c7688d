"""Differences of two models on the same images: headline numbers, classes, and the images whose answer changed.

Every difference is B less A. Every interval is paired: the bootstrap draws the same images for both.
"""

from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from batchland.evaluation.calibration import calibration_errors, reliability
from batchland.evaluation.intervals import (
    Floats,
    Ints,
    affordable_resamples,
    holm,
    mcnemar_exact,
    paired_difference,
    percentile_bounds,
    stratified_weights,
)
from batchland.evaluation.metrics import ClassAverages, class_averages
from batchland.evaluation.pairs import Pairs, Side
from batchland.evaluation.schema import CLASS_CHANGES, FLIPS, Difference, Differences

Flags = npt.NDArray[np.bool_]

FLIP_KINDS: Final = ("broken", "fixed", "moved")
"""Only A was right, only B was right, both were wrong with different answers."""
BINS: Final = 15
"""Bins of the reliability curves behind the calibration errors."""


def headline_differences(pairs: Pairs, *, confidence: float, resamples: int, seed: int) -> tuple[Differences, int]:
    """The headline numbers of both sides, and the number of resamples drawn."""
    drawn = affordable_resamples(len(pairs.truth), resamples)
    means_a, means_b = _image_figures(pairs, pairs.a), _image_figures(pairs, pairs.b)
    names = [name for name in means_a if name in means_b]
    gains = np.stack([means_b[name] - means_a[name] for name in names])
    mean_gains = np.empty((drawn, len(names)))
    counts = np.empty((2, 2, drawn, len(pairs.classes)), np.int64)
    for number, weights in enumerate(stratified_weights(pairs.truth, drawn, seed)):
        mean_gains[number] = gains @ weights / len(weights)
        for side, answers in enumerate((pairs.a, pairs.b)):
            counts[side, :, number] = _counts(pairs, answers, weights)
    spread_a, spread_b = (_averages(pairs, given, correct) for given, correct in counts)
    once = np.ones(len(pairs.truth), np.int64)
    averages_a, averages_b = (_averages(pairs, *_counts(pairs, side, once)) for side in (pairs.a, pairs.b))
    found = {
        name: _difference(means_a[name].mean(), means_b[name].mean(), mean_gains[:, number], confidence)
        for number, name in enumerate(names)
    }
    for name, source in (
        ("balanced_accuracy", "macro_recall"), ("macro_precision", "macro_precision"), ("macro_f1", "macro_f1"),
    ):  # fmt: skip
        before, after = (getattr(averages, source) for averages in (averages_a, averages_b))
        found[name] = _difference(before, after, getattr(spread_b, source) - getattr(spread_a, source), confidence)
    errors = [_calibration_error(pairs, side) for side in (pairs.a, pairs.b)]
    found["ece"] = Difference(a=errors[0], b=errors[1], difference=errors[1] - errors[0])
    return Differences.model_validate({name: found.get(name) for name in Differences.model_fields}), drawn


def class_differences(pairs: Pairs, only_a: Flags, only_b: Flags, confidence: float) -> pa.Table:
    """The rows of the comparison's `per_class.parquet`."""
    classes = len(pairs.classes)
    once = np.ones(len(pairs.truth), np.int64)
    support = np.bincount(pairs.truth, minlength=classes)
    losses, gains = (np.bincount(pairs.truth[flags], minlength=classes) for flags in (only_a, only_b))
    (given_a, correct_a), (given_b, correct_b) = (_counts(pairs, side, once) for side in (pairs.a, pairs.b))
    with np.errstate(divide="ignore", invalid="ignore"):
        accuracy_a, accuracy_b = correct_a / support, correct_b / support
    p_values = np.array([mcnemar_exact(int(lost), int(won)) for lost, won in zip(losses, gains, strict=True)])
    present = support > 0
    adjusted = np.full(classes, np.nan)
    adjusted[present] = holm(p_values[present])
    bounds = paired_difference(losses, gains, support, confidence)
    absent = {
        "accuracy_a": accuracy_a,
        "accuracy_b": accuracy_b,
        "difference": accuracy_b - accuracy_a,
        "difference_low": bounds.low,
        "difference_high": bounds.high,
        "p_value": p_values,
        "p_adjusted": adjusted,
        "f1_a": 2 * correct_a / np.maximum(support + given_a, 1),
        "f1_b": 2 * correct_b / np.maximum(support + given_b, 1),
    }
    columns = {"label": list(pairs.classes), "support": support, "only_a_right": losses, "only_b_right": gains}
    columns |= {name: pa.array(values, mask=~present) for name, values in absent.items()}
    return pa.table({name: columns[name] for name in CLASS_CHANGES.names}, schema=CLASS_CHANGES)


def flips(pairs: Pairs, only_a: Flags, only_b: Flags) -> pa.Table:
    """The rows of `flips.parquet`."""
    kind = np.where(only_a, 0, np.where(only_b, 1, 2))
    wrong = np.where(only_b, pairs.a.probability, pairs.b.probability)
    flipped = np.flatnonzero(pairs.a.predicted != pairs.b.predicted)
    names = np.array(pairs.images.take(pa.array(flipped)).to_pylist(), object)
    rows = flipped[np.lexsort((names, -wrong[flipped], kind[flipped]))]
    labels = pa.array(pairs.classes, pa.string())
    columns = {
        "image": pairs.images.take(pa.array(rows)),
        "true_label": labels.take(pa.array(pairs.truth[rows])),
        "change": pa.array(FLIP_KINDS).take(pa.array(kind[rows])),
        "file_size": pairs.file_size.take(pa.array(rows)),
    }
    for name, side in (("a", pairs.a), ("b", pairs.b)):
        own = side.true_probability[rows]
        columns |= {
            f"predicted_{name}": labels.take(pa.array(side.predicted[rows])),
            f"probability_{name}": pa.array(side.probability[rows].astype(np.float32)),
            f"true_probability_{name}": pa.array(own.astype(np.float32), mask=np.isnan(own)),
        }
    return pa.table({name: columns[name] for name in FLIPS.names}, schema=FLIPS)


def _image_figures(pairs: Pairs, side: Side) -> dict[str, Floats]:
    """Per figure that is a mean over images, its terms, [images]. Figures that need more choices are left out."""
    right = (side.predicted == pairs.truth).astype(np.float64)
    found = {"top1": right, "mean_confidence": side.probability, "brier_top1": (side.probability - right) ** 2}
    for k in (3, 5):
        if side.kept >= min(k, len(pairs.classes)):
            found[f"top{k}"] = ((side.true_rank > 0) & (side.true_rank <= k)).astype(np.float64)
    if side.kept >= len(pairs.classes):
        smallest = np.finfo(np.float32).eps
        found["log_loss"] = -np.log(np.clip(side.true_probability, smallest, 1 - smallest))
    return found


def _counts(pairs: Pairs, side: Side, weights: Ints) -> tuple[Ints, Ints]:
    """Images predicted as each class, and those of them that are right, [classes]. weights: count of each image."""
    classes = len(pairs.classes)
    right = side.predicted == pairs.truth
    given = np.bincount(side.predicted, weights, classes)
    correct = np.bincount(pairs.truth[right], weights[right], classes)
    return given.astype(np.int64), correct.astype(np.int64)


def _averages(pairs: Pairs, given: Ints, correct: Ints) -> ClassAverages:
    return class_averages(np.bincount(pairs.truth, minlength=len(pairs.classes)), given, correct)


def _calibration_error(pairs: Pairs, side: Side) -> float:
    return calibration_errors(reliability(side.probability, side.predicted == pairs.truth, BINS, 0.95))[0]


def _difference(before: Floats, after: Floats, samples: Floats, confidence: float) -> Difference:
    low, high = percentile_bounds(samples, confidence)
    return Difference(a=float(before), b=float(after), difference=float(after - before), low=low, high=high)
