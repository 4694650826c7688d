"""Deal a listing out to N shards: each process finds out by itself which images are its own. Knows nothing of outputs.

The rule is a contract between machines, and between versions of batchland: image NAME is shard

    int.from_bytes(blake2b(NAME.encode("utf-8"), digest_size=8).digest(), "big") % N

's, from 0 to N-1. Of sources that are made of containers (tar shards, tables) whole containers are dealt out, by their
names, so that a machine opens only its own.

Every image has a position in the whole listing, which all shards count alike, whosever it is: 0, 1, 2, ... Where
containers are dealt out, it is the container's number << 32 | the image's place in it.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from batchland.images.sources.refs import Ignored, ImageRef
from batchland.images.sources.source import ContainerSource, Source
from batchland.predictions.reader import open_stored
from batchland.predictions.schema import Manifest, ShardInfo
from batchland.scoring.options import Shard

PLACE_BITS: Final = 32
"""Bits of a position that count within a container."""


class Deal:
    """Passes on what is the shard's own, with its position, and keeps account of all that was listed."""

    def __init__(self, shard: Shard) -> None:
        self.shard = shard
        self._listed = 0
        self._names = hashlib.sha256()
        self._containers = False

    def images(self, listing: Iterable[ImageRef]) -> Iterator[ImageRef]:
        """Own images of a whole listing."""
        for position, ref in enumerate(listing):
            if self._is_own(ref.name):
                yield ref._replace(position=position)

    def containers(
        self, source: ContainerSource, ignored: Ignored, chosen: Callable[[Iterator[ImageRef]], Iterator[ImageRef]]
    ) -> Iterator[ImageRef]:
        """Images of own containers, as far as they are `chosen`."""
        self._containers = True
        # What every shard passes over is counted once, so that the counts of all shards can be added up.
        for number, name in enumerate(source.containers(Ignored() if self.shard.index else ignored)):
            if self._is_own(name):
                for place, ref in enumerate(chosen(source.images_in(name, ignored))):
                    yield ref._replace(position=number << PLACE_BITS | place)

    def own(self, source: Source) -> Iterator[ImageRef]:
        """The shard's own images of a source, about, and with no account kept; for a progress bar."""
        if isinstance(source, ContainerSource):
            containers = filter(self.shard.owns, source.containers(Ignored()))
            return (ref for name in containers for ref in source.images_in(name, Ignored()))
        return (ref for ref in source.images(Ignored()) if self.shard.owns(ref.name))

    def info(self, fingerprint: dict[str, Any]) -> ShardInfo:
        """For the manifest, once all is listed."""
        return ShardInfo(
            index=self.shard.index,
            count=self.shard.count,
            dealt_by="container" if self._containers else "image",
            listed=self._listed,
            names_sha256=self._names.hexdigest(),
            fingerprint=fingerprint,
        )

    def _is_own(self, name: str) -> bool:
        self._listed += 1
        self._names.update(name.encode() + b"\0")
        return self.shard.owns(name)


ROW_GROUP_SIZE: Final = 1024
"""Rows per row group of a shard's files: a merge holds one of every shard in memory."""


def finished_before(folder: Path | str, fingerprint: dict[str, Any]) -> Manifest | None:
    """The manifest of a shard that is finished, and was scored in this very way; None if there is none such."""
    with suppress(OSError, ValidationError):
        manifest = Manifest.model_validate_json(open_stored(folder).manifest())
        if manifest.shard and manifest.shard.fingerprint == fingerprint:
            return manifest
    return None
