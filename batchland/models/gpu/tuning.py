"""Choose a GPU's settings by measurement: one change after another is tried, and kept where it is faster.

What was chosen is remembered in the user's cache, for the same model, GPU and versions. Knows nothing of what the
settings mean, nor how they are tried.
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
"""Options of the execution provider."""

_log = logging.getLogger("batchland")

GAIN: Final = 1.03
"""How much faster a change must be, at least: less is noise."""
WARM_UP_RUNS: Final = 3
"""The first plans, and captures a CUDA graph; the next have caches to fill."""
TRIAL_SECONDS: Final = 0.3


class Trial(NamedTuple):
    """What settings were found to do."""

    images_per_second: float
    answers: Probabilities


def choose(
    start: Settings, changes: Sequence[Settings], attempt: Callable[[Settings], Trial], tolerance: float
) -> Settings:
    """`start` with those of `changes` that are faster, each tried on top of what was kept before.

    A change that cannot be had, or by which a probability differs from that of `start` by more than `tolerance`, is
    left out. Raises what `attempt` raises of
    `start` itself.
    """
    best = first = attempt(start)
    chosen = dict(start)
    for change in changes:
        try:
            found = attempt(chosen | dict(change))
        except Exception as error:  # whatever onnxruntime raises of settings that do not go with a GPU or a model
            _log.debug("settings %s: %s", dict(change), error)
            continue
        agrees = np.abs(found.answers - first.answers).max() <= tolerance
        if agrees and found.images_per_second > GAIN * best.images_per_second:
            chosen, best = chosen | dict(change), found
    return chosen


def try_out(run: Callable[[], Probabilities], images: int) -> Trial:
    """Run the same `images` again and again for a short while."""
    for _ in range(WARM_UP_RUNS):
        answers = run()
    runs, begin = 0, time.perf_counter()
    while (seconds := time.perf_counter() - begin) < TRIAL_SECONDS:
        run()
        runs += 1
    return Trial(images * runs / seconds, answers)


def remembered(folder: Path, key: Mapping[str, object], make: Callable[[], Settings]) -> Settings:
    """What `make` gives, or gave for the same `key` before: a small file in `folder`, which need not be writable."""
    text = json.dumps(key, sort_keys=True)
    path = folder / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.json"
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):  # absent, or damaged: measured again
        found = json.loads(path.read_text())
        if found["key"] == json.loads(text):
            return {str(name): str(value) for name, value in found["settings"].items()}
    settings = make()
    with contextlib.suppress(OutputError):
        write_file(path, json.dumps({"key": key, "settings": dict(settings)}) + "\n")
    return settings
