"""Choose a GPU's settings by measurement: try one change after another and keep those that are faster.

The choice is cached on disk per model, GPU and versions.
"""

import contextlib
import hashlib
import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np

from batchland.errors import OutputError
from batchland.models.contract import Probabilities
from batchland.system.files import write_file

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

    A change that raises, or that changes a probability by more than `tolerance`, is left out. Raises what `measure`
    raises of `start`.
    """
    best = first = measure(start)
    chosen = dict(start)
    for change in changes:
        try:
            trial = measure(chosen | dict(change))
        except Exception as error:  # whatever onnxruntime raises of settings that do not suit a GPU or a model
            _log.debug("settings %s: %s", dict(change), error)
            continue
        agrees = np.abs(trial.answers - first.answers).max() <= tolerance
        if agrees and trial.images_per_second > GAIN * best.images_per_second:
            chosen, best = chosen | dict(change), trial
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


def cached(folder: Path, key: Mapping[str, object], make: Callable[[], Settings]) -> Settings:
    """The result of `make`, from a small file in `folder` if there is one for the same `key`.

    The folder need not be writable.
    """
    text = json.dumps(key, sort_keys=True)
    path = folder / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.json"
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):  # missing or damaged: measured again
        found = json.loads(path.read_text())
        if found["key"] == json.loads(text):
            return {str(name): str(value) for name, value in found["settings"].items()}
    settings = make()
    with contextlib.suppress(OutputError):
        write_file(path, json.dumps({"key": key, "settings": dict(settings)}) + "\n")
    return settings
