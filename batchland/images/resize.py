"""Resize pixels across and then down, in 16-bit fixed point, with the same result on every CPU.

The library cykooz-resizer does it with SIMD instructions. Where it is not installed (it has no wheels for arm64 Linux)
or computes something else, resize_numpy.py computes the same bytes, more slowly.
"""

import threading
from functools import cache, lru_cache
from importlib.util import find_spec
from math import ceil, floor
from typing import Any, Final

import numpy as np

from batchland.images.decode.picture import Pixels
from batchland.images.resize_numpy import SUPPORT, Filter, resample_by_numpy

Box = tuple[float, float, float, float]
"""Left, top, right and bottom of a part of a picture, in pixels."""

_STRIP_BYTES: Final = 1 << 20
"""Pictures are passed to the library in strips of rows: it copies them, and so much stays in a core's cache."""
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
    if (last - first) * width * 3 > _MOST_BYTES:
        raise MemoryError
    resample = _by_simd if _simd_is_exact() else resample_by_numpy
    rows = max(1, _STRIP_BYTES // (3 * pixels.shape[1]))
    strips = [
        resample(pixels[row : min(row + rows, last)], 1, left, right, width, kind) for row in range(first, last, rows)
    ]
    across = strips[0] if len(strips) == 1 else np.concatenate(strips)
    return resample(across, 0, top - first, bottom - first, height, kind)


@cache
def _simd_is_exact() -> bool:
    """Whether the library is there and still computes what models were trained on: it might change its arithmetic."""
    if not has_simd():
        return False
    probe = np.resize(np.arange(251, dtype=np.uint8), (23, 31, 3))
    return all(
        np.array_equal(_by_simd(probe, axis, 1.5, 22.0, 9, kind), resample_by_numpy(probe, axis, 1.5, 22.0, 9, kind))
        for axis in (0, 1)
        for kind in SUPPORT
    )


def _by_simd(pixels: Pixels, axis: int, begin: float, end: float, size: int, kind: Filter) -> Pixels:
    """Resize `begin` to `end` of one axis, 0 down or 1 across, to `size` pixels."""
    height, width = pixels.shape[:2]
    part = (0, begin, width, end - begin) if axis == 0 else (begin, 0, end - begin, height)
    shape = (size, width) if axis == 0 else (height, size)
    library, resizer = _library(), _resizer()
    source = library.ImageData(width, height, library.PixelType.U8x3, pixels.tobytes())
    target = library.ImageData(*shape[::-1], library.PixelType.U8x3)
    resizer.resize(source, target, _options(kind, part))
    return np.frombuffer(target.get_buffer(), np.uint8).reshape(*shape, 3)


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
