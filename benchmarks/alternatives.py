"""Measure alternatives of the scoring pipeline: decoders, threads, sessions, buffers.

    python -m benchmarks.alternatives [--rounds 5] [--only decoder ...]

The variants of one experiment take their turns, round after round, in one process. The first is what batchland does.
Tables give the median time per image, and the median over the rounds of its ratio to the first variant's.
"""

import argparse
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from io import BytesIO
from pathlib import Path
from statistics import median

import cv2
import numpy as np
import onnxruntime as ort
from PIL import Image

from batchland.images.loader import BatchLoader
from batchland.images.preprocess import PreprocessSpec, decode, fit, preprocess
from batchland.images.sources.folder import list_images
from batchland.images.sources.refs import ImageFile, ImageRef, LocalFiles
from batchland.system.cores import usable_cores
from benchmarks.machine import RESULTS, describe_machine
from benchmarks.models import find_model
from benchmarks.photos import draw_photos

CORES = usable_cores()
FULL = PreprocessSpec(jpeg_scale="none")
SCALED = PreprocessSpec(jpeg_scale="auto")
Variant = Callable[[], int]
"""Does the work once; returns the number of images."""
Experiment = tuple[str, dict[str, Variant]]


def decoder(work: Path) -> Iterator[Experiment]:
    """Bytes to the model's pixels on one thread."""

    def pillow(data: bytes, draft: bool) -> np.ndarray:
        image = Image.open(BytesIO(data))
        if draft:
            image.draft("RGB", (448, 448))
        return np.asarray(image.convert("RGB").resize((224, 224), Image.Resampling.BILINEAR))

    def opencv(data: bytes, flag: int) -> np.ndarray:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flag)
        return cv2.cvtColor(cv2.resize(pixels, (224, 224), interpolation=cv2.INTER_AREA), cv2.COLOR_BGR2RGB)

    cv2.setNumThreads(1)
    for size, count in (("small", 200), ("12mp", 12)):
        contents = _contents(draw_photos(work / "photos", size, count))
        ways = {
            "simplejpeg, scaled by DCT, Pillow resize": lambda data: preprocess(data, SCALED),
            "simplejpeg, full size, Pillow resize": lambda data: preprocess(data, FULL),
            "Pillow": lambda data: pillow(data, draft=False),
            "Pillow with draft (its DCT scaling)": lambda data: pillow(data, draft=True),
            "OpenCV, INTER_AREA": lambda data: opencv(data, cv2.IMREAD_COLOR),
        }
        if size == "12mp":
            ways["OpenCV, reduced by 4, INTER_AREA"] = lambda data: opencv(data, cv2.IMREAD_REDUCED_COLOR_4)
        variants = {f"{name}{_drift(way, contents)}": partial(_each, way, contents) for name, way in ways.items()}
        yield f"Decode and resize, {size}, one thread", variants


def resize(work: Path) -> Iterator[Experiment]:
    """The resize alone, of photos of 500x375, and of 12 MP after DCT scaling."""
    cv2.setNumThreads(1)
    for size, count in (("small", 200), ("12mp", 12)):
        contents = _contents(draw_photos(work / "photos", size, count))
        pictures = [decode(data, SCALED).pixels for data in contents]
        ways = {
            "Pillow, bilinear with antialias": lambda pixels: fit(pixels, SCALED),
            "OpenCV, INTER_AREA": lambda pixels: cv2.resize(pixels, (224, 224), interpolation=cv2.INTER_AREA),
            "OpenCV, INTER_LINEAR (no antialias)": lambda pixels: cv2.resize(pixels, (224, 224)),
        }
        variants = {
            f"{name}{_levels([way(p) for p in pictures], [fit(p, SCALED) for p in pictures])}":
                partial(_each, way, pictures) for name, way in ways.items()
        }  # fmt: skip
        height, width = pictures[0].shape[:2]
        yield f"Resize alone, from {width}x{height}, one thread", variants


def workers(work: Path) -> Iterator[Experiment]:
    """The GIL: threads in this process, or processes that hand pixels over in shared memory."""
    images = draw_photos(work / "photos", "small", 1000)

    def threads(count: int) -> int:
        return sum(len(batch.refs) for batch in BatchLoader(list_images(images), SCALED, 32, count))

    paths = [ref.path for ref in list_images(images)]
    variants: dict[str, Variant] = {f"{count} threads": partial(threads, count) for count in (CORES, 1, 2 * CORES)}
    variants[f"{CORES} processes, shared memory, pool kept"] = partial(_by_processes, paths)
    yield f"Read, decode and resize 1,000 small photos, {CORES} cores", variants


def session(work: Path) -> Iterator[Experiment]:
    """Calls at once x threads per call; spinning; batch size; IO binding; a session per thread."""
    for name, images in (("scratch", 512), ("transfer", 128)):
        model = find_model(name, work)
        pixels = np.random.default_rng(0).integers(0, 256, (64, 224, 224, 3), np.uint8)
        one, all_cores, spinning, second = (
            _session(model, threads, spins)
            for threads, spins in ((1, False), (CORES, False), (CORES, True), (1, False))
        )
        run = partial(_calls, pixels=pixels, images=images)
        variants: dict[str, Variant] = {
            f"{CORES} calls x 1 thread, batch 32": partial(run, [one], CORES, 32),
            f"1 call x {CORES} threads, batch 32": partial(run, [all_cores], 1, 32),
            f"1 call x {CORES} threads, spinning": partial(run, [spinning], 1, 32),
            f"{CORES} calls x {CORES} threads": partial(run, [all_cores], CORES, 32),
            f"{CORES} calls x 1 thread, two sessions": partial(run, [one, second], CORES, 32),
            f"{CORES} calls x 1 thread, batch 8": partial(run, [one], CORES, 8),
            f"{CORES} calls x 1 thread, batch 64": partial(run, [one], CORES, 64),
            f"{CORES} calls x 1 thread, IO binding": partial(_bound_calls, one, pixels[:32], images),
        }
        yield f"Bare session, {name}, {CORES} cores", variants


def beside(work: Path) -> Iterator[Experiment]:
    """The session's threads beside decoding threads: the whole of `score`, without opening the model."""
    from batchland.scoring.engines.local import LocalEngine
    from batchland.scoring.options import ScoreOptions

    images = draw_photos(work / "photos", "small", 1000)
    model = find_model("scratch", work)

    def score(folder: Path, **options: object) -> int:
        engine = LocalEngine(model, ScoreOptions(model=model, device="cpu", **options))
        with engine:
            return sum(scored.rows.num_rows for scored in engine.score(list_images(images), folder, lambda: None))

    (work / "notes").mkdir(exist_ok=True)
    run = partial(score, work / "notes")
    yield (
        f"Decode and infer together, scratch, 1,000 small photos, {CORES} cores (opening the model included)",
        {
            "default settings": run,
            f"intra_op_threads={CORES}: one call at a time": partial(run, intra_op_threads=CORES),
            "num_workers=1": partial(run, num_workers=1),
            f"num_workers={2 * CORES}": partial(run, num_workers=2 * CORES),
            "batch_size=8": partial(run, batch_size=8),
            "batch_size=128": partial(run, batch_size=128),
            "prefetch_factor=1": partial(run, prefetch_factor=1),
            "prefetch_factor=8": partial(run, prefetch_factor=8),
        },
    )


def buffers(_work: Path) -> Iterator[Experiment]:
    """Put a batch together in a reused buffer, or in a new one each time."""
    pictures = [np.full((224, 224, 3), number, np.uint8) for number in range(32)]
    buffer = np.empty((32, 224, 224, 3), np.uint8)

    def into_buffer() -> int:
        for _ in range(20):
            for number, picture in enumerate(pictures):
                buffer[number] = picture
        return 640

    def stack() -> int:
        for _ in range(20):
            np.stack(pictures)
        return 640

    def floats() -> int:
        for _ in range(20):
            (np.stack(pictures).astype(np.float32) / 255 - 0.5).transpose(0, 3, 1, 2).copy()
        return 640

    yield (
        "Join 32 pictures in a batch",
        {
            "uint8 into the buffer of an earlier batch": into_buffer,
            "np.stack": stack,
            "np.stack, normalised float32 as torchvision gives it": floats,
        },
    )


class _Slow(LocalFiles):
    """A mount with 20 ms to the first byte."""

    def read(self, path: bytes) -> ImageFile:
        time.sleep(0.02)
        return super().read(path)


def waiting(work: Path) -> Iterator[Experiment]:
    """Slow storage, and a disk with a cold cache."""
    images = draw_photos(work / "photos", "small", 1000)
    slow = _Slow()

    def load(count: int | None) -> int:
        refs = (ImageRef(ref.name, ref.path, store=slow) for ref in list_images(images))
        return sum(len(batch.refs) for batch in BatchLoader(refs, SCALED, 32, count))

    yield (
        f"1,000 small photos behind 20 ms of latency, {CORES} cores",
        {
            "threads added as measured": partial(load, None),
            f"{CORES} threads": partial(load, CORES),
            "16 threads": partial(load, 16),
            "64 threads": partial(load, 64),
        },
    )
    distinct = [ref.path for ref in list_images(draw_photos(work / "photos", "12mp", 12))]

    def cold(count: int | None, ahead: bool) -> int:
        for path in distinct:
            _forget(path)
        if ahead:
            for path in distinct:
                descriptor = os.open(path, os.O_RDONLY)
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_WILLNEED)
                os.close(descriptor)
        refs = (ImageRef(os.fsdecode(path), path) for path in distinct)
        return sum(len(batch.refs) for batch in BatchLoader(refs, SCALED, 32, count))

    yield (
        f"12 photos of 12 MP that are not in the page cache, {CORES} cores",
        {
            "as it is": partial(cold, None, ahead=False),
            "with posix_fadvise(WILLNEED) ahead": partial(cold, None, ahead=True),
            "16 threads": partial(cold, 16, ahead=False),
        },
    )


def _forget(path: bytes) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    os.fsync(descriptor)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(descriptor)


def _contents(folder: Path) -> list[bytes]:
    return [Path(os.fsdecode(ref.path)).read_bytes() for ref in list_images(folder)]


def _each(way: Callable[[object], object], items: list[object]) -> int:
    for item in items:
        way(item)
    return len(items)


def _drift(way: Callable[[bytes], np.ndarray], contents: list[bytes]) -> str:
    some = contents[:20]
    return _levels([way(data) for data in some], [preprocess(data, FULL) for data in some])


def _levels(found: list[np.ndarray], wanted: list[np.ndarray]) -> str:
    """How far from the contract's pixels."""
    differences = np.abs(np.array(found, np.int16) - np.array(wanted, np.int16))
    return f" | {differences.mean():.2f} / {differences.max()}"


def _session(model: Path, threads: int, spinning: bool) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "1" if spinning else "0")
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def _calls(sessions: list[ort.InferenceSession], at_once: int, batch: int, pixels: np.ndarray, images: int) -> int:
    calls = images // batch
    with ThreadPoolExecutor(at_once) as pool:
        list(pool.map(lambda n: sessions[n % len(sessions)].run(None, {"images": pixels[:batch]}), range(calls)))
    return calls * batch


def _bound_calls(session: ort.InferenceSession, pixels: np.ndarray, images: int) -> int:
    def call(_: int) -> None:
        binding = session.io_binding()
        binding.bind_cpu_input("images", pixels)
        binding.bind_output("probabilities")
        session.run_with_iobinding(binding)
        binding.copy_outputs_to_cpu()

    with ThreadPoolExecutor(CORES) as pool:
        list(pool.map(call, range(images // len(pixels))))
    return images


_pool = None


def _by_processes(paths: list[bytes]) -> int:
    global _pool
    if _pool is None:
        context = multiprocessing.get_context("spawn")
        shared = context.RawArray("B", 128 * 224 * 224 * 3)
        _pool = context.Pool(CORES, _share, (shared,))
    return sum(_pool.imap(_load_into, enumerate(paths), chunksize=8))


def _share(shared: object) -> None:
    global _slots
    _slots = np.frombuffer(shared, np.uint8).reshape(128, 224, 224, 3)


def _load_into(task: tuple[int, bytes]) -> int:
    number, path = task
    _slots[number % 128] = preprocess(Path(os.fsdecode(path)).read_bytes(), SCALED)
    return 1


EXPERIMENTS = {each.__name__: each for each in (decoder, resize, workers, session, beside, buffers, waiting)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", nargs="+", choices=EXPERIMENTS, default=list(EXPERIMENTS))
    parser.add_argument("--work", type=Path, default=Path("build/bench"), help="where photos and models are kept")
    options = parser.parse_args()
    sections = [
        "# Alternatives to the steps of scoring",
        f"`python -m benchmarks.alternatives {' '.join(sys.argv[1:])}`".rstrip(),
    ]
    sections.append(describe_machine())
    for name in options.only:
        for title, variants in EXPERIMENTS[name](options.work):
            sections.append(f"## {title}\n\n{_table(variants, options.rounds)}")
            print(sections[-1], end="\n\n", flush=True)
    if options.only == list(EXPERIMENTS):
        (RESULTS / "alternatives.md").write_text("\n\n".join(sections) + "\n")


def _table(variants: dict[str, Variant], rounds: int) -> str:
    drift = any("|" in name for name in variants)
    found: dict[str, list[float]] = {name: [] for name in variants}
    for variant in variants.values():
        variant()  # warm
    for _ in range(rounds):
        for name, variant in variants.items():
            begin = time.perf_counter()
            images = variant()
            found[name].append((time.perf_counter() - begin) / images * 1000)
    base = next(iter(found.values()))
    head = f"| way |{' drift, levels: mean / max |' if drift else ''} ms per image | of the first |"
    lines = [head, f"| --- |{' ---: |' if drift else ''} ---: | ---: |"]
    for name, times in found.items():
        ratio = median(time / first for time, first in zip(times, base, strict=True))
        lines.append(f"| {name} | {median(times):.3g} | {ratio:.2f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
