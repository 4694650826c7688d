"""Compare batchland with other tools, on the same photos with the same network.

    python -m benchmarks.field --model scratch --count 400 --kills 2
    python -m benchmarks.field --python ultralytics=/venvs/yolo/bin/python --python daft=/venvs/daft/bin/python

One photo of a hundred is broken (cut off, empty, text, or damaged). Each peer (benchmarks/field_peers.py) runs in a
process of its own, is killed and started again `--kills` times, when it has used equal shares of the CPU time of an
undisturbed run, and is then left to end. If it stops at a broken file, that is its result on this delivery; it runs
again without the broken files, as its user would do, and the table has both. A peer that is not installed is skipped.
"""

import argparse
import contextlib
import csv
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from benchmarks.machine import RESULTS, describe_machine
from benchmarks.models import find_model
from benchmarks.photos import draw_photos, photo_files

PACKAGES = {
    "walkthrough": "torchvision", "timm": "timm", "huggingface": "transformers", "ultralytics": "ultralytics",
    "daft": "daft", "ray": "ray",
}  # fmt: skip
TIMEOUT = 1800.0
"""Seconds."""


class Run(NamedTuple):
    """All attempts of one peer on one folder."""

    ended_well: bool
    rows: int
    """Photos with an answer under their name."""
    invented: int
    """Broken files with an answer: it is another photo's, or made of nothing."""
    wall: float
    cpu: float
    peak_mb: float
    problem: str


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="scratch", choices=("scratch", "transfer"))
    parser.add_argument("--count", type=int, default=400, help="photos, drawn ones of 500 x 375")
    parser.add_argument("--kills", type=int, default=2)
    parser.add_argument("--peers", nargs="+", default=list(PACKAGES), choices=PACKAGES)
    parser.add_argument("--python", action="append", default=[], metavar="PEER=PATH", help="a peer's interpreter")
    parser.add_argument("--work", type=Path, default=Path("build/bench"))
    options = parser.parse_args()
    model = find_model(options.model, options.work)
    whole, good = make_delivery(draw_photos(options.work / "photos", "small", options.count), options.work)
    pythons = dict(text.split("=", 1) for text in options.python)
    lines = []
    for peer in ("batchland", *options.peers):
        python = pythons.get(peer, sys.executable)
        if (
            peer != "batchland"
            and subprocess.run([python, "-c", f"import {PACKAGES[peer]}"], capture_output=True).returncode
        ):
            print(f"{peer}: skipped, {PACKAGES[peer]} is not installed for {python}", file=sys.stderr)
            lines.append(f"| {peer} | not installed | | | | | |")
            continue
        for folder, name in ((whole, peer), (good, f"{peer}, broken files removed")):
            run = run_peer(peer, python, folder, model, options)
            lines.append(_line(name, run))
            print(lines[-1], flush=True)
            if run.ended_well:
                break
    text = _report(options, lines)
    (RESULTS / f"field-{options.model}.md").write_text(text)
    print(text)


def make_delivery(photos: Path, work: Path) -> tuple[Path, Path]:
    """Two folders: the photos with every hundredth broken, and the good ones of them alone."""
    whole, good = work / "delivery", work / "delivery-good"
    for folder in (whole, good):
        shutil.rmtree(folder, ignore_errors=True)
    for number, photo in enumerate(photo_files(photos)):
        data = photo.read_bytes()
        damage = (data[: len(data) // 3], b"", b"<html>not found</html>", data[:99] + bytes(500) + data[600:])
        broken = number % 100 == 50
        for folder in (whole,) if broken else (whole, good):
            path = folder / "photos" / (f"broken-{photo.name}" if broken else photo.name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(damage[number // 100 % 4] if broken else data)
    return whole, good


def run_peer(peer: str, python: str, images: Path, model: Path, options: argparse.Namespace) -> Run:
    out = options.work / f"field-{peer}.{'parquet' if peer == 'batchland' else 'csv'}"
    command = [python, "-m", "benchmarks.field_peers", peer, str(images), str(model), str(out)]
    if peer == "batchland":
        command = [python, "-m", "batchland", "score", str(images), "-m", str(model), "-o", str(out), "--device", "cpu"]
    whole = 0.0
    if options.kills:
        _clean(out)
        whole = _attempt(command).cpu
    _clean(out)
    attempts: list[_Attempt] = []
    for limit in (*(whole * (number + 1) / (options.kills + 1) for number in range(options.kills)), None):
        attempts.append(_attempt(command, limit))
        if attempts[-1].status == 0:  # it took less than the undisturbed run
            break
    last = attempts[-1]
    return Run(
        last.status == 0,
        *_count(out),
        sum(attempt.wall for attempt in attempts),
        sum(attempt.cpu for attempt in attempts),
        max(attempt.peak_mb for attempt in attempts),
        "" if last.status == 0 else last.problem,
    )


class _Attempt(NamedTuple):
    wall: float
    cpu: float
    peak_mb: float
    """Of the process, or of the largest of its children."""
    status: int
    problem: str
    """The last line that it wrote."""


def _attempt(command: list[str], most_cpu: float | None = None) -> _Attempt:
    """Run a process; kill it and all that it started when they have used so many CPU seconds, or after TIMEOUT."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    begin = time.perf_counter()
    with tempfile.TemporaryFile("w+", errors="replace") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment, start_new_session=True)
        ended = threading.Event()
        cpu = [0.0]

        def watch() -> None:
            while not ended.wait(0.05):
                cpu[0] = max(cpu[0], _cpu_of_session(process.pid))
                if cpu[0] > (most_cpu or float("inf")) or time.perf_counter() - begin > TIMEOUT:
                    os.killpg(process.pid, signal.SIGKILL)
                    return

        watcher = threading.Thread(target=watch)
        watcher.start()
        _, status, usage = os.wait4(process.pid, 0)
        ended.set()
        watcher.join()
        wall = time.perf_counter() - begin
        log.seek(0)
        lines = log.read().strip().splitlines()
    total = max(cpu[0], usage.ru_utime + usage.ru_stime)
    return _Attempt(wall, total, usage.ru_maxrss / 1024, status, lines[-1][:100] if lines else "")


def _cpu_of_session(number: int) -> float:
    """CPU seconds of the processes of a session, and of those that they have waited for."""
    ticks = 0
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = path.read_text().rpartition(")")[2].split()
            if int(fields[3]) == number:
                ticks += sum(map(int, fields[11:15]))
    return ticks / os.sysconf("SC_CLK_TCK")


def _clean(out: Path) -> None:
    for path in out.parent.glob(f"*{out.stem}.*"):
        if path.is_dir():
            shutil.rmtree(path)
        elif path.suffix != ".onnx":
            path.unlink()


def _count(out: Path) -> tuple[int, int]:
    """Photos with an answer, and broken files with one."""
    if not out.exists():
        return 0, 0
    if out.suffix == ".parquet":
        import pyarrow.parquet as pq

        table = pq.read_table(out, columns=["image", "status"]).to_pylist()
        names = {Path(row["image"]).name for row in table if row["status"] == "ok"}
    else:
        with out.open(newline="") as file:
            names = {row[0] for row in csv.reader(file)}
    broken = sum(name.startswith("broken-") for name in names)
    return len(names) - broken, broken


def _line(name: str, run: Run) -> str:
    result = "ended" if run.ended_well else f"stopped: {run.problem}".replace("|", "/")
    return f"| {name} | {result} | {run.rows} | {run.invented} | {run.wall:.1f} | {run.cpu:.1f} | {run.peak_mb:.0f} |"


def _report(options: argparse.Namespace, lines: list[str]) -> str:
    broken = len(range(50, options.count, 100))
    given = " ".join(arg for arg in sys.argv[1:] if "=" not in arg and arg != "--python")
    when = datetime.now(UTC).isoformat(" ", "minutes")
    return f"""# The field: {options.count} photos of 500 x 375 with {options.model}, {when}

`python -m benchmarks.field {given}`: {describe_machine()}.
{broken} of the files are broken, so {options.count - broken} photos can have an answer. Each process was killed and
started again {options.kills} times. Wall and CPU seconds include start-up and all attempts.

| peer | result | photos with an answer | broken files with an answer | wall s | CPU s | peak MB |
| --- | --- | ---: | ---: | ---: | ---: | ---: |
{chr(10).join(lines)}
"""


if __name__ == "__main__":
    main()
