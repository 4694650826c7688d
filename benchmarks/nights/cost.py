"""CPU time that the monitor adds to a night: `python -m benchmarks.nights.cost MODEL.onnx`, with the options below.

Whole processes of `batchland run` with and without monitor, canaries and figures of pictures, in turn, on one core. The
reference has copies of one night with other hashes, its images drawn again by chance.
"""

import argparse
import os
import resource
import shutil
import statistics
import subprocess
import sys
from datetime import date, timedelta
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.photos import draw_photos

_NAMES: Final = ("without", "with")
_FIRST: Final = date(2026, 1, 1)
_JOB: Final = """images = "{photos}"
model = "{model}"
output = "out-{name}"
device = "cpu"
signals = {on}
[monitor]
action = "{action}"
canaries = {on}
"""


def main() -> None:
    """Print a line for each pair, and the medians."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path, help="an ONNX file with canaries")
    parser.add_argument("--images", type=int, default=150, help="images of a night")
    parser.add_argument("--nights", type=int, default=60, help="nights of the reference")
    parser.add_argument("--pairs", type=int, default=8)
    parser.add_argument("--work", type=Path, default=Path("build/nights/cost"), help="folder of photos and jobs")
    options = parser.parse_args()
    photos = draw_photos(options.work.resolve(), "small", options.images)
    folder = options.work.resolve() / "jobs"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for name, on, action in (("with", "true", "fail"), ("without", "false", "off")):
        text = _JOB.format(photos=photos, model=options.model.resolve(), name=name, on=on, action=action)
        (folder / f"{name}.toml").write_text(text)
        _run(folder, name, _FIRST)
        _repeat(folder / "runs" / name, options.nights)
    tonight = _FIRST + timedelta(days=options.nights)
    for name in _NAMES:  # the reference is fitted once, files are read into memory
        _run(folder, name, tonight)
    costs = []
    for pair in range(options.pairs):
        for name in _NAMES[:: 1 if pair % 2 else -1]:
            shutil.rmtree(folder / "runs" / name / str(tonight))
            shutil.rmtree(folder / f"out-{name}" / f"date={tonight}")
            costs.append((name, _run(folder, name, tonight)))
        without, monitored = (next(cost for name, cost in costs[-2:] if name == wanted) for wanted in _NAMES)
        print(f"{without:.2f} s without, {monitored:.2f} s with: {monitored / without - 1:+.1%}", flush=True)
    without, monitored = (statistics.median(cost for name, cost in costs if name == wanted) for wanted in _NAMES)
    print(f"medians: {without:.2f} s without, {monitored:.2f} s with: {monitored / without - 1:+.1%}")


def _run(folder: Path, name: str, night: date) -> float:
    """CPU seconds of one night."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = ["taskset", "-c", str(min(os.sched_getaffinity(0))), sys.executable, "-m", "batchland", "--quiet", "run"]
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "1"}
    subprocess.run(
        [*command, f"{name}.toml", "--date", str(night)],
        cwd=folder,
        env=environment,
        stdout=subprocess.DEVNULL,
        check=True,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _repeat(runs: Path, nights: int) -> None:
    """Make the following nights of the first one."""
    rng = np.random.default_rng(1)
    record = (runs / str(_FIRST) / "run.json").read_text()
    figures = list((runs / str(_FIRST) / "monitor").glob("*.parquet"))
    for number in range(1, nights):
        night = str(_FIRST + timedelta(days=number))
        (runs / night / "monitor").mkdir(parents=True)
        (runs / night / "run.json").write_text(record.replace(str(_FIRST), night))
        for path in figures:
            rows = pq.read_table(path)
            rows = rows.take(pa.array(rng.integers(0, len(rows), len(rows))))
            column = rows.column_names.index("difference_hash")
            hashes = pa.array(rng.integers(0, 2**64, len(rows), np.uint64))
            pq.write_table(rows.set_column(column, rows.field(column), hashes), runs / night / "monitor" / path.name)


if __name__ == "__main__":
    main()
