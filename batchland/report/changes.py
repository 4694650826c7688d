"""An evaluation against an earlier one: whether the accuracy differs by more than chance, and for which classes."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from batchland.evaluation.comparison import compare
from batchland.evaluation.intervals import fisher_exact, holm
from batchland.evaluation.options import CompareOptions
from batchland.evaluation.pairs import Pairs, pair
from batchland.evaluation.schema import PairAccount
from batchland.report.comparison_text import changed_classes
from batchland.report.findings import LEVEL
from batchland.system.documents import Document
from batchland.system.text import count, first_few, images, p_value, percent, points, visible

if TYPE_CHECKING:
    from batchland.evaluation.evaluate import Evaluation
    from batchland.evaluation.saved import Report

PAIRED_SHARE = 0.9
"""With at least this share of the images in the baseline, only these are compared, image by image."""


class Baseline(NamedTuple):
    """What an evaluation is compared with."""

    report: "Report | Evaluation"
    name: str
    """Its name in a sentence: `the last good night, 2026-11-22`."""


class ChangedClass(Document):
    """A class that changed by more than chance."""

    label: str
    before: float
    """Accuracy."""
    now: float


class Changes(Document):
    """How an evaluation differs from its baseline."""

    baseline: str
    """Its name."""
    worse: bool
    """Whether it is worse by more than chance."""
    before: float | None
    """Accuracy of the baseline on the compared images. It, `now` and `p_value` are None if nothing can be compared."""
    now: float | None
    p_value: float | None
    paired: bool
    """Whether the same images are compared, with McNemar's exact test; otherwise Fisher's exact test, of all images."""
    text: str
    """The result, as a sentence."""
    classes: tuple[ChangedClass, ...]
    """Classes that changed by more than chance, the largest change first. Their p-values are adjusted by Holm."""
    cause: str
    """Whether the model and the images are the same, and how many images were not compared."""

    @property
    def sentences(self) -> Iterator[str]:
        """Result, classes and cause as sentences."""
        yield self.text
        for better, word in ((False, "Worse"), (True, "Better")):
            named = [
                f"{visible(each.label)} ({percent(each.before)} to {percent(each.now)})"
                for each in self.classes
                if (each.now > each.before) == better
            ]
            if named:
                yield f"{word} by more than chance, classes: {first_few(named)}."
        yield self.cause


def changes(evaluation: "Evaluation", baseline: Baseline) -> Changes | None:
    """Compare with the baseline; None if one of the two has no scored image.

    Paired by image (exact McNemar test) if the images are the same, else as independent samples (Fisher's exact test).
    Classes are adjusted by Holm for their number. Nothing can be compared if all labels of the same images are
    different.
    """
    now, before = evaluation.summary, baseline.report.summary
    if now.figures.top1 is None or before.figures.top1 is None:
        return None
    matched = pair(baseline.report, evaluation)
    account = matched[1]
    common = account.images_a - account.only_a
    same_model = now.model.sha256 == before.model.sha256
    model = "The model is the same" if same_model else "The model is another one"
    if common >= PAIRED_SHARE * account.images_b:
        left_out = _left_out(account)
        if not account.paired:
            return _nothing(baseline, f"{model}, {images(common)} are the same.{left_out}", account)
        same = f"{images(account.paired)} are the same" if left_out else "the images are the same"
        return _paired(evaluation, baseline, f"{model}, {same}.{left_out}", matched)
    if not common:
        return _independent(evaluation, baseline, f"{model}, the images are others.", "of other images")
    cause = f"{model}, only {count(common)} of {images(account.images_b)} are the same."
    return _independent(evaluation, baseline, cause, "of partly other images")


def _left_out(account: PairAccount) -> str:
    """A sentence about the images that are not compared, after a space; empty if there are none."""
    one_side = account.only_a + account.only_b + account.failed_a + account.failed_b
    reasons = ((account.relabelled, "with different labels"), (one_side, "that only one of the two scored"))
    left = [f"{images(number)} {why}" for number, why in reasons if number]
    return f" Not compared: {', '.join(left)}." if left else ""


def _nothing(baseline: Baseline, cause: str, account: PairAccount) -> Changes:
    common = account.images_a - account.only_a
    scored = "" if account.relabelled == common else "was scored in both and "
    none = f"none of the same {count(common)} {scored}has the same label"
    return Changes(
        baseline=baseline.name,
        worse=False,
        before=None,
        now=None,
        p_value=None,
        paired=True,
        text=f"Nothing can be compared with {baseline.name}: {none}.",
        classes=(),
        cause=cause,
    )


def _paired(evaluation: "Evaluation", baseline: Baseline, cause: str, matched: tuple[Pairs, PairAccount]) -> Changes:
    options = CompareOptions(confidence=evaluation.summary.options.get("confidence", 0.95), resamples=200)
    comparison = compare(baseline.report, evaluation, options, matched=matched)
    top1 = comparison.summary.figures.top1
    classes = [(each.label, each.accuracy_a, each.accuracy_b) for each in changed_classes(comparison.per_class)]
    of = f"of the same {count(comparison.summary.account.paired)}"
    return _changes(baseline, (top1.a, top1.b), comparison.summary.agreement.p_value, of, classes, cause, paired=True)


def _independent(evaluation: "Evaluation", baseline: Baseline, cause: str, of: str) -> Changes:
    columns = ["label", "support", "correct"]
    now = {row["label"]: row for row in evaluation.per_class.select(columns).to_pylist()}
    before = {row["label"]: row for row in baseline.report.per_class.select(columns).to_pylist()}
    sums = [(sum(row["correct"] for row in side.values()), sum(row["support"] for row in side.values()))
            for side in (before, now)]  # fmt: skip

    def test(a: tuple[int, int], b: tuple[int, int]) -> float:
        return fisher_exact(*a, a[0] + b[0], a[1] + b[1])

    (right_a, all_a), (right_b, all_b) = sums
    both = [label for label in now if label in before and now[label]["support"] and before[label]["support"]]
    pairs = [tuple((side[label]["correct"], side[label]["support"]) for side in (before, now)) for label in both]
    adjusted = holm([test(*pair) for pair in pairs]) if pairs else np.array([])
    changed = [
        (label, a[0] / a[1], b[0] / b[1]) for label, (a, b), p in zip(both, pairs, adjusted, strict=True) if p < LEVEL
    ]
    changed.sort(key=lambda each: -abs(each[2] - each[1]))
    accuracies = right_a / all_a, right_b / all_b
    return _changes(baseline, accuracies, test(*sums), of, changed, cause, paired=False)


def _changes(
    baseline: Baseline,
    accuracies: tuple[float, float],
    p: float,
    of: str,
    classes: Sequence[tuple[str, float, float]],
    cause: str,
    *,
    paired: bool,
) -> Changes:
    before, now = accuracies
    figures = f"{percent(before)} to {percent(now)} {of}, {points(now - before)} ({p_value(p)})"
    result = "Not different from" if p >= LEVEL else "Better than" if now > before else "Worse than"
    return Changes(
        baseline=baseline.name,
        worse=p < LEVEL and now < before,
        before=before,
        now=now,
        p_value=p,
        paired=paired,
        text=f"{result} {baseline.name} by more than chance: {figures}.",
        classes=tuple(ChangedClass(label=label, before=a, now=b) for label, a, b in classes),
        cause=cause,
    )
