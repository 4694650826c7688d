"""Drawn JPEGs for testing a decoder, the same every time: good ones of several kinds, and damaged ones."""

from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image


def probes() -> tuple[list[bytes], list[bytes]]:
    """Good JPEGs of different kinds and sizes, the most common kind first; and damaged ones."""
    small, large = photo(320, 240), photo(1280, 960)  # above a megapixel, decoders work differently
    good = [
        jpeg(small),
        jpeg(large),
        jpeg(small, subsampling=0),
        jpeg(small, progressive=True),
        jpeg(small.convert("L")),
        jpeg(small, exif=_turned()),
    ]
    return good, [damage(data) for data in good[:4] for damage in (_cut, _blanked, _scrambled)]


def photo(width: int, height: int) -> Image.Image:
    """A drawn picture with soft shades, edges and strong colours, the same every time."""
    coarse = np.random.default_rng(7).integers(0, 256, (6, 8, 3), np.uint8)
    soft = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    soft.paste((230, 40, 40), (width // 4, height // 4, width // 2, height // 2))
    return soft


def jpeg(image: Image.Image, **options: Any) -> bytes:
    """Encoded by Pillow, with its options."""
    buffer = BytesIO()
    image.save(buffer, "JPEG", quality=90, **options)
    return buffer.getvalue()


def _turned() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


def _cut(data: bytes) -> bytes:
    """The first half, with an end-of-image marker."""
    return data[: len(data) // 2] + data[-2:]


def _blanked(data: bytes) -> bytes:
    """Zeros in the middle, as of a disk block that was never written."""
    start, stop = len(data) // 2, len(data) * 3 // 4
    return data[:start] + bytes(stop - start) + data[stop:]


def _scrambled(data: bytes) -> bytes:
    """Random bytes in the middle, none of them a marker."""
    start, stop = len(data) // 2, len(data) // 2 + 200
    noise = np.random.default_rng(3).integers(0, 255, stop - start, np.uint8).tobytes()
    return data[:start] + noise + data[stop:]
