"""Does scoring slow down, or take more memory, with the number of images? `python -m benchmarks.memory`

Hard links of a few hundred photos, in folders of a thousand, one run of `batchland score` for each number of photos.
"""

import argparse
import os
import shutil
import sys
from pathlib import Path

from benchmarks.machine import RESULTS, describe_machine, timed
from benchmarks.models import find_model
from benchmarks.photos import draw_photos


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="scratch", help="scratch, transfer (both with random weights) or a file")
    parser.add_argument("--counts", type=int, nargs="+", default=[1_000, 10_000, 100_000])
    parser.add_argument("--work", type=Path, default=Path("build/bench"), help="where photos and models are kept")
    options = parser.parse_args()
    model = find_model(options.model, options.work)
    rows, first = [], 0.0
    for count in options.counts:
        images, out = links(options.work, count), options.work / "memory.parquet"
        command = [sys.executable, "-m", "batchland", "score", str(images), "--model", str(model), "--out", str(out)]
        run = timed([*command, "--device", "cpu", "--overwrite"])
        shutil.rmtree(images)
        first = first or run["peak_mb"]
        rows.append(
            f"| {count:,} | {run['peak_mb']:.1f} | {run['peak_mb'] / first - 1:+.1%} | {run['wall']:.1f} "
            f"| {run['cpu']:.1f} | {count / run['wall']:.1f} | {1000 * run['cpu'] / count:.2f} |"
        )
        print(rows[-1], flush=True)
    text = "\n".join([
        "# Memory and speed of scoring, by number of images", "",
        f"`python -m benchmarks.memory {' '.join(sys.argv[1:])}`: {describe_machine()}", "",
        "| images | peak MB | against the first | wall s | CPU s | images/s | CPU ms per image |",
        "| ---: | ---: | ---: | ---: | ---: | ---: | ---: |", *rows, "",
        "Whole processes, start-up included. Rows gather until a part of 8,192 is full.", "",
    ])  # fmt: skip
    (RESULTS / "memory.md").write_text(text)


def links(work: Path, count: int) -> Path:
    """A folder with this number of hard links of 1,000 photos."""
    photos = sorted(draw_photos(work / "photos", "small", 1000).rglob("*.jpg"))
    folder = work / f"links-{count}"
    if folder.exists():
        return folder
    temporary = folder.with_name(f".{folder.name}.new")
    shutil.rmtree(temporary, ignore_errors=True)
    for number in range(count):
        path = temporary / f"{number // 1000:04}" / f"{number:07}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        os.link(photos[number % len(photos)], path)
    temporary.rename(folder)
    return folder


if __name__ == "__main__":
    main()
