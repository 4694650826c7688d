"""`batchland evaluate` (report on predictions) and `batchland compare` (report on the changes between two reports)."""

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from batchland.cli.command import command
from batchland.cli.options import (
    PATH,
    Flag,
    build,
    complete_path,
    json_option,
    labels_option,
    options_of,
    print_json,
    split_names,
)
from batchland.errors import GateFailedError, UsageError

if TYPE_CHECKING:
    from batchland.report.options import ReportOptions

_out_option = click.option("-o", "--out", required=True, type=PATH, help="Folder of the report.")
_markdown_option = click.option(
    "--markdown", "as_markdown", is_flag=True, help="Print Markdown, for pasting into a ticket."
)
_images_flag = Flag("images", type=click.Path(path_type=Path, exists=True, file_okay=False))
_no_pictures_option = click.option("--no-pictures", is_flag=True, help="Leave thumbnails out of the page.")
_ONE_FORMAT = "give --markdown or --json, not both"
_report_options = options_of("batchland.report.options:ReportOptions", "overwrite")


@command(
    tables=True,
    epilog='Example: batchland evaluate preds.parquet --labels data/test --out report/ --fail-if "top1 < 0.70"',
)
@click.argument("predictions", metavar="PREDS [PREDS]", nargs=-1, required=True, shell_complete=complete_path)
@labels_option
@_out_option
@click.option(
    "--fail-if",
    "gates",
    multiple=True,
    metavar="GATE",
    help='End with exit code 4 if this condition is true, e.g. "top1 < 0.70", "class[Eiffel Tower].recall < 50%", '
    '"drop(top1) > 0.02". Repeatable.',
)
@click.option(
    "--baseline",
    type=PATH,
    metavar="REPORT",
    help="An earlier report: the verdict says what changed since, and drop(...) gates are measured from it.",
)
@_markdown_option
@json_option
@options_of(
    "batchland.evaluation.options:EvaluateOptions",
    Flag("strip_prefix", metavar="TEXT"),
    "ignore_unknown_classes",
    "bins",
    _images_flag,
    Flag("by", metavar="COLUMNS"),
    "corrections",
    Flag("promise", metavar="PROMISE"),
    "confidence",
    "resamples",
    "seed",
)
@_no_pictures_option
@_report_options
def evaluate(
    predictions: tuple[str, ...],
    labels: Path,
    out: Path,
    gates: tuple[str, ...],
    baseline: Path | None,
    as_markdown: bool,
    as_json: bool,
    no_pictures: bool,
    overwrite: bool,
    **values: Any,
) -> None:
    """Evaluate predictions against true labels and write a report.

    PREDS is what `batchland score` wrote, a path or a URL. Images are matched by their path below the scored folder,
    classes by the name of their folder or by their label. Failed images are counted separately. The report is a page,
    report.html, and the same figures as files.

    With two PREDS, the report of each is in a folder below --out, and --out itself contains their comparison, as
    written by `batchland compare`. Gates then apply to the second, and drop(...) compares it with the first unless
    --baseline is given.
    """
    from batchland.cli.documents import EvaluateResult, GateOutcome, Report
    from batchland.evaluation.evaluate import evaluate as run
    from batchland.evaluation.gates import check_gates, parse_gate, raise_if_failed
    from batchland.evaluation.options import EvaluateOptions
    from batchland.evaluation.saved import COMPARISON_FILES, REPORT_FILES, check_folder, read_report
    from batchland.report.changes import Baseline
    from batchland.report.comparison_text import comparison_markdown, comparison_terminal_text
    from batchland.report.evaluation_text import evaluation_markdown, evaluation_terminal_text
    from batchland.report.verdict import verdict
    from batchland.report.write import report_names, write_report, write_side_by_side
    from batchland.system.text import visible

    if as_json and as_markdown:
        raise click.UsageError(_ONE_FORMAT)
    if len(predictions) > 2:
        raise UsageError(f"{len(predictions)} predictions files: give one, or two to compare")
    options = build(EvaluateOptions, values | {"by": split_names(values["by"])})
    conditions = [parse_gate(text) for text in gates]
    earlier = read_report(baseline) if baseline else None
    names = REPORT_FILES if len(predictions) == 1 else (*COMPARISON_FILES, *report_names(*predictions))
    page = _page(no_pictures, overwrite, (*predictions, str(labels)))
    reads = [each for each in (baseline, options.corrections) if each]
    check_folder(out, names, inputs=page.inputs, reads=reads, overwrite=overwrite)
    evaluations = [run(each, labels, options) for each in predictions]
    results = check_gates(conditions, evaluations[-1], earlier or (evaluations[0] if len(evaluations) == 2 else None))
    one = evaluation_markdown if as_markdown else evaluation_terminal_text
    both = comparison_markdown if as_markdown else comparison_terminal_text
    comparison = None
    if len(evaluations) == 1:
        folders = [out]
        before = Baseline(earlier, visible(str(baseline))) if earlier else None
        write_report(evaluations[0], out, page, gates=results, baseline=before)
        texts = [one(evaluations[0], results, baseline=before)]
    else:
        folders = [out / name for name in report_names(*predictions)]
        first, second = evaluations
        comparison = write_side_by_side(first, second, out, page, gates=results)
        a, b = comparison.summary.a.name, comparison.summary.b.name
        before = Baseline(first, a)
        texts = [one(first, name=a), one(second, results, name=b, baseline=before), both(comparison)]
    if as_json:
        print_json(
            EvaluateResult(
                reports=tuple(
                    Report(folder=str(folder), summary=evaluation.summary)
                    for folder, evaluation in zip(folders, evaluations, strict=True)
                ),
                comparison=comparison.summary if comparison else None,
                gates=tuple(
                    GateOutcome(gate=each.gate.text, failed=each.failed, value=each.value, message=each.message)
                    for each in results
                ),
                verdict=verdict(evaluations[-1], results, before),
            )
        )
        if any(each.failed for each in results):
            raise SystemExit(GateFailedError.exit_code)  # the document has the reasons
        return
    click.echo("\n".join(texts), nl=False)
    if not as_markdown:
        click.echo(f"report: {out / 'report.html'}")
    raise_if_failed(results, out)


@command(tables=True, epilog="Example: batchland compare monday/report tuesday/report --out changes/")
@click.argument("reports", metavar="REPORT REPORT [REPORT]...", nargs=-1, type=PATH)
@_out_option
@_markdown_option
@json_option
@options_of("batchland.evaluation.options:CompareOptions", _images_flag, "confidence", "resamples", "seed")
@_no_pictures_option
@_report_options
def compare(
    reports: tuple[Path, ...],
    out: Path,
    as_markdown: bool,
    as_json: bool,
    no_pictures: bool,
    overwrite: bool,
    **values: Any,
) -> None:
    """Show what changed from one report to another.

    The reports are of two models or two nights, on the same images. Compares only the images that both scored: figures
    with intervals, classes that changed by more than chance, and images with a different predicted class.
    --json prints the summary.json of the comparison.

    For three or more reports, it shows the accuracies and all pairs, with p-values corrected for the number of pairs.
    """
    from batchland.evaluation.comparison import compare as run
    from batchland.evaluation.options import CompareOptions
    from batchland.evaluation.saved import read_report
    from batchland.evaluation.several import compare_several
    from batchland.report.comparison_text import comparison_markdown, comparison_terminal_text
    from batchland.report.several import several_markdown, several_text, write_several
    from batchland.report.write import write_comparison

    if as_json and as_markdown:
        raise click.UsageError(_ONE_FORMAT)
    if len(reports) < 2:
        raise click.UsageError("give at least two reports")
    options = _page(no_pictures, overwrite, tuple(map(str, reports)))
    if len(reports) > 2:
        compared = compare_several([read_report(each) for each in reports], build(CompareOptions, values).confidence)
        page = write_several(compared, out, options)
        if as_json:
            print_json(compared)
        elif as_markdown:
            click.echo(several_markdown(compared), nl=False)
        else:
            click.echo(f"{several_text(compared)}report: {page}")
        return
    first, second = map(read_report, reports)
    comparison = run(first, second, build(CompareOptions, values))
    files = write_comparison(comparison, out, options)
    if as_json:
        print_json(comparison.summary)
    elif as_markdown:
        click.echo(comparison_markdown(comparison), nl=False)
    else:
        click.echo(f"{comparison_terminal_text(comparison)}report: {files.html}")


def _page(no_pictures: bool, overwrite: bool, inputs: tuple[str, ...]) -> "ReportOptions":
    from batchland.report.options import ReportOptions

    command = shlex.join(["batchland", *sys.argv[1:]])
    pictures = {"picture_bytes": 0} if no_pictures else {}
    return ReportOptions(overwrite=overwrite, inputs=inputs, command=command, **pictures)
