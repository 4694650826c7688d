"""Close pairs and nearest neighbours are exact."""

import numpy as np
import pytest

from batchland.embeddings import neighbours
from batchland.embeddings.neighbours import close_pairs, nearest


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "_BLOCK", 64)


def vectors(count: int, dimensions: int, seed: int) -> np.ndarray:
    """Vectors of length 1 around a few centres, so that some are close."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(20, dimensions))
    found = centres[rng.integers(0, 20, count)] + rng.normal(0, 0.15, (count, dimensions))
    return (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float32)


def distances(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    return np.linalg.norm(one[:, None].astype(np.float64) - other[None].astype(np.float64), axis=2)


@pytest.mark.parametrize("dimensions", [8, 100])
@pytest.mark.parametrize("kind", [np.float32, np.float16])
def test_pairs_within_are_those_of_all_distances(dimensions: int, kind: type) -> None:
    rows = vectors(300, dimensions, 1).astype(kind)
    full = distances(rows, rows)
    limit = float(np.quantile(full[np.triu_indices(300, 1)], 0.03))
    pairs = close_pairs(rows, None, limit)
    expected = {(i, j) for i, j in np.argwhere(np.triu(full <= limit, 1)).tolist()}
    assert set(zip(pairs.left.tolist(), pairs.right.tolist(), strict=True)) == expected
    assert len(pairs.left) == len(expected) > 100
    np.testing.assert_allclose(pairs.distance, full[pairs.left, pairs.right], atol=1e-3)


def test_pairs_between_two_sets() -> None:
    one, other = vectors(150, 60, 2), vectors(130, 60, 3)
    other[:5] = one[[0, 70, 149, 3, 3]]
    pairs = close_pairs(one, other, 1e-3)
    assert sorted(zip(pairs.left.tolist(), pairs.right.tolist(), strict=True)) == [
        (0, 0), (3, 3), (3, 4), (70, 1), (149, 2),
    ]  # fmt: skip


@pytest.mark.parametrize("count", [0, 1])
def test_few_vectors_have_no_pairs(count: int) -> None:
    assert [len(column) for column in close_pairs(np.zeros((count, 5), np.float32), None, 1.0)] == [0, 0, 0]


def test_nearest_are_the_largest_products_ties_by_row() -> None:
    rows, queries = vectors(200, 40, 4), vectors(7, 40, 5)
    rows[150] = rows[3]
    found, products = nearest(queries, rows.astype(np.float16), 10)
    full = queries @ rows.astype(np.float16).astype(np.float32).T
    expected = np.argsort(-full, axis=1, kind="stable")[:, :10]
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_allclose(products, np.take_along_axis(full, expected, 1), atol=1e-6)
    assert nearest(rows[3:4], rows, 2)[0].tolist() == [[3, 150]]
    assert nearest(queries, rows[:4], 10)[0].shape == (7, 4)
