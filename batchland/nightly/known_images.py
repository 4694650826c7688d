"""Find the images that partitions of an output contain (mode "new"), and images that arrived late."""

import hashlib
from collections.abc import Iterable, Iterator
from contextlib import suppress
from datetime import date
from itertools import chain
from typing import Final

import numpy as np
import pyarrow as pa

from batchland.errors import NoSuchImagesError
from batchland.images.sources.open import open_source
from batchland.images.sources.refs import ImageRef
from batchland.nightly.job import Job
from batchland.nightly.partitions import other_partitions
from batchland.predictions.reader import StoredPredictions
from batchland.predictions.storage import Location
from batchland.scoring.listing import open_listing
from batchland.system.text import first_few, images

_DIGEST_BYTES: Final = 16
_COLUMNS: Final = ("image", "file_size", "modified_at")


class KnownImages:
    """The images at `root` that partitions contain, by name, size and modification time; 16 bytes of memory each.

    An image that failed before it was read has no size and time there, so it does not count.
    """

    def __init__(self, partitions: Iterable[Location], root: Location) -> None:
        self._root = open_source(root).name
        digests = bytearray()
        for partition in partitions:
            for digest in self._digests_in(StoredPredictions(partition)):
                digests += digest
        self._known = np.frombuffer(digests, f"S{_DIGEST_BYTES}")
        self._known.sort()

    def __contains__(self, ref: ImageRef) -> bool:
        try:
            digest = _digest(ref.name, *(ref.store.facts(ref.path) or (None, 0)))
        except OSError:
            return False
        return _contains(self._known, digest)

    def _digests_in(self, stored: StoredPredictions) -> Iterator[bytes]:
        if stored.info().images != self._root:  # the same name below another folder is another image
            return
        for part in stored.parts():
            for batch in stored.batches(part, _COLUMNS):
                modified = batch["modified_at"].cast(pa.int64())
                rows = zip(
                    batch["image"].to_pylist(), batch["file_size"].to_pylist(), modified.to_pylist(), strict=True
                )
                yield from (_digest(name, size, time) for name, size, time in rows if size is not None)


def late_images(job: Job, partition: Location, night: date) -> list[str]:
    """Names of delivered images that are not in a complete partition, because they arrived after it was scored.

    With mode "new", an image in any other partition of the output is not late.
    """
    partitions = [partition, *(other_partitions(partition) if job.mode == "new" else ())]
    scored = np.fromiter(chain.from_iterable(map(_name_digests, partitions)), f"S{_DIGEST_BYTES}")
    scored.sort()
    listing = open_listing(job.images_of(night), job, skip=lambda ref: _contains(scored, _name_digest(ref.name)))
    with suppress(NoSuchImagesError):  # archived meanwhile
        return [ref.name for ref in listing.images()] if listing.first() else []
    return []


def describe_late(names: list[str]) -> str:
    """A sentence that names late images, and how to score them."""
    verb = "is" if len(names) == 1 else "are"
    return (
        f"{images(len(names))} came after the night was scored and {verb} missing in it ({first_few(names)}); "
        '`late = "score"` in [delivery] adds late images, a forced run scores the whole night again'
    )


def _name_digests(partition: Location) -> Iterator[bytes]:
    stored = StoredPredictions(partition)
    for part in stored.parts():
        for batch in stored.batches(part, ["image"]):
            yield from map(_name_digest, batch["image"].to_pylist())


def _name_digest(name: str) -> bytes:
    return hashlib.blake2b(name.encode(), digest_size=_DIGEST_BYTES).digest()


def _contains(digests: np.ndarray, digest: bytes) -> bool:
    index = np.searchsorted(digests, digest)
    return digests[index : index + 1].tobytes() == digest


def _digest(name: str, size: int | None, modified_us: int | None) -> bytes:
    return hashlib.blake2b(f"{size} {modified_us} {name}".encode(), digest_size=_DIGEST_BYTES).digest()
