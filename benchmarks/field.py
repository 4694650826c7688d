"""Compare batchland with other tools, on the same photos with the same network.

    python -m benchmarks.field --model scratch --count 400 --kills 2
    python -m benchmarks.field --images photos/ --python ultralytics=/venvs/yolo/bin/python

One photo of a hundred is broken (cut off, empty, text, or damaged). Each peer (benchmarks/field_peers.py) runs in a
process of its own, first undisturbed. Then it is killed, with all processes that it has started, and started again
`--kills` times, when it has used equal shares of the CPU time of the undisturbed run, and is then left to end. If it
stops at a broken file, that is its result on this delivery; it runs again without the broken files, as its user would
do, and the table has both. A peer that is not installed is skipped.

CPU seconds and memory are those of all processes of a peer. Memory is proportional (PSS): a page that several processes
share is counted once.
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
    """Broken files with an answer, which must be wrong."""
    undisturbed: float
    """CPU seconds of a run that is not killed."""
    wall: float
    cpu: float
    peak_mb: float
    problem: str
    load: float
    """Of the machine, at the end."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="scratch", choices=("scratch", "transfer"))
    parser.add_argument("--images", type=Path, help="a folder of photos; default: drawn ones of 500 x 375")
    parser.add_argument("--count", type=int, default=400, help="of them, evenly over the folder")
    parser.add_argument("--kills", type=int, default=2)
    tools = ("batchland", *PACKAGES)
    parser.add_argument("--peers", nargs="+", default=tools, choices=tools, help="ratios are to the first of them")
    parser.add_argument("--python", action="append", default=[], metavar="PEER=PATH", help="a peer's interpreter")
    parser.add_argument("--work", type=Path, default=Path("build/bench"))
    options = parser.parse_args()
    model = find_model(options.model, options.work)
    images = options.images or draw_photos(options.work / "photos", "small", options.count)
    whole, good = make_delivery(images, options.count, options.work)
    options.total = len(photo_files(good))
    pythons = dict(text.split("=", 1) for text in options.python)
    lines = []
    fewest = 0.0
    """CPU seconds of the first run."""
    for peer in options.peers:
        python = pythons.get(peer, sys.executable)
        if (
            peer != "batchland"
            and subprocess.run([python, "-c", f"import {PACKAGES[peer]}"], capture_output=True).returncode
        ):
            print(f"{peer}: skipped, {PACKAGES[peer]} is not installed for {python}", file=sys.stderr)
            lines.append(f"| {peer} | not installed | | | | | | | | |")
            continue
        for folder, name in ((whole, peer), (good, f"{peer}, broken files removed")):
            run = run_peer(peer, python, folder, model, options)
            fewest = fewest or run.cpu
            lines.append(_line(name, run, options.total, run.cpu / fewest))
            print(lines[-1], flush=True)
            if run.ended_well:
                break
    text = _report(options, lines)
    source = "-" + options.images.name if options.images else ""
    (RESULTS / f"field-{options.model}{source}.md").write_text(text)
    print(text)


def make_delivery(photos: Path, count: int, work: Path) -> tuple[Path, Path]:
    """Two folders: `count` of the photos with every hundredth broken, and the good ones of them alone."""
    whole, good = work / "delivery", work / "delivery-good"
    for folder in (whole, good):
        shutil.rmtree(folder, ignore_errors=True)
    found = photo_files(photos)
    count = min(count, len(found))
    for number, photo in enumerate(found[each * len(found) // count] for each in range(count)):
        data = photo.read_bytes()
        damage = (data[: len(data) // 3], b"", b"<html>not found</html>", data[:99] + bytes(500) + data[600:])
        broken = number % 100 == 20
        for folder in (whole,) if broken else (whole, good):
            path = folder / "photos" / f"{'broken-' if broken else ''}{number:05}{photo.suffix.lower()}"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(damage[number // 100 % 4] if broken else data)
    return whole, good


def run_peer(peer: str, python: str, images: Path, model: Path, options: argparse.Namespace) -> Run:
    out = options.work / f"field-{peer}.{'parquet' if peer == 'batchland' else 'csv'}"
    command = [python, "-m", "benchmarks.field_peers", peer, str(images), str(model), str(out)]
    if peer == "batchland":
        command = [python, "-m", "batchland", "score", str(images), "-m", str(model), "-o", str(out), "--device", "cpu"]
    _clean(out)
    attempts = [_attempt(command)]
    whole = attempts[0].cpu
    if options.kills and attempts[0].status == 0:
        _clean(out)
        attempts = []
        for limit in (*(whole * (number + 1) / (options.kills + 1) for number in range(options.kills)), None):
            attempts.append(_attempt(command, limit))
            if attempts[-1].status == 0:  # it took less than the undisturbed run
                break
    last = attempts[-1]
    return Run(
        last.status == 0,
        *_count(out),
        whole,
        sum(attempt.wall for attempt in attempts),
        sum(attempt.cpu for attempt in attempts),
        max(attempt.peak_mb for attempt in attempts),
        "" if last.status == 0 else last.problem,
        os.getloadavg()[0],
    )


class _Attempt(NamedTuple):
    wall: float
    cpu: float
    peak_mb: float
    """Of all its processes together."""
    status: int
    problem: str
    """The last line that it wrote."""


def _attempt(command: list[str], most_cpu: float | None = None) -> _Attempt:
    """Run a process; kill it and all that it started when they have used so many CPU seconds, or after TIMEOUT."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    begin = time.perf_counter()
    with tempfile.TemporaryFile("w+", errors="replace") as log:
        mark = f"BENCH_FIELD={os.getpid()}-{begin}"
        environment |= [mark.split("=")]
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment, start_new_session=True)
        ended = threading.Event()
        cpu: dict[int, float] = {}
        """CPU seconds by process."""
        peak = 0.0

        def watch() -> None:
            nonlocal peak
            while not ended.wait(0.2):
                numbers = _marked(mark)
                cpu.update((number, used) for number in numbers if (used := _cpu_seconds(number)))
                peak = max(peak, sum(map(_memory_mb, numbers)))
                if sum(cpu.values()) > (most_cpu or float("inf")) or time.perf_counter() - begin > TIMEOUT:
                    _kill(mark)
                    return

        watcher = threading.Thread(target=watch)
        watcher.start()
        _, status, usage = os.wait4(process.pid, 0)
        ended.set()
        watcher.join()
        wall = time.perf_counter() - begin
        _kill(mark)
        log.seek(0)
        lines = log.read().strip().splitlines()
    total = max(sum(cpu.values()), usage.ru_utime + usage.ru_stime)
    return _Attempt(wall, total, peak, status, lines[-1][:100] if lines else "")


def _marked(mark: str) -> list[int]:
    """The running processes with this variable in their environment, which children inherit."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            if mark.encode() in path.read_bytes().split(b"\0"):
                found.append(int(path.parent.name))
    return found


def _kill(mark: str) -> None:
    while numbers := _marked(mark):
        for number in numbers:
            with contextlib.suppress(ProcessLookupError):
                os.kill(number, signal.SIGKILL)
        time.sleep(0.05)


def _cpu_seconds(number: int) -> float:
    """CPU seconds of one process so far; 0 if it has ended."""
    with contextlib.suppress(OSError):
        fields = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()
        return sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")
    return 0.0


def _memory_mb(number: int) -> float:
    """Its memory; 0 if it has ended."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{number}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) / 1024
    return 0.0


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


def _line(name: str, run: Run, total: int, ratio: float) -> str:
    result = "ended" if run.ended_well else f"stopped: {run.problem}".replace("|", "/")
    return (
        f"| {name} | {result} | {run.rows} | {total - run.rows} | {run.invented} | {run.undisturbed:.1f} "
        f"| {run.cpu:.1f} | {ratio:.2f} | {run.peak_mb:.0f} | {run.wall:.0f} | {run.load:.0f} |"
    )


def _report(options: argparse.Namespace, lines: list[str]) -> str:
    hidden = [value for value in sys.argv[1:] if "=" in value or value == "--python"]
    hidden += [str(options.work), "--work", str(options.images), "--images"]
    given = " ".join(arg for arg in sys.argv[1:] if arg not in hidden)
    when = datetime.now(UTC).isoformat(" ", "minutes")
    photos = f"{options.images.name}, real photos" if options.images else "drawn photos of 500 x 375"
    return f"""# The field: {photos}, with {options.model}, {when}

`python -m benchmarks.field {given}`: {describe_machine()}.
{options.total} good photos, and a broken file for each hundred begun. Each tool was killed and started again
{options.kills} times. CPU seconds include start-up and all attempts; the ratio is to {options.peers[0]}'s.
Memory is the peak of all processes together. A tool that stops at a broken file was not killed. If other programs were
running, wall seconds say little; the load beside them is the machine's at the end.

| tool | result | good photos with an answer | lost | broken files with an answer | CPU s, not killed \
| CPU s, killed | ratio | peak MB | wall s | load |
| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |
{chr(10).join(lines)}
"""


if __name__ == "__main__":
    main()
