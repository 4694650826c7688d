"""Precision-recall and ROC curves as data for the page (templates/curves.js)."""

from typing import TYPE_CHECKING, Any

import pyarrow.compute as pc

from batchland.evaluation.schema import Figure
from batchland.report.costs import MAX_CLASSES
from batchland.system.text import interval, percent, visible

if TYPE_CHECKING:
    import pyarrow as pa

    from batchland.evaluation.evaluate import Evaluation


def curve_data(evaluation: "Evaluation") -> list[dict[str, Any]] | None:
    """The means over all classes, then each class with a curve; None without curves.

    Each has `label`, `text` (the areas with their intervals), and flat pairs in 1/1000: `pr` of recall and precision,
    `roc` of false positive rate and recall. With more than MAX_CLASSES classes, there are the means only.
    """
    figures = evaluation.summary.figures
    if figures.macro_average_precision is None or figures.macro_auroc is None or not evaluation.curves.num_rows:
        return None
    means = evaluation.curves.filter(pc.is_null(evaluation.curves["label"]))
    found = [_curve("mean of all classes", means, figures.macro_average_precision, figures.macro_auroc)]
    if evaluation.per_class.num_rows > MAX_CLASSES:
        return found
    for row in evaluation.per_class.to_pylist():
        points = evaluation.curves.filter(pc.equal(evaluation.curves["label"], row["label"]))
        if points.num_rows and row["average_precision"] is not None and row["auroc"] is not None:
            areas = [
                Figure(value=row[name], low=row[f"{name}_low"], high=row[f"{name}_high"])
                for name in ("average_precision", "auroc")
            ]
            found.append(_curve(visible(row["label"]), points, *areas))
    return found


def _curve(label: str, points: "pa.Table", precision: Figure, auroc: Figure) -> dict[str, Any]:
    def pairs(x: str, y: str) -> list[int]:
        known = points.filter(pc.and_(pc.is_valid(points[x]), pc.is_valid(points[y])))
        rows = zip(known[x].to_pylist(), known[y].to_pylist(), strict=True)
        return [round(1000 * value) for row in rows for value in row]

    areas = (("average precision", precision), ("AUROC", auroc))
    text = ", ".join(
        f"{name} {percent(figure.value)}" + (f" ({bounds})" if (bounds := interval(figure)) else "")
        for name, figure in areas
    )
    roc = pairs("false_positive_rate", "recall")
    return {"label": label, "text": text, "pr": pairs("recall", "precision"), "roc": roc}
