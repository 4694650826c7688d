"""Open the source of images that a path, URL or list names."""

import os
from typing import Final

from batchland.errors import UsageError
from batchland.images.sources.file_patterns import FilePattern
from batchland.images.sources.folder import Folder
from batchland.images.sources.source import Source
from batchland.system.names import display_path
from batchland.system.urls import display_url, is_url, local_path, split_url

SHARD_SUFFIXES: Final = (".tar", ".tar.gz", ".tgz")
_OTHER_ARCHIVES: Final = (".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst", ".7z", ".rar")


def open_source(
    images: str | os.PathLike[str] | None,
    *,
    image_list: str | None = None,
    all_files: bool = False,
    follow_links: bool = False,
    private_hosts: bool = False,
) -> Source:
    """The source that `images` names: a folder, or tar, zip or Parquet files, by their suffix; local or by URL.

    image_list: a file that lists the images, `-` for standard input; relative paths are below `images` or, without it,
    the current folder. all_files: list files of every extension. follow_links: follow links to local folders.
    private_hosts: fetch images by http from hosts with private addresses, too.

    Raises UsageError if both `images` and `image_list` are None.
    """
    location = None if images is None else os.fspath(images)
    if image_list is not None:
        from batchland.images.sources.image_list import ImageList

        return ImageList(image_list, location, all_files=all_files, private_hosts=private_hosts)
    if location is None:
        raise UsageError("nothing to score: give a folder, a URL, tar, zip or Parquet files", advice="image_list")
    path = split_url(location).path if is_url(location) else location
    if "{" in path and path.endswith("}") and not os.path.exists(path):  # noqa: PTH110
        path = next(iter(FilePattern(location).locations.values()))  # its suffix is that of all files
    if is_url(location) and split_url(location).scheme in ("http", "https"):
        raise UsageError(
            f"{display_url(location)}: a web server cannot be listed; give a list of its images", advice="image_list"
        )
    if path.lower().endswith(".zip") and not os.path.isdir(path):  # noqa: PTH112
        from batchland.images.sources.zip import Zips

        return Zips(location, all_files=all_files)
    if path.lower().endswith(SHARD_SUFFIXES) and not os.path.isdir(path):  # noqa: PTH112
        from batchland.images.sources.tar import Shards

        return Shards(location, all_files=all_files)
    if path.lower().endswith(_OTHER_ARCHIVES) and not os.path.isdir(path):  # noqa: PTH112
        raise UsageError(f"{display_path(location)}: archives of this kind are not read; give a tar or zip file")
    if path.rstrip("/").lower().endswith(".parquet"):
        from batchland.images.sources.table import Tables

        return Tables(location)
    if is_url(location) and local_path(location) is None:
        from batchland.images.sources.remote import Remote  # imports pyarrow, which local folders do not need

        return Remote(location, all_files=all_files)
    return Folder(local_path(location) or location, all_files=all_files, follow_links=follow_links)
