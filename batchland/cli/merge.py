"""`batchland merge`: the outputs of all shards as one."""

import logging
from pathlib import Path

import click

from batchland.cli.command import command
from batchland.cli.options import max_failed_option, out_option
from batchland.system.text import counted

_log = logging.getLogger("batchland")


@command(epilog="Example: batchland merge preds/ --out preds.parquet")
@click.argument("folder", metavar="DIR")
@out_option
@max_failed_option
@click.option("--overwrite", is_flag=True, help="Replace an output that exists.")
def merge(folder: str, out: str, max_failed: str | None, overwrite: bool) -> None:
    """Merge the shards in DIR into one table.

    DIR is the --out of `batchland score --shard`. The table is the one that a single process would have written. If
    shards are missing, unfinished, damaged or made in different ways, they are named and nothing is written. The shards
    themselves are never changed.
    """
    from batchland.predictions.storage import manifest_location
    from batchland.scoring.merge.merge import merge as run
    from batchland.scoring.options import FailureLimit, unlisted_folders
    from batchland.scoring.progress import ScoreProgress
    from batchland.system.names import display_path
    from batchland.system.urls import is_url

    limit = FailureLimit.parse(max_failed) if max_failed else None
    with ScoreProgress() as progress:
        summary = run(folder, out, overwrite=overwrite, on_progress=progress.update)
    counts, shards = summary.manifest.counts, summary.manifest.shards
    codes = ", ".join(f"{code} {count}" for code, count in counts.failed_by_code.items())
    click.echo(
        f"Merged {counted(len(shards), 'shard')} of {display_path(folder)}: "
        f"{counts.listed} images, "
        f"{counts.ok} ok, {counts.failed} failed{f' ({codes})' if codes else ''}. "
        f"Predictions: {display_path(out)}; "
        f"manifest: {display_path(manifest_location(out if is_url(out) else Path(out)))}."
    )
    if limit:
        limit.check(counts)
    elif missing := unlisted_folders(counts):
        _log.warning(missing)
