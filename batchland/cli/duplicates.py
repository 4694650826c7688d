"""`batchland duplicates`: find near-duplicates in predictions."""

from functools import partial
from pathlib import Path
from typing import Any

import click

from batchland.cli.command import command
from batchland.cli.options import PATH, build, complete_path, json_option, options_of, overwrite_option, print_json


@command(tables=True, epilog="Example: batchland duplicates train.parquet test.parquet --across --page copies.html")
@click.argument("predictions", metavar="PREDS...", nargs=-1, required=True, shell_complete=complete_path)
@options_of(
    "batchland.embeddings.duplicates:DuplicateOptions",
    "mirrored",
    "across",
    "distance",
)
@click.option("-o", "--out", type=PATH, metavar="FILE",
              help="Also write the images that have copies as a table, .csv or .parquet.")  # fmt: skip
@click.option("--page", type=PATH, metavar="FILE.html",
              help="Also write a page with their pictures.")  # fmt: skip
@overwrite_option
@json_option
def duplicates(
    predictions: tuple[str, ...],
    out: Path | None,
    page: Path | None,
    overwrite: bool,
    as_json: bool,
    **values: Any,
) -> None:
    """Find copies of pictures within and between predictions.

    Finds pictures that are the same, also after resizing, compression, a crop of some per cent or with a date stamp,
    by the signals that `score` writes. Where the predictions have features (`score --features`) of one model, these
    must be similar, too. Give the predictions of several nights, or of train and test, to find what they share.
    """
    import pyarrow.parquet as pq

    from batchland.embeddings.duplicates import DUPLICATES, DuplicateOptions, find_duplicates
    from batchland.evaluation.saved import check_new_table, write_csv
    from batchland.report.duplicates_page import check_duplicates_page, duplicates_page, duplicates_text
    from batchland.report.options import ReportOptions
    from batchland.system.files import write_file

    page_options = ReportOptions(inputs=predictions, overwrite=overwrite)
    if out is not None:
        check_new_table(out, DUPLICATES, predictions, overwrite=overwrite)
    if page is not None:
        check_duplicates_page(page, page_options)
    found = find_duplicates(predictions, build(DuplicateOptions, values))
    if out is not None:
        as_csv = out.suffix.lower() == ".csv"
        write_file(out, partial(write_csv if as_csv else pq.write_table, found.table))
    if page is not None:
        write_file(page, duplicates_page(found.result, found.roots, page_options))
    if as_json:
        print_json(found.result)
    else:
        click.echo(duplicates_text(found.result), nl=False)
