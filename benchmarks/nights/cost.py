"""CPU seconds of a whole night with signals, canaries and verdict, and without them, in turn. Prints a Markdown row.

    python -m benchmarks.nights.cost scratch --work FOLDER [--count 150] [--pairs 9]

Each night is a process of its own, `batchland run`. The reference has 60 nights: six that are scored, and copies of
their records. The interval is that of the median of the differences, with 95 % confidence.
"""

import argparse
import json
import os
import random
import resource
import shutil
import subprocess
import sys
from datetime import date, timedelta
from itertools import cycle, islice
from pathlib import Path
from statistics import median

from benchmarks.machine import describe_machine, median_interval
from benchmarks.models import find_model
from benchmarks.photos import SIZES, draw_photos

_FIRST, _SCORED, _NIGHTS = date(2026, 1, 1), 6, 60
_OFF = ("monitor.action=off", "monitor.canaries=false", "signals=false")


def run(job: Path, night: date, *changes: str) -> float:
    """CPU seconds of a process that scores a night."""
    command = [sys.executable, "-m", "batchland", "run", job, "--date", str(night), "--force", "--set", "settle=0s"]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([*command, *(part for change in changes for part in ("--set", change))], capture_output=True)
    if done.returncode not in (0, 6):
        sys.exit(done.stderr.decode())
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def prepare(model: Path, work: Path, count: int) -> tuple[Path, date]:
    """A job with a reference of 60 nights, and the date of the next night."""
    photos = sorted(draw_photos(work / "photos", "small", SIZES["small"].distinct).rglob("*.jpg"))
    shutil.rmtree(work / "nights", ignore_errors=True)
    job = work / "nights" / "cost.toml"
    days = [_FIRST + timedelta(days=number) for number in range(_NIGHTS + 1)]
    for day in (*days[:_SCORED], days[-1]):
        folder = job.parent / "images" / str(day)
        folder.mkdir(parents=True)
        for number, photo in enumerate(random.Random(str(day)).choices(photos, k=count)):
            os.link(photo, folder / f"{number}.jpg")
    job.write_text(
        f'images = "images/{{date:%Y-%m-%d}}"\nmodel = "{model.resolve()}"\ndevice = "cpu"\noutput = "out"\n'
        f'runs = "runs"\n[monitor]\naction = "warn"\n'
    )
    for day in days[:_SCORED]:
        run(job, day)
    for number in range(_SCORED, _NIGHTS):
        source, copy = (job.parent / "runs" / "cost" / str(days[at]) for at in (number % _SCORED, number))
        shutil.copytree(source, copy)
        record = json.loads((copy / "run.json").read_text())
        (copy / "run.json").write_text(json.dumps(record | {"date": copy.name}))
    return job, days[-1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--count", type=int, default=150)
    parser.add_argument("--pairs", type=int, default=9)
    given = parser.parse_args()
    job, night = prepare(find_model(given.model, given.work), given.work, given.count)
    seconds: dict[bool, list[float]] = {False: [], True: []}
    for on in (False, True, *islice(cycle((False, True, True, False)), 2 * given.pairs)):
        seconds[on].append(run(job, night, *(() if on else _OFF)))
    off, used = seconds[False][1:], seconds[True][1:]  # the first ones open caches
    more = [b - a for a, b in zip(off, used, strict=True)]
    low, high = median_interval(more)
    print(describe_machine())
    print("\n| model | images | pairs | CPU s without | with | more | interval | share |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | --- | ---: |")
    what = f"{given.model} | {given.count} | {given.pairs} | {median(off):.2f} | {median(used):.2f}"
    print(f"| {what} | {median(more):.2f} | {low:.2f} to {high:.2f} | {median(more) / median(off):.1%} |")


if __name__ == "__main__":
    main()
