"""Maps: similar features get near positions, always the same ones."""

import sys

import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.manifold import trustworthiness

from batchland.embeddings import layout as module
from batchland.embeddings.layout import layout, principal_components

RNG = np.random.default_rng(2)
CENTRES = RNG.normal(size=(4, 30))
KIND = RNG.integers(0, 4, 240)
FEATURES = (CENTRES[KIND] + RNG.normal(0, 0.3, (240, 30))).astype(np.float16)


def share_of_nearest_of_the_same_kind(positions: np.ndarray) -> float:
    distances = np.linalg.norm(positions[:, None] - positions[None], axis=2)
    np.fill_diagonal(distances, np.inf)
    return float(np.mean(KIND[distances.argmin(axis=1)] == KIND))


@pytest.mark.parametrize("landmarks", [1000, 100])
def test_groups_stay_together(monkeypatch: pytest.MonkeyPatch, landmarks: int) -> None:
    """With 100 landmarks, 140 pictures are placed beside them."""
    monkeypatch.setattr(module, "LANDMARKS", landmarks)
    positions, method = layout(FEATURES)
    assert method == "t-SNE"
    assert (positions.min(), positions.max()) == (0, 1)
    assert share_of_nearest_of_the_same_kind(positions) > 0.97
    np.testing.assert_array_equal(positions, layout(FEATURES).positions)


def test_pictures_beside_landmarks_have_similar_neighbours(monkeypatch: pytest.MonkeyPatch) -> None:
    """Means of the positions of several similar landmarks gave 0.91."""
    monkeypatch.setattr(module, "LANDMARKS", 100)
    rng = np.random.default_rng(2)
    centres = rng.normal(size=(30, 30))
    features = (centres[rng.integers(0, 30, 400)] + rng.normal(0, 0.7, (400, 30))).astype(np.float16)
    assert trustworthiness(features.astype(np.float32), layout(features).positions, n_neighbors=5) > 0.95


def test_a_narrow_map_is_in_the_middle() -> None:
    few = layout(np.array([[0, 0], [10, 1], [20, 0]], np.float32)).positions
    np.testing.assert_allclose(np.sort(few[:, 0]), [0, 0.5, 1], atol=1e-6)
    np.testing.assert_allclose(np.ptp(few[:, 1]), 0.1, atol=1e-6)
    assert few[:, 1].min() + few[:, 1].max() == pytest.approx(1)


def test_equal_pictures_are_in_the_middle() -> None:
    """t-SNE ended the process, without a message."""
    positions, method = layout(np.repeat(FEATURES[:1], 40, axis=0))
    assert method == "principal components"
    np.testing.assert_array_equal(positions, np.full((40, 2), 0.5))


def test_without_scikit_learn_the_map_has_principal_components(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.manifold", None)
    positions, method = layout(FEATURES)
    assert method == "principal components"
    assert share_of_nearest_of_the_same_kind(positions) > 0.6


def test_principal_components_are_those_of_scikit_learn() -> None:
    expected = PCA(5).fit_transform(FEATURES.astype(np.float64))
    np.testing.assert_allclose(np.abs(principal_components(FEATURES, 5)), np.abs(expected), atol=2e-3)


@pytest.mark.parametrize("count", [1, 2, 9])
def test_few_pictures_have_positions(count: int) -> None:
    assert np.isfinite(layout(FEATURES[:count]).positions).all()
