"""Whether a suspicious night has the same fault as the night before: then the fault lasts."""

from collections.abc import Sequence
from typing import Final

import numpy as np

from batchland.monitoring.observations import Floats, Observations
from batchland.monitoring.reference import Reference
from batchland.monitoring.rules import MIN_IMAGES, Night
from batchland.monitoring.schema import Finding

MIN_LIKENESS: Final = 0.75
"""Least cosine between the deviations of two nights with the same fault."""
MAX_GROWTH: Final = 1.5
"""Largest factor between the deviations of all measures together."""
MAX_RATIO: Final = 2.0
"""Largest factor between numbers of images, between shares of images, and between means that are far from usual."""
_COPIED: Final = ("earlier_copies", "earlier_copies")
_FIGURES: Final = ("pictures", "answers", "classes")
"""Kinds of findings about figures. Those of other kinds must be the same in both nights."""


def is_same_change(
    reference: Reference | None, night: Night, found: Sequence[Finding], before: Night, earlier: Sequence[Finding]
) -> bool:
    """Whether two nights have the same fault: the same figures deviate, in the same direction and by about as much.

    Exact rules and changes of the pictures must have found the same in both nights. found, earlier: findings of `night`
    and of `before`. reference: of `night`; None if it has too few nights.
    """
    exact, exact_before = (
        {(each.kind, each.what): each.strength for each in findings if each.kind not in (*_FIGURES, "drift")}
        for findings in (found, earlier)
    )
    if _COPIED not in exact_before:
        exact.pop(_COPIED, None)  # the same pictures have the same fault
    if exact.keys() != exact_before.keys():
        return False
    if ("volume", "volume") in exact and not _near(night.listed, before.listed):
        return False
    if not all(_near(strength, exact_before[key]) for key, strength in exact.items() if key[0] != "change"):
        return False
    kinds, kinds_before = ([each.kind for each in findings if each.kind in _FIGURES] for findings in (found, earlier))
    if not kinds and not kinds_before:
        return bool(exact)
    if reference is None or not kinds or not kinds_before or before.images < MIN_IMAGES:
        return False
    if kinds[0] == kinds_before[0] == "classes":
        count = 1 + max(int(each.observed.classes.max()) for each in (night, before))
        return _are_alike(*(_classes(reference, each.observed, count) for each in (night, before)))
    (z, means), (z_before, means_before) = (_measures(reference, each.observed) for each in (night, before))
    far = np.minimum(np.abs(z), np.abs(z_before)) > 1
    return _are_alike(z, z_before) and all(map(_near, means[far], means_before[far]))


def _near(one: float, other: float) -> bool:
    """Whether two numbers have the same sign, and neither is more than MAX_RATIO times the other."""
    return one * other > 0 and 1 / MAX_RATIO <= one / other <= MAX_RATIO


def _are_alike(one: Floats, other: Floats) -> bool:
    """Whether two vectors have about the same direction and length."""
    lengths = float(np.linalg.norm(one)), float(np.linalg.norm(other))
    return bool(one @ other >= MIN_LIKENESS * lengths[0] * lengths[1] and max(lengths) <= MAX_GROWTH * min(lengths) > 0)


def _classes(reference: Reference, night: Observations, count: int) -> Floats:
    """How much the share of each predicted class is larger than usual. count: the least number of classes."""
    known = reference.night_classes / reference.night_classes.sum(axis=1, keepdims=True)
    shares = np.bincount(night.classes, minlength=max(count, known.shape[1])) / len(night)
    shares[: known.shape[1]] -= known.mean(axis=0)
    return shares


def _measures(reference: Reference, night: Observations) -> tuple[Floats, Floats]:
    """z of the mean of each used measure as a share of its limit, and the mean less the usual one."""
    statistics, columns = reference.pool.statistics, reference.pool.columns
    night = night.filled(columns)
    chosen = [index for index, each in enumerate(statistics) if (each.score, each.kind) == ("value", "mean")]
    z = reference.deviations(reference.pool.figures(night))
    strengths = np.sign(z) * reference.strengths(np.abs(z))
    change = night.values[:, columns].mean(axis=0) - reference.night_means[:, columns].mean(axis=0)
    return strengths[chosen], change
