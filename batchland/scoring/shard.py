"""Score the images of one shard, with their positions in the whole listing, for `merge` to put in order.

A position is the same in all shards: 0, 1, 2, ... In a source of containers it is the container's index <<
CONTAINER_SHIFT | the image's index in the container.
"""

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

from batchland.errors import UsageError
from batchland.images.sources.refs import Ignored, ImageRef
from batchland.images.sources.source import ContainerSource
from batchland.models.session import OpenModel
from batchland.predictions.schema import Manifest, ShardInfo
from batchland.predictions.writer import Survey
from batchland.scoring.listing import ImageListing
from batchland.scoring.options import ScoreOptions, Shard
from batchland.scoring.run import Run

CONTAINER_SHIFT: Final = 32
"""Bits of a position that hold the index within a container."""
ROW_GROUP_SIZE: Final = 1024
"""Rows per row group of a shard's files: a merge holds one row group of every shard in memory."""


class ShardRun(Run):
    """Score one shard of a listing into its folder below `out`, the common folder of all shards."""

    positions = True
    row_group_size = ROW_GROUP_SIZE

    def __init__(self, listing: ImageListing, out: Path | str, options: ScoreOptions, shard: Shard) -> None:
        if options.retry_failed:
            raise UsageError("shards cannot be retried; merge them, then retry the merged predictions")
        super().__init__(listing, out, options)
        self._assignment = ShardAssignment(shard)

    def entries(self) -> Iterator[ImageRef]:
        """The shard's images."""
        if isinstance(self.listing.source, ContainerSource):
            return self._assignment.container_images(self.listing, self.listing.source)
        return self._assignment.images(self.listing.images())

    def fingerprint(self, model: OpenModel) -> dict[str, Any]:
        """The fingerprint of the whole listing, plus the shard."""
        return super().fingerprint(model) | {"shard": str(self._assignment.shard)}

    def finished_before(self, model: OpenModel) -> Manifest | None:
        """The manifest of this shard if it is complete, was scored in the same way and is not to be overwritten."""
        of_listing = super().fingerprint(model)
        return self._finished_shard(lambda shard: shard.fingerprint == of_listing)

    def finish(self, model: OpenModel, survey: Survey) -> dict[str, Any]:  # noqa: ARG002
        """Manifest entry that must be the same in all shards of the listing."""
        self.remove_merged_manifest()
        return {"shard": self._assignment.info(super().fingerprint(model))}


class ShardAssignment:
    """Selects the images of one shard, and counts and hashes all names of the listing, for `merge` to compare."""

    def __init__(self, shard: Shard) -> None:
        self.shard = shard
        self._listed = 0
        self._names = hashlib.sha256()
        self._by_container = False

    def images(self, listing: Iterable[ImageRef]) -> Iterator[ImageRef]:
        """The shard's images of a whole listing, with their positions."""
        for position, ref in enumerate(listing):
            if self._is_own(ref.name):
                yield ref._replace(position=position)

    def container_images(self, listing: ImageListing, source: ContainerSource) -> Iterator[ImageRef]:
        """The images of the shard's containers, with their positions. Other containers are not opened."""
        self._by_container = True
        ignored = listing.ignored
        # Only shard 0 counts what the list of containers passes over, because a merge adds the counts of all shards.
        containers = list(source.containers(Ignored() if self.shard.index else ignored))
        for container, name in enumerate(containers):
            if self._is_own(name):
                images = source.images_in(name, ignored)
                if len(containers) == 1:
                    images = listing.with_readable(images)
                for index, ref in enumerate(listing.selected(images, ignored)):
                    yield ref._replace(position=container << CONTAINER_SHIFT | index)

    def info(self, fingerprint: dict[str, Any]) -> ShardInfo:
        """For the manifest, when everything is listed."""
        return ShardInfo(
            index=self.shard.index,
            count=self.shard.count,
            dealt_by="container" if self._by_container else "image",
            listed=self._listed,
            names_sha256=self._names.hexdigest(),
            fingerprint=fingerprint,
        )

    def _is_own(self, name: str) -> bool:
        self._listed += 1
        self._names.update(name.encode() + b"\0")
        return self.shard.owns(name)
