"""A map of pictures: a position in the plane for each, so that pictures with similar features are near each other."""

from typing import Final, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from batchland.embeddings.neighbours import Floats, Vectors, blocks, nearest

Method = Literal["t-SNE", "principal components"]

LANDMARKS: Final = 2000
"""Number of pictures that t-SNE places. Every other picture is placed between the most similar of these."""
_DIMENSIONS: Final = 50
"""Principal components that t-SNE gets."""
_PERPLEXITY: Final = 30
_STEPS: Final = 500
_NEIGHBOURS: Final = 5
_MIN_PICTURES: Final = 10
"""Pictures; t-SNE needs some neighbours."""


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
    if len(components) < _MIN_PICTURES:
        return Layout(_scaled(components[:, :2]), "principal components")
    chosen = np.linspace(0, len(components) - 1, min(len(components), LANDMARKS)).astype(np.int64)
    perplexity = min(_PERPLEXITY, (len(chosen) - 1) / 3)
    with threadpool_limits(1, "openmp"):  # several threads wait for each other, for minutes where cores are busy
        few = TSNE(2, perplexity=perplexity, init="pca", max_iter=_STEPS, random_state=0).fit_transform(
            components[chosen]
        )
    if len(chosen) == len(components):
        return Layout(_scaled(few), "t-SNE")
    return Layout(_scaled(_between(components, components[chosen], few)), "t-SNE")


def principal_components(features: Vectors, count: int) -> Floats:
    """Coordinates along the directions of largest variance, [pictures, at most count]; never fewer than two columns."""
    mean = np.zeros(features.shape[1])
    products = np.zeros((features.shape[1], features.shape[1]))
    for _, part in blocks(features):
        mean += part.sum(axis=0, dtype=np.float64)
        products += part.T @ part
    mean /= max(len(features), 1)
    _, directions = np.linalg.eigh(products - len(features) * np.outer(mean, mean))
    turn = directions[:, ::-1][:, :count].astype(np.float32)
    found = np.zeros((len(features), max(turn.shape[1], 2)), np.float32)
    for start, part in blocks(features):
        found[start : start + len(part), : turn.shape[1]] = (part - mean.astype(np.float32)) @ turn
    return found


def _between(components: Floats, chosen: Floats, positions: Floats) -> Floats:
    """Positions of all pictures: means of the positions of their nearest chosen ones, weighted by similarity."""
    lengths = np.concatenate([chosen, -(chosen * chosen).sum(axis=1, keepdims=True) / 2], axis=1)
    found = np.zeros((len(components), 2), np.float32)
    for start, part in blocks(components):
        queries = np.concatenate([part, np.ones((len(part), 1), np.float32)], axis=1)
        rows, products = nearest(queries, lengths, _NEIGHBOURS)  # the largest ab - |b|²/2: the smallest distance
        squares = np.maximum((part * part).sum(axis=1, keepdims=True) - 2 * products, 1e-9)
        weights = 1 / squares
        found[start : start + len(part)] = (
            (weights / weights.sum(axis=1, keepdims=True))[..., None] * positions[rows]
        ).sum(1)
    return found


def _scaled(positions: Floats) -> Floats:
    low = positions.min(axis=0, initial=np.inf)
    width = max(float((positions.max(axis=0, initial=-np.inf) - low).max()), 1e-9) if len(positions) else 1.0
    scaled: Floats = ((positions - low) / width).astype(np.float32)
    return scaled
