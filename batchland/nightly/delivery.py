"""Check that a night's images have been delivered: the folder exists, holds images and has stopped growing."""

import os
import time
from pathlib import Path

from batchland.errors import MissingInputError
from batchland.nightly.job import Job
from batchland.scoring.listing import ALREADY_SCORED, ImageListing, Skip, open_listing


def delivered_images(job: Job, root: Path, skip: Skip | None = None, *, settled: bool = False) -> ImageListing:
    """The images below `root` that the job scores. Raises MissingInputError, with the reason, if it cannot do so yet.

    skip: tells which images are scored already. settled: whether the folder is known to have stopped growing.
    """
    if not root.is_dir():
        what = "is not a folder" if root.exists() else "does not exist"
        raise MissingInputError(f"{root}: {what}; is the delivery late, or `images` in {job.file} wrong?")
    settle = job.settle.total_seconds()
    if settle and not settled:
        quiet = time.time() - _changed_at(root)
        if quiet < settle:
            age = max(0.0, quiet)
            raise MissingInputError(f"{root}: is still growing, it changed {age:.0f} s ago; settle is {settle:g} s")
    listing = open_listing(root, job, skip=skip)
    if listing.first() is None and not listing.ignored.counts[ALREADY_SCORED]:
        raise MissingInputError(f"{root}: holds no images to score (found: {listing.found()})")
    return listing


def _changed_at(root: Path) -> float:
    """The newest status change below `root`, Unix time. Copies that keep modification times have new status times."""
    newest = root.stat().st_ctime
    for folder, _, files in os.walk(root):
        for path in (folder, *(os.path.join(folder, name) for name in files)):  # noqa: PTH118
            try:
                newest = max(newest, os.lstat(path).st_ctime)
            except OSError:  # a file that was moved meanwhile has changed its folder
                continue
    return newest
