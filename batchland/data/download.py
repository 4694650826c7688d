"""Download an archive (or take a local one), check it and unpack it. The folder appears complete or not at all.

download(REFERENCE_URL, Path("data/landmark_images"))
"""

import hashlib
import re
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Final, Literal, NamedTuple
from urllib.parse import unquote, urlsplit

from batchland.data.archive import Unpacked, lift_only_folder, unpack
from batchland.data.fetch import WAITS, fetch, forget
from batchland.data.options import DownloadOptions
from batchland.errors import Interrupted, UsageError
from batchland.system.files import read_error
from batchland.system.folders import new_folder
from batchland.system.names import display_path
from batchland.system.signals import StopSignal

REFERENCE_URL: Final = "https://udacity-dlnfd.s3-us-west-1.amazonaws.com/datasets/landmark_images.zip"
"""50 classes of Google Landmarks v2, 4,996 photos to train and 1,250 to test."""


Stage = Literal["download", "unpacking"]
OnProgress = Callable[[Stage, int, int | None], None]
"""Called with the amount done, and the total where it is known: bytes of the download, entries of the archive."""


class Downloaded(NamedTuple):
    """The unpacked folder and its archive."""

    folder: Path
    unpacked: Unpacked
    archive_bytes: int
    sha256: str
    """SHA-256 of the archive, hexadecimal."""


def download(
    source: str,
    out: Path,
    options: DownloadOptions | None = None,
    *,
    on_progress: OnProgress | None = None,
    waits: tuple[float, ...] = WAITS,
) -> Downloaded:
    """Unpack the archive at `source`, an http(s) address or a local zip or tar file, as the folder `out`.

    A single top-level folder in the archive is removed: `landmark_images/train/...` becomes `out/train/...`. An
    interrupted download is kept in a hidden file next to `out`, and the same call resumes it.

    waits: seconds before each retry, see `fetch`.

    Raises UsageError if `out` exists already, the archive cannot be read, has another SHA-256, or is unsafe to unpack;
    DownloadError if the connection keeps breaking; OutputError, LockedError; Interrupted on SIGINT or SIGTERM.
    """
    options = options or DownloadOptions()
    with StopSignal() as stop:

        def report(stage: Stage, done: int, total: int | None = None) -> None:
            if stop.received:
                raise Interrupted(f"{out}: stopped during the {stage}; run it again to resume", stop.received)
            if on_progress is not None:
                on_progress(stage, done, total)

        with new_folder(out) as folder:
            if not is_address(source):
                return _unpack_checked(Path(source), source, folder, out, options, report)
            partial = folder.with_suffix(".part")
            fetch(
                source,
                partial,
                max_bytes=options.limits.max_bytes,
                on_bytes=lambda here, total: report("download", here, total),
                waits=waits,
            )
            try:
                downloaded = _unpack_checked(partial, source, folder, out, options, report)
            except UsageError:  # complete and wrong: downloading more bytes would not help
                forget(partial)
                raise
        forget(partial)
        return downloaded


def is_address(source: str) -> bool:
    """Whether `source` is an address rather than a file."""
    return "://" in source


def default_folder(source: str) -> Path:
    """`data/landmark_images` for `.../landmark_images.zip`. Raises UsageError if the source has no such name."""
    name = PurePosixPath(unquote(urlsplit(source).path)).name if is_address(source) else Path(source).name
    stem = re.sub(r"(\.(zip|tar|tgz|tbz2?|txz|gz|bz2|xz))+$", "", name, flags=re.IGNORECASE)
    if not stem.strip(".") or stem == name:
        raise UsageError(f"{display_path(source)}: has no file name to use for the folder", advice="name_folder")
    return Path("data") / stem


def _unpack_checked(
    archive: Path, name: str, folder: Path, out: Path, options: DownloadOptions, report: OnProgress
) -> Downloaded:
    """Check the archive and unpack it into `folder`."""
    try:
        with archive.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            size = file.tell()
    except OSError as error:
        raise read_error(error, name, expected="an http address or an archive file") from error
    if options.sha256 and digest != options.sha256.lower():
        raise UsageError(f"{name}: its sha256 is {digest}, not {options.sha256.lower()}; not unpacked")
    unpacked = unpack(
        archive, folder, options.limits, name=name, on_entry=lambda entries: report("unpacking", entries, None)
    )
    if not unpacked.files:
        raise UsageError(f"{name}: contains no files")
    lift_only_folder(folder)
    return Downloaded(out, unpacked, size, digest)
