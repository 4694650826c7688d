"""`batchland evaluate`: predictions and labels to a report, and gates on its figures."""

import shlex
import sys
from pathlib import Path
from typing import Any

import click


@click.command(
    epilog='Example: batchland evaluate preds.parquet --labels data/test --out report/ --fail-if "top1 < 0.70"'
)
@click.argument("predictions", metavar="PREDS", type=click.Path(path_type=Path))
@click.option(
    "-l",
    "--labels",
    required=True,
    type=click.Path(path_type=Path),
    help="Folder of class folders, or a CSV or Parquet file with the columns `image` and `label`.",
)
@click.option("-o", "--out", required=True, type=click.Path(path_type=Path), help="Folder of the report.")
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
@click.option("--markdown", "as_markdown", is_flag=True, help="Print Markdown, for pasting into a ticket.")
@click.option(
    "--images",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Where the images are now, for thumbnails and brightness.  [default: the folder that was scored]",
)
@click.option("--no-pictures", is_flag=True, help="Leave thumbnails out of the page.")
@click.option("--strip-prefix", default="", metavar="TEXT", help="Taken off the front of the predictions' image names.")
@click.option(
    "--ignore-unknown-classes", is_flag=True, help="Leave out images of classes that the model does not know."
)
@click.option(
    "--confidence",
    type=click.FloatRange(0.5, 1, min_open=True, max_open=True),
    default=0.95,
    show_default=True,
    help="Of all intervals.",
)
@click.option(
    "--resamples", type=click.IntRange(200, 100_000), default=1000, show_default=True, help="Of the bootstrap."
)
@click.option(
    "--bins", type=click.IntRange(2, 100), default=15, show_default=True, help="Bins of the reliability curve."
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of everything random.")
@click.option("--overwrite", is_flag=True, help="Write into a folder that holds other things; they stay.")
def evaluate(
    predictions: Path,
    labels: Path,
    out: Path,
    gates: tuple[str, ...],
    baseline: Path | None,
    as_markdown: bool,
    no_pictures: bool,
    overwrite: bool,
    **options: Any,
) -> None:
    """Compare PREDS, which `batchland score` wrote, with the true labels, and write a report.

    Images are matched by their path below the scored folder, classes by the name of their folder or by their label.
    Failed images are counted apart. The report is a page, report.html, and the same figures as files.
    """
    from batchland.evaluation import EvaluateOptions
    from batchland.evaluation import evaluate as run
    from batchland.gates import check_gates, parse_gate, raise_if_failed
    from batchland.report import ReportOptions, check_folder, read_report, write_report
    from batchland.report.text import markdown, terminal_summary

    conditions = [parse_gate(text) for text in gates]
    earlier = read_report(baseline) if baseline else None
    check_folder(out, overwrite=overwrite)
    evaluation = run(predictions, labels, EvaluateOptions(**options))
    results = check_gates(conditions, evaluation, earlier)
    page = ReportOptions(overwrite=overwrite, command=shlex.join(["batchland", *sys.argv[1:]]))
    if no_pictures:
        page = page.model_copy(update={"picture_bytes": 0})
    files = write_report(evaluation, out, page, gates=results)
    click.echo((markdown if as_markdown else terminal_summary)(evaluation, results), nl=False)
    if not as_markdown:
        click.echo(f"report: {files.html}")
    raise_if_failed(results, files.folder)
