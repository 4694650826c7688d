"""When a run has to end: `time_limit` after its start, `finish_by` by the clock, and an estimate of the end."""

import datetime as dt
import math
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final

from batchland.errors import BatchlandError, TimeLimitError
from batchland.nightly.good_nights import last_good
from batchland.nightly.job import Job
from batchland.nightly.run_record import EndEstimate, RunRecord
from batchland.scoring.account import Progress
from batchland.scoring.listing import ImageListing

ESTIMATE_AFTER: Final = 60.0
"""Seconds after the start of a run until the end is estimated."""
_MIN_INTERVAL: Final = 1 / 6
"""Least part of ESTIMATE_AFTER over which a rate is measured."""


class TimeBudget:
    """The time that a run has, from now on."""

    def __init__(self, job: Job, now: dt.datetime | None = None) -> None:
        now = now or dt.datetime.now().astimezone()
        self._name = job.name
        self.finish_by = next_time(job.finish_by, now) if job.finish_by else None
        """The moment that `finish_by` means for this run."""
        ends: list[tuple[float, str]] = [(math.inf, "")]
        if job.time_limit:
            ends.append((job.time_limit.total_seconds(), f"its time limit of {job.time_limit}"))
        if self.finish_by:
            ends.append(((self.finish_by - now).total_seconds(), f"finish_by {self.finish_by:%H:%M}"))
        seconds, self._reason = min(ends)
        self._deadline = time.monotonic() + seconds

    def left(self) -> float | None:
        """Seconds; None without a limit."""
        return None if self._deadline == math.inf else self._deadline - time.monotonic()

    def check(self) -> None:
        """Raise TimeLimitError if the time is over."""
        if (left := self.left()) is not None and left <= 0:
            raise self.over()

    def over(self, detail: str | None = None) -> TimeLimitError:
        """The error of a run that has no time left. detail: the message of `score`, if that was stopped."""
        where = detail.partition(", at the time limit")[0] if detail else f"job {self._name}: stopped"
        return TimeLimitError(f"{where}, at {self._reason}; a rerun resumes")


def next_time(clock: dt.time, now: dt.datetime) -> dt.datetime:
    """The next moment after `now` when local clocks show this time."""
    today = _moment(now.date(), clock)
    return today if today > now else _moment(now.date() + dt.timedelta(days=1), clock)


def _moment(day: dt.date, clock: dt.time) -> dt.datetime:
    """When clocks show this time on a day; in the hour that is missing when summer time begins, an hour later."""
    moments = [dt.datetime.combine(day, clock.replace(fold=fold)).astimezone() for fold in (0, 1)]
    # Before Python 3.12, the two folds of a missing hour were swapped.
    return min((each for each in moments if each.time() == clock), default=max(moments))


def later(now: dt.datetime, seconds: float) -> dt.datetime:
    """The local time that many seconds after `now`, also if clocks are changed in between."""
    return (now + dt.timedelta(seconds=seconds)).astimezone()


class EndEstimator:
    """Estimates when a run will end, from the progress of the model that scores now.

    report: gets the first estimate after ESTIMATE_AFTER, and another one whenever `again` seconds have passed. rest:
    returns the seconds of all later steps, from the number of images and this model's seconds per image. begin: start
    of the run, by `clock`.
    """

    def __init__(
        self,
        listing: ImageListing,
        rest: Callable[[int, float], float],
        report: Callable[[EndEstimate], None],
        *,
        begin: float,
        after: float = ESTIMATE_AFTER,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._rest = rest
        self._report = report
        self._after = after
        self._clock = clock
        self._due = begin + after
        self._first: tuple[float, int] | None = None
        self._total: int | None = None
        self._ended = threading.Event()
        self._counting = threading.Thread(target=self._count, args=(listing,), name="count", daemon=True)

    def __enter__(self) -> "EndEstimator":
        self._counting.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        self._counting.join(1.0)

    def update(self, progress: Progress) -> None:
        """Record the progress, and report an estimate if one is due."""
        now = self._clock()
        if self._first is None:  # the first batch brings the warm-up to an end
            self._first = now, progress.done
            return
        seconds, images = now - self._first[0], progress.done - self._first[1]
        if now < self._due or seconds < self._after * _MIN_INTERVAL or not images or self._total is None:
            return
        self._due = now + self._after
        per_image, left = seconds / images, max(0, self._total - progress.done)
        end = left * per_image + self._rest(self._total, per_image)
        at = dt.datetime.now().astimezone()
        self._report(
            EndEstimate(
                made_at=at.isoformat(timespec="seconds"),
                end=later(at, end).isoformat(timespec="seconds"),
                images=self._total,
                images_done=progress.done,
                images_per_second=round(images / seconds, 2),
            )
        )

    def _count(self, listing: ImageListing) -> None:
        total = 0
        with suppress(BatchlandError, OSError):  # the run itself reports it
            for _ in listing.second_walk():
                if self._ended.is_set():
                    return
                total += 1
            self._total = total


def rest_of_night(job: Job, model: str, records: Sequence[RunRecord]) -> Callable[[int, float], float]:
    """Seconds for the models after `model` and for evaluation and report, as in the last good night.

    A model that the night did not score takes as long for each image as this one.
    """
    names = job.model_names
    later = names[names.index(model) + 1 :]
    night = last_good(records)
    runs = {run.name: run for run in night.models} if night else {}
    scored = [run.seconds.total for run in runs.values() if run.seconds and run.state != "kept"]
    others = max(0.0, (night.seconds or 0.0) - sum(scored)) if night and scored else 0.0
    rates = [runs[name].images_per_second if name in runs else None for name in later]

    def seconds(images: int, per_image: float) -> float:
        return others + sum(images / rate if rate else images * per_image for rate in rates)

    return seconds
