"""The arithmetic of fast_image_resize 6, the library behind cykooz-resizer, in numpy: the same bytes, more slowly."""

from functools import lru_cache
from typing import Any, Final, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from batchland.images.decode.picture import Pixels

Filter = Literal["bilinear", "bicubic"]

SUPPORT: Final[dict[Filter, float]] = {"bilinear": 1.0, "bicubic": 2.0}
"""Radius of each filter, in pixels of the smaller picture."""
_MAX_BITS: Final = 21
_WEIGHT_BITS: Final = 15
"""Weights are integers of 16 bits with a sign."""

Floats = npt.NDArray[np.float64]


class _Weights(NamedTuple):
    taps: npt.NDArray[np.intp]
    """Index of the pixel that each weight is for, [most pixels per result, results]."""
    weights: npt.NDArray[np.int32]
    """The same shape."""
    bits: int
    """The weights of a result sum to about 2 ** bits."""


def resample_by_numpy(pixels: Pixels, axis: int, begin: float, end: float, size: int, kind: Filter) -> Pixels:
    """Resize `begin` to `end` of one axis, 0 down or 1 across, of RGB uint8 [H, W, 3] to `size` pixels."""
    lines = np.ascontiguousarray(pixels if axis == 0 else pixels.swapaxes(0, 1))
    taps, weights, bits = _weights(len(lines), begin, end, size, kind)
    sums = np.full((size, *lines.shape[1:]), 1 << (bits - 1), np.int32)
    for tap, weight in zip(taps, weights, strict=True):
        sums += lines[tap] * weight[:, None, None]
    resized = np.clip(sums >> bits, 0, 255).astype(np.uint8)
    return resized if axis == 0 else np.ascontiguousarray(resized.swapaxes(0, 1))


@lru_cache(maxsize=32)
def _weights(length: int, begin: float, end: float, size: int, kind: Filter) -> _Weights:
    scale = (end - begin) / size
    radius = SUPPORT[kind] * max(scale, 1.0)
    centres = begin + (np.arange(size) + 0.5) * scale
    first = np.maximum(np.floor(centres - radius), 0).astype(int)
    last = np.minimum(np.ceil(centres + radius), length).astype(int)
    taps = first + np.arange(int(np.ceil(radius)) * 2 + 1)[:, None]
    shares = np.where(taps < last, _FILTERS[kind](np.abs((taps - (centres - 0.5)) * (1.0 / max(scale, 1.0)))), 0.0)
    total = np.zeros(size)
    for share in shares:  # in this order, as rounding depends on it
        total = total + share
    shares = np.divide(shares, total, where=total != 0, out=shares)
    bits = _precision(float(shares.max()))
    scaled = shares * (1 << bits)
    rounded = np.copysign(np.floor(np.abs(scaled) + 0.5), scaled).astype(np.int32)  # halves away from 0
    return _Weights(np.minimum(taps, length - 1), rounded, bits)


def _precision(largest: float) -> int:
    """Most bits after the point with which the largest weight fits."""
    for bits in range(_MAX_BITS):
        if np.floor(largest * (1 << (bits + 1)) + 0.5) >= 1 << _WEIGHT_BITS:
            return bits
    return _MAX_BITS


def _bilinear(distance: Floats) -> Floats:
    return np.where(distance < 1, 1 - distance, 0.0)


def _bicubic(x: Floats) -> Floats:
    """Catmull-Rom, a = -0.5."""
    near = ((-0.5 + 2.0) * x - (-0.5 + 3.0)) * x * x + 1.0
    far = (((x - 5.0) * x + 8.0) * x - 4.0) * -0.5
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))


_FILTERS: Final[dict[Filter, Any]] = {"bilinear": _bilinear, "bicubic": _bicubic}
