"""The CPU's share of `--decode cuda`, the drift of its pictures, and the damage that it finds. Needs no GPU.

    python -m benchmarks.jpegs data/flowers

nvImageCodec decodes on the CPU here, as it can, so its pictures are libjpeg's; a GPU's are compared when it is opened.
Photos of the folder serve for drift and damage; times are of drawn ones. Writes benchmarks/results/jpegs.md.
"""

import os
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from functools import partial
from io import BytesIO
from itertools import islice
from pathlib import Path
from statistics import median

import numpy as np
from PIL import Image

from batchland.errors import ImageError
from batchland.images.batch import Decode
from batchland.images.encoded_jpegs import Encoded, keep_encoded
from batchland.images.loader import BatchLoader, decode_image, keep_jpegs_encoded, load_image
from batchland.images.preprocess import Pixels, PreprocessSpec, decode, fit, preprocess
from batchland.images.sources.folder import list_images
from batchland.images.sources.refs import read_image
from batchland.models.gpu import jpeg_decoder
from batchland.models.gpu.device import Device
from batchland.models.gpu.jpeg_decoder import JpegDecoder
from batchland.models.gpu.resize import Resizer
from benchmarks.machine import RESULTS, describe_machine
from benchmarks.photos import SIZES, draw_photos

SPEC = PreprocessSpec()
ROUNDS = 3
DISTINCT = {"small": 100, "2mp": 20, "12mp": 6}
LOADED = 4000
DAMAGED_PHOTOS = 250
HOLE = 500
"""Bytes."""


def main(photos: Path) -> None:
    files = [read_image(ref).data for ref in list_images(photos)]
    jpegs = [data for data in files if keep_encoded(data, SPEC, checked=True)]
    lines = [
        f"# JPEGs for a GPU to decode, {datetime.now(UTC):%Y-%m-%d}",
        "",
        f"`python -m benchmarks.jpegs {photos.name}`: {describe_machine()}.",
        "",
        f"{len(jpegs)} of the folder's {len(files)} files may be decoded by a GPU.",
        "",
        *_times(),
        *_loader(),
        *_drift(jpegs),
        *_damage(jpegs),
    ]
    text = "\n".join(lines) + "\n"
    print(text)
    (RESULTS / "jpegs.md").write_text(text)


def _times() -> list[str]:
    """CPU milliseconds an image, on one thread."""
    lines = [
        "## The CPU's share, ms an image on one core",
        "",
        '| photos | decode and fit | the same, `jpeg_scale = "auto"` | header | header, and whether it is whole |',
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    auto = PreprocessSpec(jpeg_scale="auto")
    for size in SIZES:
        folder = draw_photos(Path("build/bench/photos"), size, DISTINCT[size])
        files = [read_image(ref).data for ref in list_images(folder)]
        ways: tuple[Callable[[bytes], object], ...] = (
            lambda data: preprocess(data, SPEC),
            lambda data: preprocess(data, auto),
            lambda data: keep_encoded(data, SPEC, checked=False),
            lambda data: keep_encoded(data, SPEC, checked=True),
        )
        cells = [f"{_milliseconds(way, files):.2f}" for way in ways]
        lines.append(f"| {SIZES[size].width} x {SIZES[size].height} | {' | '.join(cells)} |")
    return [*lines, ""]


def _loader() -> list[str]:
    """Images a second through the loader with its own number of threads, where Python's lock counts as well."""
    folder = draw_photos(Path("build/bench/photos"), "small", LOADED)
    ways: dict[str, Decode] = {
        "decoded and resized on the CPU": decode_image,
        "for decoding on a GPU": partial(keep_jpegs_encoded, checked=False),
        "for decoding on a GPU, checked": partial(keep_jpegs_encoded, checked=True),
    }
    lines = ["## Through the loader, 500 x 375", "", "| | images/s | CPU ms an image |", "| --- | ---: | ---: |"]
    for name, decoding in ways.items():
        rates, costs = [], []
        for _ in range(ROUNDS):
            begin, cpu = time.perf_counter(), time.process_time()
            load = partial(load_image, decoding=decoding)
            small = decoding is not decode_image
            batches = BatchLoader(list_images(folder), SPEC, 64, load=load, start_small=small)
            images = sum(len(batch.refs) for batch in batches)
            rates.append(images / (time.perf_counter() - begin))
            costs.append(1000 * (time.process_time() - cpu) / images)
        lines.append(f"| {name} | {median(rates):.0f} | {median(costs):.2f} |")
    return [*lines, ""]


def _milliseconds(way: Callable[[bytes], object], files: Sequence[bytes]) -> float:
    rounds = []
    for _ in range(ROUNDS):
        begin = time.process_time()
        for data in files:
            way(data)
        rounds.append(1000 * (time.process_time() - begin) / len(files))
    return median(rounds)


def _drift(jpegs: Sequence[bytes]) -> list[str]:
    """Of fitted pictures from those of the CPU's path."""
    lines = [
        "## Drift of fitted pictures from preprocess.py's, in levels of 255",
        "",
        "| what differs | mean | of the worst photo | largest of any value |",
        "| --- | ---: | ---: | ---: |",
    ]
    chosen = jpegs[:: max(1, len(jpegs) // DAMAGED_PHOTOS)]
    for name, fancy in (("the fit, as a graph", 1), ("the fit, and chrominance is not interpolated", 0)):
        jpeg_decoder._OPTIONS = f":fancy_upsampling={fancy}"
        gaps = [np.abs(ours.astype(int) - theirs) for ours, theirs in _pairs(chosen)]
        means = [gap.mean() for gap in gaps]
        lines.append(f"| {name} | {np.mean(means):.3f} | {max(means):.2f} | {max(gap.max() for gap in gaps)} |")
    jpeg_decoder._OPTIONS = ":fancy_upsampling=1"
    return [*lines, "", f"{len(chosen)} photos, fitted to {SPEC.width} x {SPEC.height}.", ""]


def _pairs(files: Sequence[bytes]) -> Iterator[tuple[Pixels, Pixels]]:
    decoder, resizer = JpegDecoder(Device("cpu"), (), 1), Resizer(Device("cpu"), SPEC)
    for data in files:
        jpeg = keep_encoded(data, SPEC, checked=False)
        assert jpeg is not None
        (picture,) = decoder.decode([jpeg])
        assert picture is not None
        ours = np.empty(SPEC.shape, np.uint8)
        resizer.resize(picture, jpeg.orientation, ours.ctypes.data)
        yield ours, fit(decode(data, SPEC).pixels, SPEC)


def _damage(jpegs: Sequence[bytes]) -> list[str]:
    """How much of random damage is found: by the CPU's path, by the check alone, by nvImageCodec on the CPU."""
    decoder = JpegDecoder(Device("cpu"), (), 1)
    rng = np.random.default_rng(0)
    tried: Counter[str] = Counter()
    found: dict[str, Counter[str]] = defaultdict(Counter)
    with _without_libjpegs_warnings():
        for data in islice((data for data in jpegs if len(data) > 4 * HOLE), DAMAGED_PHOTOS):
            for form in ("baseline", "progressive"):
                whole = _again(data, progressive=form == "progressive")
                for kind, damaged in _damaged(whole, rng):
                    kind = f"{form}, {kind}"
                    tried[kind] += 1
                    found["cpu"][kind] += _fails(damaged)
                    found["check"][kind] += keep_encoded(damaged, SPEC, checked=True) is None
                    header = keep_encoded(damaged, SPEC, checked=False)
                    found["codec"][kind] += decoder.decode([header or Encoded(b"", 0, 0, 1)]) == [None]
    lines = [
        "## Damaged files that are found",
        "",
        "| damage | files | decoding on the CPU | the check | nvImageCodec on the CPU, without the check |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for kind, number in tried.items():
        cells = [f"{found[who][kind]}" for who in ("cpu", "check", "codec")]
        lines.append(f"| {kind} | {number} | {' | '.join(cells)} |")
    return lines


def _again(data: bytes, *, progressive: bool) -> bytes:
    buffer = BytesIO()
    with Image.open(BytesIO(data)) as image:
        image.convert("RGB").save(buffer, "JPEG", quality=88, progressive=progressive)
    return buffer.getvalue()


def _damaged(data: bytes, rng: np.random.Generator) -> Iterator[tuple[str, bytes]]:
    start = data.index(b"\xff\xda") + 14
    offset = int(rng.integers(start, len(data) - 2 - HOLE)) if len(data) - 2 - HOLE > start else start
    noise = rng.integers(0, 255, HOLE, np.uint8).tobytes()
    flipped = bytes([data[offset] ^ (1 << int(rng.integers(8)))])
    yield "cut and closed", data[:offset] + data[-2:]
    yield f"a hole of {HOLE} zeros", data[:offset] + bytes(HOLE) + data[offset + HOLE :]
    yield f"{HOLE} other bytes", data[:offset] + noise + data[offset + HOLE :]
    yield "one bit", data[:offset] + flipped + data[offset + 1 :]


def _fails(data: bytes) -> bool:
    try:
        decode(data, SPEC)
    except ImageError:
        return True
    return False


class _without_libjpegs_warnings:  # noqa: N801 - reads as what it does
    """libjpeg tells the terminal of each of them."""

    def __enter__(self) -> None:
        self._before, nothing = os.dup(2), os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, 2)

    def __exit__(self, *exc: object) -> None:
        os.dup2(self._before, 2)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
