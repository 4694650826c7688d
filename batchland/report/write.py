"""Write an evaluation or a comparison as a folder: summary.json, tables for analysts, and one page.

files = write_report(evaluation, Path("report/"))
files = write_comparison(comparison, Path("changes/"))
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pyarrow as pa

from batchland.evaluation.comparison import compare
from batchland.evaluation.options import CompareOptions
from batchland.evaluation.saved import COMPARISON_FILES, REPORT_FILES, check_folder, write_folder
from batchland.evaluation.table_file import TableFile
from batchland.report.changes import Baseline
from batchland.report.comparison_page import comparison_page
from batchland.report.evaluation_page import evaluation_page
from batchland.report.options import ReportOptions

if TYPE_CHECKING:
    from batchland.evaluation.comparison import Comparison
    from batchland.evaluation.evaluate import Evaluation
    from batchland.evaluation.gates import GateResult


class ReportFiles(NamedTuple):
    """Paths of a report: its folder and the files in it."""

    folder: Path
    summary: Path
    html: Path
    per_class: Path
    per_class_csv: Path
    confusion: Path
    mistakes: Path
    outcomes: Path
    curves: Path


class ComparisonFiles(NamedTuple):
    """Paths of a comparison: its folder and the files in it."""

    folder: Path
    summary: Path
    html: Path
    per_class: Path
    per_class_csv: Path
    flips: Path


def write_report(
    evaluation: "Evaluation",
    out: str | os.PathLike[str],
    options: ReportOptions | None = None,
    *,
    gates: Sequence["GateResult"] = (),
    baseline: Baseline | None = None,
) -> ReportFiles:
    """Write the report's files into the folder `out`. An earlier report there is replaced.

    Each file appears by rename. The old summary.json is removed first and the new one written last: a folder with a
    summary is complete.

    gates: results to show on the page. baseline: the page says what is different from it.

    Raises UsageError if the folder holds other files, OutputError if it cannot be written.
    """
    options = options or ReportOptions()
    folder = Path(out)
    check_folder(folder, REPORT_FILES, inputs=options.inputs, overwrite=options.overwrite)
    tables: dict[str, pa.Table | TableFile] = {
        "per_class": evaluation.per_class,
        "confusion": evaluation.confusion,
        "mistakes": evaluation.mistakes_file,
        "outcomes": evaluation.outcomes_file,
        "curves": evaluation.curves,
    }
    write_folder(folder, tables, evaluation.summary, evaluation_page(evaluation, options, gates, baseline))
    return ReportFiles(folder, *(folder / name for name in REPORT_FILES))


def write_comparison(
    comparison: "Comparison",
    out: str | os.PathLike[str],
    options: ReportOptions | None = None,
    *,
    reports: tuple[str, ...] = (),
) -> ComparisonFiles:
    """Write the comparison's files into the folder `out`, as `write_report` does.

    reports: names of folders in `out` that belong to the comparison.

    Raises UsageError if the folder holds other files, OutputError if it cannot be written.
    """
    options = options or ReportOptions()
    folder = Path(out)
    check_folder(folder, (*COMPARISON_FILES, *reports), inputs=options.inputs, overwrite=options.overwrite)
    tables = {"per_class": comparison.per_class, "flips": comparison.flips}
    write_folder(folder, tables, comparison.summary, comparison_page(comparison, options))
    return ComparisonFiles(folder, *(folder / name for name in COMPARISON_FILES))


def write_side_by_side(
    a: "Evaluation",
    b: "Evaluation",
    out: str | os.PathLike[str],
    options: ReportOptions | None = None,
    *,
    gates: Sequence["GateResult"] = (),
) -> "Comparison":
    """Compare two evaluations; write the comparison into `out`, and the report of each into a folder below it.

    gates: results to show on B's page. Raises as write_comparison does.
    """
    options = options or ReportOptions()
    folder = Path(out)
    names = report_names(a.summary.predictions, b.summary.predictions)
    check_folder(folder, (*COMPARISON_FILES, *names), inputs=options.inputs, overwrite=options.overwrite)
    shared = b.summary.options
    comparison = compare(a, b, CompareOptions(**{name: shared[name] for name in CompareOptions.model_fields}))
    write_report(a, folder / names[0], options)
    write_report(b, folder / names[1], options, gates=gates, baseline=Baseline(a, comparison.summary.a.name))
    write_comparison(comparison, folder, options, reports=names)
    return comparison


def report_names(predictions_a: str | os.PathLike[str], predictions_b: str | os.PathLike[str]) -> tuple[str, str]:
    """Names of the two report folders that `write_side_by_side` makes.

    The predictions' file names without suffix; where these are equal, their folders; else `a` and `b`.
    """
    a, b = Path(predictions_a), Path(predictions_b)
    for left, right in ((a.stem, b.stem), (a.parent.name, b.parent.name)):
        if left != right and left and right and not {left, right} & set(COMPARISON_FILES):
            return left, right
    return "a", "b"
