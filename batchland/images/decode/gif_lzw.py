"""Detect damage in the LZW stream of a GIF frame by its number of pixels. Pillow stops at the last pixel."""

from typing import Final

import numpy as np
import numpy.typing as npt

from batchland.errors import ImageError

_TABLE: Final = 4096
"""Size of the table of codes: codes have at most 12 bits."""
_WINDOW: Final = 256
"""Number of codes that are first unpacked after a clear code."""
_MAX_CLEARS: Final = 1000
"""Allowed number of consecutive clear codes. Encoders write one."""
_SPARE: Final = 2
"""Allowed number of further pixels: without an end code, the unused bits of the last byte may be read as pixels."""

Bytes = npt.NDArray[np.uint8]
Numbers = npt.NDArray[np.int64]


def check_lzw(data: bytes, begin: int, pixels: int) -> None:
    """Raise ImageError (`corrupt`) if the stream of a frame that Pillow decoded holds more than its pixels.

    begin: position of the byte that gives the bits of a colour; sub-blocks follow.
    """
    bits = data[begin]
    if not 2 <= bits <= 8:  # with one bit, decoders differ in the width of the second code
        return
    stream = np.frombuffer(_joined(data, begin + 1) + bytes(3), np.uint8)
    left, position, clears, ended = pixels, 0, 0, False
    while left >= -_SPARE and not ended and clears <= _MAX_CLEARS:
        found, position, ended = _segment(stream, position, 1 << bits)
        left -= found
        clears = 0 if found else clears + 1
    if left < -_SPARE:
        raise ImageError("corrupt", "its compressed data goes on after the last pixel")


def _joined(data: bytes, position: int) -> bytes:
    """The content of the sub-blocks."""
    blocks = []
    while position < len(data) and data[position]:
        blocks.append(data[position + 1 : position + 1 + data[position]])
        position += 1 + data[position]
    return b"".join(blocks)


def _segment(stream: Bytes, position: int, clear: int) -> tuple[int, int, bool]:
    """Pixels up to the next clear code, the bit position after it, and whether the stream ends there instead."""
    pixels, count, window = 0, 0, _WINDOW
    table = np.empty(0, np.int64)
    while True:
        codes, ends = _unpack(stream, position, clear, count, window)
        special = np.flatnonzero((codes == clear) | (codes == clear + 1))
        used = int(special[0]) if special.size else len(codes)
        lengths = _lengths(codes[:used], clear, count, table)
        pixels += int(lengths.sum())
        if special.size or used < window:
            after = int(ends[used]) if special.size else position
            return pixels, after, not special.size or int(codes[used]) == clear + 1
        table = np.concatenate((table, lengths))[: _TABLE - clear - 2]
        position, count, window = int(ends[-1]), count + used, _TABLE


def _unpack(stream: Bytes, position: int, clear: int, count: int, window: int) -> tuple[Numbers, Numbers]:
    """Up to `window` codes, and the bit position after each; `count` codes have come since the last clear code."""
    entries = clear + 2 + np.maximum(np.arange(count, count + window) - 1, 0)
    widths = np.frexp(np.minimum(entries, _TABLE - 1))[1].astype(np.int64)  # the bits of the number
    ends = position + np.cumsum(widths)
    present = int(np.searchsorted(ends, 8 * (len(stream) - 3), side="right"))
    widths, ends = widths[:present], ends[:present]
    starts = ends - widths
    at = starts >> 3
    three = stream[at].astype(np.int64) | stream[at + 1].astype(np.int64) << 8 | stream[at + 2].astype(np.int64) << 16
    return three >> (starts & 7) & (1 << widths) - 1, ends


def _lengths(codes: Numbers, clear: int, count: int, table: Numbers) -> Numbers:
    """Pixels of each code: one more than those of the code that began its entry of the table."""
    parents = codes - (clear + 2)
    lengths = np.ones(len(codes), np.int64)
    known = (parents >= 0) & (parents < len(table))
    lengths[known] += table[parents[known]]
    own = np.arange(len(codes))
    parents = np.where(~known & (parents >= 0), parents - count, -1)
    parents[parents >= own] = -1  # no entry of the table, after the last pixel
    while (linked := parents >= 0).any():
        ahead = parents[linked]
        lengths[linked] += lengths[ahead]
        parents[linked] = parents[ahead]
    return lengths
