"""Estimated accuracy of nights without labels: `python -m benchmarks.nights.accuracy`, with the options below.

The photos are divided by chance, several times: an estimator is fitted on some of them, as by `batchland estimator`,
and nights are drawn from the others as for the false alarms, clean and spoiled. Those that raise an alarm have no
estimate. The others are compared with the truth, which is known here.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np

from batchland.monitoring.budget import DEFAULT, limit_of
from batchland.monitoring.corruptions import FAMILIES
from batchland.monitoring.estimate import Labelled, estimate_accuracy, fit_estimator
from batchland.monitoring.observations import Observations
from batchland.monitoring.schema import Estimator
from benchmarks.nights.__main__ import GENERATORS, faults_of, world_of
from benchmarks.nights.generator import Habits, World
from benchmarks.nights.simulate import SHARES, Monitor, Rows, fresh, nights_of
from benchmarks.nights.tables import COPIES, Pictures, Tables, observations, score_kinds

_REFERENCE: Final = 30
"""Good nights of each job."""


class Estimate(NamedTuple):
    """An estimate of one night, and the truth."""

    error: float
    width: float
    """Of the interval."""
    holds: bool


def divided(tables: Tables, labelled: int, division: int) -> tuple[Tables, Tables]:
    """The tables of `labelled` photos, and those of the others. Photos of other subjects are with the others."""
    photos = tables["clean"].source
    chosen = np.random.default_rng([5, division]).permutation(photos)[:labelled]
    parts: tuple[Tables, Tables] = {}, {}
    for kind, pictures in tables.items():
        own = np.isin(pictures.source, chosen) & (kind != "other subject")
        for part, rows in zip(parts, (own, ~own), strict=True):
            part[kind] = Pictures(*(array[rows] for array in pictures))
    return parts


def fitted(tables: Tables) -> Estimator:
    """An estimator of these labelled photos and their degraded copies."""
    scored = {kind: _labelled(tables[kind]) for kind in ("clean", *COPIES)}
    copies = {family: [scored[kind] for kind, (name, _) in COPIES.items() if name == family] for family in FAMILIES}
    return fit_estimator(scored["clean"], copies, "", tables["clean"].probabilities.shape[1])


def _labelled(pictures: Pictures) -> Labelled:
    observed = observations(pictures)
    return Labelled(observed, observed.classes == pictures.label)


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
    limit = limit_of(DEFAULT, 0, labelled=False)
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


def _row(kind: str, divisions: Sequence[Sequence[Estimate]]) -> str:
    """Figures of all estimates; in brackets how often the interval holds in the worst and the best division."""
    found = [each for estimates in divisions for each in estimates]
    if not found:
        return f"| {kind} | 0 |  |  |  |  |"
    errors = np.abs([each.error for each in found])
    holds = sorted(float(np.mean([each.holds for each in estimates])) for estimates in divisions if estimates)
    mean, width = np.mean([each.holds for each in found]), np.mean([each.width for each in found])
    return (
        f"| {kind} | {len(found)} | {errors.mean():.3f} | {errors.max():.3f} "
        f"| {mean:.3f} ({holds[0]:.2f} to {holds[-1]:.2f}) | {width:.3f} |"
    )


def main() -> None:
    """Print a table for each model."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("photos", type=Path, help="class folders of photos that no model was trained on")
    parser.add_argument("--model", dest="models", type=Path, action="append", required=True)
    parser.add_argument("--other", type=Path, help="photos of other subjects")
    parser.add_argument("--cache", type=Path, default=Path("build/nights"), help="scored pictures are kept here")
    parser.add_argument("--most", type=int, default=400, help="pictures of each fault")
    parser.add_argument("--copies", type=int, default=600, help="photos of each kind of degraded copy")
    parser.add_argument("--labelled", type=int, default=1000, help="photos that the estimator is fitted on")
    parser.add_argument("--divisions", type=int, default=6, help="divisions of the photos")
    parser.add_argument("--images", type=int, default=350, help="images of a night")
    parser.add_argument("--jobs", type=int, default=1, help="jobs of each generator and division")
    options = parser.parse_args()
    scored = score_kinds(options.photos, options.models, options.cache, options.most, options.other, options.copies)
    for model, tables in scored.items():
        parts = [divided(tables, options.labelled, division) for division in range(options.divisions)]
        estimators = [fitted(labelled) for labelled, _ in parts]
        error = np.sqrt(np.mean([each.error**2 for each in estimators]))
        right = [float(_labelled(nights["clean"]).right.mean()) for _, nights in parts]
        known = [each.accuracy for each in estimators]
        print(
            f"\n## {model}: right {min(right):.3f} to {max(right):.3f} of the photos of the nights, "
            f"{min(known):.3f} to {max(known):.3f} of the labelled ones; error of the estimators {error:.3f}\n"
        )
        print("| nights | number | mean absolute error | worst | interval holds | its width |")
        print("| --- | --- | --- | --- | --- | --- |")
        for name, habits in GENERATORS.items():
            clean, spoiled, alarms = [], [], 0
            for division, ((_, nights), estimator) in enumerate(zip(parts, estimators, strict=True)):
                runs = [
                    clean_and_spoiled(
                        world_of(nights), nights, habits, estimator, options.images, 60, (3, division, job)
                    )
                    for job in range(options.jobs)
                ]
                clean.append([each for run in runs for each in run[0]])
                spoiled.append([each for run in runs for each in run[1]])
                alarms += sum(run[2] for run in runs)
            print(_row(f"clean, {name}", clean))
            print(_row(f"spoiled without an alarm, {name}", spoiled))
            print(f"| spoiled with an alarm, {name} | {alarms} | not estimated |  |  |  |", flush=True)


if __name__ == "__main__":
    main()
