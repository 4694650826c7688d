"""Years of clean nights, and nights with each fault, judged as `batchland run` judges them."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import date, timedelta
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from batchland.monitoring.budget import size_factor
from batchland.monitoring.drift_sums import cumulate, drifts
from batchland.monitoring.observations import Floats, Observations
from batchland.monitoring.reference import Reference, labelled_reference
from batchland.monitoring.rules import Night, check_rules
from batchland.monitoring.schema import DriftSum
from batchland.monitoring.verdict import MAX_NIGHTS, MIN_NIGHTS, SURE_NIGHTS
from batchland.nightly.contract import MIN_WEEKDAYS, USUAL_NIGHTS, USUAL_WEEKDAYS
from batchland.nightly.judge_night import RECENT_NIGHTS
from benchmarks.nights.generator import Habits, Random, World, clean_nights

_REFITS: Final = (5, 7, 10, 14, 20, 28, 40, 60)
"""Sizes at which a growing reference is fitted again; a real one is fitted every night."""
_FIRST: Final = date(2026, 1, 1)
SHARES: Final = (1.0, 0.5, 0.2)
"""Of a night that a fault spoils."""
GROSS: Final = (
    "black",
    "white",
    "grey card",
    "thumbnails",
    "stripes",
    "posterised",
    "one picture many times",
    "yesterday again",
    "other subject",
    "interlaced",
    "letterbox",
    "screenshots",
    "mosaic",
    "quality 5",
    "half broken",
    "edges only",
)
"""Faults that have to be found in a fifth of a night."""
ALL_NIGHT: Final = ("volume 1%", "volume 300%", "volume 20%", "one class", "two classes missing", "yesterday again",
                    "renamed copies", "encoded again", "one picture many times")  # fmt: skip
"""Faults of a delivery as a whole."""

Rows = npt.NDArray[np.intp]


class Judged(NamedTuple):
    """What a monitor found in a night."""

    rule: str | None
    """An exact rule that the night breaks."""
    strength: float
    """The largest deviation from the reference, as a multiple of the largest that a good night of its size has."""
    what: str
    """Its statistic, or `change`."""
    means: dict[str, float]
    """z of the mean of each measure; empty before there are enough nights for drift."""

    def found(self, limit: float) -> str | None:
        """What is found at a limit of the strength; None if nothing is."""
        return self.rule or (self.what if self.strength > limit else None)


class Monitor:
    """A job's monitor, for nights drawn from one world of scored pictures, whose scores are computed once."""

    def __init__(
        self, world: World, source: Iterator[tuple[Rows, Observations]], labelled: Observations | None = None
    ) -> None:
        """source: the nights, one for each day. labelled: compare them with these images instead of the good nights."""
        self.world = world
        self._source = source
        self.reference: Reference | None = None
        self._scores: Floats = np.zeros((0, 0))
        self._labelled = labelled is not None
        self._good: list[Observations] = []
        self._recent: list[Night] = []
        self.day = _FIRST
        if labelled is not None:
            self._set(labelled_reference(labelled))

    def draw(self) -> tuple[Rows, Observations]:
        """The night of the next day."""
        self.day += timedelta(days=1)
        return next(self._source)

    def learn(self, images: Observations) -> None:
        """Add a good night."""
        self._recent = [*self._recent, self._night(images)][-USUAL_WEEKDAYS:]
        if len(self._good) < MAX_NIGHTS and not self._labelled:
            self._good.append(images)
            if len(self._good) in _REFITS:
                self.fit()

    def fit(self) -> None:
        """Make a reference of the good nights."""
        if not self._labelled:
            self._set(Reference.of(self._good))

    def judge(self, images: Observations, rows: Rows, others: Observations | None = None) -> Judged:
        """Judge a night.

        images: all of it. rows: the first ones of it, as rows of the world. others: the rest of it.
        """
        found_by_rules = check_rules(self._night(images), self._recent[-RECENT_NIGHTS:], self._usual())
        broken = [(finding.strength, finding.what) for finding, _ in found_by_rules]
        rule = max(broken)[1] if broken else None
        if self.reference is None:
            return Judged(rule, 0.0, "", {})
        pool = self.reference.pool
        scores = self._scores[rows]
        if others is not None:
            scores = np.concatenate([scores, pool.scores(others)])
        deviations = self.reference.deviations(pool.figures(images, scores))
        strengths = self.reference.strengths(deviations)
        best = int(strengths.argmax())
        found = [(float(strengths[best]), " ".join(pool.statistics[best]))]
        found.append((float(self.reference.changes(images).max()), "change"))
        strength, what = max(found)
        means = {statistic.measure: float(z) for statistic, z in zip(pool.statistics, deviations, strict=True)
                 if (statistic.score, statistic.kind) == ("value", "mean")}  # fmt: skip
        strength /= size_factor(len(images))
        return Judged(rule, strength, what, means if self._labelled or self.reference.nights >= SURE_NIGHTS else {})

    def _set(self, reference: Reference) -> None:
        self.reference = reference
        self._scores = reference.pool.scores(self.world.images)

    def _usual(self) -> float | None:
        """Usual number of images of this weekday, as `usual_number` has it for the records of a job."""
        if len(self._recent) < MIN_NIGHTS:
            return None
        same = [night.listed for night in self._recent if night.date.weekday() == self.day.weekday()]
        return float(
            np.median(same if len(same) >= MIN_WEEKDAYS else [each.listed for each in self._recent[-USUAL_NIGHTS:]])
        )

    def _night(self, images: Observations) -> Night:
        return Night(self.day, images, len(images), 0)


Alarms = dict[float, Counter[str]]
"""Alarms in a year by limit of the strength, and by what was found."""


def clean_year(
    world: World,
    habits: Habits,
    images: int,
    seed: Sequence[int],
    limits: Sequence[float] = (1.0,),
    labelled: Observations | None = None,
) -> Alarms:
    """Alarms in 365 clean nights after the first MIN_NIGHTS, for several limits of the strength.

    The nights without an alarm at the first limit join the reference, at whatever other limit they are judged.
    """
    rng = np.random.default_rng(list(seed))
    monitor = Monitor(world, nights_of(world, habits, images, rng), labelled)
    alarms: Alarms = {limit: Counter() for limit in limits}
    sums: dict[float, dict[str, DriftSum]] = {limit: {} for limit in limits}
    for night in range(MIN_NIGHTS + 365):
        rows, drawn = monitor.draw()
        if night < MIN_NIGHTS:
            monitor.learn(drawn)
            continue
        judged = monitor.judge(drawn, rows)
        for limit in limits:
            found = judged.found(limit)
            if not found:
                sums[limit] = cumulate(sums[limit], judged.means, monitor.day)
                largest = limit * size_factor(len(drawn))
                drifting = [each.what for each in drifts(sums[limit], dict.fromkeys(judged.means, ""), largest)]
                if drifting:
                    sums[limit] = {}  # a person accepts it
                    found = f"drift {drifting[0]}"
            if found:
                alarms[limit][found] += 1
            if limit == limits[0] and not found:
                monitor.learn(drawn)
    return alarms


def spoiled_nights(
    world: World,
    faults: dict[str, Observations],
    habits: Habits,
    images: int,
    nights: int,
    seed: Sequence[int],
    labelled: Observations | None = None,
) -> dict[tuple[str, float], Judged]:
    """What a monitor with `nights` good nights finds in a night with each fault: by fault and spoiled share."""
    rng = np.random.default_rng(list(seed))
    monitor = Monitor(world, nights_of(world, habits, images, rng), labelled)
    for _ in range(nights):
        yesterday = monitor.draw()
        monitor.learn(yesterday[1])
    monitor.fit()
    found: dict[tuple[str, float], Judged] = {}
    for fault, pictures in faults.items():
        rows, drawn = monitor.draw()
        for share in SHARES:
            count = max(round(len(rows) * share), 1)
            spoiled = fresh(pictures.take(rng.integers(0, len(pictures), count)), rng)
            if fault in _FLAT:
                spoiled = replace(spoiled, hashes=np.zeros(count, np.uint64))
            night = Observations.joined([drawn.take(np.arange(count, len(rows))), spoiled])
            found[fault, share] = monitor.judge(night, rows[count:], spoiled)
    for fault in ALL_NIGHT:
        for share in SHARES:
            rows, drawn = monitor.draw()
            night_rows, night = _all_night(fault, share, world, rows, drawn, yesterday, rng)
            found[fault, share] = monitor.judge(night, night_rows)
    return found


_FLAT: Final = ("black", "white", "grey card")
"""Faults whose pictures all have the same hash."""


def nights_of(world: World, habits: Habits, images: int, rng: Random) -> Iterator[tuple[Rows, Observations]]:
    for rows in clean_nights(world, habits, images, rng):
        yield rows, fresh(world.images.take(rows), rng)


def fresh(images: Observations, rng: Random) -> Observations:
    """The same pictures as if they were new ones: the photos are few, a job's are not."""
    return replace(images, hashes=rng.integers(0, 2**64, len(images), np.uint64))


def _all_night(
    fault: str,
    share: float,
    world: World,
    rows: Rows,
    drawn: Observations,
    yesterday: tuple[Rows, Observations],
    rng: Random,
) -> tuple[Rows, Observations]:
    count = max(round(len(rows) * share), 1)
    if fault.startswith("volume"):
        number = max(round(len(rows) * float(fault.split()[1].rstrip("%")) / 100), 1)
        chosen = rng.integers(0, len(rows), number)
        return rows[chosen], fresh(drawn.take(chosen), rng)
    if fault in ("one class", "two classes missing"):
        labels = world.label[rows]
        order = rng.permutation(int(world.label.max()) + 1)
        wanted = np.isin(world.label, order[:1] if fault == "one class" else order[2:]) & (world.kind == 0)
        moved = np.concatenate([rows[count:], rng.choice(np.flatnonzero(wanted), count)]) if len(labels) else rows
        return moved, fresh(world.images.take(moved), rng)
    if fault == "one picture many times":
        moved = np.concatenate([rows[count:], np.repeat(rows[:1], count)])
        hashes = np.concatenate([drawn.hashes[count:], np.repeat(drawn.hashes[:1], count)])
    else:
        old = np.resize(np.arange(len(yesterday[0])), count)
        moved = np.concatenate([rows[count:], yesterday[0][old]])
        hashes = np.concatenate([drawn.hashes[count:], yesterday[1].hashes[old]])
        if fault == "encoded again":  # one bit of 64 differs
            hashes[-count:] ^= np.uint64(1) << rng.integers(0, 64, count, np.uint64)
    return moved, replace(world.images.take(moved), hashes=hashes)
