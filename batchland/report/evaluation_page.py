"""The page about one evaluation."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from batchland.evaluation.calibration import ROUND_THRESHOLDS
from batchland.evaluation.schema import EvaluationSummary, Slice
from batchland.report.changes import Baseline
from batchland.report.confusion import confusion_view
from batchland.report.costs import cost_data
from batchland.report.curves import curve_data
from batchland.report.evaluation_text import shown_figures
from batchland.report.findings import MIN_SLICE_IMAGES, Finding, decision_lines, findings, headline
from batchland.report.gallery import galleries
from batchland.report.html import LONG_TABLE, render_page
from batchland.report.map import map_view
from batchland.report.options import ReportOptions
from batchland.report.page_images import add_pictures, page_images
from batchland.report.plots import coverage_plot, reliability_plot
from batchland.report.verdict import verdict

if TYPE_CHECKING:
    from batchland.evaluation.evaluate import Evaluation
    from batchland.evaluation.gates import GateResult


def evaluation_page(
    evaluation: "Evaluation",
    options: ReportOptions,
    gates: Sequence["GateResult"] = (),
    baseline: Baseline | None = None,
) -> str:
    """One HTML document."""
    summary = evaluation.summary
    classes = _worst_first(evaluation.per_class)
    shown = galleries(evaluation, options)
    images = page_images(evaluation, shown.images)
    images = add_pictures(images, evaluation, options, {images.rows[image] for image in shown.images})
    view = map_view(evaluation, images) if options.map else None
    groups = [Finding("note", group.text, "map") for group in view.groups[:1]] if view else []
    return render_page(
        "report.html.j2",
        inputs=options.inputs,
        scripts=("matrix.js", "images.js", "review.js", "costs.js", "curves.js", "map.js", "report_map.js"),
        images=images,
        map=view,
        summary=summary,
        options=options,
        gates=gates,
        verdict=verdict(evaluation, gates, baseline),
        headline=headline(summary),
        findings=(*findings(evaluation), *groups),
        figures=shown_figures(summary),
        classes=classes,
        few=MIN_SLICE_IMAGES,
        any_failed=any(row["failed"] for row in classes),
        long_table=len(classes) > LONG_TABLE,
        confusion=confusion_view(evaluation),
        place={label: index for index, label in enumerate(evaluation.per_class["label"].to_pylist())},
        galleries=shown,
        reliability=reliability_plot(summary.reliability),
        coverage=coverage_plot(summary.coverage, ROUND_THRESHOLDS),
        thresholds=[point for point in summary.coverage if point.threshold in ROUND_THRESHOLDS],
        costs=cost_data(evaluation),
        curves=curve_data(evaluation),
        slices=_by_dimension(summary),
        pair_slices=summary.pair_slices,
        decisions="; ".join(decision_lines(summary)),
    )


def _worst_first(per_class: pa.Table) -> list[dict[str, Any]]:
    """Rows by accuracy, then by falling support; classes without images last."""
    accuracy = pc.fill_null(per_class["accuracy"], 2.0).to_numpy()
    order = np.lexsort((per_class["class_index"].to_numpy(), -per_class["support"].to_numpy(), accuracy))
    return per_class.take(order).to_pylist()


def _by_dimension(summary: EvaluationSummary) -> dict[str, list[tuple[Slice, str | dict[str, list[str]]]]]:
    """Dimension -> its slices, each with what images.js selects by: the value, or the values that are left out."""
    found: dict[str, list[tuple[Slice, str | dict[str, list[str]]]]] = {}
    for part in summary.slices:
        parts = found.setdefault(part.dimension, [])
        own = part.dimension in summary.options.get("by", ())
        merged = own and part.p_value is None
        parts.append((part, {"not": [other.value for other, _ in parts]} if merged else part.value))
    return found
