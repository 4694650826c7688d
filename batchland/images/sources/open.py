"""What there is to score: images in a stable order, wherever they lie, and their bytes. Knows nothing of pixels.

`open_source` is the door; each kind of place has a module here.
"""

import os
from collections.abc import Iterable, Iterator
from typing import Final, Protocol, runtime_checkable

from batchland.errors import UsageError
from batchland.images.sources.folder import IMAGE_EXTENSIONS, Folder, list_again, list_images
from batchland.images.sources.patterns_filter import choose, matcher
from batchland.images.sources.refs import (
    MAX_FILE_BYTES,
    ChangedError,
    Ignored,
    ImageFile,
    ImageRef,
    Store,
    display_name,
    display_path,
    file_name,
    read_image,
)
from batchland.system.urls import is_url, local_path, split_url

__all__ = [
    "IMAGE_EXTENSIONS",
    "MAX_FILE_BYTES",
    "ChangedError",
    "ContainerSource",
    "Ignored",
    "ImageFile",
    "ImageRef",
    "Source",
    "Store",
    "choose",
    "display_name",
    "display_path",
    "file_name",
    "list_again",
    "list_images",
    "matcher",
    "open_source",
    "read_image",
]


SHARD_SUFFIXES: Final = (".tar", ".tar.gz", ".tgz")


class Source(Protocol):
    """A place with images, opened: each kind has its module."""

    name: str
    """What it is, for fingerprints, manifests and people: an absolute path or a URL."""
    countable: bool
    """Whether listing it once more, to know how many images there are, costs next to nothing."""

    def images(self, ignored: Ignored) -> Iterator[ImageRef]:
        """All images, in an order that only their names decide. What is passed over is counted in `ignored`.

        Raises UsageError if there is no such place.
        """

    def inputs(self) -> Iterable[str]:
        """Paths and URLs of what is read: the folder, or the files that name or hold the images."""

    def again(self, name: str) -> Iterator[ImageRef]:
        """What has to be scored to replace a failed row of that name. The image need not exist any more."""


@runtime_checkable
class ContainerSource(Source, Protocol):
    """A Source made of containers of many images (tar shards, tables), each read as a whole: shards deal out those.

    `images` gives the images of all `containers`, one container after the other.
    """

    def containers(self, ignored: Ignored) -> Iterator[str]:
        """Names of all containers, in order, the same on every machine; lists them, but opens none."""

    def images_in(self, container: str, ignored: Ignored) -> Iterator[ImageRef]:
        """The images of one container, in order. The others are not opened for that."""


def open_source(
    images: str | os.PathLike[str] | None,
    *,
    image_list: str | None = None,
    all_files: bool = False,
    follow_links: bool = False,
) -> Source:
    """The source that `images` means: a folder, or tar or Parquet files by their names; of this machine, or by URL.

    image_list: a file that lists the images, `-` for standard input; relative paths lie below `images`, or else here.
    all_files: list files of every extension. follow_links: follow links to folders of this machine.

    Raises UsageError if there is neither.
    """
    place = None if images is None else os.fspath(images)
    if image_list is not None:
        from batchland.images.sources.paths import Paths

        return Paths(image_list, place)
    if place is None:
        raise UsageError("nothing to score: give a folder, a URL, tar or Parquet files, or a list by --images")
    path = split_url(place).path if is_url(place) else place
    if path.endswith(SHARD_SUFFIXES) and not os.path.isdir(path):  # noqa: PTH112
        from batchland.images.sources.tar import Shards

        return Shards(place, all_files=all_files)
    if path.rstrip("/").endswith(".parquet"):
        from batchland.images.sources.table import Tables

        return Tables(place)
    if is_url(place) and local_path(place) is None:
        from batchland.images.sources.remote import Remote  # with pyarrow, which local images do without

        return Remote(place, all_files=all_files)
    return Folder(local_path(place) or place, all_files=all_files, follow_links=follow_links)
