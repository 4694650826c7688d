"""Exact rules: faults that are found by counting, without a reference. They apply from the first night on."""

from collections.abc import Callable, Iterator, Sequence
from datetime import date
from functools import cached_property
from itertools import pairwise
from statistics import median
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from batchland.images.signals import BLANK_CONTRAST
from batchland.models.decisions import STRANGER
from batchland.monitoring.near_copies import copies_of, copies_within
from batchland.monitoring.observations import MEASURES, Observations
from batchland.monitoring.schema import Finding, FindingKind
from batchland.system.text import images, percent

MIN_IMAGES: Final = 5
"""A rule about a share of the images needs at least this many such images; in a smaller night, all must be such."""
MIN_SHARE: Final = 0.1
"""A smaller share breaks no rule."""
TIMES_USUAL: Final = 3.0
"""A share must also be at least this multiple of the largest one of earlier nights."""
COPIED_NIGHTS: Final = 7
"""Copies are looked for in this many earlier nights."""
_MAX_HASHES: Final = 1000
"""Images of an earlier night that are compared with each other."""
_VOLUME_FACTORS: Final = ((28, 2.0), (5, 2.8), (1, 10.0))
"""A number of images is unusual if it differs from the usual one by this factor, from this many nights on."""
_VOLUME_DEVIATIONS: Final = 4.5
"""It must also differ by this many deviations of the logarithm, and of a number that varies by chance."""
_CHANCE: Final = 1e-4
"""A number of strangers with a larger probability than this is attributed to chance."""
_CONTRAST: Final = MEASURES.index("contrast")

Rows = npt.NDArray[Any]
_NO_ROWS: Final = np.zeros(0, np.intp)


class Night:
    """The night to judge, or an earlier one."""

    def __init__(
        self,
        date: date,
        observed: Observations | Callable[[], Observations],
        listed: int,
        failed: int,
        images: int | None = None,
    ) -> None:
        """observed: its scored images, or some of them, or a function that reads them when they are needed.

        listed: number of images, including failed ones. images: number of observed ones, if it is known.
        """
        self.date, self.listed, self.failed = date, listed, failed
        self._observed, self._images = observed, images

    @cached_property
    def observed(self) -> Observations:
        """Its scored images, or some of them."""
        return self._observed() if callable(self._observed) else self._observed

    @property
    def images(self) -> int:
        """Number of observed images."""
        return len(self.observed) if self._images is None else self._images


Found = tuple[Finding, Rows]
"""A finding, and the rows of the images that show it."""


def check_rules(
    night: Night,
    earlier: Sequence[Night],
    usual: float | None = None,
    *,
    new_images: bool = True,
    start: date | None = None,
    delivered: Sequence[Night] | None = None,
) -> Iterator[Found]:
    """The findings about a night by exact rules.

    earlier: good nights of the job, oldest first. usual: number of images of such a night; the default is the median.
    new_images: whether a night has other images than the nights before. start: numbers of images before this night do
    not count, because a person accepted a change. delivered: nights that tonight's images may be copies of, also bad
    ones, oldest first; the default is `earlier`.
    """
    yield from _volume(night, [each for each in earlier if start is None or each.date >= start], usual)
    seen = night.observed

    def before() -> list[Observations]:
        return [each.observed for each in earlier if len(each.observed)]

    def failed() -> list[float]:
        return [each.failed / each.listed for each in earlier if each.listed]

    if night.listed >= MIN_IMAGES:  # a smaller night in which all failed ends with an error
        yield from _share("failed", "could not be read or scored", night.failed, night.listed, failed, _NO_ROWS)

    def blank() -> list[float]:
        return [float(_blank(each).mean()) for each in before()]

    rows = np.flatnonzero(_blank(seen))
    yield from _share("blank", "have one colour and nothing in it", len(rows), len(seen), blank, rows)

    def twins() -> list[float]:
        return [float(copies_within(_hash_sample(each.hashes)).mean()) for each in before()]

    rows = np.flatnonzero(copies_within(seen.hashes))
    yield from _share("copies", "are copies of others of this night", len(rows), len(seen), twins, rows)
    if new_images:
        delivered = earlier if delivered is None else delivered
        yield from _earlier_copies(seen, delivered[-COPIED_NIGHTS:], earlier[-COPIED_NIGHTS:])
    yield from _strangers(seen, before)


def share_of_strangers(seen: Observations) -> float | None:
    """Share of the images that are strangers; None without images, or if the model has no known photos."""
    return float((seen.known < STRANGER).mean()) if seen.known is not None and len(seen) else None


def _strangers(seen: Observations, before: Callable[[], Sequence[Observations]]) -> Iterator[Found]:
    """A finding if there are more strangers than usual. Known images have a share of STRANGER, so chance is tested,
    too."""
    share = share_of_strangers(seen)
    if share is None or seen.known is None:
        return
    from scipy.special import bdtrc  # takes as long to import as a verdict

    count, usual = round(share * len(seen)), [each for each in map(share_of_strangers, before()) if each is not None]
    most = max([STRANGER, *usual])
    if bdtrc(count - 1, len(seen), most) > _CHANCE:
        return
    rows = np.argsort(seen.known, kind="stable")[:count]
    text = "are unlike the model's known photos"
    yield from _share("strangers", text, count, len(seen), lambda: [most], rows)


def _earlier_copies(seen: Observations, delivered: Sequence[Night], good: Sequence[Night]) -> Iterator[Found]:
    """Blank pictures do not count: they are alike, but no copies."""
    if not delivered:
        return
    copied = [copies_of(seen.hashes, night.observed.hashes) & ~_blank(seen) for night in delivered]
    rows = np.flatnonzero(np.any(copied, axis=0))
    most = delivered[int(np.argmax([each.sum() for each in copied]))].date

    def usual() -> list[float]:
        return [
            float(copies_of(_hash_sample(night.observed.hashes), before.observed.hashes).mean())
            for before, night in pairwise(good)
            if len(night.observed)
        ]

    yield from _share(
        "earlier_copies", f"are copies of earlier ones, most of {most}", len(rows), len(seen), usual, rows
    )


def _share(
    kind: FindingKind, text: str, count: int, total: int, usual: Callable[[], list[float]], rows: Rows
) -> Iterator[Found]:
    if count < min(MIN_IMAGES, total) or not count or count < MIN_SHARE * total:
        return
    most = max(usual(), default=0.0)
    limit = max(MIN_SHARE, TIMES_USUAL * most)
    if count / total >= limit:
        before = f"usually at most {percent(most)}" if most else "usually none"
        message = f"{count} of {total:,} images {text} ({before})"
        yield Finding(kind=kind, what=kind, message=message, strength=count / total / limit), rows


def _volume(night: Night, earlier: Sequence[Night], usual: float | None) -> Iterator[Found]:
    counts = [float(each.listed) for each in earlier if each.listed]
    if not counts or not night.listed:
        return
    usual = usual or median(counts)  # np.median imports numpy.ma, which takes 0.02 s
    factor = next(factor for nights, factor in _VOLUME_FACTORS if len(counts) >= nights)
    if len(counts) >= MIN_IMAGES:
        middle = np.log(counts) - np.log(median(counts))
        factor = max(factor, float(np.exp(_VOLUME_DEVIATIONS * 1.4826 * median(np.abs(middle)))))
    ratio = max(night.listed / usual, usual / night.listed)
    if ratio > factor and abs(night.listed - usual) > _VOLUME_DEVIATIONS * np.sqrt(usual):
        message = f"{images(night.listed)}, usually {usual:,.0f}"
        strength = float(np.log(ratio) / np.log(factor))
        yield Finding(kind="volume", what="volume", message=message, strength=strength), _NO_ROWS


def _blank(seen: Observations) -> npt.NDArray[np.bool_]:
    return seen.values[:, _CONTRAST] < BLANK_CONTRAST


def _hash_sample(hashes: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    return hashes[:: len(hashes) // _MAX_HASHES + 1]
