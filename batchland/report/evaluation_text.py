"""An evaluation as text: for the terminal, and as Markdown for a ticket."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from batchland.evaluation.schema import EvaluationSummary, Figure
from batchland.report.changes import Baseline
from batchland.report.findings import (
    account_findings,
    decision_lines,
    findings,
    headline,
    promise_lines,
    slice_findings,
    worst_classes,
)
from batchland.report.verdict import verdict
from batchland.system.text import NONE, aligned, count, counted, images, interval, markdown_text, one_line, percent

if TYPE_CHECKING:
    from batchland.evaluation.evaluate import Evaluation
    from batchland.evaluation.gates import GateResult

SHOWN = (
    ("top1", "top-1 accuracy"),
    ("top3", "top-3 accuracy"),
    ("top5", "top-5 accuracy"),
    ("top1_with_failures", "top-1, failed as wrong"),
    ("balanced_accuracy", "balanced accuracy"),
    ("macro_f1", "macro F1"),
    ("ece", "calibration error"),
)
"""Figures of the short texts, and what people call them."""
VERDICTS: Final = {"passed": "Passed", "warning": "Look", "failed": "Failed", "open": "No verdict"}
"""Kind of verdict -> its name."""


def shown_figures(summary: EvaluationSummary) -> list[tuple[str, Figure]]:
    """(name, figure) of the short texts, without trivial ones: top-5 of five classes, failures where there are none."""
    classes = len(summary.classes)
    trivial = {"top3": classes <= 3, "top5": classes <= 5, "top1_with_failures": not summary.account.failed}
    found = ((key, name, getattr(summary.figures, key)) for key, name in SHOWN)
    return [(name, figure) for key, name, figure in found if figure is not None and not trivial.get(key)]


def evaluation_terminal_text(
    evaluation: "Evaluation",
    gates: Sequence["GateResult"] = (),
    *,
    name: str | None = None,
    baseline: Baseline | None = None,
) -> str:
    """Verdict, what to do, main figures, images not in them, weak slices, promises, worst classes, gates, newline.

    name: title; None takes the model's name.
    """
    summary = evaluation.summary
    judged = verdict(evaluation, gates, baseline)
    scored = f"{images(summary.account.scored)} scored and labelled"
    lines = [
        f"{one_line(name or summary.model.name, 40)}: {scored}, {counted(len(summary.classes), 'class', 'classes')}"
    ]
    lines.append(f"verdict: {VERDICTS[judged.kind]}. {judged.text}")
    lines += [f"  {text}" for text in (*judged.reasons, *judged.changed)]
    lines += [f"to do: {text}" for text in judged.actions]
    figures = [
        (what, percent(figure.value), f"({bounds})" if (bounds := interval(figure)) else "")
        for what, figure in shown_figures(summary)
    ]
    lines += [f"  {line}" for line in aligned(figures, "<><")]
    lines += [f"note: {finding.text}" for finding in (*account_findings(summary), *slice_findings(summary))]
    lines += [f"decisions: {text}" for text in decision_lines(summary)]
    lines += promise_lines(summary)
    if weak := worst_classes(evaluation):
        rows = [("worst classes", "accuracy", "images", "mostly predicted as")]
        rows += [
            (
                f"  {one_line(item.label, 32)}",
                percent(item.accuracy),
                count(item.support),
                one_line(item.most_confused_with or NONE, 32),
            )
            for item in weak
        ]
        lines += aligned(rows, "<>><")
    lines += [f"gate {'FAILED' if result.failed else 'passed'}: {result.message}" for result in gates]
    return "\n".join(lines) + "\n"


def evaluation_markdown(
    evaluation: "Evaluation",
    gates: Sequence["GateResult"] = (),
    *,
    name: str | None = None,
    baseline: Baseline | None = None,
) -> str:
    """The same as Markdown, with all findings. Ends with a newline."""
    summary = evaluation.summary
    judged = verdict(evaluation, gates, baseline)
    lines = [f"## {markdown_text(name or summary.model.name)}: evaluation", ""]
    lines += [f"**{VERDICTS[judged.kind]}.** {markdown_text(judged.text)} {headline(summary)}", ""]
    if said := [*judged.changed, *judged.reasons, *(f"To do: {text}" for text in judged.actions)]:
        lines += [*(f"- {markdown_text(text)}" for text in said), ""]
    lines += ["| figure | value | interval |", "| --- | ---: | --- |"]
    for what, figure in shown_figures(summary):
        lines.append(f"| {what} | {percent(figure.value)} | {interval(figure)} |")
    if found := findings(evaluation):
        lines += ["", *(f"- {markdown_text(finding.text)}" for finding in found)]
    if promises := [*(f"decisions: {text}" for text in decision_lines(summary)), *promise_lines(summary)]:
        lines += ["", *(f"- {markdown_text(text)}" for text in promises)]
    if weak := worst_classes(evaluation):
        lines += ["", "| worst classes | accuracy | images | mostly predicted as |", "| --- | ---: | ---: | --- |"]
        lines += [
            f"| {markdown_text(item.label)} | {percent(item.accuracy)} | {count(item.support)} | "
            f"{markdown_text(item.most_confused_with or NONE)} |"
            for item in weak
        ]
    if gates:
        lines += [
            "",
            *(
                f"- {'❌ failed' if result.failed else '✅ passed'}: {markdown_text(result.message)}"
                for result in gates
            ),
        ]
    labels = f"labels {summary.labels.fingerprint[:12]}"
    lines += ["", f"Run `{summary.run_id}`, model sha256 `{summary.model.sha256[:12]}`, {labels}."]
    return "\n".join(lines) + "\n"
