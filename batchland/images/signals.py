"""Figures about pictures that are cheap to compute, for the detection of damaged deliveries.

values = measure(decode(data, spec).pixels)
dict(zip((signal.name for signal in SIGNALS), values))

For many pictures, `measure_samples(np.stack([sample(pixels) for pixels in pictures]))` makes fewer numpy calls, each of
which holds the GIL for a moment.

SIGNALS has the name, unit and description of each column of the predictions that is computed here. The cost does not
grow with the picture: tones, colours and layout are measured on a grid of points, texture on small squares at full
resolution.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from batchland.images.decode.picture import Pixels, four_channels

THUMBNAIL_SIDE: Final = 4
"""Cells per side of the thumbnail."""
BLANK_CONTRAST: Final = 0.01
"""A picture with less contrast counts as of one colour."""
_POINTS: Final = 72
"""Points per row and per column of the grid over the whole picture."""
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
"""A square is flat if its tones deviate by less than this (of 255)."""
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
_POINTS_SHAPE: Final = (3, _POINTS, _POINTS)
_SQUARES_SHAPE: Final = (3, _SIDE, _SIDE, _SQUARES * _SQUARES)
_POINTS_BYTES: Final = math.prod(_POINTS_SHAPE)
SAMPLE_BYTES: Final = _POINTS_BYTES + math.prod(_SQUARES_SHAPE)
"""Bytes of the sample of a picture of any size."""
_AT_ONCE: Final = 32
"""Pictures measured at a time."""

Bytes = npt.NDArray[np.uint8]
Counts = npt.NDArray[np.intp]
Floats = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Signal:
    """One figure about a picture: a column of the predictions."""

    name: str
    """Name of the column; stable."""
    dtype: Literal["float32", "uint64", "S48"]
    """The dtype in numpy. S48 is 48 bytes of any content."""
    unit: str
    description: str


SIGNALS: Final = (
    Signal("brightness", "float32", "0 to 1", "Mean tone (luma) of the picture."),
    Signal("contrast", "float32", "0 to 1", "Standard deviation of the tones."),
    Signal("tone_p01", "float32", "0 to 1", "1st percentile of the tones."),
    Signal("tone_p50", "float32", "0 to 1", "Median tone."),
    Signal("tone_p99", "float32", "0 to 1", "99th percentile of the tones."),
    Signal("black_share", "float32", "0 to 1", "Share of points that are black or nearly black."),
    Signal("white_share", "float32", "0 to 1", "Share of points that are white or nearly white."),
    Signal("clipped_share", "float32", "0 to 1", "Share of points with a channel at 0 or 255."),
    Signal("tone_entropy", "float32", "bits", "Entropy of the histogram of 256 tones."),
    Signal("tone_gaps", "float32", "0 to 1", "Share of unused green levels between the darkest and the lightest one."),
    Signal("saturation", "float32", "0 to 1", "Mean difference between the largest and the smallest channel."),
    Signal("saturation_spread", "float32", "0 to 1", "Standard deviation of that difference."),
    Signal("grey_share", "float32", "0 to 1", "Share of points without colour."),
    Signal("red_green", "float32", "-1 to 1", "Mean of red minus green."),
    Signal("blue_green", "float32", "-1 to 1", "Mean of blue minus green."),
    Signal(
        "colour_width",
        "float32",
        "0 to 1",
        "Smallest standard deviation of (red - green, blue - green) in any direction.",
    ),
    Signal("sharpness", "float32", "log10", "log10 of the variance of the Laplacian at full size, tones 0 to 255."),
    Signal(
        "noise",
        "float32",
        "0 to 255",
        "Immerkaer's noise estimate in the smoothest 16 of 64 squares; about 0.8 times the standard deviation.",
    ),
    Signal("gradient_x", "float32", "0 to 255", "Mean difference of horizontal neighbours."),
    Signal("gradient_y", "float32", "0 to 255", "Mean difference of vertical neighbours."),
    Signal("fineness_x", "float32", "log2", "log2 of the energy ratio of second to first horizontal differences."),
    Signal("fineness_y", "float32", "log2", "log2 of the energy ratio of second to first vertical differences."),
    Signal("blockiness", "float32", "log2", "log2 of differences at borders of 8 x 8 blocks to those inside."),
    Signal("row_bands", "float32", "0 to 255", "Mean second difference of the mean tones of neighbouring rows."),
    Signal("column_bands", "float32", "0 to 255", "Mean second difference of the mean tones of neighbouring columns."),
    Signal("flat_share", "float32", "0 to 1", "Share of 64 squares in which all pixels are nearly equal."),
    Signal("darkest_square", "float32", "0 to 1", "Mean tone of the darkest of 64 squares."),
    Signal("difference_hash", "uint64", "bits", "64-bit difference hash; copies, also re-encoded, differ in few bits."),
    Signal("thumbnail", "S48", "bytes", "The picture in 4 x 4 cells: rows from the top, each cell red, green, blue."),
)
"""In the order of `measure`. All are measured on the decoded upright picture, before resizing."""

SIGNAL_DTYPE: Final = np.dtype([(signal.name, signal.dtype) for signal in SIGNALS])
"""The dtype of a structured array with one row per picture."""


def measure(pixels: Pixels) -> tuple[Any, ...]:
    """The values of SIGNALS, in their order: floats, an int below 2**64, and 48 bytes.

    pixels: uint8 [H, W, 3], as `decode` returns it; any size from 1 x 1.
    """
    figures = measure_samples(sample(pixels)[None])
    return tuple(
        figures[each.name].tobytes() if each.dtype == "S48" else figures[each.name][0].item() for each in SIGNALS
    )


def sample(pixels: Pixels) -> Bytes:
    """The data for `measure_samples`: uint8 [SAMPLE_BYTES], the points and squares of a picture.

    pixels: as for `measure`.
    """
    whole = four_channels(pixels)
    pixels = np.ascontiguousarray(pixels) if whole is None else whole
    sampled = np.empty(SAMPLE_BYTES, np.uint8)
    points, squares = _parts(sampled[None])
    pixels.reshape(-1).take(_point_indices(*pixels.shape), out=points[0], mode="clip")
    squares[0].reshape(3, _SIDE, _SIDE, _SQUARES, _SQUARES)[...] = _squares(pixels).transpose(4, 2, 3, 0, 1)
    return sampled


def measure_samples(samples: Bytes) -> npt.NDArray[np.void]:
    """The figures of pictures, SIGNAL_DTYPE [pictures], of their samples [pictures, SAMPLE_BYTES].

    A picture's figures do not depend on the others.
    """
    figures = np.empty(len(samples), SIGNAL_DTYPE)
    for start in range(0, len(samples), _AT_ONCE):
        some = slice(start, start + _AT_ONCE)
        for name, values in zip(SIGNAL_DTYPE.names or (), _figures(samples[some]), strict=True):
            figures[name][some] = values
    return figures


def _figures(samples: Bytes) -> Iterator[Floats | Counts]:
    """The columns of SIGNALS."""
    points, squares = _parts(samples)
    tones = _tones(points.swapaxes(0, 1))
    together = np.ascontiguousarray(squares.transpose(1, 2, 3, 0, 4))
    yield from _tone_figures(tones, points)
    yield from _colour_figures(points)
    yield from _texture_figures(_tones(together).astype(np.float32))
    yield from _layout(points, tones)


def _parts(samples: Bytes) -> tuple[Bytes, Bytes]:
    """Points [pictures, 3, 72, 72] (channels, rows, columns) and squares of neighbouring pixels.

    Squares are [pictures, 3, 12, 12, 64]: channels, rows, columns, squares.
    """
    points, squares = samples[:, :_POINTS_BYTES], samples[:, _POINTS_BYTES:]
    return points.reshape(-1, *_POINTS_SHAPE), squares.reshape(-1, *_SQUARES_SHAPE)


@lru_cache(maxsize=64)
def _point_indices(height: int, width: int, step: int) -> npt.NDArray[np.intp]:
    """Byte positions of points that cover a picture evenly: [3, 72, 72], channels, rows, columns.

    step: bytes from a pixel to the next one.
    """
    rows, columns = (((np.arange(_POINTS) * 2 + 1) * size) // (2 * _POINTS) for size in (height, width))
    return np.arange(3)[:, None, None] + step * (rows[:, None] * width + columns)


def _squares(pixels: Pixels) -> Bytes:
    """A view of squares of neighbouring pixels: [8, 8, 12, 12, 3], squares down and across, rows, columns, channels.

    pixels: uint8 [H, W, 3 or 4], contiguous.
    """
    height, width = pixels.shape[:2]
    least = _START + _SIDE
    if height < least or width < least:  # repeat the last row and column
        rows, columns = (np.minimum(np.arange(max(size, least)), size - 1) for size in (height, width))
        pixels = np.ascontiguousarray(pixels[rows][:, columns])
        height, width = pixels.shape[:2]
    (top, down), (left, across) = _placing(height), _placing(width)
    row, column, channel = pixels.strides
    shape = (_SQUARES, _SQUARES, _SIDE, _SIDE, 3)
    strides = (row * down, column * across, row, column, channel)
    return np.ndarray(shape, np.uint8, pixels, top * row + left * column, strides)


@lru_cache(maxsize=64)
def _placing(size: int) -> tuple[int, int]:
    """Offset of the first square along a side, and the distance to the next one, in pixels."""
    room = size - _START - _SIDE
    step = room // (_SQUARES - 1)
    if step >= _JPEG_BLOCK:
        step -= step % _JPEG_BLOCK
    rest = room - step * (_SQUARES - 1)
    return _START + rest // (2 * _JPEG_BLOCK) * _JPEG_BLOCK, step


def _tones(channels: Bytes) -> npt.NDArray[np.int16]:
    """Luma, 0 to 255, of an array with red, green and blue on its first axis."""
    red, green, blue = (
        np.multiply(channel, weight, dtype=np.uint16) for channel, weight in zip(channels, _LUMA, strict=True)
    )
    red += green
    red += blue
    red >>= 8
    tones: npt.NDArray[np.int16] = red.view(np.int16)
    return tones


def _tone_figures(tones: npt.NDArray[np.int16], points: Bytes) -> Iterator[Floats]:
    size = _POINTS * _POINTS
    counts = _histograms(tones)
    yield from _moments(counts)
    summed = counts.cumsum(axis=1)
    for part in (0.01, 0.5, 0.99):
        yield (summed < size * part).sum(axis=1) / 255
    yield summed[:, _NEAR] / size
    yield (size - summed[:, 254 - _NEAR]) / size
    yield ((points == 0) | (points == 255)).any(axis=1).sum(axis=(1, 2)) / size
    shares = counts / size
    yield 0.0 - (shares * np.log2(shares, where=counts > 0, out=np.zeros_like(shares))).sum(axis=1)
    green = _histograms(points[:, 1]) > 0
    width = _TONES - green[:, ::-1].argmax(axis=1) - green.argmax(axis=1)
    yield 1.0 - green.sum(axis=1) / width


def _histograms(values: npt.NDArray[Any]) -> Counts:
    """Number of occurrences of each value 0 to 255 per picture: [pictures, 256], from [pictures, rows, columns]."""
    numbers = values.astype(np.intp)
    numbers += np.arange(len(values))[:, None, None] * _TONES
    return np.bincount(numbers.reshape(-1), minlength=len(values) * _TONES).reshape(-1, _TONES)


def _moments(counts: Counts) -> tuple[Floats, Floats]:
    """Means and standard deviations of histograms of 0 to 255, divided by 255."""
    size = _POINTS * _POINTS
    mean = counts @ _LEVELS / size
    return mean / 255, np.sqrt(np.maximum(counts @ _LEVELS_SQUARED / size - mean * mean, 0.0)) / 255


def _colour_figures(points: Bytes) -> Iterator[Floats]:
    size = _POINTS * _POINTS
    counts = _histograms(points.max(axis=1) - points.min(axis=1))
    yield from _moments(counts)
    yield counts[:, : _GREY + 1].sum(axis=1) / size
    red, green, blue = points.sum(axis=(2, 3), dtype=np.int32).T
    yield (red - green) / (255 * size)
    yield (blue - green) / (255 * size)
    yield _colour_widths(points, (red - green) / size, (blue - green) / size)


def _colour_widths(points: Bytes, red: Floats, blue: Floats) -> Floats:
    """Root of the smaller eigenvalue of the covariance of red - green and blue - green, divided by 255.

    red, blue: the means of these differences.
    """
    wide = points.reshape(-1, 3, _POINTS * _POINTS).astype(np.float32)
    wide -= wide[:, 1:2].copy()
    sums = _dots(wide[:, 0], wide[:, 0]), _dots(wide[:, 2], wide[:, 2]), _dots(wide[:, 0], wide[:, 2])
    a, b, c = np.array(sums) / (_POINTS * _POINTS) - (red * red, blue * blue, red * blue)
    widths: Floats = np.sqrt(np.maximum((a + b) / 2 - np.hypot((a - b) / 2, c), 0.0)) / 255
    return widths


def _texture_figures(squares: npt.NDArray[np.float32]) -> Iterator[Floats]:
    """Texture figures of squares of tones, [12, 12, pictures, 64]: rows, columns, pictures, squares."""
    down, across = squares[1:] - squares[:-1], squares[:, 1:] - squares[:, :-1]
    twice_down, twice_across = down[1:] - down[:-1], across[:, 1:] - across[:, :-1]
    yield _sharpness(twice_down[:, 1:-1] + twice_across[1:-1])
    yield _noise(twice_across)
    sums = np.abs(down).sum(axis=1).sum(axis=2), np.abs(across).sum(axis=0).sum(axis=2)  # of integers, so exact
    vertical, horizontal = (np.ascontiguousarray(each.T) / each.dtype.type(_SIDE * 64) for each in sums)
    yield horizontal.mean(axis=1)
    yield vertical.mean(axis=1)
    yield from _fineness(down, across, twice_down, twice_across)
    border = _JPEG_BLOCK - _START - 1
    borders = (vertical[:, border] + horizontal[:, border]).astype(np.float64) / 2
    both = (vertical.sum(axis=1) + horizontal.sum(axis=1)).astype(np.float64)
    yield np.log2((borders + 0.1) / ((both - 2 * borders) / (2 * (_SIDE - 2)) + 0.1))
    pictures = squares.shape[2]
    rows = twice_down.mean(axis=1).reshape(-1, pictures, _SQUARES, _SQUARES).mean(axis=3)
    columns = twice_across.mean(axis=0).reshape(-1, pictures, _SQUARES, _SQUARES).mean(axis=2)
    for bands in (rows, columns):
        yield np.abs(bands.swapaxes(0, 1), order="C").reshape(pictures, -1).mean(axis=1)
    means = squares.mean(axis=(0, 1))
    deviations = squares - means
    deviations *= deviations
    yield (deviations.mean(axis=(0, 1)) < _FLAT * _FLAT).sum(axis=1) / means.shape[1]
    yield means.min(axis=1) / 255


def _sharpness(laplacian: npt.NDArray[np.float32]) -> Floats:
    flat = np.ascontiguousarray(np.moveaxis(laplacian, 2, 0)).reshape(laplacian.shape[2], -1)
    means = flat.mean(axis=1).astype(np.float64)
    figures: Floats = np.log10(np.maximum(_dots(flat, flat) / flat.shape[1] - means**2, 0.0) + 0.01)
    return figures


def _dots(left: npt.NDArray[np.float32], right: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """The dot product of each row with the other one."""
    sums: npt.NDArray[np.float64] = np.matmul(left[:, None], right[:, :, None])[:, 0, 0].astype(np.float64)
    return sums


def _noise(twice_across: npt.NDArray[np.float32]) -> Floats:
    """Immerkaer's estimate, from second differences of second differences, which vanish on edges."""
    mask = twice_across[2:] + twice_across[:-2]
    mask -= 2 * twice_across[1:-1]
    sums = np.sort(np.abs(mask, out=mask).sum(axis=(0, 1)), axis=1)
    smoothest = np.ascontiguousarray(sums[:, : sums.shape[1] // 4])
    figures: Floats = (smoothest.mean(axis=1) / (_SIDE - 2) ** 2).astype(np.float64) * math.sqrt(math.pi / 2) / 6
    return figures


def _fineness(down: Floats, across: Floats, twice_down: Floats, twice_across: Floats) -> Iterator[Floats]:
    """Log energy ratios of second to first differences in the 16 squares with most texture: across, then down."""
    energy_down, energy_across = ((first * first).sum(axis=(0, 1)) for first in (down, across))
    textured = np.argsort(energy_down + energy_across, axis=1)[:, -(energy_down.shape[1] // 4) :]
    positions = np.arange(len(textured))[:, None] * energy_down.shape[1] + textured
    for second, first in ((twice_across, energy_across), (twice_down, energy_down)):
        chosen = second.reshape(*second.shape[:2], -1).take(positions, axis=2)
        fine = np.square(np.ascontiguousarray(np.moveaxis(chosen, (2, 3), (0, 1)))).reshape(len(textured), -1)
        coarse = np.take_along_axis(first, textured, axis=1)
        yield np.log2((fine.sum(axis=1).astype(np.float64) + 1) / (coarse.sum(axis=1).astype(np.float64) + 1))


def _layout(points: Bytes, tones: npt.NDArray[np.int16]) -> Iterator[npt.NDArray[Any]]:
    """The difference hashes and the thumbnails."""
    cells = _CELLS[8].T @ (tones.astype(np.float32) @ _CELLS[9])
    bits = np.packbits(cells[..., 1:] > cells[..., :-1]).reshape(-1, 8)
    yield bits.view(">u8")[:, 0]
    adder = _CELLS[THUMBNAIL_SIDE]
    sums = adder.T @ (points.astype(np.float32) @ adder)
    thumbnails = np.rint(sums / (_POINTS // THUMBNAIL_SIDE) ** 2).astype(np.uint8)
    yield np.ascontiguousarray(thumbnails.transpose(0, 2, 3, 1)).reshape(len(points), -1).view("S48")[:, 0]
