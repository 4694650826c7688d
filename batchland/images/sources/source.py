"""The interface of all sources of images: a folder, a URL, tar shards, Parquet tables or a list."""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from batchland.images.sources.refs import Ignored, ImageRef

if TYPE_CHECKING:
    import pyarrow as pa


class Source(Protocol):
    """A collection of images. `open_source` gives one."""

    name: str
    """Absolute path or URL without credentials, for fingerprints, manifests and messages."""
    countable: bool
    """Whether listing all images, only to count them, is cheap."""
    is_sorted: bool
    """Whether images come in the order of the bytes of their names."""

    def images(self, ignored: Ignored) -> Iterator[ImageRef]:
        """All images, in an order that depends only on their names. Skipped files are counted in `ignored`.

        Raises UsageError if the source does not exist.
        """

    def inputs(self) -> Iterable[str]:
        """Paths and URLs that are read: the folder, or the files that list or contain the images."""

    def key(self, ref: ImageRef) -> bytes:
        """The argument of `planned` for an image of this source. Raises UsageError if it would contain a secret."""

    def planned(self, name: str, key: bytes) -> ImageRef:
        """The image of that name and key, listed before, on any machine. Nothing is opened."""

    def retry_refs(self, name: str) -> Iterator[ImageRef]:
        """The images that replace the failed row of that name. They need not exist any more."""


@runtime_checkable
class ListSource(Source, Protocol):
    """A source with images from the rows of a table with further columns: camera, site, customer."""

    @property
    def own(self) -> "pa.Schema":
        """These columns, in the order of `ImageRef.own`."""


@runtime_checkable
class ContainerSource(Source, Protocol):
    """A source with images inside containers (tar shards, Parquet tables). Work is divided by container.

    `images` gives the images of all `containers`, one container after the other.
    """

    def containers(self, ignored: Ignored) -> Iterator[str]:
        """Names of all containers, in order, the same on every machine. Opens none of them."""

    def images_in(self, container: str, ignored: Ignored) -> Iterator[ImageRef]:
        """The images of one container, in order. Opens no other container."""

    def container_of(self, image: str) -> str | None:
        """The container of an image, or of a row for a part that cannot be read; None if there is none."""
