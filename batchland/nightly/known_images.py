"""Which images the partitions of an output hold already, for jobs with mode "new"."""

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa

from batchland.images.sources.refs import ImageRef
from batchland.predictions.reader import StoredPredictions

_DIGEST_BYTES: Final = 16
_COLUMNS: Final = ("image", "file_size", "modified_at")


class KnownImages:
    """The images below `root` that partitions hold, by name, size and modification time; 16 bytes of memory each.

    An image that failed before it could be read has no size and time there, so it is not known.
    """

    def __init__(self, partitions: Iterable[Path], root: Path) -> None:
        self._root = str(root.resolve())
        digests = bytearray()
        for partition in partitions:
            for digest in self._digests_in(StoredPredictions(partition)):
                digests += digest
        self._known = np.frombuffer(digests, f"S{_DIGEST_BYTES}")
        self._known.sort()

    def __contains__(self, ref: ImageRef) -> bool:
        try:
            digest = _digest(ref.name, *ref.store.facts(ref.path))
        except OSError:
            return False
        index = np.searchsorted(self._known, digest)
        return self._known[index : index + 1].tobytes() == digest

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


def _digest(name: str, size: int | None, modified_us: int) -> bytes:
    return hashlib.blake2b(f"{size} {modified_us} {name}".encode(), digest_size=_DIGEST_BYTES).digest()
