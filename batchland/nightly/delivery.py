"""Whether a night's images are there: a folder that exists, holds images and has stopped growing."""

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
    """Raise MissingInputError if `root` cannot be scored as the job wants it, saying why."""
    if not root.is_dir():
        what = "is not a folder" if root.exists() else "does not exist"
        raise MissingInputError(f"{root}: {what}; is the delivery late, or `images` in {job.file} wrong?")
    quiet, settle = time.time() - _changed_at(root), job.settle.total_seconds()
    if settle and quiet < settle:
        raise MissingInputError(f"{root}: still grows, it changed {max(0.0, quiet):.0f} s ago; settle is {settle:g} s")
    ignored = Ignored()
    if next(chosen_images(job, root, ignored), None) is None:
        found = ", ".join(f"{count} {kind}" for kind, count in sorted(ignored.counts.items())) or "nothing at all"
        raise MissingInputError(f"{root}: holds no images to score (found: {found})")


def chosen_images(job: Job, root: Path, ignored: Ignored | None = None) -> Iterator[ImageRef]:
    """The images below `root` that the job is about; others are counted in `ignored`. Raises UsageError."""
    ignored = ignored or Ignored()
    listing = list_images(root, all_files=job.all_files, follow_links=job.follow_links, ignored=ignored)
    return select_images(listing, job.include, job.exclude, ignored)


def _changed_at(root: Path) -> float:
    """When anything below changed last, by status times: a copy that keeps modification times has new ones."""
    newest = root.stat().st_ctime
    for folder, _, files in os.walk(root):
        for path in (folder, *(os.path.join(folder, name) for name in files)):  # noqa: PTH118
            try:
                newest = max(newest, os.lstat(path).st_ctime)
            except OSError:  # moved while we look: that is a change, and what took its place tells of it
                continue
    return newest
