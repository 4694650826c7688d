"""Count integer keys and scored answers of a long stream in little memory, and take a random sample of its rows."""

from functools import cached_property
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from batchland.evaluation.intervals import Floats, Ints

_BUFFERED: Final = 2**21
"""Keys that are collected before they are sorted and counted."""
SCORE_CELLS: Final = 2**20
"""Largest number of distinct (class, score, hit); with more, scores are rounded down to fewer bits."""
_HIT_BIT: Final = 32
_CLASS_BIT: Final = 33


class KeyCounts:
    """How often each key occurs. keys: int64, not negative."""

    def __init__(self, limit: int | None = None, low_bits: int = 0) -> None:
        """limit: of distinct keys. With more, lower bits of the keys are set to 0, at most `low_bits` of them."""
        self._limit, self._low_bits = limit, low_bits
        self.shift = 0
        """Lower bits that are 0 in all keys."""
        self._keys, self._counts = np.zeros(0, np.int64), np.zeros(0, np.int64)
        self._buffer: list[Ints] = []
        self._buffered = 0

    def add(self, keys: Ints) -> None:
        """Count these."""
        self._buffer.append(keys)
        self._buffered += len(keys)
        if self._buffered >= _BUFFERED:
            self._flush()

    def __len__(self) -> int:
        """Distinct keys, not counting those in the buffer."""
        return len(self._keys)

    def result(self) -> tuple[Ints, Ints]:
        """The distinct keys in order, and their counts."""
        self._flush()
        return self._keys, self._counts

    def _flush(self) -> None:
        if not self._buffered:
            return
        keys, counts = counted(self._rounded(np.concatenate(self._buffer)))
        self._buffer, self._buffered = [], 0
        self._keys, self._counts = _summed(np.r_[self._keys, keys], np.r_[self._counts, counts])
        while self._limit and len(self._keys) > self._limit and self.shift < self._low_bits:
            self.shift += 1
            self._keys, self._counts = _summed(self._rounded(self._keys), self._counts)

    def _rounded(self, keys: Ints) -> Ints:
        return keys >> self.shift << self.shift if self.shift else keys


class ScoreCells(NamedTuple):
    """Answers by class and score, in that order: arrays of the shape [cells]."""

    classes: Ints
    low: npt.NDArray[np.float32]
    """Smallest score that the cell can hold; the score itself, unless scores were rounded."""
    score: Floats
    """Mean score, to within the width of the cell."""
    images: Ints
    hits: Ints

    def of_all_classes(self) -> "ScoreCells":
        """The same without classes: all are 0."""
        low, cell = np.unique(self.low, return_inverse=True)
        images, hits = (np.bincount(cell, counts, len(low)).astype(np.int64) for counts in (self.images, self.hits))
        score = np.empty(len(low))
        score[cell] = self.score
        return ScoreCells(np.zeros(len(low), np.int64), low, score, images, hits)

    def of_class(self, number: int) -> "ScoreCells":
        """Those of one class."""
        start, end = np.searchsorted(self.classes, [number, number + 1])
        return ScoreCells(*(column[start:end] for column in self))  # type: ignore[arg-type]


class ScoreCounts:
    """Counts answers by class, score and whether they are hits. Scores: float32, 0 to 1."""

    def __init__(self, limit: int = SCORE_CELLS) -> None:
        self._counts = KeyCounts(limit, low_bits=23)

    def add(self, classes: Ints, scores: npt.NDArray[np.float32], hits: npt.NDArray[np.bool_]) -> None:
        """Count these answers; all arrays of the same length."""
        bits = np.maximum(scores, np.float32(0)).view(np.int32).astype(np.int64)  # in the order of the scores
        self._counts.add(classes << _CLASS_BIT | hits.astype(np.int64) << _HIT_BIT | bits)

    @cached_property
    def cells(self) -> ScoreCells:
        """All answers; none can be added after this."""
        keys, counts = self._counts.result()
        hit = (keys >> _HIT_BIT) & 1
        cells, cell = np.unique(keys & ~(1 << _HIT_BIT), return_inverse=True)
        bits = (cells & 0xFFFFFFFF).astype(np.int32)
        low = bits.view(np.float32)
        high = (bits + ((1 << self._counts.shift) - 1)).astype(np.int32).view(np.float32)
        images = np.bincount(cell, counts, len(cells)).astype(np.int64)
        hits = np.bincount(cell, counts * hit, len(cells)).astype(np.int64)
        score = (low.astype(np.float64) + np.minimum(high, 1)) / 2
        return ScoreCells(cells >> _CLASS_BIT, low, score, images, hits)


class Sums:
    """Images, summed probabilities and right answers by group."""

    def __init__(self, groups: int) -> None:
        self.images, self.right = np.zeros(groups, np.int64), np.zeros(groups, np.int64)
        self.probability = np.zeros(groups)

    def add(self, group: Ints, probability: Floats, right: npt.NDArray[np.bool_]) -> None:
        """Add answers. group: of each answer, from 0."""
        groups = len(self.images)
        wrong, hits = np.bincount(2 * group + right, minlength=2 * groups).reshape(-1, 2).T
        self.images += wrong + hits
        self.right += hits
        self.probability += np.bincount(group, probability, groups)

    def add_cells(self, group: Ints, cells: ScoreCells) -> None:
        """Add answers that are counted in cells. group: of each cell, from 0."""
        groups = len(self.images)
        self.images += np.bincount(group, cells.images, groups).astype(np.int64)
        self.right += np.bincount(group, cells.hits, groups).astype(np.int64)
        self.probability += np.bincount(group, cells.images * cells.score, groups)


class Sample:
    """A uniform random sample of the rows of a stream; all rows if there are not more."""

    def __init__(self, size: int, seed: int) -> None:
        self._size, self._random = size, np.random.default_rng(seed)
        self._keys = np.zeros(0)
        self.columns: list[npt.NDArray[Any]] = []
        """The sample, in the order of the stream; empty without a row."""

    def add(self, rows: int) -> Ints:
        """Count the next rows. Returns the indices of those that enter the sample; then call `keep` with their
        columns."""
        keys = self._random.random(rows)
        limit = self._keys.max() if len(self._keys) >= self._size and self._size else np.inf
        entering = np.flatnonzero(keys < limit)[: rows if self._size else 0]
        self._entering = keys[entering]
        return entering

    def keep(self, *columns: npt.NDArray[Any]) -> None:
        """Store the columns of the rows that enter."""
        before = self.columns or [column[:0] for column in columns]
        joined = [np.concatenate(pair) for pair in zip(before, columns, strict=True)]
        self._keys = np.r_[self._keys, self._entering]
        if len(self._keys) > self._size:
            kept = np.sort(np.argpartition(self._keys, self._size)[: self._size])  # in the order of the stream
            self._keys, joined = self._keys[kept], [column[kept] for column in joined]
        self.columns = joined


def counted(keys: Ints) -> tuple[Ints, Ints]:
    """The distinct keys in order, and their counts."""
    if len(keys) and keys.max() < _BUFFERED:
        counts = np.bincount(keys)
        found = np.flatnonzero(counts)
        return found, counts[found]
    return np.unique(keys, return_counts=True)


def _summed(keys: Ints, counts: Ints) -> tuple[Ints, Ints]:
    order = np.argsort(keys, kind="stable")
    keys, counts = keys[order], counts[order]
    starts = np.flatnonzero(np.r_[True, keys[1:] != keys[:-1]]) if len(keys) else np.zeros(0, np.int64)
    return keys[starts], np.add.reduceat(counts, starts) if len(starts) else counts
