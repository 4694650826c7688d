"""The page about one comparison."""

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from batchland.report.comparison_text import changed_classes, comparison_findings, differences, verdict
from batchland.report.findings import MIN_SLICE_IMAGES
from batchland.report.html import LONG_TABLE, render_page
from batchland.report.options import ReportOptions
from batchland.report.pictures import Thumbnail, Thumbnails

if TYPE_CHECKING:
    from batchland.evaluation.comparison import Comparison


class Flip(NamedTuple):
    """One image whose answer changed."""

    row: dict[str, Any]
    """Its row of flips.parquet."""
    thumbnail: Thumbnail


def comparison_page(comparison: "Comparison", options: ReportOptions) -> str:
    """One HTML document."""
    summary = comparison.summary
    classes = _largest_losses_first(comparison.per_class)
    galleries = _galleries(comparison, options)
    return render_page(
        "comparison.html.j2",
        inputs=options.inputs,
        summary=summary,
        options=options,
        verdict=verdict(summary),
        figures=differences(summary),
        findings=comparison_findings(comparison),
        changed=changed_classes(comparison.per_class),
        classes=classes,
        few=MIN_SLICE_IMAGES,
        bar_limit=_bar_limit(classes),
        long_table=len(classes) > LONG_TABLE,
        galleries=galleries,
        pictures=any(flip.thumbnail.uri for flips in galleries.values() for flip in flips),
        image_root=comparison.image_root,
    )


def _largest_losses_first(per_class: pa.Table) -> list[dict[str, Any]]:
    order = np.lexsort((-per_class["support"].to_numpy(), pc.fill_null(per_class["difference"], 2.0).to_numpy()))
    return per_class.take(order).to_pylist()


def _bar_limit(classes: list[dict[str, Any]]) -> float:
    """End of the scale of difference bars, on both sides: the smallest round share that fits all differences.

    It also fits the intervals of classes with at least MIN_SLICE_IMAGES images; those of others may be cut.
    """
    ends = ("difference", "difference_low", "difference_high")
    largest = max(
        (
            abs(row[name])
            for row in classes
            if row["difference"] is not None
            for name in ends[: 3 if row["support"] >= MIN_SLICE_IMAGES else 1]
        ),
        default=0.0,
    )
    return next(limit for limit in (0.05, 0.1, 0.2, 0.3, 0.5, 1.0) if limit >= largest)


def _galleries(comparison: "Comparison", options: ReportOptions) -> dict[str, list[Flip]]:
    """The first flips of each kind. Each kind may use a third of the bytes."""
    found: dict[str, list[Flip]] = {}
    for kind in comparison.summary.flips:
        rows = comparison.flips.filter(pc.equal(comparison.flips["change"], kind))[: options.gallery].to_pylist()
        thumbnails = Thumbnails(comparison.image_root, options.thumbnail_side, options.picture_bytes // 3)
        found[kind] = [Flip(row, thumbnails.make(row["image"], row["file_size"])) for row in rows]
    return found
