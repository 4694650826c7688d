"""Resize pixels across and then down, in 16-bit fixed point, with the same result on every CPU.

The library cykooz-resizer does it with SIMD instructions, without Python's lock and without a copy if pixels have four
channels. Where it is not installed (it has no wheels for arm64 Linux) or computes something else, resize_numpy.py
computes the same bytes, more slowly.
"""

import threading
from functools import cache, lru_cache
from importlib.util import find_spec
from math import ceil, floor
from typing import Any, Final

import numpy as np
from PIL import Image

from batchland.images.decode.picture import Pixels, four_channels
from batchland.images.resize_numpy import SUPPORT, Filter, resample_by_numpy

Box = tuple[float, float, float, float]
"""Left, top, right and bottom of a part of a picture, in pixels."""

_STRIP_BYTES: Final = 1 << 20
"""Pictures without a fourth channel are copied in strips of rows: so much stays in a core's cache."""
_MOST_BYTES: Final = 1 << 29
"""Of a picture that is resized across but not yet down."""

_thread: Final = threading.local()


@cache
def has_simd() -> bool:
    """Whether the library with SIMD instructions is installed."""
    return find_spec("cykooz_resizer") is not None


def resize(pixels: Pixels, height: int, width: int, box: Box, kind: Filter) -> Pixels:
    """The part `box` of RGB uint8 [H, W, 3], resized with antialiasing to uint8 [height, width, 3].

    Raises MemoryError.
    """
    left, top, right, bottom = box
    if pixels.shape == (height, width, 3) and box == (0, 0, width, height):
        return pixels
    reach = SUPPORT[kind] * max(1.0, (bottom - top) / height) + 1
    first, last = max(0, floor(top - reach)), min(len(pixels), ceil(bottom + reach))
    if (last - first) * width * 4 > _MOST_BYTES:
        raise MemoryError
    resample, rows = resample_by_numpy, max(1, _STRIP_BYTES // (3 * pixels.shape[1]))
    if _simd_is_exact():
        resample = _by_simd
        if (whole := four_channels(pixels)) is not None:
            pixels, rows = whole, last - first
    strips = [
        resample(pixels[row : min(row + rows, last)], 1, left, right, width, kind) for row in range(first, last, rows)
    ]
    across = strips[0] if len(strips) == 1 else np.concatenate(strips)
    down = resample(across, 0, top - first, bottom - first, height, kind)
    return down if down.shape[2] == 3 else _copied(down, 3)


@cache
def _simd_is_exact() -> bool:
    """Whether the library is there and still computes what models were trained on: it might change its arithmetic."""
    if not has_simd():
        return False
    probe = np.resize(np.arange(251, dtype=np.uint8), (23, 31, 3))
    return all(
        np.array_equal(
            _by_simd(probe, axis, 1.5, 22.0, 9, kind)[..., :3], resample_by_numpy(probe, axis, 1.5, 22.0, 9, kind)
        )
        for axis in (0, 1)
        for kind in SUPPORT
    )


def _by_simd(pixels: Pixels, axis: int, begin: float, end: float, size: int, kind: Filter) -> Pixels:
    """Resize `begin` to `end` of one axis, 0 down or 1 across, to `size` pixels. The result has a fourth channel."""
    height, width = pixels.shape[:2]
    part = (0, begin, width, end - begin) if axis == 0 else (begin, 0, end - begin, height)
    resized = np.empty((size, width, 4) if axis == 0 else (height, size, 4), np.uint8)
    source = pixels if pixels.shape[2] == 4 else _copied(pixels, 4)
    _resizer().resize_pil(_image(source), _image(resized), _options(kind, part))
    return resized


def _copied(pixels: Pixels, channels: int) -> Pixels:
    """A copy of [H, W, 3 or 4] with 3 or 4 channels. One channel at a time is faster than one pixel at a time."""
    copy = np.empty((*pixels.shape[:2], channels), np.uint8)
    for channel in range(3):
        copy[..., channel] = pixels[..., channel]
    return copy


def _image(pixels: Pixels) -> Image.Image:
    """An image of Pillow on the memory of uint8 [H, W, 4]. As CMYK, because the library weights RGBA by the fourth."""
    height, width = pixels.shape[:2]
    return Image.frombuffer("CMYK", (width, height), pixels, "raw", "CMYK", 0, 1)


def _with_fourth(pixels: Pixels) -> Pixels:
    """A copy of [H, W, 3] as [H, W, 4]. Channel by channel numpy copies several times as fast as pixel by pixel."""
    four = np.zeros((*pixels.shape[:2], 4), np.uint8)
    for channel in range(3):
        four[..., channel] = pixels[..., channel]
    return four


def _without_fourth(pixels: Pixels) -> Pixels:
    """A copy of [H, W, 4] as [H, W, 3]."""
    three = np.empty((*pixels.shape[:2], 3), np.uint8)
    for channel in range(3):
        three[..., channel] = pixels[..., channel]
    return three


@cache
def _library() -> Any:
    import cykooz_resizer

    return cykooz_resizer


def _resizer() -> Any:
    """This thread's: one that threads share makes them wait for each other."""
    if not hasattr(_thread, "resizer"):
        _thread.resizer = _library().Resizer()
    return _thread.resizer


@lru_cache(maxsize=64)
def _options(kind: Filter, part: Box) -> Any:
    """Options that resize a part, given as left, top, width and height."""
    library = _library()
    filters = {"bilinear": library.FilterType.bilinear, "bicubic": library.FilterType.catmull_rom}
    algorithm = library.ResizeAlg.convolution(filters[kind])
    return library.ResizeOptions(algorithm, use_alpha=False, crop_box=library.CropBox(*part))
