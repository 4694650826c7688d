"""How much damage to GIF, WebP, AVIF and HEIF files is found: none of them has a checksum.

    python -m benchmarks.damage data/flowers

Photos of the folder are written in each format and damaged in nine ways. Writes benchmarks/results/damage.md.
"""

import random
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import Final

import numpy as np
import pillow_heif
from PIL import Image

from batchland.errors import ImageError
from batchland.images.preprocess import PreprocessSpec, decode
from batchland.images.sources.folder import list_images
from batchland.images.sources.refs import read_image
from benchmarks.machine import RESULTS, describe_machine

SPEC = PreprocessSpec()
PHOTOS = 6
TRIES = 40
"""Of each damage, for each format."""
SIDE = 640
"""Pixels, at most."""
HEADER = 32
"""Bytes at the beginning that are left alone."""
SETTINGS: Mapping[str, tuple[str, Mapping[str, object]]] = {
    "GIF": ("GIF", {}),
    "WebP": ("WEBP", {"quality": 80}),
    "WebP, lossless": ("WEBP", {"lossless": True}),
    "AVIF": ("AVIF", {"quality": 75, "autotiling": False}),
    "AVIF, four tiles": ("AVIF", {"quality": 75, "tile_rows": 1, "tile_cols": 1}),
    "HEIF": ("HEIF", {"quality": 80}),
}

Damage = Callable[[bytes, random.Random], bytes]


def main(folder: Path) -> None:
    photos = []
    for ref in islice(list_images(folder), PHOTOS):
        image = Image.fromarray(decode(read_image(ref).data, SPEC).pixels)
        image.thumbnail((SIDE, SIDE))
        photos.append(image)
    lines = [
        f"# Damage that is found in formats without checksums, {datetime.now(UTC):%Y-%m-%d}",
        "",
        f"`python -m benchmarks.damage {folder.name}`: {describe_machine()}.",
        "",
        f"{len(photos)} photos of at most {SIDE} pixels a side, {TRIES} files of each damage. Files that passed give",
        "other pixels than the undamaged file, without an error. Damage without effect on the pixels is not counted.",
        "",
        "| format | damaged | passed | passed, by damage |",
        "| --- | ---: | ---: | --- |",
    ]
    for name, (kind, options) in SETTINGS.items():
        tried, passed = _try([_encoded(photo, kind, options) for photo in photos])
        by_damage = ", ".join(f"{damage} {count}" for damage, count in passed.items())
        lines.append(f"| {name} | {tried} | {passed.total()} | {by_damage} |")
        print(lines[-1], flush=True)
    (RESULTS / "damage.md").write_text("\n".join(lines) + "\n")


def _encoded(image: Image.Image, kind: str, options: Mapping[str, object]) -> bytes:
    buffer = BytesIO()
    if kind == "HEIF":
        pillow_heif.from_pillow(image).save(buffer, **options)
    else:
        image.save(buffer, kind, **options)
    return buffer.getvalue()


def _try(files: list[bytes]) -> tuple[int, Counter[str]]:
    expected = [decode(data, SPEC).pixels for data in files]
    passed: Counter[str] = Counter()
    without_effect = 0
    for damage in DAMAGES:
        for number in range(TRIES):
            randoms = random.Random(f"{damage.__name__}{number}")
            which = randoms.randrange(len(files))
            try:
                pixels = decode(damage(files[which], randoms), SPEC).pixels
            except ImageError:
                continue
            if np.array_equal(pixels, expected[which]):
                without_effect += 1
            else:
                passed[damage.__name__] += 1
    return len(DAMAGES) * TRIES - without_effect, passed


def _overwritten(data: bytes, randoms: random.Random, new: Callable[[int], bytes]) -> bytes:
    size = randoms.choice((16, 64, 256, 1024))
    at = randoms.randrange(HEADER, len(data) - size)
    return data[:at] + new(size) + data[at + size :]


def ones(data: bytes, randoms: random.Random) -> bytes:
    return _overwritten(data, randoms, lambda size: b"\xff" * size)


def same(data: bytes, randoms: random.Random) -> bytes:
    return _overwritten(data, randoms, lambda size: bytes([randoms.randrange(1, 255)]) * size)


def noise(data: bytes, randoms: random.Random) -> bytes:
    return _overwritten(data, randoms, randoms.randbytes)


def _block(data: bytes, randoms: random.Random) -> tuple[int, int]:
    """Position and size."""
    size = min(randoms.choice((64, 512, 4096)), (len(data) - HEADER) // 4)
    return randoms.randrange(HEADER, len(data) - 2 * size), size


def exchanged(data: bytes, randoms: random.Random) -> bytes:
    first, size = _block(data, randoms)
    second = randoms.randrange(first + size, len(data) - size + 1)
    return b"".join(
        (
            data[:first], data[second : second + size], data[first + size : second], data[first : first + size],
            data[second + size :],
        )
    )  # fmt: skip


def moved(data: bytes, randoms: random.Random) -> bytes:
    at, size = _block(data, randoms)
    rest = data[:at] + data[at + size :]
    there = randoms.randrange(HEADER, len(rest))
    return rest[:there] + data[at : at + size] + rest[there:]


def twice(data: bytes, randoms: random.Random) -> bytes:
    at, size = _block(data, randoms)
    return data[: at + size] + data[at : at + size] + data[at + 2 * size :]


def inserted(data: bytes, randoms: random.Random) -> bytes:
    at, size = _block(data, randoms)
    return data[: at + size] + data[at:]


def lost(data: bytes, randoms: random.Random) -> bytes:
    at, size = _block(data, randoms)
    return data[:at] + data[at + size :]


def bit(data: bytes, randoms: random.Random) -> bytes:
    at = randoms.randrange(HEADER, len(data))
    return data[:at] + bytes([data[at] ^ 1 << randoms.randrange(8)]) + data[at + 1 :]


DAMAGES: Final[tuple[Damage, ...]] = (ones, same, noise, exchanged, moved, twice, inserted, lost, bit)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
