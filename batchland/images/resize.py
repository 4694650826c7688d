"""Resize pixels across and then down, in 16-bit fixed point, with the same result on every CPU.

The library cykooz-resizer does it with SIMD instructions, without Python's lock and without a copy if pixels have four
channels. Where it is not installed (it has no wheels for arm64 Linux) or computes something else, resize_numpy.py
computes the same bytes, more slowly.
"""

import threading
from functools import cache, lru_cache
from importlib.util import find_spec
from math import ceil, floor
from typing import Any, Final, NamedTuple, Self

import numpy as np
from PIL import Image

from batchland.images.decode.picture import Pixels, four_channels
from batchland.images.resize_numpy import SUPPORT, Filter, resample_by_numpy

Box = tuple[float, float, float, float]
"""Left, top, right and bottom of a part of a picture, in pixels."""

_STRIP_BYTES: Final = 1 << 20
"""Pictures without a fourth channel are copied in strips of rows: so much stays in a core's cache."""
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
        return pixels
    reach = SUPPORT[kind] * max(1.0, (bottom - top) / height) + 1
    first, last = max(0, floor(top - reach)), min(len(pixels), ceil(bottom + reach))
    if (last - first) * width * 4 > _MAX_BYTES:
        raise MemoryError
    if not _simd_is_exact():
        across = resample_by_numpy(pixels[first:last], 1, left, right, width, kind)
        return resample_by_numpy(across, 0, top - first, bottom - first, height, kind)
    whole = four_channels(pixels)
    if whole is not None:
        half = _resize_axis(_Canvas.of(whole[first:last]), 1, left, right, width, kind)
    else:
        rows = max(1, _STRIP_BYTES // (4 * pixels.shape[1]))
        strips = (_copied(pixels[row : min(row + rows, last)], 4) for row in range(first, last, rows))
        halves = [_resize_axis(_Canvas.of(strip), 1, left, right, width, kind) for strip in strips]
        half = halves[0] if len(halves) == 1 else _Canvas.of(np.concatenate([each.pixels for each in halves]))
    return _copied(_resize_axis(half, 0, top - first, bottom - first, height, kind).pixels, 3)


@cache
def _simd_is_exact() -> bool:
    """Whether the library is installed and computes the same as numpy: a new version might change its arithmetic."""
    if not has_simd():
        return False
    probe = np.resize(np.arange(251, dtype=np.uint8), (23, 31, 3))
    canvas = _Canvas.of(_copied(probe, 4))
    return all(
        np.array_equal(
            _resize_axis(canvas, axis, 1.5, 22.0, 9, kind).pixels[..., :3],
            resample_by_numpy(probe, axis, 1.5, 22.0, 9, kind),
        )
        for axis in (0, 1)
        for kind in SUPPORT
    )


class _Canvas(NamedTuple):
    """Pixels, uint8 [H, W, 4], and an image of Pillow in the same memory."""

    pixels: Pixels
    image: Image.Image

    @classmethod
    def of(cls, pixels: Pixels) -> Self:
        """The image has mode CMYK, because the library would weight RGBA by its fourth channel."""
        height, width = pixels.shape[:2]
        return cls(pixels, Image.frombuffer("CMYK", (width, height), pixels, "raw", "CMYK", 0, 1))


def _resize_axis(source: _Canvas, axis: int, begin: float, end: float, size: int, kind: Filter) -> _Canvas:
    """Resize `begin` to `end` of one axis, 0 down or 1 across, to `size` pixels."""
    height, width = source.pixels.shape[:2]
    part = (0, begin, width, end - begin) if axis == 0 else (begin, 0, end - begin, height)
    resized = _Canvas.of(np.empty((size, width, 4) if axis == 0 else (height, size, 4), np.uint8))
    _resizer().resize_pil(source.image, resized.image, _options(kind, part))
    return resized


def _copied(pixels: Pixels, channels: int) -> Pixels:
    """A copy of [H, W, 3 or 4] with 3 or 4 channels. One channel at a time is faster than one pixel at a time."""
    copy = np.empty((*pixels.shape[:2], channels), np.uint8)
    for channel in range(3):
        copy[..., channel] = pixels[..., channel]
    return copy


@cache
def _library() -> Any:
    import cykooz_resizer

    return cykooz_resizer


def _resizer() -> Any:
    """The resizer of this thread; threads that share one wait for each other."""
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
