"""Choose a GPU's settings by measurement: try one change after another and keep those that are faster."""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple

import numpy as np

from batchland.models.contract import Probabilities

Settings = Mapping[str, str]
"""Options of an execution provider."""

_log = logging.getLogger("batchland")

GAIN: Final = 1.03
"""A change must be at least this many times as fast; less is noise."""
WARM_UP_RUNS: Final = 3
"""The first run plans and captures a CUDA graph, the next fill caches."""
TRIAL_SECONDS: Final = 0.3


class Trial(NamedTuple):
    """The measurement of one set of settings."""

    images_per_second: float
    answers: Probabilities


def tune(
    start: Settings, changes: Sequence[Settings], measure: Callable[[Settings], Trial], tolerance: float
) -> Settings:
    """`start` with those of `changes` that are faster, each tried on top of those kept before.

    A change that raises there is tried on `start` alone. One that changes a probability by more than `tolerance` is
    left out. Raises what `measure` raises for `start`.
    """
    best = first = measure(start)
    chosen = dict(start)
    for change in changes:
        for settings in (chosen | dict(change), dict(start) | dict(change)):
            try:
                trial = measure(settings)
            except Exception as error:  # onnxruntime raises anything for settings that do not suit a GPU or a model
                _log.debug("settings %s: %s", settings, error)
                continue
            agrees = np.abs(trial.answers - first.answers).max() <= tolerance
            if agrees and trial.images_per_second > GAIN * best.images_per_second:
                chosen, best = settings, trial
            break
    return chosen


def run_repeatedly(run: Callable[[], Probabilities], images: int) -> Trial:
    """Call `run`, which computes `images` images, for TRIAL_SECONDS."""
    for _ in range(WARM_UP_RUNS):
        answers = run()
    runs, begin = 0, time.perf_counter()
    while (seconds := time.perf_counter() - begin) < TRIAL_SECONDS:
        run()
        runs += 1
    return Trial(images * runs / seconds, answers)
