"""Parts per second and memory of the driver of `--engine ray`, with stub workers.

    python -m benchmarks.driver --images 10000000 --part-size 8192          # ranges of a plan, which workers read
    python -m benchmarks.driver --images 10000000 --part-size 128
    python -m benchmarks.driver --images 2000000 --part-size 8192 --listed  # names listed by the driver

The driver is the real one: it hands out parts, takes their summaries, counts and keeps the digests. A stub actor stands
for several nodes: it takes a part, and returns its summary without reading or writing anything. With `--listed` the
driver also makes the names and sends them, as it does without a plan. Memory is that of the driver's process.
"""

import argparse
import hashlib
import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from batchland.images.sources.refs import ImageRef
from batchland.predictions.parts import PartSpec, PartSummary, names_digest
from batchland.predictions.storage import open_output
from batchland.predictions.writer import PredictionSink, cut
from batchland.scoring.engines.engine import Part, ScoredPart, Work
from batchland.scoring.engines.ray.environment import prepare_import
from batchland.scoring.plan.read import PlannedImages, PlannedRange
from benchmarks.plans import key


class StubWorker:
    """Takes parts and returns summaries."""

    def join(self, *given: object) -> str:  # noqa: ARG002
        """See `PartWorker.join`."""
        import ray

        return str(ray.get_runtime_context().get_node_id())

    def score(self, part: Part) -> ScoredPart:
        """A summary of as many rows as the part has entries."""
        rows = len(part.entries)  # type: ignore[arg-type]
        names = b"" if not isinstance(part.entries, list) else names_digest(entry.name for entry in part.entries)
        digest = hashlib.sha256(str(part.number).encode()).digest()
        return ScoredPart(PartSummary(part.number, rows, {}, names, digest, {}), Work())

    def progress(self) -> tuple[int, int]:
        """See `PartWorker.progress`."""
        return 0, 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=10_000_000)
    parser.add_argument("--part-size", type=int, default=8192)
    parser.add_argument("--workers", type=int, default=4, help="processes that stand for the workers")
    parser.add_argument("--nodes", type=int, default=100, help="workers that they stand for, with two parts each")
    parser.add_argument("--listed", action="store_true", help="the driver lists the names")
    parser.add_argument("--work", type=Path, default=Path("build/bench"))
    options = parser.parse_args()
    prepare_import()
    import ray

    from batchland.scoring.engines.ray.pool import WorkerPool

    ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=256 << 20)
    ahead = 2 * options.nodes // options.workers
    kind = ray.remote(StubWorker).options(num_cpus=0, max_concurrency=ahead)
    pool = WorkerPool(lambda: kind.remote(), options.workers, ahead)
    pool.start(lambda worker: worker.join.remote())
    out = options.work / "driver.parquet"
    spec = PartSpec.of({}, batch_size=1, part_size=options.part_size)
    with PredictionSink(open_output(out.absolute()), spec, restart=True) as sink:
        parts = (Part(number, entries) for number, entries in sink.hand_out(_parts(options)))
        for _ in range(4):  # until all have joined
            time.sleep(1)
        begin, cpu, done, memory = time.perf_counter(), time.process_time(), 0, [_memory_mb()]
        results = pool.run(parts, lambda worker, part: worker.score.remote(part), lambda part, alive: part)  # noqa: ARG005
        for scored in results:
            if scored is not None:
                sink.add(scored.summary)
                done += 1
                if done % 1000 == 0:
                    memory.append(_memory_mb())
        wall, cpu = time.perf_counter() - begin, time.process_time() - cpu
        survey = sink.survey()
        memory.append(_memory_mb())
    assert survey.counts.listed == options.images
    print("| images | a part | parts | wall s | parts/s | driver's CPU s | parts/s of CPU | MB before | after | most |")
    print("|" + " ---: |" * 10)
    print(
        f"| {options.images:,} | {options.part_size} | {done:,} | {wall:.1f} | {done / wall:,.0f} | {cpu:.1f} "
        f"| {done / cpu:,.0f} | {memory[0]:.0f} | {memory[-1]:.0f} | {max(memory):.0f} |"
    )
    ray.shutdown()


def _parts(options: argparse.Namespace) -> Iterator[Iterable[Any]]:
    if options.listed:
        return map(list, cut((ImageRef(key(number), b"") for number in range(options.images)), options.part_size))
    plan = PlannedImages(options.work / "plan", "0" * 64, "/photos", private_hosts=False)  # which the stubs do not open
    starts = range(0, options.images, options.part_size)
    return (PlannedRange(plan, first, min(first + options.part_size, options.images)) for first in starts)


def _memory_mb() -> float:
    """Resident memory of this process now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


if __name__ == "__main__":
    main()
