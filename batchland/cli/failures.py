"""Failed images in `score` and `merge`: the option --max-failed, and the check at the end."""

import logging
from typing import TYPE_CHECKING, Final

import click

if TYPE_CHECKING:
    from batchland.predictions.schema import Manifest
    from batchland.scoring.options import FailureLimit

max_failed_option: Final = click.option(
    "--max-failed", metavar="N|P%", help="End with exit code 3 if more images failed than this."
)
_log = logging.getLogger("batchland")


def report_failures(manifest: "Manifest", limit: "FailureLimit | None") -> None:
    """Raise TooManyFailedError as `check_failures` does, and warn of folders that could not be listed.

    If all images of a shard failed, this is an error only with a limit: `merge` checks the images of all shards.
    """
    from batchland.scoring.options import check_failures, unlisted_folders

    if not manifest.shard:
        check_failures(manifest.counts, limit)
    elif limit:
        limit.check(manifest.counts)
    if missing := unlisted_folders(manifest.counts):
        _log.warning(missing)
