"""Find close vectors among many: exact, by blocked matrix products, in memory that does not grow with their number."""

from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

Vectors = npt.NDArray[np.floating[Any]]
"""float16 or float32, one row per picture: [pictures, dimensions]."""
Floats = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int64]

_BLOCK: Final = 2048
"""Rows that are multiplied at once; a block of products takes 16 MiB."""
_FEW: Final = 48
"""Number of main directions used to rule out most pairs."""
_SAMPLE: Final = 4096
"""Vectors from which the main directions are computed."""
_SLACK: Final = 1e-3
"""Added to squared distances, for the rounding of float32."""


class Pairs(NamedTuple):
    """Pairs of rows and their Euclidean distances, all of one length, in the order of the rows."""

    left: Rows
    right: Rows
    distance: Floats

    def take(self, which: npt.NDArray[Any]) -> "Pairs":
        """Some of the pairs, by index or mask."""
        return Pairs(self.left[which], self.right[which], self.distance[which])


def close_pairs(vectors: Vectors, others: Vectors | None, limit: float) -> Pairs:
    """All pairs of a row of `vectors` and a row of `others` that are at most `limit` apart.

    others: None means pairs within `vectors`, each once, left < right.

    A projection never lengthens a distance, so pairs that are too far apart along the main directions are ruled out,
    whole blocks of them by their bounding boxes; the distances of the others are computed in full.
    """
    within = others is None
    others = vectors if others is None else others
    turn = main_directions(vectors, _FEW)
    blocks_left = _boxes(projected(vectors, turn))
    blocks_right = blocks_left if within else _boxes(projected(others, turn))
    found = [Pairs(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.float32))]
    for left, right in _maybe_close(blocks_left, blocks_right, limit, within=within):
        distance = distances(vectors, others, left, right)
        found.append(Pairs(left, right, distance).take(distance <= limit))
    pairs = Pairs(*(np.concatenate(columns) for columns in zip(*found, strict=True)))
    return pairs.take(np.lexsort((pairs.right, pairs.left)))


def nearest(queries: Vectors, vectors: Vectors, count: int) -> tuple[Rows, Floats]:
    """The rows of `vectors` with the largest inner products with each query, best first, ties by row.

    Returns rows and products, [queries, min(count, vectors)].
    """
    wide = queries.astype(np.float32, copy=False)
    rows, products = np.zeros((len(queries), 0), np.int64), np.zeros((len(queries), 0), np.float32)
    for start, part in blocks(vectors):
        products = np.concatenate([products, wide @ part.T], axis=1)
        rows = np.concatenate([rows, np.tile(np.arange(start, start + len(part)), (len(queries), 1))], axis=1)
        order = np.argsort(-products, axis=1, kind="stable")[:, :count]
        rows, products = np.take_along_axis(rows, order, 1), np.take_along_axis(products, order, 1)
    return rows, products


def blocks(vectors: Vectors) -> Iterator[tuple[int, Floats]]:
    """The first row and the rows of each block, as float32."""
    for start in range(0, len(vectors), _BLOCK):
        yield start, vectors[start : start + _BLOCK].astype(np.float32, copy=False)


def projected(vectors: Vectors, turn: Floats) -> Floats:
    """`vectors @ turn`, block by block."""
    found = np.zeros((len(vectors), turn.shape[1]), np.float32)
    for start, part in blocks(vectors):
        found[start : start + len(part)] = part @ turn
    return found


def main_directions(vectors: Vectors, count: int) -> Floats:
    """The first principal directions of some of the vectors: orthonormal columns, [dimensions, at most count]."""
    sample = vectors[:: len(vectors) // _SAMPLE + 1].astype(np.float64)
    _, directions = np.linalg.eigh(np.atleast_2d(np.cov(sample.T)) if len(sample) > 1 else np.eye(vectors.shape[1]))
    return directions[:, ::-1][:, :count].astype(np.float32)


class _Box(NamedTuple):
    """Vectors that are near each other, and the box around them."""

    rows: Rows
    vectors: Floats
    low: Floats
    high: Floats


def _boxes(vectors: Floats) -> list[_Box]:
    """All vectors in boxes of at most _BLOCK, by halving along the longest side, as a k-d tree does."""
    found, waiting = [], [np.arange(len(vectors))] if len(vectors) else []
    while waiting:
        rows = waiting.pop()
        part = vectors[rows]
        low, high = part.min(axis=0), part.max(axis=0)
        if len(rows) <= _BLOCK:
            found.append(_Box(rows, part, low, high))
        else:
            order = np.argpartition(part[:, int(np.argmax(high - low))], len(rows) // 2)
            waiting += [rows[order[: len(rows) // 2]], rows[order[len(rows) // 2 :]]]
    return found


def _maybe_close(boxes: list[_Box], others: list[_Box], limit: float, *, within: bool) -> Iterator[tuple[Rows, Rows]]:
    """Pairs within the limit, box by box."""
    lows, highs = (np.array([getattr(box, name) for box in others]) for name in ("low", "high"))
    for number, box in enumerate(boxes):
        gaps = np.maximum(np.maximum(lows - box.high, box.low - highs), 0) if others else np.zeros((0, 1))
        for near in np.flatnonzero((gaps * gaps).sum(axis=1) <= limit * limit + _SLACK):
            if within and near < number:
                continue
            left, right = _close_in_boxes(box, others[near], limit)
            if within:
                if near == number:  # has each pair twice, and each row with itself
                    left, right = left[left < right], right[left < right]
                left, right = np.minimum(left, right), np.maximum(left, right)
            if len(left):
                yield left, right


def _close_in_boxes(one: _Box, other: _Box, limit: float) -> tuple[Rows, Rows]:
    """One matrix product gives ab - |a|²/2 - |b|²/2, half the negative squared distance, of all pairs."""
    a, b = one.vectors - one.low, other.vectors - one.low  # smaller numbers lose less in rounding
    ones = [np.ones((len(each), 1), np.float32) for each in (a, b)]
    halves = [(each * each).sum(axis=1, keepdims=True) / -2 for each in (a, b)]
    products = np.concatenate([a, halves[0], ones[0]], axis=1) @ np.concatenate([b, ones[1], halves[1]], axis=1).T
    left, right = np.divmod(np.flatnonzero(products >= (limit * limit + _SLACK) / -2), len(b))
    return one.rows[left], other.rows[right]


def distances(vectors: Vectors, others: Vectors, left: Rows, right: Rows) -> Floats:
    """The Euclidean distances of pairs of rows."""
    found = np.zeros(len(left), np.float32)
    for start in range(0, len(left), _BLOCK):
        part = slice(start, start + _BLOCK)
        difference = vectors[left[part]].astype(np.float32) - others[right[part]].astype(np.float32)
        found[part] = np.linalg.norm(difference, axis=1)
    return found
