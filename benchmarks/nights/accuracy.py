"""Estimated accuracy of nights without labels: `python -m benchmarks.nights.accuracy`, with the options below.

Each model needs an estimator beside it (`batchland estimator`). Nights are drawn as for the false alarms, clean and
spoiled; those that raise an alarm have no estimate. The others are compared with the truth, which is known here.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np

from batchland.monitoring.budget import DEFAULT, limit_of
from batchland.monitoring.estimate import estimate_accuracy, read_estimator
from batchland.monitoring.observations import Observations
from batchland.monitoring.schema import Estimator
from benchmarks.nights.__main__ import GENERATORS, faults_of, world_of
from benchmarks.nights.generator import Habits, World
from benchmarks.nights.simulate import SHARES, Monitor, Rows, fresh, nights_of
from benchmarks.nights.tables import Tables, score_kinds

_REFERENCE: Final = 30
"""Good nights of each job."""


class Estimate(NamedTuple):
    """An estimate of one night, and the truth."""

    error: float
    width: float
    """Of the interval."""
    holds: bool


def estimate(estimator: Estimator, images: Observations, right: Rows) -> Estimate:
    """right: whether each first choice is right."""
    found, truth = estimate_accuracy(estimator, images), float(right.mean())
    assert found.value is not None
    assert found.low is not None
    assert found.high is not None
    return Estimate(found.value - truth, found.high - found.low, found.low <= truth <= found.high)


def clean_and_spoiled(
    world: World, tables: Tables, habits: Habits, estimator: Estimator, images: int, nights: int, seed: Sequence[int]
) -> tuple[list[Estimate], list[Estimate], int]:
    """Estimates of clean and of spoiled nights that raise no alarm, and the number of spoiled ones that raise one."""
    rng = np.random.default_rng(list(seed))
    monitor = Monitor(world, nights_of(world, habits, images, rng))
    for _ in range(_REFERENCE):
        monitor.learn(monitor.draw()[1])
    monitor.fit()
    limit = limit_of(DEFAULT, labelled=False)
    correct = world.images.classes == world.label
    clean, spoiled, alarms = [], [], 0
    for _ in range(nights):
        rows, drawn = monitor.draw()
        if len(rows) >= 200 and not monitor.judge(drawn, rows).found(limit):
            clean.append(estimate(estimator, drawn, correct[rows]))
    for fault, pictures in faults_of(tables).items():
        labels = tables[fault].label if fault != "other subject" else np.full(len(pictures), -1)
        for share in SHARES:
            rows, drawn = monitor.draw()
            count = max(round(len(rows) * share), 1)
            chosen = rng.integers(0, len(pictures), count)
            others = fresh(pictures.take(chosen), rng)
            night = Observations.joined([drawn.take(np.arange(count, len(rows))), others])
            if monitor.judge(night, rows[count:], others).found(limit):
                alarms += 1
            elif len(rows) >= 200:
                right = np.concatenate([correct[rows[count:]], others.classes == labels[chosen]])
                spoiled.append(estimate(estimator, night, right))
    return clean, spoiled, alarms


def _row(kind: str, found: Sequence[Estimate]) -> str:
    if not found:
        return f"| {kind} | 0 |  |  |  |  |"
    errors = np.abs([each.error for each in found])
    holds, width = np.mean([each.holds for each in found]), np.mean([each.width for each in found])
    return f"| {kind} | {len(found)} | {errors.mean():.3f} | {errors.max():.3f} | {holds:.3f} | {width:.3f} |"


def main() -> None:
    """Print a table for each model."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("photos", type=Path, help="class folders of photos that no model was trained on")
    parser.add_argument("--model", dest="models", type=Path, action="append", required=True)
    parser.add_argument("--other", type=Path, help="photos of other subjects")
    parser.add_argument("--cache", type=Path, default=Path("build/nights"), help="scored pictures are kept here")
    parser.add_argument("--most", type=int, default=400, help="pictures of each fault")
    parser.add_argument("--images", type=int, default=350, help="images of a night")
    parser.add_argument("--jobs", type=int, default=4, help="jobs of each generator")
    options = parser.parse_args()
    scored = score_kinds(options.photos, options.models, options.cache, options.most, options.other)
    for model in options.models:
        estimator, tables = read_estimator(model), scored[model.stem]
        if estimator is None:
            parser.error(f"{model}: has no estimator beside it; make one with `batchland estimator`")
        world = world_of(tables)
        truth = float((world.images.classes == world.label)[world.kind == 0].mean())
        print(f"\n## {model.stem}: right {truth:.3f} of the photos, {estimator.accuracy:.3f} of the labelled ones\n")
        print("| nights | number | mean absolute error | worst | interval holds | its width |")
        print("| --- | --- | --- | --- | --- | --- |")
        for name, habits in GENERATORS.items():
            runs = [
                clean_and_spoiled(world, tables, habits, estimator, options.images, 60, (3, job))
                for job in range(options.jobs)
            ]
            print(_row(f"clean, {name}", [each for run in runs for each in run[0]]))
            without = _row(f"spoiled without an alarm, {name}", [each for run in runs for each in run[1]])
            print(without)
            print(
                f"| spoiled with an alarm, {name} | {sum(run[2] for run in runs)} | not estimated |  |  |  |",
                flush=True,
            )


if __name__ == "__main__":
    main()
