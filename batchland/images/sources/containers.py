"""The base of sources with images inside files: tar, zip and Parquet files that a pattern names."""

import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from typing import Protocol

from batchland.images.sources.file_patterns import FilePattern, display_location
from batchland.images.sources.refs import Ignored, ImageRef, Store


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

    def __init__(self, pattern: str | os.PathLike[str], *, all_files: bool = False) -> None:
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

    def inputs(self) -> Iterable[str]:
        """All files."""
        return self._files.locations.values()

    def key(self, ref: ImageRef) -> bytes:
        """Where the image is in its file."""
        return ref.path

    def planned(self, name: str, key: bytes) -> ImageRef:
        """See `Source.planned`."""
        return ImageRef(name, key, store=self._store(self._files.location_of(name)))


def vanished(name: str, reason: str) -> Iterator[ImageRef]:
    """A single image with the error `vanished`."""
    return iter([ImageRef(name, b"", ("vanished", reason))])
