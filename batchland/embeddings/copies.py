"""Find copies among pictures, also if they are resized, compressed again, cropped a little, stamped or mirrored."""

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from batchland.embeddings.lists import close_pairs_in_lists
from batchland.embeddings.neighbours import Floats, Rows, Vectors, close_pairs, distances
from batchland.embeddings.signatures import COPY, mirrored, signatures
from batchland.images.signals import BLANK_CONTRAST, SIGNAL_DTYPE

SURE: Final = 0.5
"""Up to this distance of signatures, features are not compared: different photos have a larger distance, and a stamp on
a small picture changes its features more than its signature."""
MIN_SIMILARITY: Final = 0.75
"""Smallest inner product of the features of copies. Different photos with close signatures often have a smaller one."""
COPY_WITH_FEATURES: Final = 0.68
"""Like COPY, if the features distinguish pictures (benchmarks/results/duplicates.md)."""
_SIMILAR: Final = 0.05
"""Features distinguish pictures if at most this share of the pairs of different pictures has MIN_SIMILARITY."""
_COMPARED: Final = 256
"""Number of pictures, at most, on which that share is measured."""


class Copies(NamedTuple):
    """Pairs of pictures that are copies. All arrays have the same length; left < right."""

    left: Rows
    right: Rows
    distance: Floats
    """Distance of the signatures, 0 for equal ones."""
    is_mirrored: npt.NDArray[np.bool_]

    def take(self, which: npt.NDArray[np.bool_]) -> "Copies":
        """Some of the pairs."""
        return Copies(self.left[which], self.right[which], self.distance[which], self.is_mirrored[which])


def find_copies(
    vectors: Floats,
    features: Vectors | None = None,
    *,
    also_mirrored: bool = False,
    limit: float = COPY,
    approximate: bool = False,
) -> Copies:
    """All pairs of copies among pictures with these signatures.

    features: vectors of length 1; a pair with a distance above SURE is left out if its features differ.
    also_mirrored: also find pairs with one mirrored picture. approximate: use faiss, which takes less time for very
    many pictures and may miss some pairs.
    """
    search = close_pairs_in_lists if approximate else close_pairs
    pairs = search(vectors, None, limit)
    found = Copies(*pairs, np.zeros(len(pairs.left), bool))
    if also_mirrored:
        turned = search(vectors, mirrored(vectors), limit)
        turned = turned.take(turned.left < turned.right)
        found = joined(found, Copies(*turned, np.ones(len(turned.left), bool)))
    if features is None or not len(found.left):
        return found
    products = np.concatenate(
        [
            np.einsum("ij,ij->i", features[left].astype(np.float32), features[right].astype(np.float32))
            for left, right in _in_parts(found.left, found.right)
        ]
    )
    return found.take((products >= MIN_SIMILARITY) | (found.distance <= SURE))


def copy_limit(vectors: Floats, features: Vectors | None) -> float:
    """The largest distance of copies: COPY_WITH_FEATURES if the features distinguish pictures, else COPY.

    Features of a network that was trained with few pictures are so similar that they rule out hardly any pair.
    """
    if features is None:
        return COPY
    step = len(features) // _COMPARED + 1
    some, signatures_of_some = features[::step].astype(np.float32), vectors[::step]
    left, right = np.triu_indices(len(some), 1)
    different = distances(signatures_of_some, signatures_of_some, left, right) > COPY_WITH_FEATURES
    products = (some @ some.T)[left, right][different]
    return COPY_WITH_FEATURES if len(products) and np.mean(products >= MIN_SIMILARITY) <= _SIMILAR else COPY


def equal_files(digests: npt.NDArray[np.object_]) -> Copies:
    """Pairs of pictures with the same digest, at distance 0. digests: [pictures]; None is equal to nothing."""
    (known,) = np.nonzero(digests != None)  # noqa: E711 (element by element)
    order = known[np.argsort(digests[known], kind="stable")]
    same = digests[order[:-1]] == digests[order[1:]]
    left, right = order[:-1][same], order[1:][same]
    return Copies(left, right, np.zeros(len(left), np.float32), np.zeros(len(left), bool))


def joined(one: Copies, other: Copies) -> Copies:
    """The pairs of both."""
    return Copies(
        np.concatenate([one.left, other.left]),
        np.concatenate([one.right, other.right]),
        np.concatenate([one.distance, other.distance]),
        np.concatenate([one.is_mirrored, other.is_mirrored]),
    )


def near_copies(signals: Sequence[bytes], features: Vectors | None = None) -> list[Rows]:
    """Groups of copies among pictures. Blank pictures are in no group.

    signals: a row of SIGNAL_DTYPE per picture. features: vectors of length 1, [pictures, dimensions].
    """
    rows = np.frombuffer(b"".join(signals), SIGNAL_DTYPE)
    (compared,) = np.nonzero(rows["contrast"] >= BLANK_CONTRAST)
    rows = rows[compared]
    thumbnails = np.frombuffer(rows["thumbnail"].tobytes(), np.uint8).reshape(
        len(rows), SIGNAL_DTYPE["thumbnail"].itemsize
    )
    vectors = signatures(rows["difference_hash"], thumbnails)
    features = None if features is None else features[compared]
    copies = find_copies(vectors, features, limit=copy_limit(vectors, features))
    return [compared[group] for group in groups(len(rows), copies)]


def groups(count: int, pairs: Copies) -> list[Rows]:
    """Groups of the rows 0 to `count` - 1 that are connected by pairs. Groups are ordered by their first row."""
    graph = coo_array((np.ones(len(pairs.left), bool), (pairs.left, pairs.right)), shape=(count, count))
    _, number = connected_components(graph, directed=False)
    order = np.argsort(number, kind="stable")
    parts = np.split(order, np.flatnonzero(np.diff(number[order])) + 1)
    return sorted((part for part in parts if len(part) > 1), key=lambda part: int(part[0]))


def _in_parts(left: Rows, right: Rows, size: int = 4096) -> list[tuple[Rows, Rows]]:
    return [(left[start : start + size], right[start : start + size]) for start in range(0, len(left), size)]
