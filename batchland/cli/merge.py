"""`batchland merge`: the outputs of all shards as one."""

from pathlib import Path

import click

from batchland.cli.command import command
from batchland.cli.failures import max_failed_option, report_failures
from batchland.cli.options import complete_path, json_option, print_json
from batchland.system.text import counted, images


@command(tables=True, epilog="Example: batchland merge preds/ --out preds.parquet")
@click.argument("folder", metavar="DIR", shell_complete=complete_path)
@click.option(
    "-o",
    "--out",
    shell_complete=complete_path,
    help="NAME.parquet for one file; any other name is a folder of parts. A path or a URL.",
)
@click.option("--in-place", is_flag=True, help="Keep the parts of a plan's shards, and write one manifest over them.")
@max_failed_option
@click.option("--overwrite", is_flag=True, help="Replace an output that exists.")
@json_option
def merge(folder: str, out: str | None, in_place: bool, max_failed: str | None, overwrite: bool, as_json: bool) -> None:
    """Merge the shards in DIR into one table.

    DIR is the --out of `batchland score --shard`. The table is the one that a single process would have written. If
    shards are missing, unfinished, damaged or made in different ways, they are named and nothing is written. The shards
    themselves are never changed. --json prints the manifest.

    Shards of a plan need no new table: --in-place makes DIR itself the predictions.
    """
    from batchland.predictions.storage import manifest_location
    from batchland.scoring.merge.in_place import merge_in_place
    from batchland.scoring.merge.merge import merge as run
    from batchland.scoring.options import FailureLimit
    from batchland.scoring.progress import ScoreProgress
    from batchland.system.names import display_path
    from batchland.system.urls import is_url

    limit = FailureLimit.parse(max_failed) if max_failed else None
    if (out is None) != in_place:
        raise click.UsageError("give either --out or --in-place")
    if out is None:
        out, summary = folder, merge_in_place(folder, overwrite=overwrite)
    else:
        with ScoreProgress() as progress:
            summary = run(folder, out, overwrite=overwrite, on_progress=progress.update)
    manifest = summary.manifest
    if as_json:
        print_json(manifest)
    else:
        counts = manifest.counts
        codes = ", ".join(f"{code} {count}" for code, count in counts.failed_by_code.items())
        click.echo(
            f"Merged {counted(len(manifest.shards), 'shard')} of {display_path(folder)}: {images(counts.listed)}, "
            f"{counts.ok} ok, {counts.failed} failed{f' ({codes})' if codes else ''}. "
            f"Predictions: {display_path(out)}; "
            f"manifest: {display_path(manifest_location(out if is_url(out) else Path(out)))}."
        )
    report_failures(manifest, limit)
