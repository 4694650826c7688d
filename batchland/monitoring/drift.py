"""Drift of a distribution: PSI and Jensen-Shannon distance of counts.

PSI is the usual measure (below 0.1 no change, above 0.25 a large one). With few images and many bins it is large by
chance, so a limit is computed that it rarely exceeds if nothing has changed.
"""

from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from batchland.monitoring.normal import chi_squared_quantile

Ints = npt.NDArray[np.int64]
MOVED: Final = 0.1
"""Least PSI of a distribution that has moved; it must also be above the limit of chance."""
MOVED_FAR: Final = 0.25
"""Least PSI of one that has moved far."""
CHANCE: Final = 0.99
"""Share of comparisons below the limit if nothing has changed."""


class Drift(NamedTuple):
    """The distance of two distributions over the same bins."""

    psi: float
    """Population stability index: sum of (p - q) ln(p / q), symmetric, 0 if equal."""
    psi_limit: float
    """PSI is below this in CHANCE of cases if both are samples of one distribution."""
    js: float
    """Jensen-Shannon distance, base 2: 0 if equal, 1 if they have no common bin."""

    @property
    def moved(self) -> bool:
        """Whether PSI is at least MOVED and at least its limit."""
        return self.psi >= max(MOVED, self.psi_limit)

    @property
    def verdict(self) -> str:
        """`steady`, `moved` or `moved far`."""
        return "steady" if not self.moved else "moved far" if self.psi >= MOVED_FAR else "moved"


def drift(reference: npt.ArrayLike, present: npt.ArrayLike) -> Drift | None:
    """Distance of two arrays of counts, [bins] each; None if one of them is all zero.

    Half an image is added to every bin that is not empty in both, to keep PSI finite. If nothing has changed, PSI is
    distributed like (1/n + 1/m) chi-squared with bins - 1 degrees of freedom (Yurdakul 2018).
    """
    before, now = np.asarray(reference, np.float64), np.asarray(present, np.float64)
    if not before.sum() or not now.sum():
        return None
    seen = (before + now) > 0
    before, now = before[seen], now[seen]
    p, q = (before + 0.5) / (before + 0.5).sum(), (now + 0.5) / (now + 0.5).sum()
    psi = float(((q - p) * np.log(q / p)).sum())
    limit = float(chi_squared_quantile(CHANCE, len(p) - 1) * (1 / before.sum() + 1 / now.sum())) if len(p) > 1 else 0.0
    shares = np.array([before / before.sum(), now / now.sum()])
    divergence = float((shares * np.log2(np.where(shares > 0, shares / shares.mean(axis=0), 1))).sum()) / 2
    return Drift(psi, limit, float(np.sqrt(max(divergence, 0.0))))  # below 0 by rounding where both are equal


def equal_parts(reference: npt.ArrayLike, parts: int = 10) -> Ints:
    """Merge neighbouring bins into about `parts` groups with equal shares of `reference`: the first bin of each group.

    Use: `np.add.reduceat(histogram, equal_parts(reference))`.
    """
    counts = np.asarray(reference, np.int64)
    wanted = counts.sum() / parts
    starts, held = [0], 0
    for index, count in enumerate(counts):
        if held >= wanted > 0 and counts[index:].sum() >= wanted:
            starts.append(index)
            held = 0
        held += int(count)
    return np.asarray(starts, np.int64)
