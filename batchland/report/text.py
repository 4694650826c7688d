"""An evaluation as plain text: for the terminal, and as Markdown for a ticket."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from batchland.evaluation.schema import Figure, Figures
from batchland.report.findings import account_findings, findings, headline, worst_classes
from batchland.system.text import NONE, aligned, count, images, interval, markdown_text, one_line, percent

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
"""Figures of the short forms, and their names."""


def shown_figures(figures: Figures, *, failed: int, classes: int) -> list[tuple[str, Figure]]:
    """The figures that say something here: no top-5 of five classes, no second accuracy without failures."""
    useless = {"top3": classes <= 3, "top5": classes <= 5, "top1_with_failures": not failed}
    return [
        (name, figure) for key, name in SHOWN if not useless.get(key) and (figure := getattr(figures, key)) is not None
    ]


def terminal_summary(evaluation: "Evaluation", gates: Sequence["GateResult"] = (), *, name: str | None = None) -> str:
    """Headline, what is not in it, the five worst classes, gates. Ends with a newline.

    name: what tells it from another one, in place of the model's.
    """
    summary = evaluation.summary
    scored = f"{images(summary.account.scored)} scored and labelled"
    lines = [f"{one_line(name or summary.model.name, 40)}: {scored}, {len(summary.classes)} classes"]
    figures = [
        (what, percent(figure.value), f"({bounds})" if (bounds := interval(figure)) else "")
        for what, figure in shown_figures(summary.figures, failed=summary.account.failed, classes=len(summary.classes))
    ]
    lines += [f"  {line}" for line in aligned(figures, "<><")]
    lines += [f"note: {finding.text}" for finding in account_findings(summary)]
    if weak := worst_classes(evaluation):
        rows = [("worst classes", "accuracy", "images", "mostly taken for")]
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


def markdown(evaluation: "Evaluation", gates: Sequence["GateResult"] = (), *, name: str | None = None) -> str:
    """The same for pasting into a ticket, with the findings. Ends with a newline."""
    summary = evaluation.summary
    lines = [f"## {markdown_text(name or summary.model.name)}: evaluation", "", headline(summary), ""]
    lines += ["| figure | value | interval |", "| --- | ---: | --- |"]
    for what, figure in shown_figures(summary.figures, failed=summary.account.failed, classes=len(summary.classes)):
        lines.append(f"| {what} | {percent(figure.value)} | {interval(figure)} |")
    if found := findings(evaluation):
        lines += ["", *(f"- {markdown_text(finding.text)}" for finding in found)]
    if weak := worst_classes(evaluation):
        lines += ["", "| worst classes | accuracy | images | mostly taken for |", "| --- | ---: | ---: | --- |"]
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
