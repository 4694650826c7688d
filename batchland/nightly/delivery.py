"""Check that a night's images have been delivered: the folder exists, holds images and has stopped growing."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

from batchland.errors import MissingInputError
from batchland.images.sources.folder import list_images
from batchland.images.sources.refs import Ignored, ImageRef
from batchland.images.sources.selection import select_images
from batchland.nightly.job import Job


def check_delivery(job: Job, root: Path) -> None:
    """Raise MissingInputError, with the reason, if `root` cannot be scored yet."""
    if not root.is_dir():
        what = "is not a folder" if root.exists() else "does not exist"
        raise MissingInputError(f"{root}: {what}; is the delivery late, or `images` in {job.file} wrong?")
    if settle := job.settle.total_seconds():
        quiet = time.time() - _changed_at(root)
        if quiet < settle:
            age = max(0.0, quiet)
            raise MissingInputError(f"{root}: is still growing, it changed {age:.0f} s ago; settle is {settle:g} s")
    ignored = Ignored()
    if next(listed_images(job, root, ignored), None) is None:
        found = ", ".join(f"{count} {kind}" for kind, count in sorted(ignored.counts.items())) or "nothing at all"
        raise MissingInputError(f"{root}: holds no images to score (found: {found})")


def listed_images(job: Job, root: Path, ignored: Ignored | None = None) -> Iterator[ImageRef]:
    """The images below `root` that the job scores; other files are counted in `ignored`. Raises UsageError."""
    ignored = ignored or Ignored()
    listing = list_images(root, all_files=job.all_files, follow_links=job.follow_links, ignored=ignored)
    return select_images(listing, job.include, job.exclude, ignored)


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
