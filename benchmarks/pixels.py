"""Bytes to the model's pixels on one thread: CPU time, and how long Python's lock is held.

    python -m benchmarks.pixels [--rounds 3]

Each variant runs in a process of its own, and all take turns. Another process samples whether the lock is held, by
reading the interpreter's memory (CPython 3.11). Lock time is CPU time times the share of samples with the lock held.
"""

import argparse
import ctypes
import json
import os
import random
import struct
import subprocess
import sys
import threading
import time
from functools import partial
from io import BytesIO
from pathlib import Path
from statistics import median

import numpy as np
from PIL import Image

from batchland.images.loader import decode_image, load_image
from batchland.images.preprocess import PreprocessSpec
from batchland.images.signals import Bytes, measure_samples
from batchland.images.sources.refs import ImageRef
from batchland.system.memory import keep_freed_memory
from benchmarks.machine import RESULTS, describe_machine
from benchmarks.photos import draw_photos, photo_files

VARIANTS = ("Pillow alone", "resize pillow", "resize simd", "resize simd, figures of the picture")
BATCH = 32
"""Pictures whose figures are computed together."""
CASES = (("small", "none", 200), ("2mp", "none", 20), ("2mp", "auto", 20), ("12mp", "none", 6), ("12mp", "auto", 6))
SECONDS = 2.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--work", type=Path, default=Path("build/bench"))
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(*options.one)))
        return
    lines = ["| photos | jpeg_scale | variant | CPU ms | of it with the lock | CPU ms of Pillow alone over it |"]
    lines.append("| --- | --- | --- | ---: | ---: | ---: |")
    for size, scale, count in CASES:
        photos = draw_photos(options.work / "photos", size, count)
        rounds = [[_run(variant, scale, photos) for variant in VARIANTS] for _ in range(options.rounds)]
        for number, variant in enumerate(VARIANTS):
            cpu, lock = (median(found[number][figure] for found in rounds) for figure in (0, 1))
            ratio = median(found[0][0] / found[number][0] for found in rounds)
            lines.append(f"| {size} | {scale} | {variant} | {cpu:.2f} | {lock:.2f} | {ratio:.2f} |")
            print(lines[-1], flush=True)
    head = f"`python -m benchmarks.pixels`: {describe_machine()}; {options.rounds} rounds, medians."
    table = "\n".join(lines)
    (RESULTS / "pixels.md").write_text(f"# Bytes to pixels\n\n{head}\n\n{table}\n")


def _run(variant: str, scale: str, photos: Path) -> tuple[float, float]:
    command = [sys.executable, "-m", "benchmarks.pixels", "--one", variant, scale, str(photos)]
    cpu, lock = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    return cpu, lock


def measure(variant: str, scale: str, folder: str) -> tuple[float, float]:
    """CPU milliseconds of an image, and how many of them with the lock."""
    spec = PreprocessSpec(jpeg_scale=scale, resize="simd" if "simd" in variant else "pillow")  # type: ignore[arg-type]
    refs = [ImageRef(str(path), os.fsencode(path)) for path in photo_files(Path(folder))]
    buffer = np.empty(spec.shape, np.uint8)
    keep_freed_memory()
    samples: list[Bytes] = []

    def by_pillow(ref: ImageRef) -> None:
        with Image.open(BytesIO(Path(os.fsdecode(ref.path)).read_bytes())) as image:
            if scale == "auto":
                image.draft("RGB", (2 * spec.width, 2 * spec.height))
            buffer[...] = np.asarray(image.convert("RGB").resize((spec.width, spec.height), Image.Resampling.BILINEAR))

    def by_batchland(ref: ImageRef) -> None:
        outcome, pixels = load_image(ref, spec, partial(decode_image, signals="figures" in variant))
        buffer[...] = pixels
        if outcome.sample is not None:
            samples.append(outcome.sample)
            if len(samples) == BATCH:
                measure_samples(np.stack(samples))
                samples.clear()

    work = by_pillow if variant == "Pillow alone" else by_batchland
    for ref in refs[:5]:
        work(ref)
    stop = threading.Event()
    cpu: list[float] = []

    def run() -> None:
        begin, images = time.thread_time(), 0
        while not stop.is_set():
            work(refs[images % len(refs)])
            images += 1
        cpu.append((time.thread_time() - begin) / images * 1e3)

    thread = threading.Thread(target=run)
    thread.start()
    held = _share_held()
    stop.set()
    thread.join()
    return cpu[0], cpu[0] * held


SAMPLER = """
import os, random, sys, time
process, address = int(sys.argv[1]), int(sys.argv[2])
memory = os.open(f"/proc/{process}/mem", os.O_RDONLY)
samples = held = 0
end = time.monotonic() + float(sys.argv[3])
while time.monotonic() < end:
    time.sleep(random.random() * 4e-4)
    samples += 1
    held += any(os.pread(memory, 4, address))
print(held / samples)
"""


def _share_held() -> float:
    """Share of the next seconds in which a thread of this process holds the lock; this one waits meanwhile."""
    runtime = ctypes.addressof(ctypes.c_char.in_dll(ctypes.pythonapi, "_PyRuntime"))
    interval, mark = sys.getswitchinterval(), random.randrange(4000, 5000)
    sys.setswitchinterval((mark + 0.5) / 1e6)  # rounded down
    # It is the first field of the lock; the third says whether the lock is held.
    at = ctypes.string_at(runtime, 4096).find(struct.pack("<Q", mark))
    sys.setswitchinterval(interval)
    if at < 0:
        return float("nan")
    command = [sys.executable, "-c", SAMPLER, str(os.getpid()), str(runtime + at + 16), str(SECONDS)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


if __name__ == "__main__":
    main()
