"""`python -m benchmarks.nights`: spoiled nights that the monitor finds, and false alarms in years of clean nights.

python -m benchmarks.nights DATA/flowers/nights --model transfer.onnx --model scratch.onnx --other DATA/landmarks \\
    --labelled DATA/flowers/labelled
"""

import argparse
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np

from batchland.monitoring.budget import limit_of
from batchland.monitoring.observations import Observations
from batchland.system.files import write_file
from benchmarks.nights.faults import FAULTS, VARIANTS
from benchmarks.nights.generator import CALM, WILD, Habits, World
from benchmarks.nights.simulate import ALL_NIGHT, GROSS, SHARES, clean_year, spoiled_nights
from benchmarks.nights.tables import Tables, observations, score_kinds

LIMITS: Final = (0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 1.0, 1.1, 1.2, 1.4)
"""Limits of the strength for which alarms are counted."""
GENERATORS: Final[dict[str, Habits]] = {"calm": CALM, "wild": WILD}


def main() -> None:
    """Measure, and print the tables as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("photos", type=Path, help="class folders of photos that no model was trained on")
    parser.add_argument("--model", dest="models", type=Path, action="append", required=True)
    parser.add_argument("--labelled", type=Path, help="other photos of these classes, as the reference")
    parser.add_argument("--other", type=Path, help="photos of other subjects")
    parser.add_argument("--cache", type=Path, default=Path("build/nights"), help="scored pictures are kept here")
    parser.add_argument("--most", type=int, default=400, help="pictures of each fault")
    parser.add_argument("--sizes", type=int, nargs="+", default=[50, 150, 400], help="images of a night")
    parser.add_argument("--nights", type=int, nargs="+", default=[5, 14, 60], help="nights of the reference")
    parser.add_argument("--repeats", type=int, default=4, help="jobs for each figure of found faults")
    parser.add_argument("--years", type=int, default=10, help="clean years for each figure of false alarms")
    parser.add_argument("--budget", type=float, default=1.0, help="false alarms a year, for the found faults")
    parser.add_argument("--out", type=Path, help="write the tables here as well")
    options = parser.parse_args()
    scored = score_kinds(options.photos, options.models, options.cache, options.most, options.other)
    sets: dict[str, Observations] = {}
    if options.labelled:
        for model, tables in score_kinds(options.labelled, options.models, options.cache, 0).items():
            sets[model] = observations(tables["clean"])
    lines: list[str] = []
    for model, tables in scored.items():
        world, faults = world_of(tables), faults_of(tables)
        print(f"{model}: {len(world.images)} clean pictures, {len(faults) + len(ALL_NIGHT)} faults", flush=True)
        parts = [_false_alarms(model, world, options), _found(model, world, faults, options)]
        if model in sets:
            parts += [
                _false_alarms(f"{model}, labelled photos", world, options, sets[model]),
                _found(f"{model}, labelled photos", world, faults, options, sets[model]),
            ]
        for part in parts:
            for line in part:
                print(line, flush=True)
                lines.append(line)
    if options.out:
        write_file(options.out, "\n".join([*lines, ""]).encode())


def world_of(tables: Tables) -> World:
    """The pictures that clean nights are drawn from."""
    kinds = ["clean", *VARIANTS]
    images = [observations(tables[kind]) for kind in kinds]
    joined = Observations.joined(images)
    light = joined.values[:, 0].astype(np.float64)
    return World(
        joined,
        np.repeat(np.arange(len(kinds)), [len(each) for each in images]),
        np.concatenate([tables[kind].label for kind in kinds]).astype(np.intp),
        (light - light.mean()) / light.std(),
    )


def faults_of(tables: Tables) -> dict[str, Observations]:
    """The pictures of each fault."""
    return {fault: observations(tables[fault]) for fault in (*FAULTS, "other subject") if fault in tables}


def _false_alarms(
    title: str, world: World, options: argparse.Namespace, labelled: Observations | None = None
) -> Iterator[str]:
    head = " | ".join(f"{limit:g}" for limit in LIMITS)
    yield from _title(f"{title}: alarms in a clean year, by limit", f"| images | generator | years | {head} | at 1 |")
    limits = tuple(dict.fromkeys((1.0, *LIMITS)))
    for images in options.sizes:
        for name, habits in GENERATORS.items():
            years = [
                clean_year(world, habits, images, (1, images, year), limits, labelled) for year in range(options.years)
            ]
            means = " | ".join(f"{np.mean([year[limit].total() for year in years]):.1f}" for limit in LIMITS)
            what = sum((year[1.0] for year in years), Counter[str]()).most_common(4)
            named = ", ".join(f"{found} {count}" for found, count in what)
            yield f"| {images} | {name} | {len(years)} | {means} | {named} |"


def _found(
    title: str,
    world: World,
    faults: dict[str, Observations],
    options: argparse.Namespace,
    labelled: Observations | None = None,
) -> Iterator[str]:
    limit = limit_of(options.budget, 0, labelled=labelled is not None)
    head = "| images | generator | reference nights | whole | half | a fifth | gross, a fifth | copies, volume |"
    yield from _title(f"{title}: share of spoiled nights found, limit {limit:.2f}", head)
    missed: dict[tuple[str, float], list[bool]] = defaultdict(list)
    begin = time.process_time()
    for images in options.sizes:
        for name, habits in GENERATORS.items():
            for nights in options.nights:
                runs = [
                    spoiled_nights(world, faults, habits, images, nights, (2, images, nights, repeat), labelled)
                    for repeat in range(options.repeats)
                ]
                found = {key: [run[key].found(limit) is not None for run in runs] for key in runs[0]}
                pictures = [np.mean([found[fault, share] for fault in (*faults, *ALL_NIGHT[3:5])]) for share in SHARES]
                gross = np.mean([found[fault, 0.2] for fault in GROSS if (fault, 0.2) in found])
                whole = np.mean([found[fault, 1.0] for fault in ALL_NIGHT if fault not in ALL_NIGHT[3:5]])
                shares = " | ".join(f"{share:.3f}" for share in (*pictures, gross, whole))
                yield f"| {images} | {name} | {nights} | {shares} |"
                if images == 150 and nights >= 14:
                    for key, each in found.items():
                        missed[key] += each
    yield ""
    yield f"Missed at least once by {title}, 150 images, at least 14 nights, both generators: found in"
    yield from _title("", "| fault | whole | half | a fifth |")
    for fault in dict.fromkeys(fault for fault, _ in missed):
        rates = [float(np.mean(missed[fault, share])) for share in SHARES]
        if min(rates) < 1:
            yield f"| {fault} | " + " | ".join(f"{rate:.2f}" for rate in rates) + " |"
    yield f"\n{time.process_time() - begin:.0f} s of CPU time."


def _title(title: str, head: str) -> Iterator[str]:
    if title:
        yield f"\n## {title}\n"
    yield head
    yield "|" + " --- |" * (head.count("|") - 1)


if __name__ == "__main__":
    main()
