"""Rules on a model's card for accepting its answers, and their application to probabilities."""

from collections.abc import Mapping
from typing import Annotated, Final, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from batchland.system.documents import Document

Probabilities = npt.NDArray[np.float32]
Decision = Literal["accept", "ask"]
_NEVER: Final = np.float32(2)
"""A threshold above every probability."""
_TINY: Final = np.float32(1e-6)
STRANGER: Final = 0.05
"""An image whose `known` is smaller is a stranger."""


class AcceptThresholds(Document):
    """The probability from which an answer is accepted, and the promise about accepted answers."""

    promise: str
    """Such as `error <= 2%`: the error rate of accepted answers, in the long run, for images like the labelled ones."""
    confidence: float
    """Probability, over the choice of the labelled images, that the promise is kept."""
    images: int
    """Labelled images that it is based on."""
    labels_fingerprint: str
    """sha256 over these images and labels."""
    threshold: float | None = None
    """For all classes; None if each class has its own."""
    per_class: Annotated[Mapping[str, float], Field(default_factory=dict)]
    """Thresholds by label; answers of other classes are never accepted."""

    def of_classes(self, labels: tuple[str, ...]) -> npt.NDArray[np.float32]:
        """The threshold of each class, [classes]; above 1 where no answer is accepted."""
        if self.threshold is not None:
            return np.full(len(labels), np.float32(self.threshold))
        return np.array([self.per_class.get(label, _NEVER) for label in labels], np.float32)


class PredictionSets(Document):
    """The probability from which a class is in the prediction set of an image (split conformal prediction)."""

    coverage: float
    """Share of images whose true class is in their set, in the long run, for images like the labelled ones."""
    threshold: float
    images: int
    """Labelled images that it is based on."""


class KnownPhotos(Document):
    """Distances between known photos. An image farther away than nearly all of them is probably of no class."""

    images: int
    """Labelled images that it is based on, without copies."""
    labels_fingerprint: str
    """sha256 over these images and labels."""
    distances: Annotated[tuple[float, ...], Field(min_length=1)]
    """Distances of these images (or some of them) from their nearest others, ascending: 1 - cosine of the features."""

    def share_as_far(self, distance: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Share of the known photos that are at least as far as each distance, 0 to 1: a conformal p-value.

        For photos like these, a value of p or less has at most the probability p. Beyond the largest known distance,
        the value decreases with the distance.
        """
        ordered = np.array(self.distances, np.float32)
        farther = len(ordered) - np.searchsorted(ordered, distance, side="left") + 1
        beyond = np.where(distance > ordered[-1], ordered[-1] / np.maximum(distance, ordered[-1] + _TINY), 1)
        return (farther * beyond / (len(ordered) + 1)).astype(np.float32)


def decide(rule: AcceptThresholds, labels: tuple[str, ...], probabilities: Probabilities) -> list[Decision]:
    """`accept` or `ask` for each row of probabilities, [rows, classes]."""
    first = probabilities.argmax(axis=1)
    accepted = probabilities[np.arange(len(first)), first] >= rule.of_classes(labels)[first]
    return ["accept" if each else "ask" for each in accepted]


def prediction_sets(rule: PredictionSets, probabilities: Probabilities) -> list[npt.NDArray[np.intp]]:
    """Class indices of each row's set, best first; the first choice is always in it. probabilities: [rows, classes]."""
    order = np.argsort(-probabilities, axis=1, kind="stable")
    sizes = np.maximum((probabilities >= np.float32(rule.threshold)).sum(axis=1), 1)
    return [row[:size] for row, size in zip(order, sizes, strict=True)]
