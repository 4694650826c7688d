"""Batches of loaded images: pixels in a buffer, and the outcome of each image."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from math import ceil
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from batchland.errors import ErrorCode
from batchland.images.encoded_jpegs import Encoded
from batchland.images.preprocess import Pixels, PreprocessSpec
from batchland.images.signals import Bytes, measure_samples
from batchland.images.sources.refs import ImageRef


class Outcome(NamedTuple):
    """The result of loading one image: its facts, None if unknown, and the error if it failed."""

    width: int | None = None
    height: int | None = None
    """Pixels of the upright picture at full size."""
    file_size: int | None = None
    """Bytes."""
    modified_us: int | None = None
    """Modification time, microseconds since 1970, UTC."""
    sha256: str | None = None
    """sha256 of the file's content, hexadecimal."""
    signals: bytes | None = None
    """Figures about the picture: one row of SIGNAL_DTYPE."""
    sample: Bytes | None = None
    """The data that `signals` is computed from when the batch is complete; see `measured`."""
    error: tuple[ErrorCode, str] | None = None
    read_seconds: float = 0.0
    decode_seconds: float = 0.0


class Batch(NamedTuple):
    """Consecutive images of the listing. Row i of `pixels` belongs to `refs[i]` and `outcomes[i]`.

    A failed image keeps its row, filled with zeros, so that rows never shift. An image that is still encoded keeps its
    row, too; its content is undefined.
    """

    refs: Sequence[ImageRef]
    pixels: Pixels
    """uint8 [batch, height, width, 3]; valid until the next batch is requested."""
    outcomes: Sequence[Outcome]
    encoded: Mapping[int, Encoded] = MappingProxyType({})
    """Row to the JPEG that a GPU will decode."""

    @property
    def failed(self) -> int:
        """Number of images without pixels."""
        return sum(outcome.error is not None for outcome in self.outcomes)

    def shares(self, count: int) -> "Iterator[Batch]":
        """Consecutive shares of equal size, at most `count`, of a batch without encoded images."""
        size = ceil(len(self.refs) / count)
        for start in range(0, len(self.refs), size):
            share = slice(start, start + size)
            yield Batch(self.refs[share], self.pixels[share], self.outcomes[share])


Loaded = tuple[Outcome, Pixels | Encoded | None]
"""An image's outcome, and its picture unless it failed: uint8 [spec.height, spec.width, 3], or a JPEG for a GPU."""
Load = Callable[[ImageRef, PreprocessSpec], Loaded]
Decode = Callable[[bytes, PreprocessSpec], Loaded]


def measured(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """The outcomes with figures computed from their samples. Many at once take a fraction of the numpy calls."""
    samples = [outcome.sample for outcome in outcomes if outcome.sample is not None]
    if not samples:
        return list(outcomes)
    figures = iter(measure_samples(np.stack(samples)))
    return [
        outcome if outcome.sample is None else outcome._replace(sample=None, signals=next(figures).tobytes())
        for outcome in outcomes
    ]
