"""`batchland similar`: find images that are like one."""

from pathlib import Path
from typing import Any

import click

from batchland.cli.command import command
from batchland.cli.options import (
    PATH,
    Flag,
    build,
    complete_path,
    json_option,
    options_of,
    overwrite_option,
    print_json,
)


@command(tables=True, epilog="Example: batchland similar bridge.jpg preds.parquet --page similar.html")
@click.argument("image", shell_complete=complete_path)
@click.argument("predictions", metavar="PREDS...", nargs=-1, required=True, shell_complete=complete_path)
@options_of(
    "batchland.embeddings.similar:SimilarOptions",
    Flag("top", "-k --top"),
    Flag("model", "-m --model"),
    Flag("index", metavar="DIR"),
)
@click.option("--page", type=PATH, metavar="FILE.html",
              help="Write a page with the pictures.")  # fmt: skip
@overwrite_option
@json_option
def similar(
    image: str, predictions: tuple[str, ...], page: Path | None, overwrite: bool, as_json: bool, **values: Any
) -> None:
    """Find the images of PREDS that are most similar to IMAGE.

    IMAGE is the name of an image in PREDS, or any image file; the model that scored PREDS computes the features of a
    file. PREDS are predictions with features (`score --features`) of one model.
    """
    from batchland.embeddings.similar import SimilarOptions, find_similar
    from batchland.report.options import ReportOptions
    from batchland.report.similar_page import check_similar_page, similar_page, similar_text
    from batchland.system.files import write_file

    page_options = ReportOptions(inputs=(image, *predictions), overwrite=overwrite)
    if page is not None:
        check_similar_page(page, page_options)
    found = find_similar(image, predictions, build(SimilarOptions, values))
    if page is not None:
        write_file(page, similar_page(found, page_options))
    if as_json:
        print_json(found.result)
    else:
        click.echo(similar_text(found.result), nl=False)
