"""The confusion matrix on the page: a table for few classes, data for a canvas for many."""

from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc

from batchland.system.text import visible

if TYPE_CHECKING:
    from batchland.evaluation.evaluate import Evaluation

TABLE_CLASSES: Final = 16
"""Up to this number of classes, the matrix is a table."""
MAX_CELLS: Final = 30_000
"""Largest number of cells of a canvas; those with the most images are kept, and the page says how many images are left
out."""


class ConfusionRow(NamedTuple):
    """One true class of the table: its label, images, and (count, share) per predicted class."""

    label: str
    support: int
    cells: tuple[tuple[int, float], ...]


class ConfusionView(NamedTuple):
    """Rows of a table, or data for a canvas; the other is empty."""

    labels: tuple[str, ...]
    rows: tuple[ConfusionRow, ...]
    data: dict[str, Any] | None
    left_out: int
    """Images in cells that the canvas leaves out."""


def confusion_view(evaluation: "Evaluation") -> ConfusionView:
    """The matrix of this evaluation."""
    table = evaluation.confusion
    labels = tuple(evaluation.per_class["label"].to_pylist())
    truth, predicted = table["true_index"].to_numpy(), table["predicted_index"].to_numpy()
    images, support = table["images"].to_numpy(), evaluation.per_class["support"].to_numpy()
    if len(labels) <= TABLE_CLASSES:
        matrix = np.zeros((len(labels), len(labels)), np.int64)
        matrix[truth, predicted] = images
        shares = matrix / np.maximum(support, 1)[:, None]
        rows = tuple(
            ConfusionRow(label, int(support[i]), tuple(zip(matrix[i].tolist(), shares[i].tolist(), strict=True)))
            for i, label in enumerate(labels)
        )
        return ConfusionView(labels, rows, None, 0)
    kept = np.sort(np.argsort(-images, kind="stable")[:MAX_CELLS])
    accuracy = pc.fill_null(evaluation.per_class["accuracy"], 2.0).to_numpy()
    data = {
        "labels": list(map(visible, labels)),
        "support": support.tolist(),
        "cells": np.stack([truth[kept], predicted[kept], images[kept]], axis=1).ravel().tolist(),
        "orders": {
            "similar": similar_order(truth, predicted, images, len(labels)).tolist(),
            "accuracy": np.argsort(accuracy, kind="stable").tolist(),
            "model": list(range(len(labels))),
        },
    }
    return ConfusionView(labels, (), data, int(images.sum() - images[kept].sum()))


def similar_order(
    truth: npt.NDArray[np.int32], predicted: npt.NDArray[np.int32], images: npt.NDArray[np.int64], classes: int
) -> npt.NDArray[np.int64]:
    """An order of the classes, as indices, in which confused classes are next to each other.

    Average-linkage clustering; the distance of two classes is 1 - the shares of each that are predicted as the other.
    """
    from scipy.cluster.hierarchy import leaves_list, linkage
    from scipy.spatial.distance import squareform

    matrix = np.zeros((classes, classes))
    matrix[truth, predicted] = images
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    distance = 1 - np.clip(shares + shares.T, 0, 1)
    np.fill_diagonal(distance, 0)
    return leaves_list(linkage(squareform(distance, checks=False), "average")).astype(np.int64)
