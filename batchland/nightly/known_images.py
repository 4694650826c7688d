"""Find the images that partitions of an output contain (mode "new"), and images that arrived late or have
changed."""

import hashlib
from collections.abc import Iterable, Iterator
from contextlib import suppress
from datetime import date
from itertools import chain
from typing import Final, NamedTuple

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
        name = open_source(root).name
        stored = map(StoredPredictions, partitions)
        same = (each for each in stored if each.info().images == name)  # below another folder are other images
        rows = chain.from_iterable(map(_rows, same))
        self._known = _sorted(_digest(*row) for row in rows if row[1] is not None)

    def __contains__(self, ref: ImageRef) -> bool:
        try:
            digest = _digest(ref.name, *(ref.store.facts(ref.path) or (None, 0)))
        except OSError:
            return False
        return _contains(self._known, digest)


class DeliveryChanges(NamedTuple):
    """How a delivery differs from the complete partition that was scored from it. Names of images, in listing order.

    The rows of images that were deleted stay in the partition.
    """

    late: list[str]
    """They are not in the partition, because they arrived later."""
    changed: list[str]
    """They are in it, and have another size or modification time now."""

    def describe(self) -> str:
        """A sentence that names them, and how to score them; empty without any."""
        parts = []
        if self.late:
            verb = "is" if len(self.late) == 1 else "are"
            parts.append(
                f"{images(len(self.late))} came after the night was scored and {verb} missing in it "
                f"({first_few(self.late)})"
            )
        if self.changed:
            verb = "has" if len(self.changed) == 1 else "have"
            parts.append(
                f"{images(len(self.changed))} {verb} another size or modification time than when the night was scored "
                f"({first_few(self.changed)})"
            )
        if self.late and not self.changed:
            parts.append('`late = "score"` in [delivery] adds late images, a run with force scores all again')
        elif self.changed:
            parts.append("a run with force scores all again")
        return "; ".join(parts)


def changes_of_delivery(job: Job, partition: Location, night: date) -> DeliveryChanges:
    """Compare a night's delivery with its complete partition, by names, sizes and modification times.

    With mode "new", an image in any other partition of the output is not late. Reads no image. An image without a size
    and time, then or now, is not changed.
    """
    listing, changes = open_listing(job.images_of(night), job), DeliveryChanges([], [])
    partitions = [partition, *(other_partitions(partition) if job.mode == "new" else ())]
    names, facts = (_sorted(chain.from_iterable(map(read, partitions))) for read in (_name_digests, _fact_digests))
    with suppress(NoSuchImagesError):  # archived meanwhile
        for ref in listing.images() if listing.first() else ():
            if not _contains(names, _name_digest(ref.name)):
                changes.late.append(ref.name)
            elif not _contains(facts, _digest(ref.name, None, None)) and _has_changed(ref, facts):
                changes.changed.append(ref.name)
    return changes


def _has_changed(ref: ImageRef, known: np.ndarray) -> bool:
    """Whether a file has another size or modification time than in `known`. A file that is gone has not changed."""
    try:
        size, modified_us = ref.store.facts(ref.path) or (None, None)
    except OSError:
        return False
    facts = [fact for fact in ((size, None), (None, modified_us)) if fact != (None, None)]
    return not all(_contains(known, _digest(ref.name, *fact)) for fact in facts)


def _fact_digests(partition: Location) -> Iterator[bytes]:
    """Digests of the size and of the time of each file, apart, because a source may know only one of them.

    Of an image that was not read there is one digest without both.
    """
    for name, size, modified_us in _rows(StoredPredictions(partition)):
        yield _digest(name, size, None)
        if modified_us is not None:
            yield _digest(name, None, modified_us)


def _sorted(digests: Iterable[bytes]) -> np.ndarray:
    found = np.fromiter(digests, f"S{_DIGEST_BYTES}")
    found.sort()
    return found


def _rows(stored: StoredPredictions) -> Iterator[tuple[str, int | None, int | None]]:
    """Name, size and modification time (microseconds) of each file, as they were read; None where unknown."""
    for batch in stored.rows(_COLUMNS):
        modified = batch["modified_at"].cast(pa.int64())
        yield from zip(batch["image"].to_pylist(), batch["file_size"].to_pylist(), modified.to_pylist(), strict=True)


def _name_digests(partition: Location) -> Iterator[bytes]:
    for batch in StoredPredictions(partition).rows(["image"]):
        yield from map(_name_digest, batch["image"].to_pylist())


def _name_digest(name: str) -> bytes:
    return hashlib.blake2b(name.encode(), digest_size=_DIGEST_BYTES).digest()


def _contains(digests: np.ndarray, digest: bytes) -> bool:
    index = np.searchsorted(digests, digest)
    return digests[index : index + 1].tobytes() == digest


def _digest(name: str, size: int | None, modified_us: int | None) -> bytes:
    return hashlib.blake2b(f"{size} {modified_us} {name}".encode(), digest_size=_DIGEST_BYTES).digest()
