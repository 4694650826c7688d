"""A comparison in sentences: its verdict, what to look at, the terminal summary and Markdown."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from batchland.evaluation.schema import Change, ComparisonSummary
from batchland.report.findings import Finding
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

LEVEL: Final = 0.05
"""p-values below it are told as more than chance."""
FIGURES: Final = (
    ("top1", "top-1 accuracy", 1),
    ("top3", "top-3 accuracy", 1),
    ("top5", "top-5 accuracy", 1),
    ("balanced_accuracy", "balanced accuracy", 1),
    ("macro_f1", "macro F1", 1),
    ("ece", "calibration error", -1),
)
"""Figures shown, all of them shares: their names, and whether more is better (1) or worse (-1)."""


class ChangedFigure(NamedTuple):
    """One figure of both sides and its difference, ready to be shown."""

    name: str
    change: Change
    kind: str
    """`better` or `worse` where the whole interval says so, and of top1 the exact test, too; else nothing."""
    difference: str
    interval: str


class ChangedClass(NamedTuple):
    """A class whose accuracy changed by more than chance."""

    label: str
    accuracy_a: float
    accuracy_b: float
    difference: float
    support: int
    p_adjusted: float


def verdict(summary: ComparisonSummary) -> str:
    """Which is better, if either, in one sentence or two."""
    a, b = visible(summary.a.name), visible(summary.b.name)
    agreement, change = summary.agreement, summary.figures.top1
    right_a = agreement.both_right + agreement.only_a_right
    right_b = agreement.both_right + agreement.only_b_right
    if not any(summary.flips.values()):
        return (
            f"No difference. {a} and {b} answer alike; {count(right_a)} of {images(summary.account.paired)} are right."
        )
    told = f"{b} is right for {count(right_b)} of {images(summary.account.paired)}, {a} for {count(right_a)}"
    if change.low is not None and change.high is not None:
        level = f"{summary.options['confidence'] * 100:g}% interval {_range(change)}"
        told += f": {points(change.difference)} ({level})"
    if agreement.p_value >= LEVEL:
        return (
            f"No clear difference. {told}; chance alone may do that (exact McNemar test, {p_value(agreement.p_value)})."
        )
    better, worse = (b, a) if right_b > right_a else (a, b)
    return (
        f"{better} is better than {worse}. {told}; hardly by chance (exact McNemar test, {p_value(agreement.p_value)})."
    )


def changed_figures(summary: ComparisonSummary) -> list[ChangedFigure]:
    """The figures that both have, but no top-5 of five classes."""
    found = []
    for key, name, better in FIGURES:
        change: Change | None = getattr(summary.figures, key)
        if change is None or (key in ("top3", "top5") and summary.account.classes <= int(key[3:])):
            continue
        known = change.low is not None and change.high is not None
        sure = known and (change.low > 0 or change.high < 0)  # type: ignore[operator]
        if key == "top1":  # the exact test has the last word, as in the verdict
            sure = sure and summary.agreement.p_value < LEVEL
        kind = ("better" if change.difference * better > 0 else "worse") if sure else ""
        found.append(ChangedFigure(name, change, kind, points(change.difference), _range(change) if known else ""))
    return found


def changed_classes(table: pa.Table) -> tuple[ChangedClass, ...]:
    """Classes whose change is more than chance after Holm's adjustment, the largest first."""
    sure = table.filter(pc.less(table["p_adjusted"], LEVEL))
    rows = sorted(sure.select(ChangedClass._fields).to_pylist(), key=lambda row: -abs(row["difference"]))
    return tuple(ChangedClass(**row) for row in rows)


def comparison_findings(comparison: "Comparison") -> tuple[Finding, ...]:
    """What a reader should know first."""
    return (*_account_findings(comparison.summary), *_class_findings(comparison))


def comparison_summary(comparison: "Comparison") -> str:
    """For the terminal. Ends with a newline."""
    summary = comparison.summary
    a, b = one_line(summary.a.name, 20), one_line(summary.b.name, 20)
    rows = [("", a, b, "difference", "")]
    for figure in changed_figures(summary):
        bounds = f"({figure.interval})" if figure.interval else ""
        rows.append((figure.name, percent(figure.change.a), percent(figure.change.b), figure.difference, bounds))
    lines = [f"{b} against {a}: {images(summary.account.paired)} that both scored"]
    lines += [f"  {line}" for line in aligned(rows, "<>><<")]
    lines.append(verdict(summary))
    lines += [f"note: {finding.text}" for finding in comparison_findings(comparison)]
    lines.append(f"images: {_flips(summary)}")
    return "\n".join(lines) + "\n"


def comparison_markdown(comparison: "Comparison") -> str:
    """The same for pasting into a ticket. Ends with a newline."""
    summary = comparison.summary
    a, b = markdown_text(summary.a.name), markdown_text(summary.b.name)
    lines = [f"## {b} against {a}", "", markdown_text(verdict(summary)), ""]
    lines += [f"| figure | {a} | {b} | difference | interval |", "| --- | ---: | ---: | ---: | --- |"]
    lines += [
        f"| {figure.name} | {percent(figure.change.a)} | {percent(figure.change.b)} | {figure.difference} "
        f"| {figure.interval} |"
        for figure in changed_figures(summary)
    ]
    lines += ["", *(f"- {markdown_text(finding.text)}" for finding in comparison_findings(comparison))]
    lines.append(f"- Images: {_flips(summary)}.")
    return "\n".join(lines) + "\n"


def _account_findings(summary: ComparisonSummary) -> Iterator[Finding]:
    account = summary.account
    a, b = visible(summary.a.name), visible(summary.b.name)
    for number, what in (
        (account.only_a, f"in {a} alone, so not compared"),
        (account.only_b, f"in {b} alone, so not compared"),
        (account.relabelled, "labelled differently in the two, so not compared"),
        (account.failed_a, f"failed in {a} alone, so not compared"),
        (account.failed_b, f"failed in {b} alone, so not compared"),
        (account.failed_both, "failed in both"),
    ):
        if number:
            yield Finding("warning", f"{images(number)} {what}.", "account")
    for names, who in ((account.classes_only_a, a), (account.classes_only_b, b)):
        if names:
            yield Finding("warning", f"Only {who} knows {first_few([*map(visible, names)])}.", "account")


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
        f"{count(flips['broken'])} broken ({visible(summary.a.name)} alone was right), {count(flips['fixed'])} fixed, "
        f"{count(flips['moved'])} wrong in another way"
    )


def _range(change: Change) -> str:
    """`+0.4 to +6.2`, in percentage points."""
    assert change.low is not None
    assert change.high is not None
    return f"{points(change.low).removesuffix(' points')} to {points(change.high).removesuffix(' points')}"
