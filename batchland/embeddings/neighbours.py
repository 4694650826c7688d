"""Find close vectors among many: exact, by blocked matrix products, in memory that does not grow with their number."""

from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

Vectors = npt.NDArray[np.floating[Any]]
"""float16 or float32, one row per picture: [pictures, dimensions]."""
Floats = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int64]

_BLOCK: Final = 4096
"""Rows that are multiplied at once; a block of products takes 64 MiB."""
_FEW: Final = 48
"""Dimensions by which most pairs are ruled out."""
_SAMPLE: Final = 4096
"""Vectors from which the main directions are computed."""
_SLACK: Final = 1e-3
"""Added to squared distances, for the rounding of float32."""


class Pairs(NamedTuple):
    """Pairs of rows and their Euclidean distances, all of one length."""

    left: Rows
    right: Rows
    distance: Floats


def close_pairs(vectors: Vectors, others: Vectors | None, limit: float) -> Pairs:
    """All pairs of a row of `vectors` and a row of `others` that are at most `limit` apart.

    others: None means pairs within `vectors`, each once, left < right.

    A projection never lengthens a distance, so pairs that are too far apart along the main directions are ruled out;
    the distances of the others are computed in full.
    """
    turn = main_directions(vectors, _FEW)
    few = projected(vectors, turn)
    few_others = few if others is None else projected(others, turn)
    found = [Pairs(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.float32))]
    for left, right in _maybe_close(few, few_others, limit, within=others is None):
        distance = _distances(vectors, vectors if others is None else others, left, right)
        near = distance <= limit
        found.append(Pairs(left[near], right[near], distance[near]))
    return Pairs(*(np.concatenate(column) for column in zip(*found, strict=True)))


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


def _maybe_close(few: Floats, others: Floats, limit: float, *, within: bool) -> Iterator[tuple[Rows, Rows]]:
    """Pairs within the limit, block by block. Half the squared distance is |a|²/2 + |b|²/2 - ab."""
    half, half_others = ((each * each).sum(axis=1) / 2 for each in (few, others))
    most = limit * limit / 2 + _SLACK
    for top, part in blocks(few):
        for start in range(top if within else 0, len(others), _BLOCK):
            products = part @ others[start : start + _BLOCK].T
            products -= half[top : top + len(part), None]
            products -= half_others[start : start + _BLOCK] - most
            left, right = np.divmod(np.flatnonzero(products >= 0), products.shape[1])
            left, right = left + top, right + start
            keep = left < right if within else slice(None)
            if len(left):
                yield left[keep], right[keep]


def _distances(vectors: Vectors, others: Vectors, left: Rows, right: Rows) -> Floats:
    found = np.zeros(len(left), np.float32)
    for start in range(0, len(left), _BLOCK):
        part = slice(start, start + _BLOCK)
        difference = vectors[left[part]].astype(np.float32) - others[right[part]].astype(np.float32)
        found[part] = np.linalg.norm(difference, axis=1)
    return found
