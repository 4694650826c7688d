"""Check that the nodes of a cluster read the same images as the driver: a disk may not be mounted everywhere."""

import socket
from collections.abc import Iterable
from contextlib import suppress
from typing import Final, NamedTuple, Self

from batchland.errors import ImageError, UsageError
from batchland.images.sources.refs import ImageRef, content_hash, read_image
from batchland.images.sources.web import WebImages
from batchland.predictions.parts import Entry

TRIED: Final = 3
"""First entries that the driver tries to read."""


class KnownImage(NamedTuple):
    """An image that the driver can read, and the sha256 of its content."""

    image: ImageRef
    sha256: str

    @classmethod
    def among(cls, entries: Iterable[Entry]) -> Self | None:
        """One of these images; None if they cannot be read, or are on web servers, which all nodes share."""
        for entry in entries:
            if isinstance(entry, ImageRef) and not isinstance(entry.store, WebImages):
                with suppress(ImageError):
                    return cls(entry, content_hash(read_image(entry).data))
        return None

    def check(self) -> None:
        """Raise UsageError if this node does not read the same."""
        try:
            same = content_hash(read_image(self.image).data) == self.sha256
            problem = "" if same else "it has other content there"
        except ImageError as error:
            problem = f"{error.code}: {error}"
        if problem:
            raise UsageError(
                f"node {socket.gethostname()} of the Ray cluster does not read {self.image.name} as the driver does "
                f"({problem}): its workers read the images; give a folder that all nodes share, or a URL"
            )
