"""A comparison as text: verdict, findings, for the terminal, and as Markdown for a ticket."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from batchland.evaluation.intervals import holm, z_score
from batchland.evaluation.schema import ComparisonSummary, Difference
from batchland.report.findings import LEVEL, Finding
from batchland.system.text import (
    aligned,
    count,
    first_few,
    images,
    markdown_text,
    one_line,
    p_value,
    percent,
    points,
    visible,
)

if TYPE_CHECKING:
    from batchland.evaluation.comparison import Comparison

FIGURES: Final = (
    ("top1", "top-1 accuracy", 1),
    ("top3", "top-3 accuracy", 1),
    ("top5", "top-5 accuracy", 1),
    ("balanced_accuracy", "balanced accuracy", 1),
    ("macro_f1", "macro F1", 1),
    ("ece", "calibration error", -1),
)
"""Figures shown (all are shares), what people call them, and whether more is better (1) or worse (-1)."""


class ShownDifference(NamedTuple):
    """One figure of both sides, and their difference as text."""

    name: str
    figure: Difference
    kind: str
    """`better`, `worse`, or empty if both sides are equal."""
    clear: bool
    """Whether it is more than chance, after Holm's adjustment for the number of figures shown."""
    difference: str
    interval: str


class ChangedClass(NamedTuple):
    """A class whose accuracy changed by more than chance (adjusted p-value below LEVEL)."""

    label: str
    accuracy_a: float
    accuracy_b: float
    difference: float
    support: int
    p_adjusted: float


def verdict(summary: ComparisonSummary) -> str:
    """Which of the two is better, or that the data does not show it."""
    a, b = visible(summary.a.name), visible(summary.b.name)
    agreement, change = summary.agreement, summary.figures.top1
    right_a = agreement.both_right + agreement.only_a_right
    right_b = agreement.both_right + agreement.only_b_right
    if not any(summary.flips.values()):
        right = f"{count(right_a)} of {images(summary.account.paired)}"
        return f"No difference. {a} and {b} give the same answers, right for {right}."
    counts = f"{b} is right for {count(right_b)} of {images(summary.account.paired)}, {a} for {count(right_a)}"
    if change.low is not None and change.high is not None:
        level = f"{summary.options['confidence'] * 100:g}% interval {_range(change)}"
        counts += f": {points(change.difference)} ({level})"
    if agreement.p_value >= LEVEL:
        return f"No clear difference. {counts}; this may be chance (exact McNemar test, {p_value(agreement.p_value)})."
    better, worse = (b, a) if right_b > right_a else (a, b)
    return (
        f"{better} is better than {worse}. {counts}; more than chance (exact McNemar test, "
        f"{p_value(agreement.p_value)})."
    )


def differences(summary: ComparisonSummary) -> list[ShownDifference]:
    """The figures that both sides have, without trivial ones (top-5 of five classes)."""
    found, chances = [], []
    for key, name, better in FIGURES:
        change: Difference | None = getattr(summary.figures, key)
        if change is None or (key in ("top3", "top5") and summary.account.classes <= int(key[3:])):
            continue
        known = change.low is not None and change.high is not None
        exact = summary.agreement.p_value if key == "top1" else None  # the exact test decides, as in the verdict
        chances.append(_chance(change, summary.options["confidence"]) if exact is None else exact)
        kind = "better" if change.difference * better > 0 else "worse" if change.difference else ""
        found.append(
            ShownDifference(name, change, kind, False, points(change.difference), _range(change) if known else "")
        )
    clear = holm(chances) < LEVEL
    return [shown._replace(clear=bool(sure)) for shown, sure in zip(found, clear, strict=True)]


def _chance(change: Difference, confidence: float) -> float:
    """The two-sided p-value that belongs to the interval of a difference, by the normal distribution."""
    from scipy.special import ndtr

    if change.low is None or change.high is None or change.high == change.low:
        return 1.0
    error = (change.high - change.low) / (2 * z_score(confidence))
    return float(2 * ndtr(-abs(change.difference) / error))


def changed_classes(table: pa.Table) -> tuple[ChangedClass, ...]:
    """Classes that changed by more than chance, after Holm's adjustment, the largest change first."""
    sure = table.filter(pc.less(table["p_adjusted"], LEVEL))
    rows = sorted(sure.select(ChangedClass._fields).to_pylist(), key=lambda row: -abs(row["difference"]))
    return tuple(ChangedClass(**row) for row in rows)


def comparison_findings(comparison: "Comparison") -> tuple[Finding, ...]:
    """All findings, those about images that are not compared first."""
    return (*_account_findings(comparison.summary), *_class_findings(comparison))


def comparison_terminal_text(comparison: "Comparison") -> str:
    """For the terminal. Ends with a newline."""
    summary = comparison.summary
    a, b = one_line(summary.a.name, 20), one_line(summary.b.name, 20)
    rows = [("", a, b, "difference", "")]
    for shown in differences(summary):
        bounds = f"({shown.interval})" if shown.interval else ""
        rows.append((shown.name, percent(shown.figure.a), percent(shown.figure.b), shown.difference, bounds))
    lines = [f"{b} compared with {a}: {images(summary.account.paired)} that both scored with the same label"]
    lines += [f"  {line}" for line in aligned(rows, "<>><<")]
    lines.append(verdict(summary))
    lines += [f"note: {finding.text}" for finding in comparison_findings(comparison)]
    lines.append(f"changed answers: {_flips(summary)}")
    return "\n".join(lines) + "\n"


def comparison_markdown(comparison: "Comparison") -> str:
    """The same as Markdown. Ends with a newline."""
    summary = comparison.summary
    a, b = markdown_text(summary.a.name), markdown_text(summary.b.name)
    lines = [f"## {b} compared with {a}", "", markdown_text(verdict(summary)), ""]
    lines += [f"| figure | {a} | {b} | difference | interval |", "| --- | ---: | ---: | ---: | --- |"]
    lines += [
        f"| {shown.name} | {percent(shown.figure.a)} | {percent(shown.figure.b)} | {shown.difference} "
        f"| {shown.interval} |"
        for shown in differences(summary)
    ]
    lines += ["", *(f"- {markdown_text(finding.text)}" for finding in comparison_findings(comparison))]
    lines.append(f"- Changed answers: {_flips(summary)}.")
    return "\n".join(lines) + "\n"


def _account_findings(summary: ComparisonSummary) -> Iterator[Finding]:
    account = summary.account
    a, b = visible(summary.a.name), visible(summary.b.name)
    for number, what in (
        (account.by_content, "with different paths, but the same content, compared with each other"),
        (account.only_a, f"only in {a}, so not compared"),
        (account.only_b, f"only in {b}, so not compared"),
        (account.relabelled, "with different labels in the two, so not compared"),
        (account.failed_a, f"failed only in {a}, so not compared"),
        (account.failed_b, f"failed only in {b}, so not compared"),
        (account.failed_both, "failed in both"),
    ):
        if number:
            yield Finding("warning", f"{images(number)} {what}.", "account")
    for names, who in ((account.classes_only_a, a), (account.classes_only_b, b)):
        if names:
            yield Finding("warning", f"Only {who} has {first_few([*map(visible, names)])}.", "account")


def _class_findings(comparison: "Comparison") -> Iterator[Finding]:
    for better, what in ((False, "Worse"), (True, "Better")):
        found = [each for each in changed_classes(comparison.per_class) if (each.difference > 0) == better]
        if found:
            some = first_few(
                [f"{visible(each.label)} ({percent(each.accuracy_a)} to {percent(each.accuracy_b)})" for each in found]
            )
            yield Finding("note", f"{what} by more than chance: {some}.", "classes")


def _flips(summary: ComparisonSummary) -> str:
    flips = summary.flips
    return (
        f"{count(flips['broken'])} broken (only {visible(summary.a.name)} was right), {count(flips['fixed'])} fixed, "
        f"{count(flips['moved'])} wrong in another way"
    )


def _range(change: Difference) -> str:
    """`+0.4 to +6.2`, in percentage points."""
    assert change.low is not None
    assert change.high is not None
    return f"{points(change.low).removesuffix(' points')} to {points(change.high).removesuffix(' points')}"
