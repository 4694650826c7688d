"""Pictures that are copies of others, also after another encoding: their difference hashes differ in few bits."""

from collections.abc import Iterator
from typing import Final

import numpy as np
import numpy.typing as npt

Hashes = npt.NDArray[np.uint64]
MAX_BITS: Final = 2
"""Hashes of copies differ in at most this many of 64 bits; those of other photos in more (none of 234,270 pairs)."""
_BLOCK: Final = 2**22
"""Pairs that are compared at once."""


def copies_within(hashes: Hashes) -> npt.NDArray[np.bool_]:
    """Whether each picture is a copy of an earlier one of the same array."""
    found = np.zeros(len(hashes), bool)
    for first, block in _blocks(hashes, hashes):
        rows, columns = np.nonzero(block)
        found[first + rows[columns < first + rows]] = True
    return found


def copies_of(hashes: Hashes, others: Hashes) -> npt.NDArray[np.bool_]:
    """Whether each picture is a copy of one of the others."""
    found = np.zeros(len(hashes), bool)
    for first, block in _blocks(hashes, others):
        found[first : first + len(block)] = block.any(axis=1)
    return found


def _blocks(hashes: Hashes, others: Hashes) -> Iterator[tuple[int, npt.NDArray[np.bool_]]]:
    """Whether hashes are near others, for some rows at a time: the first row, and [rows, others]."""
    rows = max(_BLOCK // max(len(others), 1), 1)
    for first in range(0, len(hashes), rows):
        yield first, np.bitwise_count(hashes[first : first + rows, None] ^ others) <= MAX_BITS
