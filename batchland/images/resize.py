"""Resize pixels across and then down, in 16-bit fixed point, with the same result on every CPU.

The library cykooz-resizer does it with SIMD instructions, without Python's lock and without a copy if pixels have four
channels. Where it is not installed (it has no wheels for arm64 Linux) or computes something else, resize_numpy.py
computes the same bytes, more slowly.
"""

import threading
from functools import cache, lru_cache
from importlib.util import find_spec
from itertools import product
from math import ceil, floor
from typing import Any, Final

import numpy as np

from batchland.images.decode.canvas import Canvas, own_canvas, picture_canvas
from batchland.images.decode.picture import Pixels, four_channels
from batchland.images.resize_numpy import SUPPORT, Filter, resample_by_numpy

Box = tuple[float, float, float, float]
"""Left, top, right and bottom of a part of a picture, in pixels."""

_STRIP_BYTES: Final = 1 << 20
"""Size of a strip of rows. Pictures without a fourth channel are copied in strips, which stay in a core's cache."""
_MAX_BYTES: Final = 1 << 29
"""Largest size of the intermediate picture, which is resized across but not yet down."""

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
        return pixels if picture_canvas(pixels) is None else _copied(pixels, 3)
    reach = SUPPORT[kind] * max(1.0, (bottom - top) / height) + 1
    first, last = max(0, floor(top - reach)), min(len(pixels), ceil(bottom + reach))
    if (last - first) * width * 4 > _MAX_BYTES:
        raise MemoryError
    if not _simd_is_exact():
        across = resample_by_numpy(pixels[first:last], 1, left, right, width, kind)
        return resample_by_numpy(across, 0, top - first, bottom - first, height, kind)
    half = own_canvas("half", last - first, width)
    if canvas := picture_canvas(pixels):
        _resize_axis(canvas, half, (left, first, right - left, last - first), kind)
    elif (whole := four_channels(pixels)) is not None:
        _resize_axis(Canvas(whole[first:last]), half, (left, 0, right - left, last - first), kind)
    else:
        rows = max(1, _STRIP_BYTES // (4 * pixels.shape[1]))
        for row in range(first, last, rows):
            strip = Canvas(_copied(pixels[row : min(row + rows, last)], 4))
            part = half.pixels[row - first :][: len(strip.pixels)]
            _resize_axis(strip, Canvas(part), (left, 0, right - left, len(part)), kind)
    resized = own_canvas("resized", height, width)
    _resize_axis(half, resized, (0, top - first, width, bottom - top), kind)
    return _copied(resized.pixels, 3)


@cache
def _simd_is_exact() -> bool:
    """Whether the library is installed and computes the same as numpy: a new version might change its arithmetic."""
    if not has_simd():
        return False
    probe = np.resize(np.arange(251, dtype=np.uint8), (23, 31, 3))
    source = Canvas(_copied(probe, 4))
    parts = {0: (0, 1.5, 31, 20.5), 1: (1.5, 0, 20.5, 23)}
    try:
        for (axis, part), kind in product(parts.items(), SUPPORT):
            resized = Canvas(np.empty((9, 31, 4) if axis == 0 else (23, 9, 4), np.uint8))
            _resize_axis(source, resized, part, kind)
            if not np.array_equal(resized.colours, resample_by_numpy(probe, axis, 1.5, 22.0, 9, kind)):
                return False
    except (AttributeError, ImportError, TypeError):  # a version with another interface
        return False
    return True


def _resize_axis(source: Canvas, target: Canvas, part: Box, kind: Filter) -> None:
    """Resize a part, given as left, top, width and height, into `target`, across or down."""
    _resizer().resize_pil(source.wrapped, target.wrapped, _options(kind, part))


def _copied(pixels: Pixels, channels: int) -> Pixels:
    """A copy of [H, W, 3 or 4] with 3 or 4 channels. One channel at a time is faster than one pixel at a time."""
    copy = np.empty((*pixels.shape[:2], channels), np.uint8)
    for channel in range(3):
        copy[..., channel] = pixels[..., channel]
    return copy


def _resizer() -> Any:
    """The resizer of this thread; threads that share one wait for each other."""
    if not hasattr(_thread, "resizer"):
        from cykooz_resizer.rust_lib import RustResizer  # its wrapper `Resizer` makes many objects for each call

        _thread.resizer = RustResizer()
    return _thread.resizer


@lru_cache(maxsize=64)
def _options(kind: Filter, part: Box) -> Any:
    import cykooz_resizer

    filters = {"bilinear": cykooz_resizer.FilterType.bilinear, "bicubic": cykooz_resizer.FilterType.catmull_rom}
    algorithm = cykooz_resizer.ResizeAlg.convolution(filters[kind])
    options = cykooz_resizer.ResizeOptions(algorithm, use_alpha=False, crop_box=cykooz_resizer.CropBox(*part))
    return options.rust_options
