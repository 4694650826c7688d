"""Weak slices by two own columns, among all pairs of their values, with p-values corrected for their number.

Two steps keep false alarms rare. First, Simes' test at ANY_LEVEL decides whether any slice is weak; ANY_LEVEL is the
probability of a report if none is. Then the slices are chosen by Benjamini and Hochberg at SLICE_LEVEL, the expected
share of false ones among those reported. Both divide each p-value by a weight, because most pairs of values are too
small to show a loss (Genovese, Roeder and Wasserman, 2006).
"""

from itertools import combinations
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from batchland.errors import UsageError
from batchland.evaluation.counts import KeyCounts
from batchland.evaluation.intervals import Floats, Ints, rate
from batchland.evaluation.outcomes import Outcomes
from batchland.evaluation.schema import PairSlice, PairSlices
from batchland.evaluation.slices import MIN_IMAGES, own_values

MAX_CELLS: Final = 2_000_000
"""Largest number of combinations of values of two columns."""
SHOWN: Final = 200
"""Largest number of weak slices that are listed."""
ANY_LEVEL: Final = 0.001
SLICE_LEVEL: Final = 0.1
LOSS: Final = 0.1
"""Loss of accuracy that the weights are chosen for."""
EQUAL_SHARE: Final = 0.5
"""Part of the weights that is equal for all slices: a small slice loses at most a factor of two."""
_CODE_BITS: Final = 24


class PairTally:
    """Counts images and right answers by the values of two columns, for all pairs of columns, block by block."""

    def __init__(self, columns: tuple[str, ...]) -> None:
        self._codes: dict[str, dict[str, int]] = {name: {} for name in columns}
        self._counts = {pair: KeyCounts() for pair in combinations(columns, 2)}
        self._images = self._right = 0

    def add(self, outcomes: Outcomes) -> None:
        """Add a block. Raises UsageError for columns with too many combinations."""
        if not self._counts:
            return
        ok = outcomes.ok
        right = outcomes.right[ok]
        self._images, self._right = self._images + len(right), self._right + int(right.sum())
        codes = {name: self._encode(name, own_values(outcomes, name))[ok] for name in self._codes}
        for (a, b), counts in self._counts.items():
            counts.add((codes[a] << _CODE_BITS | codes[b]) << 1 | right)
            if len(counts) > 2 * MAX_CELLS:
                raise UsageError(
                    f"columns {a!r} and {b!r} have more than {MAX_CELLS} combinations of values; slice by columns "
                    f"with fewer values"
                )

    def weak(self, confidence: float) -> PairSlices:
        """The slices with a lower accuracy than all other images, the smallest p-value first."""
        parts = [self._tested(number, counts) for number, counts in enumerate(self._counts.values())]
        pair, cell, images, right = (np.concatenate(column) for column in zip(*parts, strict=True))
        raw = p_values(images, right, self._images, self._right)
        raw /= size_weights(images, self._right / max(self._images, 1))
        adjusted = benjamini_hochberg(raw)
        found = np.flatnonzero(adjusted < SLICE_LEVEL) if adjusted.min(initial=1) < ANY_LEVEL else np.zeros(0, int)
        found = found[np.lexsort((cell[found], raw[found]))]
        pairs, values = list(self._counts), {name: list(codes) for name, codes in self._codes.items()}

        def described(at: int) -> PairSlice:
            a, b = pairs[pair[at]]
            accuracy = rate(int(right[at]), int(images[at]), confidence)
            others = (self._right - right[at]) / max(self._images - images[at], 1)
            return PairSlice(
                columns=(a, b),
                values=(values[a][cell[at] >> _CODE_BITS], values[b][cell[at] & ((1 << _CODE_BITS) - 1)]),
                images=int(images[at]),
                accuracy=accuracy,
                difference=float(accuracy.value - others),
                p_value=float(adjusted[at]),
            )

        return PairSlices(tested=len(raw), found=len(found), weakest=tuple(map(described, found[:SHOWN].tolist())))

    def _tested(self, number: int, counts: KeyCounts) -> tuple[Ints, Ints, Ints, Ints]:
        """(number, cell, images, right) of the slices of one pair that are large enough."""
        keys, seen = counts.result()
        cells, cell = np.unique(keys >> 1, return_inverse=True)
        images = np.bincount(cell, seen, len(cells)).astype(np.int64)
        right = np.bincount(cell, seen * (keys & 1), len(cells)).astype(np.int64)
        large = (images >= MIN_IMAGES) & (images < self._images)
        return np.full(int(large.sum()), number), cells[large], images[large], right[large]

    def _encode(self, name: str, values: pa.Array) -> Ints:
        known = self._codes[name]
        encoded = values.dictionary_encode()
        codes = [known.setdefault(text, len(known)) for text in encoded.dictionary.to_pylist()]
        return np.array(codes or [0], np.int64)[encoded.indices.to_numpy()]


def size_weights(images: Ints, accuracy: float) -> Floats:
    """Weights of slices with a mean of 1: those that would show a LOSS get more. accuracy: of all images.

    The weights depend on the sizes of the slices alone, not on their answers, so that weighted tests stay valid.
    """
    from scipy.special import ndtr, ndtri

    if not len(images):
        return np.ones(0)
    deviation = np.sqrt(max(accuracy * (1 - accuracy), LOSS / 100) / images)
    power = ndtr(LOSS / deviation + ndtri(SLICE_LEVEL / len(images)))
    return EQUAL_SHARE + (1 - EQUAL_SHARE) * power / power.mean()


def benjamini_hochberg(p_values: Floats) -> Floats:
    """p-values adjusted by Benjamini and Hochberg; their minimum is the p-value of Simes' test."""
    count = len(p_values)
    order = np.argsort(p_values, kind="stable")[::-1]
    adjusted = np.empty(count)
    adjusted[order] = np.minimum.accumulate(p_values[order] * count / np.arange(count, 0, -1))
    return np.minimum(adjusted, 1)


def p_values(images: Ints, right: Ints, all_images: int, all_right: int) -> Floats:
    """p-values of Fisher's exact test, one-sided, of the hypothesis that a slice is as good as all other images."""
    from scipy.stats import hypergeom

    values: npt.NDArray[np.float64] = hypergeom.cdf(right, all_images, all_right, images)
    return np.clip(values, 0, 1)
