"""The partitions of a job's output, `output/date=2026-11-23/`: what they hold, and which images they know already.

All of it is read from the partitions' own files; there is no state beside them.
"""

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from batchland.images.sources.refs import ImageRef
from batchland.nightly.run_record import CONFIDENCE_BINS, PredictionMix
from batchland.predictions.reader import StoredPredictions

_DIGEST_BYTES: Final = 16
_FACTS: Final = ("image", "file_size", "modified_at")


def is_begun(partition: Path) -> bool:
    """Whether an earlier run has left parts of it, for the next one to go on with."""
    return any((partition.parent / f".{partition.name}.parts").glob("part-*.parquet"))


def siblings(partition: Path) -> list[Path]:
    """The complete partitions beside it, in the order of their dates."""
    return sorted(path.parent for path in partition.parent.glob("date=*/_manifest.json") if path.parent != partition)


class KnownImages:
    """The images below `root` that partitions hold, by name, size and modification time; 16 bytes of memory each.

    An image that failed before it could be read has no size and time there, so it is not known.
    """

    def __init__(self, partitions: Iterable[Path], root: Path) -> None:
        self._root = str(root.resolve())
        digests = bytearray()
        for partition in partitions:
            for digest in self._read(StoredPredictions(partition)):
                digests += digest
        self._known = np.frombuffer(digests, f"S{_DIGEST_BYTES}")
        self._known.sort()

    def __contains__(self, ref: ImageRef) -> bool:
        try:
            digest = _digest(ref.name, *ref.store.facts(ref.path))
        except OSError:
            return False
        place = np.searchsorted(self._known, digest)
        return self._known[place : place + 1].tobytes() == digest

    def _read(self, stored: StoredPredictions) -> Iterator[bytes]:
        if stored.info().images != self._root:  # the same name below another folder is another image
            return
        for part in stored.parts():
            for batch in stored.batches(part, _FACTS):
                modified = batch["modified_at"].cast(pa.int64())
                facts = zip(
                    batch["image"].to_pylist(), batch["file_size"].to_pylist(), modified.to_pylist(), strict=True
                )
                yield from (_digest(name, size, time) for name, size, time in facts if size is not None)


def mix(partition: Path) -> PredictionMix:
    """Which classes were answered how often, and how surely."""
    stored = StoredPredictions(partition)
    histogram = np.zeros(CONFIDENCE_BINS, np.int64)
    total = 0.0
    classes = {name.label: 0 for name in stored.info().classes}
    for part in stored.parts():
        table = stored.table(part, ["label", "probability"]).drop_null()
        for answer in table["label"].value_counts().to_pylist():
            classes[answer["values"]] += answer["counts"]
        probability = table["probability"].cast(pa.float64()).to_numpy()
        bins = np.clip(np.ceil(probability * CONFIDENCE_BINS).astype(np.int64) - 1, 0, CONFIDENCE_BINS - 1)
        histogram += np.bincount(bins, minlength=CONFIDENCE_BINS)
        total += float(pc.sum(table["probability"].cast(pa.float64())).as_py() or 0.0)
    images = int(histogram.sum())
    return PredictionMix(
        classes=classes,
        confidence_histogram=tuple(histogram.tolist()),
        mean_confidence=total / images if images else None,
    )


def _digest(name: str, size: int | None, modified_us: int) -> bytes:
    return hashlib.blake2b(f"{size} {modified_us} {name}".encode(), digest_size=_DIGEST_BYTES).digest()
