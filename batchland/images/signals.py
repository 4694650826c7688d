"""Cheap figures about one picture, from which monitoring tells a usual delivery from a spoiled one.

values = measure(decode(data, spec).pixels)
dict(zip((signal.name for signal in SIGNALS), values))

Every column of the predictions that comes from here has the name, unit and description that stand in SIGNALS. Width,
height and file size are other columns. The cost does not grow with the picture: a grid of points covers the
picture for tones, colours and layout, and small squares at full resolution serve texture.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from batchland.images.decode.picture import Pixels

THUMBNAIL_SIDE: Final = 4
"""Cells per side of the thumbnail."""
BLANK_CONTRAST: Final = 0.01
"""A picture of less contrast has one colour and nothing in it."""
_POINTS: Final = 72
"""Sampled rows and columns of the whole picture."""
_SQUARES: Final = 8
"""Sampled squares per row and column."""
_SIDE: Final = 12
"""Pixels per side of a square."""
_JPEG_BLOCK: Final = 8
_START: Final = 2
"""Squares begin this many pixels after a multiple of 8, where the picture is large enough, so that each holds one
border of the 8 x 8 squares of a JPEG."""
_TONES: Final = 256
_FLAT: Final = 1.5
"""A square whose tones deviate by less than this (of 255) is flat."""
_NEAR: Final = 8
"""Tones up to this are black, tones from 255 less this are white."""
_GREY: Final = 6
"""A point is grey if its channels differ by at most this (of 255)."""
_LUMA: Final = (77, 150, 29)
"""Weights of red, green and blue in a tone, of 256 (ITU-R BT.601)."""
_LEVELS: Final = np.arange(_TONES)
_LEVELS_SQUARED: Final = _LEVELS**2
_CELLS: Final = {
    count: np.repeat(np.eye(count, dtype=np.float32), _POINTS // count, axis=0) for count in (THUMBNAIL_SIDE, 8, 9)
}
"""Matrices [72, count] that add up the points of each cell. Sums of integers below 2**24 are exact in float32."""


@dataclass(frozen=True)
class Signal:
    """One figure about a picture: a column of the predictions."""

    name: str
    """Of the column; stable."""
    dtype: Literal["float32", "uint64", "S48"]
    """Of numpy. S48 is 48 bytes of any content."""
    unit: str
    description: str


SIGNALS: Final = (
    Signal("brightness", "float32", "0 to 1", "Mean tone (luma) of the picture."),
    Signal("contrast", "float32", "0 to 1", "Standard deviation of the tones."),
    Signal("tone_p01", "float32", "0 to 1", "1% of the tones are at most this."),
    Signal("tone_p50", "float32", "0 to 1", "Median tone."),
    Signal("tone_p99", "float32", "0 to 1", "99% of the tones are at most this."),
    Signal("black_share", "float32", "0 to 1", "Share of the picture that is black, or nearly."),
    Signal("white_share", "float32", "0 to 1", "Share of the picture that is white, or nearly."),
    Signal("clipped_share", "float32", "0 to 1", "Share of the picture where a channel is 0 or 255."),
    Signal("tone_entropy", "float32", "bits", "Entropy of the histogram of 256 tones."),
    Signal(
        "tone_gaps", "float32", "0 to 1", "Share of the green levels between the darkest and the lightest not used."
    ),
    Signal("saturation", "float32", "0 to 1", "Mean difference of the largest and the smallest channel."),
    Signal("saturation_spread", "float32", "0 to 1", "Standard deviation of that difference."),
    Signal("grey_share", "float32", "0 to 1", "Share of the picture without colour."),
    Signal("red_green", "float32", "-1 to 1", "Mean of red less green."),
    Signal("blue_green", "float32", "-1 to 1", "Mean of blue less green."),
    Signal(
        "colour_width", "float32", "0 to 1", "Spread of red less green and blue less green across their main direction."
    ),
    Signal("sharpness", "float32", "log10", "Logarithm of the variance of the Laplacian, tones 0 to 255, full size."),
    Signal(
        "noise",
        "float32",
        "0 to 255",
        "Noise of the smoothest quarter of 64 squares (Immerkaer's estimate), about 0.8 of its deviation.",
    ),
    Signal("gradient_x", "float32", "0 to 255", "Mean difference of horizontal neighbours."),
    Signal("gradient_y", "float32", "0 to 255", "Mean difference of vertical neighbours."),
    Signal("fineness_x", "float32", "log2", "Horizontal second differences against first ones where there is texture."),
    Signal("fineness_y", "float32", "log2", "Vertical second differences against first ones where there is texture."),
    Signal("blockiness", "float32", "log2", "Differences at the borders of 8 x 8 squares against those inside them."),
    Signal("row_bands", "float32", "0 to 255", "Mean second difference of the mean tones of neighbouring rows."),
    Signal("column_bands", "float32", "0 to 255", "Mean second difference of the mean tones of neighbouring columns."),
    Signal("flat_share", "float32", "0 to 1", "Share of 64 squares whose pixels are all nearly alike."),
    Signal("darkest_square", "float32", "0 to 1", "Mean tone of the darkest of 64 squares."),
    Signal("difference_hash", "uint64", "bits", "64-bit difference hash; copies differ in few bits, also re-encoded."),
    Signal("thumbnail", "S48", "bytes", "The picture in 4 x 4 cells: rows from the top, each cell red, green, blue."),
)
"""In the order of `measure`. All are of the upright picture as it was decoded, before resizing."""

SIGNAL_DTYPE: Final = np.dtype([(signal.name, signal.dtype) for signal in SIGNALS])
"""Of a structured array with one row per picture: `np.array([measure(pixels)], SIGNAL_DTYPE)`."""


def measure(pixels: Pixels) -> tuple[Any, ...]:
    """The values of SIGNALS, in their order: floats, an int below 2**64, and 48 bytes.

    pixels: uint8 [H, W, 3], as `decode` returns it; any size from 1 x 1.
    """
    pixels = np.ascontiguousarray(pixels)
    points = pixels.reshape(-1).take(_point_indices(*pixels.shape[:2]))
    tones = _tones(points)
    texture = _texture_figures(_tones(_squares(pixels)).astype(np.float32))
    return (*_tone_figures(tones, points), *_colour_figures(points), *texture, *_layout(points, tones))


@lru_cache(maxsize=64)
def _point_indices(height: int, width: int) -> npt.NDArray[np.intp]:
    """Where points that cover a picture evenly stand in its bytes: [3, 72, 72], channels, rows, columns."""
    rows, columns = (((np.arange(_POINTS) * 2 + 1) * size) // (2 * _POINTS) for size in (height, width))
    return np.arange(3)[:, None, None] + 3 * (rows[:, None] * width + columns)


def _squares(pixels: Pixels) -> npt.NDArray[np.uint8]:
    """Squares of neighbouring pixels: [3, 12, 12, 64], channels, rows, columns, squares."""
    height, width = pixels.shape[:2]
    least = _START + _SIDE
    if height < least or width < least:  # repeat the last row and column
        rows, columns = (np.minimum(np.arange(max(size, least)), size - 1) for size in (height, width))
        pixels = pixels[rows][:, columns]
        height, width = pixels.shape[:2]
    (top, down), (left, across) = _placing(height), _placing(width)
    row, column, channel = pixels.strides
    shape = (_SQUARES, _SQUARES, _SIDE, _SIDE * 3)
    strides = (row * down, column * across, row, channel)
    view = np.lib.stride_tricks.as_strided(pixels[top:, left:], shape, strides, writeable=False)
    together = np.ascontiguousarray(view).reshape(_SQUARES * _SQUARES, _SIDE * _SIDE, 3)
    return np.ascontiguousarray(together.transpose(2, 1, 0)).reshape(3, _SIDE, _SIDE, -1)


def _placing(size: int) -> tuple[int, int]:
    """Where the first square begins along a side, and how far the next one is from it, in pixels."""
    room = size - _START - _SIDE
    step = room // (_SQUARES - 1)
    if step >= _JPEG_BLOCK:
        step -= step % _JPEG_BLOCK
    rest = room - step * (_SQUARES - 1)
    return _START + rest // (2 * _JPEG_BLOCK) * _JPEG_BLOCK, step


def _tones(channels: npt.NDArray[np.uint8]) -> npt.NDArray[np.int16]:
    """Luma, 0 to 255, of an array whose first axis is red, green, blue."""
    red, green, blue = channels.astype(np.uint16)
    red *= _LUMA[0]
    green *= _LUMA[1]
    blue *= _LUMA[2]
    red += green
    red += blue
    red >>= 8
    tones: npt.NDArray[np.int16] = red.view(np.int16)
    return tones


def _tone_figures(tones: npt.NDArray[np.int16], points: npt.NDArray[np.uint8]) -> tuple[float, ...]:
    counts = np.bincount(tones.reshape(-1), minlength=_TONES)
    mean, deviation = _moments(counts)
    parts = np.searchsorted(counts.cumsum(), (tones.size * 0.01, tones.size * 0.5, tones.size * 0.99)) / 255
    used = counts[counts > 0] / tones.size
    levels = np.bincount(points[1].reshape(-1)).nonzero()[0]
    clipped = (points == 0) | (points == 255)
    return (
        mean,
        deviation,
        *parts.tolist(),
        int(counts[: _NEAR + 1].sum()) / tones.size,
        int(counts[255 - _NEAR :].sum()) / tones.size,
        np.count_nonzero(clipped[0] | clipped[1] | clipped[2]) / tones.size,
        0.0 - float(used @ np.log2(used)),
        1.0 - len(levels) / float(levels[-1] - levels[0] + 1),
    )


def _moments(counts: npt.NDArray[np.intp]) -> tuple[float, float]:
    """Mean and standard deviation of a histogram of 0 to 255, both divided by 255."""
    total = int(counts.sum())
    mean = int(counts @ _LEVELS) / total
    return mean / 255, float(max(int(counts @ _LEVELS_SQUARED) / total - mean * mean, 0.0) ** 0.5) / 255


def _colour_figures(points: npt.NDArray[np.uint8]) -> tuple[float, ...]:
    red, green, blue = points
    spread = np.maximum(np.maximum(red, green), blue) - np.minimum(np.minimum(red, green), blue)
    counts = np.bincount(spread.reshape(-1), minlength=_TONES)
    sums = [int(channel.sum(dtype=np.int32)) for channel in points]
    return (
        *_moments(counts),
        int(counts[: _GREY + 1].sum()) / spread.size,
        (sums[0] - sums[1]) / (255 * spread.size),
        (sums[2] - sums[1]) / (255 * spread.size),
        _colour_width(points, sums),
    )


def _colour_width(points: npt.NDArray[np.uint8], sums: Sequence[int]) -> float:
    """Root of the smaller eigenvalue of the covariance of red less green and blue less green, divided by 255."""
    wide = points.reshape(3, -1).astype(np.float32)
    wide -= wide[1].copy()
    count = wide.shape[1]
    red, blue = (sums[0] - sums[1]) / count, (sums[2] - sums[1]) / count
    a = float(wide[0] @ wide[0]) / count - red * red
    b = float(wide[2] @ wide[2]) / count - blue * blue
    c = float(wide[0] @ wide[2]) / count - red * blue
    smaller = (a + b) / 2 - math.hypot((a - b) / 2, c)
    return math.sqrt(max(smaller, 0.0)) / 255


def _texture_figures(squares: npt.NDArray[np.float32]) -> tuple[float, ...]:
    """Of squares of tones, [12, 12, 64], rows, columns, squares."""
    down, across = squares[1:] - squares[:-1], squares[:, 1:] - squares[:, :-1]
    twice_down, twice_across = down[1:] - down[:-1], across[:, 1:] - across[:, :-1]
    laplacian = (twice_down[:, 1:-1] + twice_across[1:-1]).reshape(-1)
    mask = twice_across[2:] + twice_across[:-2]
    mask -= 2 * twice_across[1:-1]  # Immerkaer's: the second difference of second differences
    noise = np.sort(np.abs(mask, out=mask).sum(axis=(0, 1)))[: squares.shape[2] // 4].mean() / (_SIDE - 2) ** 2
    vertical, horizontal = np.abs(down).mean(axis=(1, 2)), np.abs(across).mean(axis=(0, 2))
    border = _JPEG_BLOCK - _START - 1
    borders = float(vertical[border] + horizontal[border]) / 2
    inside = (float(vertical.sum() + horizontal.sum()) - 2 * borders) / (2 * (_SIDE - 2))
    variance = float(laplacian @ laplacian) / laplacian.size - float(laplacian.mean()) ** 2
    means = squares.mean(axis=(0, 1))
    deviations = squares - means
    deviations *= deviations
    energy_down, energy_across = ((first * first).sum(axis=(0, 1)) for first in (down, across))
    textured = np.argsort(energy_down + energy_across)[-(len(means) // 4) :]
    fineness = [
        math.log2((float(np.square(second[..., textured]).sum()) + 1) / (float(first[textured].sum()) + 1))
        for second, first in ((twice_across, energy_across), (twice_down, energy_down))
    ]
    rows = twice_down.mean(axis=1).reshape(-1, _SQUARES, _SQUARES).mean(axis=2)
    columns = twice_across.mean(axis=0).reshape(-1, _SQUARES, _SQUARES).mean(axis=1)
    return (
        math.log10(max(variance, 0.0) + 0.01),
        float(noise) * math.sqrt(math.pi / 2) / 6,
        float(horizontal.mean()),
        float(vertical.mean()),
        *fineness,
        math.log2((borders + 0.1) / (inside + 0.1)),
        float(np.abs(rows).mean()),
        float(np.abs(columns).mean()),
        np.count_nonzero(deviations.mean(axis=(0, 1)) < _FLAT * _FLAT) / len(means),
        float(means.min()) / 255,
    )


def _layout(points: npt.NDArray[np.uint8], tones: npt.NDArray[np.int16]) -> tuple[int, bytes]:
    """The difference hash and the thumbnail."""
    cells = _CELLS[8].T @ (tones.astype(np.float32) @ _CELLS[9])
    bits = np.packbits(cells[:, 1:] > cells[:, :-1])
    adder = _CELLS[THUMBNAIL_SIDE]
    sums = adder.T @ (points.astype(np.float32) @ adder)
    thumbnail = np.rint(sums / (_POINTS // THUMBNAIL_SIDE) ** 2).astype(np.uint8)
    return int.from_bytes(bits.tobytes(), "big"), thumbnail.transpose(1, 2, 0).tobytes()
