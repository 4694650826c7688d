"""How far a distribution has moved: PSI and Jensen-Shannon distance of counts. Knows no files or nights.

PSI is the usual measure (under 0.1 nothing, over 0.25 a lot), but by chance alone it grows where images are few and
bins are many. So it comes with the value that it would rarely exceed if nothing had changed.
"""

from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from batchland.evaluation.intervals import Ints

MOVED: Final = 0.1
"""PSI from which a distribution is said to have moved, if that is more than chance."""
MOVED_FAR: Final = 0.25
"""PSI from which it has moved far."""
CHANCE: Final = 0.99
"""Share of comparisons without any change that stay below the limit."""


class Drift(NamedTuple):
    """The distance of two distributions over the same bins."""

    psi: float
    """Population stability index: sum of (p - q) ln(p / q), symmetric, 0 if equal."""
    psi_limit: float
    """What PSI would stay below in CHANCE of cases if both were samples of one distribution."""
    js: float
    """Jensen-Shannon distance, base 2: 0 if equal, 1 if they share nothing."""

    @property
    def moved(self) -> bool:
        """Whether this is more than chance and more than little."""
        return self.psi >= max(MOVED, self.psi_limit)

    @property
    def verdict(self) -> str:
        """`steady`, `moved` or `moved far`."""
        return "steady" if not self.moved else "moved far" if self.psi >= MOVED_FAR else "moved"


def drift(reference: npt.ArrayLike, present: npt.ArrayLike) -> Drift | None:
    """Distance of two arrays of counts, [bins] each; None if one of them counts nothing.

    Half an image is added to every bin that either has, so that an empty one does not make PSI infinite. If nothing has
    changed, PSI is distributed like (1/n + 1/m) chi-squared with bins - 1 degrees of freedom (Yurdakul 2018).
    """
    from scipy.spatial.distance import jensenshannon
    from scipy.stats import chi2

    before, now = np.asarray(reference, np.float64), np.asarray(present, np.float64)
    if not before.sum() or not now.sum():
        return None
    seen = (before + now) > 0
    before, now = before[seen], now[seen]
    p, q = (before + 0.5) / (before + 0.5).sum(), (now + 0.5) / (now + 0.5).sum()
    psi = float(((q - p) * np.log(q / p)).sum())
    limit = float(chi2.ppf(CHANCE, len(p) - 1) * (1 / before.sum() + 1 / now.sum())) if len(p) > 1 else 0.0
    distance = float(jensenshannon(before, now, base=2))  # nan by rounding where both are equal
    return Drift(psi, limit, 0.0 if np.isnan(distance) else distance)


def equal_parts(reference: npt.ArrayLike, parts: int = 10) -> Ints:
    """Where to begin each of about `parts` runs of neighbouring bins that hold about the same share of `reference`.

    Fine bins of a histogram become coarse ones that all hold enough: `np.add.reduceat(histogram, equal_parts(...))`.
    """
    counts = np.asarray(reference, np.int64)
    wanted = counts.sum() / parts
    starts, held = [0], 0
    for place, count in enumerate(counts):
        if held >= wanted > 0 and counts[place:].sum() >= wanted:
            starts.append(place)
            held = 0
        held += int(count)
    return np.asarray(starts, np.int64)
