"""Approximate search for close vectors among very many, with faiss's inverted lists (the extra `index`).

k-means divides the vectors into lists. A search compares only the vectors in the lists with the nearest means.
"""

from importlib.util import find_spec
from math import isqrt
from pathlib import Path
from typing import Any, Final

import numpy as np

from batchland.embeddings.neighbours import Floats, Pairs, Rows, Vectors, distances
from batchland.errors import UsageError
from batchland.system.cores import usable_cores

_BLOCK: Final = 16384
"""Rows that are added or searched at once."""
_ROUNDS: Final = 10
"""Iterations of k-means."""
_SAMPLE_PER_LIST: Final = 64
"""Number of vectors per list on which k-means is run."""
PROBES: Final = 16
"""Number of lists in a search for the most similar vectors."""
PAIR_PROBES: Final = 16
"""Number of lists in a search for close pairs."""
_SLACK: Final = 1e-3
"""Added to the limit of squared distances, because float32 rounds."""


def has_lists() -> bool:
    """Whether faiss is installed."""
    return find_spec("faiss") is not None


def require_lists() -> None:
    """Raise UsageError unless faiss is installed."""
    if not has_lists():
        raise UsageError("an index needs faiss; install it with pip install 'batchland[index]'")


class Lists:
    """Vectors of length 1 as half floats in inverted lists. Their similarity is the inner product.

    Raises UsageError without faiss.
    """

    def __init__(self, index: Any) -> None:
        self._index = index

    @classmethod
    def of(cls, vectors: Vectors) -> "Lists":
        """Divide vectors, [vectors, dimensions], into lists. The same vectors give the same lists."""
        faiss = _faiss()
        index = _trained(vectors, "SQfp16", faiss.METRIC_INNER_PRODUCT)
        for start in range(0, len(vectors), _BLOCK):
            index.add(vectors[start : start + _BLOCK].astype(np.float32))
        return cls(index)

    @classmethod
    def read(cls, path: Path) -> "Lists":
        """Open a file that `write` wrote. It is memory-mapped. Raises RuntimeError if the file is damaged."""
        faiss = _faiss()
        return cls(faiss.read_index(str(path), faiss.IO_FLAG_MMAP))

    def write(self, path: Path) -> None:
        """Write a file."""
        _faiss().write_index(self._index, str(path))

    def __len__(self) -> int:
        return int(self._index.ntotal)

    def vector(self, row: int) -> Floats:
        """One of the vectors."""
        self._index.make_direct_map()
        return self._index.reconstruct(row)

    def nearest(self, query: Floats, count: int) -> tuple[Rows, Floats]:
        """Rows with the largest inner products with the query, and the products, best first. May miss some rows."""
        self._index.nprobe = PROBES
        (products,), (rows,) = self._index.search(query[None], min(count, len(self)))
        order = np.lexsort((rows, -products))
        order = order[rows[order] >= 0]
        return rows[order], products[order]


def close_pairs_in_lists(vectors: Vectors, others: Vectors | None, limit: float) -> Pairs:
    """Like `close_pairs`, but may miss some pairs."""
    within = others is None
    others = vectors if others is None else others
    index = _trained(others, "Flat", _faiss().METRIC_L2)
    for start in range(0, len(others), _BLOCK):
        index.add(others[start : start + _BLOCK].astype(np.float32))
    index.nprobe = PAIR_PROBES
    found = [Pairs(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.float32))]
    for start in range(0, len(vectors), _BLOCK):
        ends, _, right = index.range_search(vectors[start : start + _BLOCK].astype(np.float32), limit**2 + _SLACK)
        left = start + np.repeat(np.arange(len(ends) - 1), np.diff(ends).astype(np.int64))
        wanted = left != right if within else np.ones(len(left), bool)
        left, right = left[wanted], right[wanted].astype(np.int64)
        if within:
            left, right = np.minimum(left, right), np.maximum(left, right)
        distance = distances(vectors, others, left, right)
        found.append(Pairs(left, right, distance).take(distance <= limit))
    pairs = Pairs(*(np.concatenate(columns) for columns in zip(*found, strict=True)))
    _, first = np.unique(pairs.left * len(others) + pairs.right, return_index=True)  # most pairs are found twice
    return pairs.take(first)


def _trained(vectors: Vectors, kind: str, metric: int) -> Any:
    """An empty index with lists for vectors like these."""
    faiss = _faiss()
    lists = max(1, isqrt(len(vectors)))
    index = faiss.index_factory(vectors.shape[1], f"IVF{lists},{kind}", metric)
    index.by_residual = False  # store the vectors, not their differences from the means
    index.cp.niter, index.cp.max_points_per_centroid = _ROUNDS, _SAMPLE_PER_LIST
    index.cp.min_points_per_centroid = 1  # no warning on the terminal
    index.train(vectors[:: max(1, len(vectors) // (_SAMPLE_PER_LIST * lists))].astype(np.float32))
    return index


def _faiss() -> Any:
    require_lists()
    import faiss

    faiss.omp_set_num_threads(usable_cores())
    return faiss
