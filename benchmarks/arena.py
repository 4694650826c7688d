"""Memory of scoring on a CPU with and without onnxruntime's memory pattern and arena.

    python -m benchmarks.arena --models scratch transfer --count 200 --rounds 3

Each way is a `score` in a process of its own, from an optimised copy of the model; all take turns.
"""

import argparse
import hashlib
import json
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any
from unittest import mock

import pyarrow.parquet as pq

from batchland import ScoreOptions, score
from batchland.models.ort import ort
from batchland.models.session import open_session
from benchmarks.machine import RESULTS, describe_machine, timed
from benchmarks.models import find_model
from benchmarks.photos import draw_photos

WAYS = {
    "neither": {"enable_cpu_mem_arena": False, "enable_mem_pattern": False},
    "arena alone": {"enable_cpu_mem_arena": True, "enable_mem_pattern": False},
    "pattern alone": {"enable_cpu_mem_arena": False, "enable_mem_pattern": True},
    "arena and pattern": {"enable_cpu_mem_arena": True, "enable_mem_pattern": True},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["scratch", "transfer"])
    parser.add_argument("--count", type=int, default=200, help="photos of 500 x 375")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--work", type=Path, default=Path("build/bench"))
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    photos = draw_photos(options.work / "photos", "small", options.count)
    if options.one:
        print(json.dumps(_score(options.one[0], Path(options.one[1]), photos)))
        return
    lines = ["| model | with | CPU s | wall s | peak MB |", "| --- | --- | ---: | ---: | ---: |"]
    for name in options.models:
        model = find_model(name, options.work)
        open_session(model, "cpu", keep_copy=True)
        rounds = [{way: _run(way, model, sys.argv[1:]) for way in options.ways} for _ in range(options.rounds)]
        answers = {found["answers"] for each in rounds for found in each.values()}
        assert len(answers) == 1, "the answers differ"
        for way in options.ways:
            cpu, wall, peak = (median(each[way][figure] for each in rounds) for figure in ("cpu", "wall", "peak_mb"))
            lines.append(f"| {name} | {way} | {cpu:.2f} | {wall:.2f} | {peak:.0f} |")
            print(lines[-1], flush=True)
    head = f"`python -m benchmarks.arena {' '.join(sys.argv[1:])}`, {datetime.now(UTC):%Y-%m-%d}: {describe_machine()}."
    note = f"Medians of {options.rounds} rounds. The answers are the same bytes."
    (RESULTS / "arena.md").write_text("\n".join(["# onnxruntime's memory on a CPU", "", head, note, "", *lines, ""]))


def _run(way: str, model: Path, arguments: list[str]) -> dict[str, Any]:
    run = timed([sys.executable, "-m", "benchmarks.arena", *arguments, "--one", way, str(model)])
    return {"peak_mb": run["peak_mb"]} | json.loads(run["output"].splitlines()[-1])


def _score(way: str, model: Path, photos: Path) -> dict[str, Any]:
    create = ort.InferenceSession

    def session(content: bytes, options: Any, **further: Any) -> Any:
        for name, value in WAYS[way].items():
            setattr(options, name, value)
        return create(content, options, **further)

    wall, cpu = time.perf_counter(), time.process_time()
    with tempfile.TemporaryDirectory() as folder, mock.patch.object(ort, "InferenceSession", session):
        out = Path(folder, "p.parquet")
        score(photos, out, ScoreOptions(model=model, device="cpu"))
        answers = pq.read_table(out, columns=["label", "probability", "logsumexp"]).to_pylist()
    return {
        "wall": time.perf_counter() - wall,
        "cpu": time.process_time() - cpu,
        "answers": hashlib.sha256(repr(answers).encode()).hexdigest(),
    }


if __name__ == "__main__":
    main()
