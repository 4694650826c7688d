"""The cost of `--engine ray` on one machine: throughput and memory compared with `batchland score` on the same cores.

    python -m benchmarks.ray --model transfer --count 2000

Each way is a separate tree of processes; they take turns, round after round. Whole: images/s of the whole
process. Steady: from the batch that completes a quarter of the images to the last one, so without start-up and without
what was decoded ahead by then. Memory: the largest sum over all processes of their proportional set sizes (PSS, which
counts shared pages once), sampled twice a second.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any
from uuid import uuid4

from benchmarks.machine import RESULTS, describe_machine
from benchmarks.models import find_model
from benchmarks.photos import SIZES, draw_photos

WAYS = {"local": "batchland score", "ray": "batchland score --engine ray"}
FIGURES = {
    "first": ("s to the first batch", ".1f"),
    "whole": ("images/s, whole process", ".1f"),
    "steady": ("images/s, steady", ".1f"),
    "cpu": ("CPU s", ".1f"),
    "peak_mb": ("peak MB, all processes", ".0f"),
    "worker_mb": ("MB of the process that scores, then", ".0f"),
    "processes": ("processes", ".0f"),
}


def main() -> None:
    if sys.argv[1:2] == ["--child"]:
        _score(*sys.argv[2:])
        return
    options = _options()
    model = find_model(options.model, options.work)
    images = options.images or draw_photos(options.work / "photos", options.size, options.count)
    rounds = []
    for number in range(options.rounds):
        rounds.append({way: _run(way, images, model) for way in options.ways})
        print(f"round {number + 1} of {options.rounds} done: {json.dumps(rounds[-1])}", file=sys.stderr, flush=True)
    text = _markdown(options, rounds)
    print(text)
    (RESULTS / "ray.md").write_text(text)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="transfer", help="scratch, transfer (both with random weights) or a file")
    parser.add_argument("--images", type=Path, help="a folder of photos; default: drawn ones")
    parser.add_argument("--size", choices=SIZES, default="small", help="of the drawn photos")
    parser.add_argument("--count", type=int, default=2000, help="of the drawn photos")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--note", help="a sentence about the circumstances, for the result's first lines")
    parser.add_argument("--work", type=Path, default=Path("build/bench"), help="where photos and models are kept")
    return parser.parse_args()


def _score(way: str, images: str, model: str, out: str) -> None:
    """The child: score, and print when which image was done, in seconds since the start of the process."""
    begin = float(os.environ["BENCH_BEGIN"])
    from batchland import ScoreOptions, score

    times: list[tuple[int, float]] = []
    score(
        images,
        out,
        ScoreOptions(model=Path(model), device="cpu", engine=way, overwrite=True),
        on_progress=lambda progress: times.append((progress.done, time.time() - begin)),
    )
    print(json.dumps(times))


def _run(way: str, images: Path, model: Path) -> dict[str, Any]:
    mark = f"BENCH_TREE={uuid4()}"
    with tempfile.TemporaryDirectory() as folder:
        begin = time.time()
        process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.ray", "--child", way, str(images), str(model), f"{folder}/p.parquet"],
            stdout=subprocess.PIPE,
            env=os.environ | {"BENCH_BEGIN": str(begin)} | dict([mark.split("=")]),
            text=True,
        )
        at_peak: list[tuple[str, float]] = []
        processes, ticks = 0, Counter[str]()
        while process.poll() is None:
            tree = _tree(mark.encode())
            memory = {pid: _pss_mb(pid) for pid in tree}
            if sum(memory.values()) > sum(each for _, each in at_peak):
                at_peak = [(_name(pid), each) for pid, each in memory.items()]
            processes = max(processes, len(tree))
            ticks |= {pid: _cpu_ticks(pid) for pid in tree}  # the larger: a process that has ended has 0
            time.sleep(0.5)
        wall = time.time() - begin
        times = json.loads(process.communicate()[0].splitlines()[-1])
    if process.returncode:
        raise SystemExit(f"{way} failed")
    total, last = times[-1]
    quarter = next(each for each in times if each[0] >= total / 4)
    return {
        "first": times[0][1],
        "whole": total / wall,
        "steady": (total - quarter[0]) / (last - quarter[1]),
        "cpu": ticks.total() / os.sysconf("SC_CLK_TCK"),
        "peak_mb": sum(each for _, each in at_peak),
        "worker_mb": max((each for name, each in at_peak if "PartWorker" in name), default=at_peak[0][1]),
        "processes": processes,
        "at_peak": ", ".join(f"{name} {each:.0f}" for name, each in sorted(at_peak, key=lambda one: -one[1])),
    }


def _tree(mark: bytes) -> list[str]:
    """Processes that have the mark in their environment."""
    return [pid for pid in os.listdir("/proc") if pid.isdigit() and mark in _read(f"/proc/{pid}/environ")]


def _pss_mb(pid: str) -> float:
    for line in _read(f"/proc/{pid}/smaps_rollup").splitlines():
        if line.startswith(b"Pss:"):
            return int(line.split()[1]) / 1024
    return 0.0


def _name(pid: str) -> str:
    """The program of a process, without its arguments."""
    words = _read(f"/proc/{pid}/cmdline").decode(errors="replace").split("\0")
    return "driver" if "benchmarks.ray" in words else words[0].rpartition("/")[2]


def _cpu_ticks(pid: str) -> int:
    """CPU time of a process so far, without its children, in clock ticks."""
    fields = _read(f"/proc/{pid}/stat").rpartition(b")")[2].split()
    return sum(map(int, fields[11:13]))


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError:  # it has ended meanwhile
        return b""


def _markdown(options: argparse.Namespace, rounds: list[dict[str, Any]]) -> str:
    both = len(options.ways) == len(WAYS)
    lines = [
        f"# Ray on one machine: {options.count} images with {options.model}, {datetime.now(UTC):%Y-%m-%d}",
        "",
        f"`python -m benchmarks.ray {' '.join(sys.argv[1:])}`: {len(rounds)} rounds, medians; {describe_machine()}.",
        *([options.note] if options.note else []),
        "",
        f"| | {' | '.join(WAYS[way] for way in options.ways)} |{' ray / local |' if both else ''}",
        f"| --- |{' ---: |' * (len(options.ways) + both)}",
    ]
    for figure, (name, form) in FIGURES.items():
        cells = [f"{median(found[way][figure] for found in rounds):{form}}" for way in options.ways]
        if both:
            cells.append(f"{median(found['ray'][figure] / found['local'][figure] for found in rounds):.2f}")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    lines += ["", *(line for line in (__doc__ or "").strip().splitlines()[4:]), ""]
    lines += [f"MB by process, {way}, last round: {rounds[-1][way]['at_peak']}." for way in options.ways] + [""]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
