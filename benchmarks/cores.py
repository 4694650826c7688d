"""How many images/s are scored if decoding has many cores and the model answers at once.

    python -m benchmarks.cores                                      on a machine with many cores
    python -m benchmarks.cores --sleep 2.0 --lock 0.0 --workers 16  decoders that sleep, on any machine

Each way is a whole `score` of the photos in a process of its own, with one process that decodes or with several. The
model is a stub. For comparison, Pillow alone decodes and resizes the same photos in a pool of threads.

With --sleep an image is neither read nor decoded: its decoder holds Python's lock for --lock milliseconds, and sleeps
for the rest of --sleep, which is what it would take. What is left is all else that a run does for an image in Python:
list, hand out, exchange between processes, make rows, write. All figures are from a quarter of the images on, so
without start-up.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from PIL import Image

from batchland import ScoreOptions, score
from batchland.images.batch import Loaded, measured
from batchland.images.crash_guard import CrashGuard
from batchland.images.decoding_processes import automatic_processes
from batchland.images.loader import decode_image, load_image
from batchland.images.preprocess import PreprocessSpec
from batchland.images.sources.refs import ImageRef
from batchland.models.contract import Answer
from batchland.models.session import Session
from batchland.scoring.engines import local
from batchland.system.cores import usable_cores
from benchmarks.machine import RESULTS, describe_machine
from benchmarks.memory import links
from benchmarks.models import find_model
from benchmarks.photos import photo_files

_POOL = -1
"""Instead of a number of processes: Pillow in a pool of threads."""


class SleepyGuard(CrashGuard):
    """Every image gets the outcome and pixels of the first one, after BENCH_SLEEP milliseconds."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._lock_seconds = float(os.environ["BENCH_LOCK"]) / 1e3
        self._sleep_seconds = float(os.environ["BENCH_SLEEP"]) / 1e3 - self._lock_seconds
        self._first: Loaded | None = None

    def load(self, ref: ImageRef, spec: PreprocessSpec) -> Loaded:
        if self._first is None:
            outcome, pixels = load_image(ref, spec, partial(decode_image, signals=True))
            self._first = measured([outcome])[0], pixels
        end = time.thread_time() + self._lock_seconds
        while time.thread_time() < end:
            pass
        time.sleep(self._sleep_seconds)
        return self._first


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cores = usable_cores()
    parser.add_argument("--processes", type=int, nargs="+", default=sorted({0, 1, automatic_processes(cores)}))
    parser.add_argument("--workers", type=int, default=cores, help="decoding threads, of all processes together")
    parser.add_argument("--sleep", type=float, help="milliseconds that decoding an image takes; default: it is decoded")
    parser.add_argument("--lock", type=float, default=0.0, help="milliseconds of it with Python's lock")
    parser.add_argument("--count", type=int, default=40_000, help="photos of 500 x 375")
    parser.add_argument("--work", type=Path, default=Path("build/bench"))
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one is not None:
        print(json.dumps(measure(options.one, options)))
        return
    find_model("scratch", options.work)
    links(options.work, options.count)
    command = [sys.executable, "-m", "benchmarks.cores", *sys.argv[1:], "--one"]
    lines = ["| processes that decode | images/s | CPU ms an image in the main process |", "| ---: | ---: | ---: |"]
    for count in [*options.processes, *([] if options.sleep else [_POOL])]:
        done = subprocess.run([*command, str(count)], stdout=subprocess.PIPE, text=True, check=True)
        rate, cpu = json.loads(done.stdout)
        name = {0: "threads only", _POOL: "Pillow alone, in threads"}.get(count, count)
        lines.append(f"| {name} | {rate:,.0f} | {cpu:.3f} |")
        print(lines[-1], flush=True)
    head = f"`python -m benchmarks.cores {' '.join(sys.argv[1:])}`, {datetime.now(UTC):%Y-%m-%d}: {describe_machine()}."
    with (RESULTS / "cores.md").open("a") as file:
        file.write("\n".join(["", head, "", *lines, ""]))


def measure(processes: int, options: argparse.Namespace) -> tuple[float, float]:
    """Images/s, and CPU milliseconds of an image in this process."""
    if processes == _POOL:
        return _measure_pool(links(options.work, options.count), options.workers)
    times: list[tuple[int, float, float]] = []
    guard: type[CrashGuard] = CrashGuard
    if options.sleep is not None:
        guard = import_module("benchmarks.cores").SleepyGuard  # other processes cannot import that of __main__
        os.environ |= {"BENCH_SLEEP": str(options.sleep), "BENCH_LOCK": str(options.lock)}
    with (
        tempfile.TemporaryDirectory() as out,
        mock.patch.object(local, "CrashGuard", guard),
        mock.patch.object(Session, "answer", lambda self, pixels, jpegs: _answer(len(pixels))),  # noqa: ARG005
    ):
        score(
            links(options.work, options.count),
            Path(out, "predictions"),
            ScoreOptions(
                model=find_model("scratch", options.work),
                device="cpu",
                num_workers=options.workers,
                decode_processes=processes,
            ),
            on_progress=lambda progress: times.append((progress.done, time.perf_counter(), time.process_time())),
        )
    return _rate(times, options.count)


def _measure_pool(photos: Path, workers: int) -> tuple[float, float]:
    spec = PreprocessSpec()
    times = []
    with ThreadPoolExecutor(workers) as pool:
        for done, _ in enumerate(pool.map(partial(_by_pillow, spec=spec), photo_files(photos)), 1):
            times.append((done, time.perf_counter(), time.process_time()))
    return _rate(times, len(times))


def _by_pillow(path: Path, spec: PreprocessSpec) -> None:
    with Image.open(path) as image:
        np.asarray(image.convert("RGB").resize((spec.width, spec.height), Image.Resampling.BILINEAR))


def _rate(times: list[tuple[int, float, float]], count: int) -> tuple[float, float]:
    """Images/s and CPU ms an image, from a quarter of the images on. times: images done, wall and CPU seconds."""
    quarter = next(each for each in times if each[0] >= count / 4)
    images, seconds, cpu = (last - first for last, first in zip(times[-1], quarter, strict=True))
    return images / seconds, cpu / images * 1e3


def _answer(count: int) -> Answer:
    return Answer(np.full((count, 50), 0.02, np.float32))


if __name__ == "__main__":
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    main()
