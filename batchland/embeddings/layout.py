"""A map of pictures: a position in the plane for each, so that pictures with similar features are near each other."""

from typing import Final, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from batchland.embeddings.neighbours import Floats, Rows, Vectors, main_directions, projected

Method = Literal["t-SNE", "principal components"]

LANDMARKS: Final = 2000
"""Number of pictures that t-SNE places. Every other picture is placed beside the most similar one of these."""
_DIMENSIONS: Final = 50
"""Principal components that t-SNE gets."""
_PERPLEXITY: Final = 30
_STEPS: Final = 500
_OFFSET: Final = 0.5
"""Standard deviation of the offset from that one, in median distances of neighbours on the map."""
_MIN_PICTURES: Final = 10
"""Pictures; t-SNE needs some neighbours."""
_MIN_WIDTH: Final = 1e-4
"""Of what t-SNE gets: it ends the process if all pictures are the same. Features have length 1."""


class Layout(NamedTuple):
    """A map."""

    positions: npt.NDArray[np.float32]
    """[pictures, 2], each 0 to 1."""
    method: Method


def layout(features: Vectors) -> Layout:
    """Compute positions of pictures from their features, [pictures, dimensions]. The same features give the same map.

    t-SNE where scikit-learn is installed (the extra `map`), else the first two principal components.
    """
    components = principal_components(features, _DIMENSIONS)
    try:
        from sklearn.manifold import TSNE
        from threadpoolctl import threadpool_limits
    except ImportError:
        return Layout(_scaled(components[:, :2]), "principal components")
    chosen = np.linspace(0, len(components) - 1, min(len(components), LANDMARKS)).astype(np.int64)
    if len(chosen) < _MIN_PICTURES or np.ptp(components[chosen], axis=0).max() < _MIN_WIDTH:
        return Layout(_scaled(components[:, :2]), "principal components")
    perplexity = min(_PERPLEXITY, (len(chosen) - 1) / 3)
    with threadpool_limits(1, "openmp"):  # several threads wait for each other, for minutes where cores are busy
        few = TSNE(2, perplexity=perplexity, init="pca", max_iter=_STEPS, random_state=0).fit_transform(
            components[chosen]
        )
        whole = few if len(chosen) == len(components) else _beside(components, chosen, few)
    return Layout(_scaled(whole), "t-SNE")


def principal_components(features: Vectors, count: int) -> Floats:
    """Coordinates along the directions of largest variance, [pictures, at most count]; never fewer than two columns."""
    turn = main_directions(features, count)
    found = projected(features, np.pad(turn, ((0, 0), (0, max(2 - turn.shape[1], 0)))))
    return found - found.mean(axis=0) if len(found) else found


def _beside(components: Floats, chosen: Rows, positions: Floats) -> Floats:
    """Positions of all pictures: those of the most similar chosen ones, with an offset by chance.

    A mean of several similar ones may be in an empty part of the map, far from all of them.
    """
    from sklearn.metrics import pairwise_distances_argmin
    from sklearn.neighbors import NearestNeighbors

    spacing = float(np.median(NearestNeighbors(n_neighbors=1).fit(positions).kneighbors()[0]))
    found: Floats = positions[pairwise_distances_argmin(components, components[chosen])]
    found += np.random.default_rng(0).normal(0, _OFFSET * spacing, found.shape).astype(np.float32)
    found[chosen] = positions
    return found


def _scaled(positions: Floats) -> Floats:
    """Positions between 0 and 1, with the middle at 0.5. One axis may be stretched, at most by a factor of two."""
    if not len(positions):
        return positions
    low, high = positions.min(axis=0), positions.max(axis=0)
    width = np.maximum(high - low, max(float((high - low).max()) / 2, 1e-9))
    return ((positions - (low + high) / 2) / width + 0.5).clip(0, 1).astype(np.float32)
