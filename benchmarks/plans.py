"""The cost of a plan: list synthetic keys once, write them, and read those of one shard.

    python -m benchmarks.plans --keys 100000000 --shards 1000

The keys come from a generator, in place of a listing or an inventory; so the seconds are those of the plan itself,
without requests. Peak MB is that of the whole process so far.
"""

import argparse
import resource
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from batchland.images.sources.folder import Folder
from batchland.images.sources.refs import Ignored, ImageRef
from batchland.scoring.listing import ImageListing
from batchland.scoring.options import ScoreSettings, Shard
from batchland.scoring.plan.planned_run import shard_range
from batchland.scoring.plan.read import StoredPlan
from batchland.scoring.plan.write import make_plan

ROOT = Path("/photos")


class SyntheticKeys(Folder):
    """A folder that holds any number of images, as far as listing goes."""

    def __init__(self, count: int) -> None:
        super().__init__(ROOT)
        self.count = count

    def images(self, ignored: Ignored) -> Iterator[ImageRef]:  # noqa: ARG002
        """Names like `camera-00012/000123456.jpg`, in order."""
        return (ImageRef(key(number), b"") for number in range(self.count))


def key(number: int) -> str:
    """The name of an image."""
    return f"camera-{number // 10_000:05}/{number:09}.jpg"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keys", type=int, default=10_000_000)
    parser.add_argument("--shards", type=int, default=1000)
    parser.add_argument("--work", type=Path, default=Path("build/bench"))
    options = parser.parse_args()
    out = options.work / f"plan-{options.keys}"
    shutil.rmtree(out, ignore_errors=True)
    begin, cpu = time.perf_counter(), time.process_time()
    plan = make_plan(ImageListing(SyntheticKeys(options.keys), ScoreSettings()), out, parts=options.shards)
    wall, cpu = time.perf_counter() - begin, time.process_time() - cpu
    planned_mb = _peak_mb()
    size = sum(file.bytes for file in plan.lists) / 1e6
    print("| keys | files | MB | wall s | CPU s | keys/s of CPU | peak MB |\n|" + " ---: |" * 7)
    print(
        f"| {options.keys:,} | {len(plan.lists)} | {size:,.0f} | {wall:.1f} | {cpu:.1f} | {options.keys / cpu:,.0f} "
        f"| {planned_mb:.0f} |",
        flush=True,
    )
    begin, cpu = time.perf_counter(), time.process_time()
    stored = StoredPlan(out)
    shard = Shard(index=options.shards // 2, count=options.shards)
    first, stop = shard_range(shard, stored.plan.listed, 8192, 32)
    names = [ref.name for ref in stored.refs(SyntheticKeys(options.keys), first, stop)]
    assert names == [key(number) for number in range(first, stop)]
    print(
        f"\nShard {shard} reads its {len(names):,} images in {time.perf_counter() - begin:.2f} s wall, "
        f"{time.process_time() - cpu:.2f} s CPU; peak {_peak_mb():.0f} MB."
    )


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
