"""The headline and the findings of an evaluation, one sentence each, for the page, the terminal and Markdown."""

import math
from collections.abc import Iterator
from pathlib import PurePath
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
import pyarrow.compute as pc

from batchland.evaluation.calibration import ROUND_THRESHOLDS
from batchland.evaluation.intervals import fisher_weaker, holm, z_score
from batchland.evaluation.schema import EvaluationSummary
from batchland.system.text import count, counted, first_few, images, interval, percent, points, slice_value, visible

if TYPE_CHECKING:
    from batchland.evaluation.evaluate import Evaluation

LEVEL = 0.05
"""A p-value below it counts as more than chance."""
MIN_SLICE_IMAGES = 20
"""Least number of images of a reported slice."""
FEWEST_CONFUSED = 3
"""Least number of images of a pair of classes that is named as the most confused one."""
OVERCONFIDENT = 0.02
"""Smallest difference of mean confidence and accuracy that is reported."""


class Finding(NamedTuple):
    """One sentence."""

    kind: Literal["warning", "note"]
    text: str
    anchor: str
    """The section of the page that has more."""


class WeakClass(NamedTuple):
    """A class of low accuracy."""

    label: str
    accuracy: float
    low: float
    high: float
    support: int
    most_confused_with: str | None


def headline(summary: EvaluationSummary) -> str:
    """The result in one sentence."""
    top1, account = summary.figures.top1, summary.account
    if top1 is None or top1.low is None or top1.high is None:
        return f"None of {images(account.failed)} could be scored, so there is no accuracy to report."
    right = round(top1.value * account.scored)
    level = f"{summary.options.get('confidence', 0.95) * 100:g}%"
    return (
        f"The first choice is right for {count(right)} of {images(account.scored)}: {percent(top1.value)} "
        f"({level} interval {interval(top1)})."
    )


def worst_classes(evaluation: "Evaluation", limit: int = 5) -> tuple[WeakClass, ...]:
    """The classes of lowest accuracy; among equals, those with more images first."""
    table = evaluation.per_class
    table = table.filter(pc.greater(table["support"], 0))
    table = table.sort_by([("accuracy", "ascending"), ("support", "descending"), ("class_index", "ascending")])
    names = ("label", "accuracy", "accuracy_low", "accuracy_high", "support", "most_confused_with")
    return tuple(WeakClass(*(row[name] for name in names)) for row in table[:limit].select(names).to_pylist())


def significantly_weak_classes(evaluation: "Evaluation") -> tuple[WeakClass, ...]:
    """Classes with a lower accuracy than all others by more than chance, weakest first.

    One-sided exact test of each class against the others, adjusted by Holm for all classes.
    """
    table = evaluation.per_class
    support, correct = table["support"].to_numpy(), table["correct"].to_numpy()
    present = support > 0
    images, right = int(support.sum()), int(correct.sum())
    p_values = [
        fisher_weaker(hits, size, right, images)
        for hits, size in zip(correct[present].tolist(), support[present].tolist(), strict=True)
    ]
    weak = set(np.array(table["label"].to_pylist(), object)[present][holm(p_values) < LEVEL])
    return tuple(each for each in worst_classes(evaluation, len(weak) and table.num_rows) if each.label in weak)


def findings(evaluation: "Evaluation") -> tuple[Finding, ...]:
    """All findings, those about unmatched images and classes first."""
    return (*account_findings(evaluation.summary), *_model_findings(evaluation))


def account_findings(summary: EvaluationSummary) -> Iterator[Finding]:
    """Images and classes that are not in the figures."""
    account = summary.account
    if account.failed:
        both = summary.figures.top1_with_failures
        verb, them = ("is", "it") if account.failed == 1 else ("are", "them")
        wrong = f"; with {them} as wrong, accuracy is {percent(both.value)}" if both and summary.figures.top1 else ""
        yield Finding("warning", f"{images(account.failed)} failed and {verb} in no figure{wrong}.", "failed")
    for number, what in (
        (account.unpredicted, "with a label but without a prediction"),
        (account.unlabelled, "with a prediction but without a label"),
        (sum(account.unknown_classes.values()), "left out with a class that the model does not have"),
        (account.loose_images, "outside the class folders, so without a class"),
    ):
        if number:
            yield Finding("warning", f"{images(number)} {what}.", "account")
    if account.blank_labels:
        yield Finding("warning", f"{count(account.blank_labels)} rows of the label table have no label.", "account")
    if corrections := summary.options.get("corrections"):
        yield Finding(
            "note",
            f"The corrections in {visible(PurePath(corrections).name)} change {count(account.corrected)} of "
            f"{counted(account.reviewed, 'reviewed label')}.",
            "account",
        )
    for names, what in (
        (account.missing_classes, "without a labelled image"),
        (account.empty_folders, "an empty folder"),
        (tuple(account.renamed_classes), "matched without the number in its folder's name"),
    ):
        if names:
            classes = counted(len(names), "class", "classes")
            yield Finding("warning", f"{classes} {what}: {first_few([*map(visible, names)])}.", "account")


def decision_lines(summary: EvaluationSummary) -> Iterator[str]:
    """Lines about the decisions in the predictions."""
    found = summary.decisions
    if found:
        total = found.accepted + found.asked
        error = f" ({percent(found.error.value)}, interval {interval(found.error)})" if found.error else ""
        yield (
            f"{count(found.accepted)} of {counted(total, 'answer')} accepted, {count(found.wrong)} of them "
            f"wrong{error}; {count(found.asked)} to ask about"
        )


def promise_lines(summary: EvaluationSummary) -> Iterator[str]:
    """A line for each promise: the threshold that keeps it, or that there are too few images."""
    for found in summary.guarantees:
        if found.rule:
            text = (
                f"accept answers of at least {found.rule.threshold}: {percent(found.rule.coverage)} of the labelled "
                f"images, {count(found.rule.wrong)} of {count(found.rule.accepted)} wrong"
            )
        else:
            text = (
                f"{images(found.images)} with a label {'does' if found.images == 1 else 'do'} not show that any "
                f"threshold keeps this promise; at least "
                f"{count(found.fewest_images)} confident answers without a mistake are needed"
            )
        if found.per_class:
            classes = f"{count(len(found.per_class))} of {count(len(summary.classes))} classes"
            text += f"; summary.json has separate thresholds for {classes}"
        yield f"promise {found.promise}: {text}"


def _model_findings(evaluation: "Evaluation") -> Iterator[Finding]:
    summary = evaluation.summary
    figures = summary.figures
    if figures.top1 is None:
        return
    weak = significantly_weak_classes(evaluation)
    if weak:
        named = ", ".join(
            f"{visible(item.label)} ({percent(item.accuracy)} of {count(item.support)})" for item in weak[:3]
        )
        more = f" and {len(weak) - 3} more" if len(weak) > 3 else ""
        yield Finding("note", f"Below the average by more than chance: {named}{more}.", "classes")
    if summary.most_confused and summary.most_confused[0].images >= FEWEST_CONFUSED:
        pair = summary.most_confused[0]
        yield Finding(
            "note",
            f"Most confused: {visible(pair.true_label)} predicted as {visible(pair.predicted_label)}, "
            f"{images(pair.images)} ({percent(pair.share)} of the class).",
            "confusion",
        )
    if figures.mean_confidence is not None and figures.brier_top1 is not None:
        gap = figures.mean_confidence.value - figures.top1.value
        error = math.sqrt(max(figures.brier_top1.value - gap**2, 0) / summary.account.scored)
        # Of a few images, the estimate of the error is too small; the interval of the accuracy is not.
        chance = (
            figures.top1.low is None
            or figures.top1.high is None
            or (figures.top1.low <= figures.mean_confidence.value <= figures.top1.high)
        )
        if abs(gap) >= OVERCONFIDENT and abs(gap) > z_score(1 - LEVEL) * error and not chance:
            word = "over" if gap > 0 else "under"
            yield Finding(
                "note",
                f"The model is {word}confident: its mean confidence is {percent(figures.mean_confidence.value)}, its "
                f"accuracy {percent(figures.top1.value)}.",
                "calibration",
            )
    yield from _threshold_finding(summary)
    yield from slice_findings(summary)
    errors = summary.label_errors
    if errors and errors.share is not None:
        share = f"{count(errors.suspected)} of {count(errors.mistakes)} mistakes may be wrong labels"
        yield Finding(
            "note",
            f"{share}; about {errors.share:.0%} of these are, if wrong labels are spread over the classes.",
            "labels",
        )


def _threshold_finding(summary: EvaluationSummary) -> Iterator[Finding]:
    """The lowest round threshold that at least halves the error rate."""
    top1 = summary.figures.top1
    assert top1 is not None
    for point in summary.coverage:
        if point.threshold not in ROUND_THRESHOLDS or point.threshold == 0 or point.accuracy is None:
            continue
        if 1 - point.accuracy.value <= (1 - top1.value) / 2 and top1.value < 1:
            yield Finding(
                "note",
                f"With a threshold of {point.threshold:g}, the model answers {percent(point.coverage)} of the images "
                f"with {percent(point.accuracy.value)} accuracy and leaves {images(point.to_human)} to a human.",
                "coverage",
            )
            return


def slice_findings(summary: EvaluationSummary) -> Iterator[Finding]:
    """The three weak slices with the largest differences, and the weakest pair of columns."""
    weak = [
        part
        for part in summary.slices
        if part.images >= MIN_SLICE_IMAGES
        and part.difference is not None
        and part.difference < 0
        and part.p_value is not None
        and part.p_value < LEVEL
    ]
    for part in sorted(weak, key=lambda part: part.difference or 0)[:3]:
        yield Finding(
            "note",
            f"Weaker on {part.dimension} {slice_value(part.value)}: {percent(part.accuracy.value)} of "
            f"{images(part.images)}, {points(part.difference or 0)} compared with the others.",
            "slices",
        )
    if summary.pair_slices and summary.pair_slices.weakest:
        pair = summary.pair_slices.weakest[0]
        where = ", ".join(f"{visible(a)} {slice_value(b)}" for a, b in zip(pair.columns, pair.values, strict=True))
        more = f", and {counted(summary.pair_slices.found - 1, 'more pair')}" if summary.pair_slices.found > 1 else ""
        yield Finding(
            "note",
            f"Weaker on {where}: {percent(pair.accuracy.value)} of {images(pair.images)}, {points(pair.difference)} "
            f"compared with the others{more}.",
            "slices",
        )
