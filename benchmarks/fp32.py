"""CPU time of a picture in a bare session on the CPU, in several settings of onnxruntime.

    python -m benchmarks.fp32 --models scratch transfer lite0.onnx --count 64 --rounds 5

Each setting has a session of its own in one process, and all take turns. "As now" is what `score` uses: one thread for
each call, memory arena, no memory pattern, batches of 32. Times are CPU seconds of the whole process, so that other
processes disturb less. Answers are compared with those of "as now".
"""

import argparse
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np

from batchland.images.batch import Batch, Outcome
from batchland.images.preprocess import PreprocessSpec
from batchland.images.sources.refs import ImageRef
from batchland.models.card import ModelCard, class_names
from batchland.models.contract import INPUT_NAME, OUTPUT_NAME
from batchland.models.ort import CPU, ort
from batchland.models.session import open_session
from batchland.predictions.rows import to_rows
from benchmarks.machine import RESULTS, describe_machine
from benchmarks.models import find_model


class Way(NamedTuple):
    batch: int = 32
    calls: int = 2
    threads: int = 1
    arena: bool = True
    pattern: bool = False
    level: str = "ORT_ENABLE_ALL"
    entries: tuple[tuple[str, str], ...] = ()


WAYS = {
    "as now: two calls with a thread each, batch 32": Way(),
    "one call with two threads": Way(calls=1, threads=2),
    "one call at a time": Way(calls=1),
    "batch 8": Way(batch=8),
    "batch 16": Way(batch=16),
    "batch 64": Way(batch=64),
    "no arena": Way(arena=False),
    "memory pattern": Way(pattern=True),
    "no prepacked weights": Way(entries=(("session.disable_prepacking", "1"),)),
    "without layout optimisations": Way(level="ORT_ENABLE_EXTENDED"),
    "denormals as zero": Way(entries=(("session.set_denormal_as_zero", "1"),)),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["scratch", "transfer"])
    parser.add_argument("--count", type=int, default=64, help="pictures in each measurement")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--work", type=Path, default=Path("build/bench"))
    options = parser.parse_args()
    lines = ["| model | setting | CPU ms a picture | time as now / time | largest difference of an answer |"]
    lines.append("| --- | --- | ---: | ---: | ---: |")
    for name in options.models:
        lines += measure(find_model(name, options.work), options)
    lines += ["", *rows_of_a_thousand_classes(options.rounds)]
    head = f"`python -m benchmarks.fp32 {' '.join(sys.argv[1:])}`, {datetime.now(UTC):%Y-%m-%d}: {describe_machine()}."
    note = f"Medians of {options.rounds} rounds in turn."
    text = "\n".join(["# What a bare session in fp32 still gains", "", f"{head} {note}", "", *lines, ""])
    (RESULTS / "fp32.md").write_text(text)


def measure(model: Path, options: argparse.Namespace) -> list[str]:
    spec = open_session(model, "cpu").card.preprocess
    pictures = np.random.default_rng(0).integers(0, 256, (options.count, *spec.shape), np.uint8)
    runs: dict[str, Callable[[], Any]] = {}
    for name in options.ways:
        way = WAYS[name]
        session = _session(model, way)
        runs[name] = lambda way=way, session=session: _answers(session, pictures, way)
    expected = runs[options.ways[0]]()
    differences = {name: float(np.abs(run() - expected).max()) for name, run in runs.items()}
    rounds = [{name: _cpu_ms(run, options.count) for name, run in runs.items()} for _ in range(options.rounds)]
    lines = []
    first = options.ways[0]
    for name in options.ways:
        ratio = median(each[first] / each[name] for each in rounds)
        cpu = median(each[name] for each in rounds)
        lines.append(f"| {model.stem} | {name} | {cpu:.2f} | {ratio:.3f} | {differences[name]:.1g} |")
        print(lines[-1], flush=True)
    return lines


def _session(model: Path, way: Way) -> Any:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.enable_cpu_mem_arena, options.enable_mem_pattern = way.arena, way.pattern
    options.intra_op_num_threads = way.threads
    options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, way.level)
    for key, value in (("session.intra_op.allow_spinning", "0"), ("session.x64quantprecision", "1"), *way.entries):
        options.add_session_config_entry(key, value)
    return ort.InferenceSession(str(model), options, providers=[CPU])


def _answers(session: Any, pictures: Any, way: Way) -> Any:
    batches = [pictures[start : start + way.batch] for start in range(0, len(pictures), way.batch)]
    with ThreadPoolExecutor(way.calls) as pool:
        found = list(pool.map(lambda batch: session.run([OUTPUT_NAME], {INPUT_NAME: batch})[0], batches))
    return np.concatenate(found)


def _cpu_ms(run: Callable[[], Any], count: int) -> float:
    begin = time.process_time()
    run()
    return (time.process_time() - begin) / count * 1e3


def rows_of_a_thousand_classes(rounds: int) -> list[str]:
    """CPU time of the rows of a batch."""
    lines = ["| classes | CPU ms of an image's row |", "| ---: | ---: |"]
    for classes in (50, 1000):
        found = [_row_ms(classes) for _ in range(rounds + 1)]
        lines.append(f"| {classes} | {median(found[1:]):.3f} |")
        print(lines[-1], flush=True)
    return lines


def _row_ms(classes: int) -> float:
    card = ModelCard(
        name="x",
        architecture="scratch",
        classes=class_names([f"{number:04}" for number in range(classes)]),
        preprocess=PreprocessSpec(),
        created_at="2026-11-24T00:00:00Z",
    )
    logits = np.random.default_rng(0).normal(0, 3, (32, classes)).astype(np.float32)
    answers = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    refs = [ImageRef(f"photos/{number:06}.jpg", b"x") for number in range(32)]
    outcomes = [Outcome(500, 375, 110_000, 1_700_000_000_000_000, "0" * 64) for _ in refs]
    batch = Batch(refs, np.zeros((32, 1, 1, 3), np.uint8), outcomes)
    return _cpu_ms(lambda: [to_rows(batch, answers, card, 5) for _ in range(10)], 320)


if __name__ == "__main__":
    main()
