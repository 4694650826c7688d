"""Signatures: short vectors of pictures that hardly change when a picture is copied, resized, cropped or compressed.

A signature is the difference hash and the thumbnail of a picture (images/signals.py) as one vector. Pictures at a
distance of at most `COPY` are copies.
"""

from typing import Final

import numpy as np
import numpy.typing as npt

from batchland.embeddings.neighbours import Floats
from batchland.images.signals import THUMBNAIL_SIDE

COPY: Final = 0.63
"""Largest distance of the signatures of copies: 99% of pictures cropped by 5% of each side are nearer than this, and
nearly all pairs of different photos are farther apart (benchmarks/results/duplicates.md)."""
_HASH_SIDE: Final = 8
_BITS: Final = _HASH_SIDE * _HASH_SIDE

Hashes = npt.NDArray[np.uint64]
Thumbnails = npt.NDArray[np.uint8]


def signatures(hashes: Hashes, thumbnails: Thumbnails) -> Floats:
    """One row per picture, [pictures, 112].

    A squared distance is the share of the hash's bits that differ, plus the sum of squared differences of the
    thumbnail's cells, 0 to 1. hashes: [pictures]; thumbnails: [pictures, 48].
    """
    bits = np.unpackbits(hashes.astype(">u8").view(np.uint8).reshape(-1, 8), axis=1)
    return np.concatenate([bits / np.float32(np.sqrt(_BITS)), thumbnails / np.float32(255)], axis=1, dtype=np.float32)


def mirrored(vectors: Floats) -> Floats:
    """The signatures of the same pictures, mirrored left to right."""
    bits = vectors[:, :_BITS].reshape(-1, _HASH_SIDE, _HASH_SIDE)
    cells = vectors[:, _BITS:].reshape(-1, THUMBNAIL_SIDE, THUMBNAIL_SIDE, 3)
    turned = np.float32(1 / np.sqrt(_BITS)) - bits[:, :, ::-1]  # a bit is whether the right neighbour is lighter
    return np.concatenate([turned.reshape(-1, _BITS), cells[:, :, ::-1].reshape(len(vectors), -1)], axis=1)
