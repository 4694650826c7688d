"""Differences of two models on the same images: headline numbers, classes, and the images whose answer changed.

Every difference is B - A, and every interval is paired: it is computed from the differences of single images. If A and
B change places, differences and intervals only change their sign. Two sides with the same answers and probabilities for
all images have intervals of exactly 0.
"""

import math
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from batchland.evaluation.averages import Kind, average, confusion_cells, difference_bounds
from batchland.evaluation.calibration import bins_of
from batchland.evaluation.intervals import (
    Floats,
    holm,
    mcnemar_exact,
    paired_difference,
    stratified_variance,
    z_score,
)
from batchland.evaluation.options import CompareOptions
from batchland.evaluation.pairs import Pairs, Side
from batchland.evaluation.schema import CLASS_CHANGES, FLIPS, Difference, Differences

Flags = npt.NDArray[np.bool_]

FLIP_KINDS: Final = ("broken", "fixed", "moved")
"""Only A was right, only B was right, both were wrong with different answers."""
BINS: Final = 15
"""Bins of the reliability curves behind the calibration errors."""


def headline_differences(pairs: Pairs, options: CompareOptions) -> Differences:
    """The headline numbers of both sides."""
    confidence = options.confidence
    means_a, means_b = _image_figures(pairs, pairs.a), _image_figures(pairs, pairs.b)
    found = {
        name: _mean_difference(pairs, means_a[name], means_b[name], confidence) for name in means_a if name in means_b
    }
    found["balanced_accuracy"] = _average_difference(pairs, "recall", confidence)
    found["macro_precision"] = _average_difference(pairs, "precision", confidence)
    found["macro_f1"] = _average_difference(pairs, "f1", confidence)
    found["ece"] = _calibration_difference(pairs, options)
    for name, change in found.items():
        if name != "log_loss" and change.low is not None and change.high is not None:  # of figures from 0 to 1
            found[name] = change.model_copy(update={"low": max(change.low, -1.0), "high": min(change.high, 1.0)})
    if pairs.identical:
        found = {name: change.model_copy(update={"low": 0.0, "high": 0.0}) for name, change in found.items()}
    return Differences.model_validate({name: found.get(name) for name in Differences.model_fields})


def class_differences(pairs: Pairs, only_a: Flags, only_b: Flags, confidence: float) -> pa.Table:
    """The rows of the comparison's `per_class.parquet`."""
    classes = len(pairs.classes)
    support = np.bincount(pairs.truth, minlength=classes)
    losses, gains = (np.bincount(pairs.truth[flags], minlength=classes) for flags in (only_a, only_b))
    given_a, given_b = (np.bincount(side.predicted, minlength=classes) for side in (pairs.a, pairs.b))
    correct_a, correct_b = (
        np.bincount(pairs.truth[side.predicted == pairs.truth], minlength=classes) for side in (pairs.a, pairs.b)
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        accuracy_a, accuracy_b = correct_a / support, correct_b / support
    p_values = np.array([mcnemar_exact(int(lost), int(won)) for lost, won in zip(losses, gains, strict=True)])
    present = support > 0
    adjusted = np.full(classes, np.nan)
    adjusted[present] = holm(p_values[present])
    bounds = paired_difference(losses, gains, support, confidence)
    low, high = (np.where(present, 0.0, np.nan) for _ in range(2)) if pairs.identical else bounds
    absent = {
        "accuracy_a": accuracy_a,
        "accuracy_b": accuracy_b,
        "difference": accuracy_b - accuracy_a,
        "difference_low": low,
        "difference_high": high,
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
    names = np.array(pairs.changed_images.to_pylist(), object)
    order = np.lexsort((names, -wrong[flipped], kind[flipped]))
    rows = flipped[order]
    labels = pa.array(pairs.classes, pa.string())
    columns = {
        "image": pairs.changed_images.take(pa.array(order)),
        "true_label": labels.take(pa.array(pairs.truth[rows])),
        "change": pa.array(FLIP_KINDS).take(pa.array(kind[rows])),
        "file_size": pairs.changed_sizes.take(pa.array(order)),
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
    """For each figure that is a mean over images, the value of each image, [images].

    Figures that need more choices than are kept are left out.
    """
    right = (side.predicted == pairs.truth).astype(np.float64)
    found = {"top1": right, "mean_confidence": side.probability, "brier_top1": (side.probability - right) ** 2}
    for k in (3, 5):
        if side.kept >= min(k, len(pairs.classes)):
            found[f"top{k}"] = ((side.true_rank > 0) & (side.true_rank <= k)).astype(np.float64)
    if not np.isnan(side.true_probability).any():
        smallest = np.finfo(np.float32).eps
        found["log_loss"] = -np.log(np.clip(side.true_probability, smallest, 1 - smallest))
    return found


def _mean_difference(pairs: Pairs, a: Floats, b: Floats, confidence: float) -> Difference:
    """Difference of the means of two values per image. Without an interval if all images differ by the same."""
    gain = b - a
    images = len(gain)
    change = Difference(a=float(a.mean()), b=float(b.mean()), difference=float(gain.mean()))
    if np.isin([a, b], (0, 1)).all():
        losses, gains = np.count_nonzero(gain < 0), np.count_nonzero(gain > 0)
        low, high = paired_difference(losses, gains, images, confidence)
        return change.model_copy(update={"low": float(low), "high": float(high)})
    weights = np.bincount(pairs.truth, minlength=len(pairs.classes)) / images
    variance = stratified_variance(pairs.truth, np.ones(images, np.int64), gain / images, weights)
    if not variance:
        return change
    half = z_score(confidence) * variance**0.5
    return change.model_copy(update={"low": change.difference - half, "high": change.difference + half})


def _average_difference(pairs: Pairs, kind: Kind, confidence: float) -> Difference:
    """Difference of two macro averages."""
    sides, influences = [], []
    for side in (pairs.a, pairs.b):
        cells, cell_of_image = confusion_cells(pairs.truth, side.predicted, len(pairs.classes))
        sides.append(average(kind, "macro", cells))
        influences.append(sides[-1].influence[cell_of_image])
    a, b = sides
    change = Difference(a=a.value, b=b.value, difference=b.value - a.value)
    if not a.has_interval or (pairs.a.predicted == pairs.b.predicted).all():
        return change
    low, high = difference_bounds(a, b, pairs.truth, influences[1] - influences[0], confidence)
    return change.model_copy(update={"low": low, "high": high})


def _calibration_difference(pairs: Pairs, options: CompareOptions) -> Difference:
    """Difference of the expected calibration errors, with a basic interval of the paired bootstrap.

    Half of the samples are drawn with A's bins first, half with B's: so swapping A and B gives the same samples.
    """
    (a, b), from_a = _calibration_errors(pairs, (pairs.a, pairs.b), options)
    _, from_b = _calibration_errors(pairs, (pairs.b, pairs.a), options)
    change = Difference(a=a, b=b, difference=b - a)
    spread = np.concatenate([from_a[1] - from_a[0], from_b[0] - from_b[1]])
    if np.ptp(spread) == 0:
        return change
    low, high = 2 * (b - a) - np.quantile(spread, [0.5 + options.confidence / 2, 0.5 - options.confidence / 2])
    return change.model_copy(update={"low": min(float(low), b - a), "high": max(float(high), b - a)})


def _calibration_errors(pairs: Pairs, sides: tuple[Side, Side], options: CompareOptions) -> tuple[Floats, Floats]:
    """Expected calibration errors of two sides, [2], and those of bootstrap samples, [2, samples].

    Images in the same bin and equally right on both sides are one cell, so that cells are resampled, not images.
    """
    groups = [bins_of(side.probability, BINS) for side in sides]
    right = [side.predicted == pairs.truth for side in sides]
    code = ((groups[0] * 2 + right[0]) * BINS + groups[1]) * 2 + right[1]
    _, first, cell, images = np.unique(code, return_index=True, return_inverse=True, return_counts=True)
    rng, samples = np.random.default_rng(options.seed), math.ceil(options.resamples / 2)
    drawn = rng.multinomial(len(code), images / len(code), samples)
    excess = np.zeros((2, len(images), BINS))  # mean of right answers minus confidence, by cell and bin
    for number, side in enumerate(sides):
        mean = np.bincount(cell, right[number] - side.probability) / images
        excess[number, np.arange(len(images)), groups[number][first]] = mean
    errors = np.abs(np.vstack([images, drawn]) @ excess).sum(axis=2) / len(code)
    return errors[:, 0], errors[:, 1:]
