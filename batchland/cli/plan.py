"""`batchland plan`: list a source once, for any number of machines."""

from typing import Any

import click

from batchland.cli.command import command
from batchland.cli.options import Flag, build, complete_path, json_option, options_of, print_json
from batchland.system.text import counted, ignored_files


@command(tables=True, epilog="Example: batchland plan s3://bucket/photos --parts 64 --out s3://bucket/plan")
@click.argument("images", metavar="[DIR]", required=False, shell_complete=complete_path)
@click.option("-o", "--out", required=True, shell_complete=complete_path, help="Folder of the plan. A path or a URL.")
@click.option(
    "--parts",
    metavar="N",
    type=click.IntRange(1, 1_000_000),
    help="Number of shards that will score it. Without this option, any number can.",
)
@options_of(
    "batchland.scoring.options:ScoreOptions",
    Flag("image_list", "--images", metavar="LIST"),
    Flag("include", metavar="PATTERN"),
    Flag("exclude", metavar="PATTERN"),
    "all_files",
    "follow_links",
    Flag("overwrite"),
)
@click.option(
    "--without", metavar="PLAN", multiple=True, help="Leave out the images of an earlier plan of DIR. Repeatable."
)
@json_option
def plan(
    images: str | None, out: str, parts: int | None, without: tuple[str, ...], as_json: bool, **values: Any
) -> None:
    """List the images of DIR once, for any number of machines.

    Each of N machines then scores its own range of the list, without listing again: `batchland score --plan PLAN
    --shard I/N`. The list does not change: images that arrive later are not in it, and --without makes a second plan
    of those. --json prints plan.json.
    """
    from batchland.scoring.options import ScoreOptions
    from batchland.scoring.plan.write import make_plan
    from batchland.system.names import display_path
    from batchland.system.progress import ProgressBar

    options = build(ScoreOptions, values)
    with ProgressBar("images") as bar:
        made = make_plan(
            images,
            out,
            options,
            image_list=options.image_list,
            parts=parts or 0,
            without=without,
            overwrite=options.overwrite,
            on_progress=lambda listed: bar.update(listed, None),
        )
    if as_json:
        print_json(made)
        return
    unlisted = f", {made.unlisted} that could not be listed" if made.unlisted else ""
    shards = f" for {counted(made.parts, 'shard')}" if made.parts else ""
    click.echo(
        f"Planned {counted(made.listed - made.unlisted, 'image')} of {made.images}{shards}{unlisted}"
        f"{ignored_files(made.ignored)} in {made.seconds:.1f} s. Plan: {display_path(out)}."
    )
