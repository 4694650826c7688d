"""A Comparison as files: summary.json, tables for analysts, and one page.

files = write_comparison(comparison, Path("changes/"))
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from batchland.report.changes_text import changed_classes, changed_figures, comparison_findings, verdict
from batchland.report.options import ReportOptions
from batchland.report.page import LONG_TABLE, render_page
from batchland.report.pictures import Thumbnail, Thumbnails
from batchland.report.write import check_folder, write_folder, write_report

if TYPE_CHECKING:
    from batchland.evaluation.comparison import Comparison
    from batchland.evaluation.evaluate import Evaluation
    from batchland.evaluation.gates import GateResult

COMPARISON_FILES: Final = ("summary.json", "report.html", "per_class.parquet", "per_class.csv", "flips.parquet")


class ComparisonFiles(NamedTuple):
    """Where the parts of a comparison are."""

    folder: Path
    summary: Path
    html: Path
    per_class: Path
    per_class_csv: Path
    flips: Path


class Flip(NamedTuple):
    """One image whose answer changed, with its thumbnail; `row` is of flips.parquet."""

    row: dict[str, Any]
    thumbnail: Thumbnail


def write_comparison(
    comparison: "Comparison",
    out: str | os.PathLike[str],
    options: ReportOptions | None = None,
    *,
    beside: tuple[str, ...] = (),
) -> ComparisonFiles:
    """Write the comparison's files into the folder `out`, as `write_report` does.

    beside: names of other things in the folder that belong to it, such as the two reports.
    Raises UsageError if the folder holds something else, OutputError if it cannot be written.
    """
    options = options or ReportOptions()
    folder = Path(out)
    check_folder(folder, overwrite=options.overwrite, names=(*COMPARISON_FILES, *beside))
    tables = {"per_class": comparison.per_class, "flips": comparison.flips}
    write_folder(folder, tables, _render(comparison, options), comparison.summary)
    return ComparisonFiles(folder, *(folder / name for name in COMPARISON_FILES))


def write_side_by_side(
    a: "Evaluation",
    b: "Evaluation",
    out: str | os.PathLike[str],
    options: ReportOptions | None = None,
    *,
    gates: Sequence["GateResult"] = (),
) -> "Comparison":
    """Compare two evaluations and write it into `out`, and the report of each into a folder below.

    gates: results to show on B's page. Raises as write_comparison does.
    """
    from batchland.evaluation.comparison import compare
    from batchland.evaluation.options import CompareOptions

    options = options or ReportOptions()
    folder = Path(out)
    names = side_folders(a.summary.predictions, b.summary.predictions)
    check_folder(folder, overwrite=options.overwrite, names=(*COMPARISON_FILES, *names))
    shared = b.summary.options
    comparison = compare(a, b, CompareOptions(**{name: shared[name] for name in CompareOptions.model_fields}))
    write_report(a, folder / names[0], options)
    write_report(b, folder / names[1], options, gates=gates)
    write_comparison(comparison, folder, options, beside=names)
    return comparison


def side_folders(predictions_a: str | os.PathLike[str], predictions_b: str | os.PathLike[str]) -> tuple[str, str]:
    """What `write_side_by_side` calls the two reports: as the predictions' files or their folders, or a and b."""
    a, b = Path(predictions_a), Path(predictions_b)
    for left, right in ((a.stem, b.stem), (a.parent.name, b.parent.name)):
        if left != right and left and right and not {left, right} & set(COMPARISON_FILES):
            return left, right
    return "a", "b"


def _render(comparison: "Comparison", options: ReportOptions) -> str:
    summary = comparison.summary
    classes = _largest_losses_first(comparison.per_class)
    galleries = _galleries(comparison, options)
    return render_page(
        "comparison.html.j2",
        summary=summary,
        options=options,
        verdict=verdict(summary),
        figures=changed_figures(summary),
        findings=comparison_findings(comparison),
        changed=changed_classes(comparison.per_class),
        classes=classes,
        reach=_reach(classes),
        long_table=len(classes) > LONG_TABLE,
        galleries=galleries,
        pictures=any(flip.thumbnail.uri for flips in galleries.values() for flip in flips),
        image_root=comparison.image_root,
    )


def _largest_losses_first(table: pa.Table) -> list[dict[str, Any]]:
    order = np.lexsort((-table["support"].to_numpy(), pc.fill_null(table["difference"], 2.0).to_numpy()))
    rows: list[dict[str, Any]] = table.take(order).to_pylist()
    return rows


def _reach(classes: list[dict[str, Any]]) -> float:
    """What the bars of differences reach to on either side: a round share that holds the largest difference."""
    largest = max((abs(row["difference"]) for row in classes if row["difference"] is not None), default=0.0)
    return next(reach for reach in (0.05, 0.1, 0.2, 0.3, 0.5, 1.0) if reach >= largest)


def _galleries(comparison: "Comparison", options: ReportOptions) -> dict[str, list[Flip]]:
    """The first flips of each kind; each kind has a third of the bytes, so that none starves another."""
    found: dict[str, list[Flip]] = {}
    for kind in comparison.summary.flips:
        rows = comparison.flips.filter(pc.equal(comparison.flips["change"], kind))[: options.gallery].to_pylist()
        thumbnails = Thumbnails(comparison.image_root, options.thumbnail_side, options.picture_bytes // 3)
        found[kind] = [Flip(row, thumbnails.make(row["image"], row["file_size"])) for row in rows]
    return found
