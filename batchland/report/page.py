"""Draw the page: gathers what the templates need and renders them. All text goes through Jinja's autoescape."""

import base64
import hashlib
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from batchland.evaluation.calibration import ROUND_THRESHOLDS
from batchland.report import plots
from batchland.report.confusion import confusion_view
from batchland.report.findings import findings, headline
from batchland.report.gallery import galleries
from batchland.report.text import shown_figures
from batchland.system import text as wording

if TYPE_CHECKING:
    from jinja2 import Environment

    from batchland.evaluation.evaluate import Evaluation
    from batchland.evaluation.gates import GateResult
    from batchland.report.options import ReportOptions

TEMPLATES: Final = Path(__file__).parent / "templates"
LONG_TABLE: Final = 30
"""Rows beyond which a table scrolls in a box of its own."""


def render(evaluation: "Evaluation", options: "ReportOptions", gates: Sequence["GateResult"] = ()) -> str:
    """The report as one HTML document that requests nothing."""
    summary = evaluation.summary
    classes = _classes_worst_first(evaluation.per_class)
    return render_page(
        "report.html.j2",
        summary=summary,
        options=options,
        gates=gates,
        headline=headline(summary),
        findings=findings(evaluation),
        figures=shown_figures(summary.figures, failed=summary.account.failed, classes=len(summary.classes)),
        classes=classes,
        any_failed=any(row["failed"] for row in classes),
        long_table=len(classes) > LONG_TABLE,
        confusion=confusion_view(evaluation),
        galleries=galleries(evaluation, options),
        reliability=plots.reliability_plot(summary.reliability),
        coverage=plots.coverage_plot(summary.coverage, ROUND_THRESHOLDS),
        thresholds=[point for point in summary.coverage if point.threshold in ROUND_THRESHOLDS],
        slices=_by_dimension(summary),
    )


def render_page(template: str, **context: Any) -> str:
    """Render a page of this family; its script is the only one that the page's policy lets run."""
    script = (TEMPLATES / "page.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return (
        _environment()
        .get_template(template)
        .render(
            script=script, script_hash=digest, style=(TEMPLATES / "page.css").read_text(encoding="utf-8"), **context
        )
    )


@lru_cache(maxsize=1)
def _environment() -> "Environment":
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "percent": wording.percent,
        "interval": wording.interval,
        "count": wording.count,
        "images": wording.images,
        "points": wording.points,
        "p_value": wording.p_value,
        "visible": wording.visible,
    }
    environment.globals["plot"] = plots
    return environment


def _classes_worst_first(table: pa.Table) -> list[dict[str, Any]]:
    order = np.lexsort(
        (
            table["class_index"].to_numpy(),
            -table["support"].to_numpy(),
            pc.fill_null(table["accuracy"], 2.0).to_numpy(),
        )
    )
    rows: list[dict[str, Any]] = table.take(order).to_pylist()
    return rows


def _by_dimension(summary: Any) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    for part in summary.slices:
        found.setdefault(part.dimension, []).append(part)
    return found
