"""The base of sources with images inside files: tar, zip and Parquet files that a pattern names."""

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from typing import Final, Protocol

from batchland.images.sources.file_patterns import FilePattern, display_location
from batchland.images.sources.random_access import open_files
from batchland.images.sources.refs import Ignored, ImageRef, Store

NO_TIME: Final = "-"
"""The time at the end of a ref's path, if the file gives an impossible one."""


class FileStore(Store, Protocol):
    """The Store of the images in one file."""

    def __init__(self, location: str) -> None:
        """location: path or URL of the file, possibly with credentials."""


class Containers(ABC):
    """A ContainerSource; subclasses add `images_in`, the images of one file, and `retry_refs`.

    all_files: list files of every extension.
    """

    countable = False
    is_sorted = False
    _store: type[FileStore]
    _last: tuple[str, Iterator[ImageRef]] = ("", iter(()))
    """The file of the image that `_find_member` found last, and the members after this image."""

    def __init__(self, pattern: str | os.PathLike[str], *, all_files: bool = False) -> None:
        open_files.close()  # so that a process sees files that were replaced since it listed them last
        self._files = FilePattern(os.fspath(pattern))
        self.name = display_location(self._files.pattern)
        self._all_files = all_files

    def images(self, ignored: Ignored) -> Iterator[ImageRef]:
        """File by file, in the pattern's order, images as stored. Raises UsageError if the first file is missing."""
        return (ref for file in self.containers(ignored) for ref in self.images_in(file, ignored))

    def containers(self, ignored: Ignored) -> Iterator[str]:  # noqa: ARG002
        """The files' names. Raises UsageError if the first one is missing."""
        return iter(self._files.names())

    @abstractmethod
    def images_in(self, container: str, ignored: Ignored) -> Iterator[ImageRef]:
        """The images of one file, in order."""

    def container_of(self, image: str) -> str | None:
        """See `ContainerSource.container_of`."""
        return self._files.file_of(image)

    def _find_member(self, file: str, name: str, members: Callable[[], Iterator[ImageRef]]) -> Iterator[ImageRef]:
        """Find the image of that name. Starts after the image found last, because rows are in order."""
        last, rest = self._last
        if last != file:
            rest = iter(())
        for candidates in (rest, members()):
            for ref in candidates:
                if ref.name == name:
                    self._last = (file, candidates)
                    return iter([ref])
        return vanished(name, "the file has no such member any more")

    def inputs(self) -> Iterable[str]:
        """All files."""
        return self._files.locations.values()

    def key(self, ref: ImageRef) -> bytes:
        """Where the image is in its file."""
        return ref.path

    def planned(self, name: str, key: bytes) -> ImageRef:
        """See `Source.planned`."""
        return ImageRef(name, key, store=self._store(self._files.location_of(name)))


def split_facts(path: bytes) -> tuple[list[int], int | None]:
    """The numbers of a ref's path, and the time at its end."""
    *numbers, modified_us = path.decode().split()
    return list(map(int, numbers)), None if modified_us == NO_TIME else int(modified_us)


def joined_facts(*numbers: int, modified_us: int | None) -> bytes:
    """The path of a ref, see `split_facts`."""
    return " ".join([*map(str, numbers), NO_TIME if modified_us is None else str(modified_us)]).encode()


def vanished(name: str, reason: str) -> Iterator[ImageRef]:
    """A single image with the error `vanished`."""
    return iter([ImageRef(name, b"", ("vanished", reason))])
