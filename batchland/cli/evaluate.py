"""`batchland evaluate` and `batchland compare`: predictions to reports, reports to what changed."""

import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from batchland.errors import UsageError

if TYPE_CHECKING:
    from batchland.report.options import ReportOptions

_OUT = click.option("-o", "--out", required=True, type=click.Path(path_type=Path), help="Folder of the report.")
_SHARED = (
    click.option("--markdown", "as_markdown", is_flag=True, help="Print Markdown, for pasting into a ticket."),
    click.option(
        "--images",
        type=click.Path(path_type=Path, exists=True, file_okay=False),
        help="Where the images are now, for thumbnails and brightness.  [default: the folder that was scored]",
    ),
    click.option("--no-pictures", is_flag=True, help="Leave thumbnails out of the page."),
    click.option(
        "--confidence",
        type=click.FloatRange(0.5, 1, min_open=True, max_open=True),
        default=0.95,
        show_default=True,
        help="Of all intervals.",
    ),
    click.option(
        "--resamples", type=click.IntRange(200, 100_000), default=1000, show_default=True, help="Of the bootstrap."
    ),
    click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of everything random."),
    click.option("--overwrite", is_flag=True, help="Write into a folder that holds other things; they stay."),
)


def _shared(command: Callable[..., None]) -> Callable[..., None]:
    """The options that both commands have."""
    for option in reversed(_SHARED):
        command = option(command)
    return command


@click.command(
    epilog='Example: batchland evaluate preds.parquet --labels data/test --out report/ --fail-if "top1 < 0.70"'
)
@click.argument("predictions", metavar="PREDS [PREDS]", nargs=-1, required=True)
@click.option(
    "-l",
    "--labels",
    required=True,
    type=click.Path(path_type=Path),
    help="Folder of class folders, or a CSV or Parquet file with the columns `image` and `label`.",
)
@_OUT
@click.option(
    "--fail-if",
    "gates",
    multiple=True,
    metavar="GATE",
    help='End with exit code 4 if it holds, e.g. "top1 < 0.70", "class[Eiffel Tower].recall < 50%", '
    '"drop(top1) > 0.02". Repeatable.',
)
@click.option(
    "--baseline", type=click.Path(path_type=Path), metavar="REPORT", help="An earlier report, for drop(...) gates."
)
@click.option(
    "--strip-prefix",
    default="",
    metavar="TEXT",
    help="Taken off the front of the predictions' image names; a * stands for anything but /, e.g. '*.tar/'.",
)
@click.option(
    "--ignore-unknown-classes", is_flag=True, help="Leave out images of classes that the model does not know."
)
@click.option(
    "--bins", type=click.IntRange(2, 100), default=15, show_default=True, help="Bins of the reliability curve."
)
@_shared
def evaluate(
    predictions: tuple[str, ...],
    labels: Path,
    out: Path,
    gates: tuple[str, ...],
    baseline: Path | None,
    as_markdown: bool,
    no_pictures: bool,
    overwrite: bool,
    **options: Any,
) -> None:
    """Hold predictions against the true labels and write a report.

    PREDS is what `batchland score` wrote, a path or a URL. Images are matched by their path below the scored folder,
    classes by the name of their folder or by their label. Failed images are counted apart. The report is a page,
    report.html, and the same figures as files.

    Of two PREDS, each gets its report in a folder below, and what differs is written into --out as `batchland compare`
    does. Gates are then about the second, and drop(...) is against the first unless there is a --baseline.
    """
    from batchland.evaluation.evaluate import evaluate as run
    from batchland.evaluation.gates import check_gates, parse_gate, raise_if_failed
    from batchland.evaluation.options import EvaluateOptions
    from batchland.evaluation.saved import FILES, read_report
    from batchland.report.changes_text import comparison_markdown, comparison_summary
    from batchland.report.comparison import COMPARISON_FILES, side_folders, write_side_by_side
    from batchland.report.text import markdown, terminal_summary
    from batchland.report.write import check_folder, write_report

    if len(predictions) > 2:
        raise UsageError(f"{len(predictions)} predictions files: give one, or two to have them compared")
    conditions = [parse_gate(text) for text in gates]
    earlier = read_report(baseline) if baseline else None
    names = FILES if len(predictions) == 1 else (*COMPARISON_FILES, *side_folders(*predictions))
    check_folder(out, overwrite=overwrite, names=names)
    evaluations = [run(each, labels, EvaluateOptions(**options)) for each in predictions]
    results = check_gates(conditions, evaluations[-1], earlier or (evaluations[0] if len(evaluations) == 2 else None))
    page = _page(no_pictures, overwrite)
    one, both = (markdown, comparison_markdown) if as_markdown else (terminal_summary, comparison_summary)
    if len(evaluations) == 1:
        write_report(evaluations[0], out, page, gates=results)
        told = [one(evaluations[0], results)]
    else:
        first, second = evaluations
        comparison = write_side_by_side(first, second, out, page, gates=results)
        a, b = comparison.summary.a.name, comparison.summary.b.name
        told = [one(first, name=a), one(second, results, name=b), both(comparison)]
    click.echo("\n".join(told), nl=False)
    if not as_markdown:
        click.echo(f"report: {out / 'report.html'}")
    raise_if_failed(results, out)


@click.command(epilog="Example: batchland compare monday/report tuesday/report --out changes/")
@click.argument("report_a", metavar="REPORT_A", type=click.Path(path_type=Path))
@click.argument("report_b", metavar="REPORT_B", type=click.Path(path_type=Path))
@_OUT
@_shared
def compare(
    report_a: Path,
    report_b: Path,
    out: Path,
    as_markdown: bool,
    no_pictures: bool,
    overwrite: bool,
    **options: Any,
) -> None:
    """Tell what changed from one report to another.

    Of two models or two nights, evaluated on the same images. Only images that both scored are compared, pair by pair:
    figures with intervals, classes that changed by more than chance, and the images whose answer is another one.
    """
    from batchland.evaluation.comparison import compare as run
    from batchland.evaluation.options import CompareOptions
    from batchland.evaluation.saved import read_report
    from batchland.report.changes_text import comparison_markdown, comparison_summary
    from batchland.report.comparison import write_comparison

    comparison = run(read_report(report_a), read_report(report_b), CompareOptions(**options))
    files = write_comparison(comparison, out, _page(no_pictures, overwrite))
    if as_markdown:
        click.echo(comparison_markdown(comparison), nl=False)
    else:
        click.echo(f"{comparison_summary(comparison)}report: {files.html}")


def _page(no_pictures: bool, overwrite: bool) -> "ReportOptions":
    from batchland.report.options import ReportOptions

    command = shlex.join(["batchland", *sys.argv[1:]])
    pictures = {"picture_bytes": 0} if no_pictures else {}
    return ReportOptions(overwrite=overwrite, command=command, **pictures)
