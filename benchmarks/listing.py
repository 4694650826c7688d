"""Listing a local folder of a million names: `python -m benchmarks.listing`. System calls are counted by strace."""

import argparse
import json
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.machine import RESULTS, describe_machine


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=1_000_000)
    parser.add_argument("--work", type=Path, default=Path("build/bench"), help="where the files are made")
    parser.add_argument("--list", type=Path, help="only list this folder, and print what that took as JSON")
    options = parser.parse_args()
    if options.list:
        print(json.dumps(_list(options.list)))
        return
    empty = options.work / "empty"
    empty.mkdir(parents=True, exist_ok=True)
    rows = [f"| nothing: Python's own | 0 | | | | {_system_calls(empty)} |"]
    for title, per_folder in ((f"{options.count // 1000:,} folders of 1,000", 1000), ("one folder", options.count)):
        folder = options.work / "listing"
        _make(folder, options.count, per_folder)
        command = [sys.executable, "-m", "benchmarks.listing", "--list", str(folder)]
        found = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        calls = _system_calls(folder)
        shutil.rmtree(folder)
        rows.append(
            f"| {title} | {found['images']:,} | {found['wall']:.2f} | {found['cpu']:.2f} | {found['grown_mb']:.1f} "
            f"| {calls} |"
        )
        print(rows[-1], flush=True)
    command = f"`python -m benchmarks.listing {' '.join(sys.argv[1:])}`"
    text = "\n".join([
        "# Listing a local folder", "", f"{command}: {describe_machine()}", "",
        "| of empty files | images | wall s | CPU s | memory more, MB | system calls |",
        "| --- | ---: | ---: | ---: | ---: | --- |", *rows, "",
    ])  # fmt: skip
    (RESULTS / "listing.md").write_text(text)


def _make(folder: Path, count: int, per_folder: int) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    for number in range(count):
        if number % per_folder == 0:
            inner = folder / f"{number // per_folder:06}"
            inner.mkdir(parents=True)
        (inner / f"{number:09}.jpg").touch()


def _list(folder: Path) -> dict[str, float]:
    from batchland.images.sources.folder import list_images

    before = resource.getrusage(resource.RUSAGE_SELF)
    begin = time.perf_counter()
    images = sum(1 for _ in list_images(folder))
    wall = time.perf_counter() - begin
    after = resource.getrusage(resource.RUSAGE_SELF)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    grown = (after.ru_maxrss - before.ru_maxrss) / 1024
    return {"images": images, "wall": wall, "cpu": cpu, "grown_mb": grown}


def _system_calls(folder: Path) -> str:
    """How often the process asked for names, and for facts of a file."""
    command = ["strace", "-f", "-c", sys.executable, "-m", "benchmarks.listing", "--list", str(folder)]
    if not shutil.which("strace"):
        return "not counted"
    summary = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    rows = (line.split() for line in summary.splitlines())  # % time, seconds, usecs/call, calls, [errors,] name
    counts = {row[-1]: int(row[3]) for row in rows if len(row) in (5, 6) and row[3].isdigit()}
    stats = sum(number for name, number in counts.items() if "stat" in name)
    return f"getdents64 {counts.get('getdents64', 0):,}, any stat {stats:,}"


if __name__ == "__main__":
    main()
