"""Thresholds with a guarantee: the probability from which answers are accepted, so that few accepted ones are wrong.

Risk control by fixed-sequence testing (learn then test): answers are sorted by falling probability, and more of them
are accepted as long as an exact binomial test rejects an error rate above the limit. Several sequences are tested,
which start with a fixed share of the images, each at its part of the level. This assumes that new images come from the
same source as the labelled ones, and that the error rate does not decrease with decreasing probability.
"""

import math
import re
from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np

from batchland.errors import UsageError
from batchland.evaluation.counts import ScoreCells
from batchland.evaluation.schema import AcceptRule, ClassRule, Guarantee
from batchland.models.card import ClassName

STARTS: Final = (1, 1 / 2, 1 / 4, 1 / 8, 1 / 16)
"""Shares of the images, the most probable answers first, with which sequences of tests start."""
_PROMISE: Final = re.compile(r"error\s*<=?\s*(?P<limit>[0-9.]+)\s*(?P<percent>%?)")


class Promise(NamedTuple):
    """The largest share of wrong answers among the accepted ones."""

    text: str
    limit: float


def parse_promise(text: str) -> Promise:
    """Read `error <= 2%` or `error <= 0.02`. Raises UsageError."""
    found = _PROMISE.fullmatch(text.strip())
    try:
        limit = float(found["limit"]) / (100 if found["percent"] else 1) if found else 0.0
    except ValueError:
        limit = 0.0
    if not 0 < limit < 1:
        raise UsageError(f'promise {text!r}: must be error <= NUMBER, between 0 and 1, like "error <= 2%"')
    return Promise(text.strip(), limit)


def guarantee(cells: ScoreCells, promise: Promise, classes: Sequence[ClassName], confidence: float) -> Guarantee:
    """Thresholds for all answers together, and for each predicted class with enough images.

    cells: first choices by predicted class. The rule for all answers keeps its promise with this confidence, and so do
    the rules of the classes, all together.
    """
    level = 1 - confidence
    together = cells.of_all_classes()
    rule = accept_rule(together, promise.limit, level)
    by_class = np.bincount(cells.classes, cells.images, len(classes))
    enough = np.flatnonzero(by_class >= fewest_images(promise.limit, level))
    rules = []
    for number in enough.tolist():
        found = accept_rule(cells.of_class(number), promise.limit, level / len(enough))
        if found:
            rules.append(ClassRule(label=classes[number].label, **found.model_dump()))
    return Guarantee(
        promise=promise.text,
        limit=promise.limit,
        confidence=confidence,
        images=int(together.images.sum()),
        fewest_images=fewest_images(promise.limit, level),
        rule=rule,
        per_class=tuple(rules),
    )


def fewest_images(limit: float, level: float) -> int:
    """Number of images without a mistake that are needed to show that the error rate is below `limit`."""
    return math.ceil(math.log(level) / math.log1p(-limit))


def accept_rule(cells: ScoreCells, limit: float, level: float) -> AcceptRule | None:
    """The lowest threshold at which the error rate of the accepted answers is at most `limit`, if there is one.

    The probability that it is more, over the choice of the labelled images, is at most `level`. cells: of one class, or
    of all together.
    """
    from scipy.special import bdtr

    total = int(cells.images.sum())
    images, wrong = np.cumsum(cells.images[::-1]), np.cumsum((cells.images - cells.hits)[::-1])
    starts = _starts(total, limit, level)
    if not starts:
        return None
    passed = bdtr(wrong, images, limit) <= level / len(starts)
    best = -1
    for start in starts:
        first = int(np.searchsorted(images, start))
        failing = np.flatnonzero(~passed[first:])
        last = first + (int(failing[0]) if len(failing) else len(passed) - first) - 1
        best = max(best, last if last >= first else -1)
    if best < 0:
        return None
    return AcceptRule(
        threshold=float(str(cells.low[::-1][best])),
        accepted=int(images[best]),
        wrong=int(wrong[best]),
        coverage=float(images[best] / total),
    )


def _starts(total: int, limit: float, level: float) -> list[int]:
    """Numbers of images with which sequences start, those that can pass the test at all."""
    starts = sorted({math.ceil(total * share) for share in STARTS})
    while starts and starts[0] < fewest_images(limit, level / len(starts)):
        starts = starts[1:]
    return starts
