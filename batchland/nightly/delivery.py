"""Check that a night's images have been delivered: they exist, there are some, and they have stopped growing."""

import math
import os
import time
from datetime import datetime
from pathlib import Path

from batchland.errors import GrowingDeliveryError, MissingInputError, NoSuchImagesError, UnreadableImagesError
from batchland.images.sources.folder import Folder
from batchland.images.sources.remote import Remote
from batchland.images.sources.source import Source
from batchland.nightly.job import Job
from batchland.predictions.storage import Location, display_location
from batchland.scoring.listing import ALREADY_SCORED, ImageListing, Skip, open_listing
from batchland.system.filesystems import open_location
from batchland.system.urls import is_url


def delivered_images(job: Job, root: Location, skip: Skip | None = None, *, settled: bool = False) -> ImageListing:
    """The images at `root` that the job scores. Raises MissingInputError, with the reason, if it cannot do so yet.

    skip: returns whether an image is already scored. settled: whether the delivery is known to have stopped growing.
    """
    name, advice = display_location(root), f"is the delivery late, or `images` in {job.file} wrong?"
    listing = open_listing(root, job, skip=skip)
    try:
        first = listing.first()
        settle = job.settle.total_seconds()
        if settle and not settled:
            changed = _changed_at(root, listing.source)
            age = max(0.0, time.time() - changed)
            if changed - time.time() > settle:
                when = datetime.fromtimestamp(changed).astimezone().isoformat(timespec="seconds")
                raise MissingInputError(
                    f"{name}: its last change is in the future ({when}); is the clock of this machine or of the "
                    f"storage wrong?"
                )
            if age < settle:
                message = (
                    f"{name}: is still growing, it changed {int(age)} s ago; run the night again in "
                    f"{math.ceil(settle - age)} s, or shorten settle ({settle:g} s) in {job.file}"
                )
                raise GrowingDeliveryError(message, settle - age)
    except UnreadableImagesError as error:
        raise MissingInputError(f"{error}; is the delivery still being written?") from error
    except NoSuchImagesError as error:
        what = "is not a folder" if isinstance(root, Path) and root.exists() else "does not exist"
        raise MissingInputError(f"{name}: {what}; {advice}") from error
    if first is None and not listing.ignored.counts[ALREADY_SCORED]:
        raise MissingInputError(f"{name}: holds no images to score (found: {listing.found()}); {advice}")
    return listing


def _changed_at(root: Location, source: Source) -> float:
    """When the delivery changed last, Unix time: its newest file, or for archives and tables the newest of them."""
    if isinstance(root, Path) and isinstance(source, Folder):
        return _newest_below(root)
    if isinstance(source, Remote):
        return source.changed_at()
    return max(map(_file_time, source.inputs()))


def _newest_below(root: Path) -> float:
    """The newest status change below `root`. Copies that keep modification times have new status times."""
    newest = root.stat().st_ctime
    for folder, _, files in os.walk(root):
        for path in (folder, *(os.path.join(folder, name) for name in files)):  # noqa: PTH118
            try:
                newest = max(newest, os.lstat(path).st_ctime)
            except OSError:  # the file was just moved, so its folder has a new time
                continue
    return newest


def _file_time(location: str) -> float:
    if is_url(location):
        opened = open_location(location)
        return (opened.filesystem.get_file_info(opened.path).mtime_ns or 0) / 1e9
    return Path(location).stat().st_ctime
