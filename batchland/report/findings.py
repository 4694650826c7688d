"""What to look at first, in sentences: drawn from the figures alone, for the page, the terminal and Markdown."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
import pyarrow.compute as pc

from batchland.evaluation.schema import EvaluationSummary
from batchland.system.text import count, counted, first_few, images, percent, points, visible

if TYPE_CHECKING:
    from batchland.evaluation.evaluate import Evaluation

OVERCONFIDENT = 0.02
"""Mean confidence may differ from accuracy by this much before it is told."""


class Finding(NamedTuple):
    """One sentence and where on the page it leads."""

    kind: Literal["warning", "note"]
    text: str
    anchor: str


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
        f"({level} interval {top1.low * 100:.1f} to {top1.high * 100:.1f}%)."
    )


def worst_classes(evaluation: "Evaluation", limit: int = 5) -> tuple[WeakClass, ...]:
    """The classes of lowest accuracy; among equals, those with more images first."""
    table = evaluation.per_class
    table = table.filter(pc.greater(table["support"], 0))
    table = table.sort_by([("accuracy", "ascending"), ("support", "descending"), ("class_index", "ascending")])
    names = ("label", "accuracy", "accuracy_low", "accuracy_high", "support", "most_confused_with")
    return tuple(WeakClass(*(row[name] for name in names)) for row in table[:limit].select(names).to_pylist())


def findings(evaluation: "Evaluation") -> tuple[Finding, ...]:
    """What a reader should know first, the account of unmatched images and classes included."""
    return (*account_findings(evaluation.summary), *_model_findings(evaluation))


def account_findings(summary: EvaluationSummary) -> Iterator[Finding]:
    """What of the input is not in the figures."""
    account = summary.account
    if account.failed:
        both = summary.figures.top1_with_failures
        verb, who = ("is", "it") if account.failed == 1 else ("are", "they")
        wrong = f"; counted as wrong, {who} would leave {percent(both.value)}" if both and summary.figures.top1 else ""
        yield Finding("warning", f"{images(account.failed)} failed and {verb} in no figure{wrong}.", "failed")
    for number, what in (
        (account.unpredicted, "labelled but not in the predictions"),
        (account.unlabelled, "predicted but without a label"),
        (sum(account.unknown_classes.values()), "left out because the model does not know their class"),
        (account.loose_images, "beside the class folders, so without a class"),
    ):
        if number:
            yield Finding("warning", f"{images(number)} {what}.", "account")
    if account.blank_labels:
        yield Finding("warning", f"{count(account.blank_labels)} rows of the labels have no label.", "account")
    for names, what in (
        (account.missing_classes, "without a labelled image"),
        (account.empty_folders, "empty as a folder"),
        (tuple(account.renamed_classes), "matched without the number in its folder's name"),
    ):
        if names:
            some = first_few([*map(visible, names)])
            yield Finding("warning", f"{counted(len(names), 'class is', 'classes are')} {what}: {some}.", "account")


def _model_findings(evaluation: "Evaluation") -> Iterator[Finding]:
    summary = evaluation.summary
    figures = summary.figures
    if figures.top1 is None:
        return
    weak = [weak for weak in worst_classes(evaluation, 3) if weak.high < figures.top1.value]
    if weak:
        named = ", ".join(f"{visible(item.label)} ({percent(item.accuracy)} of {count(item.support)})" for item in weak)
        yield Finding("note", f"Clearly below the average: {named}.", "classes")
    if summary.most_confused:
        pair = summary.most_confused[0]
        yield Finding(
            "note",
            f"Most confused: {visible(pair.true_label)} taken for {visible(pair.predicted_label)}, "
            f"{images(pair.images)} ({percent(pair.share)} of the class).",
            "confusion",
        )
    if figures.mean_confidence is not None:
        gap = figures.mean_confidence.value - figures.top1.value
        if abs(gap) >= OVERCONFIDENT:
            word = "over" if gap > 0 else "under"
            yield Finding(
                "note",
                f"The model is {word}confident: its mean confidence is {percent(figures.mean_confidence.value)}, its "
                f"accuracy {percent(figures.top1.value)}.",
                "calibration",
            )
    yield from _threshold_finding(summary)
    yield from _slice_findings(summary)
    suspected = int(np.count_nonzero(evaluation.mistakes["suspected_label_error"].to_numpy()))
    if suspected:
        share = f"{count(suspected)} of {images(evaluation.mistakes.num_rows)} named wrong may have a wrong label"
        yield Finding("note", f"{share}: the answer is as sure as right ones are.", "labels")


def _threshold_finding(summary: EvaluationSummary) -> Iterator[Finding]:
    """The lowest round threshold that halves the errors, if it still answers most images."""
    top1 = summary.figures.top1
    assert top1 is not None
    for point in summary.coverage:
        if point.threshold not in (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99) or point.accuracy is None:
            continue
        if 1 - point.accuracy.value <= (1 - top1.value) / 2 and top1.value < 1:
            yield Finding(
                "note",
                f"With a threshold of {point.threshold:g}, {percent(point.coverage)} of the images are answered at "
                f"{percent(point.accuracy.value)} accuracy, and {images(point.to_human)} go to a human.",
                "coverage",
            )
            return


def _slice_findings(summary: EvaluationSummary) -> Iterator[Finding]:
    weak = [
        part
        for part in summary.slices
        if part.difference is not None and part.difference < 0 and part.p_value is not None and part.p_value < 0.05
    ]
    for part in sorted(weak, key=lambda part: part.difference or 0)[:3]:
        yield Finding(
            "note",
            f"Weaker on {part.dimension} {visible(part.value) or '(none)'}: {percent(part.accuracy.value)} of "
            f"{images(part.images)}, {points(part.difference or 0)} against the others.",
            "slices",
        )
