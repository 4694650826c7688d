"""Check the lengths of the units of an HEVC picture, and read its transfer characteristics (ITU-T H.265).

Its decoder skips units that it cannot read.
"""

from typing import Final

from batchland.errors import ImageError
from batchland.images.decode.bits import Bits
from batchland.images.decode.picture import UNSPECIFIED

_LENGTH: Final = 4
"""Bytes of the length before each unit, in all files of phones and of x265."""
_SLICES: Final = 32
"""Types of units below this number hold pixels."""
_SEQUENCE: Final = 33
"""Type of units with the parameters of a sequence."""
_MAX_HEADER: Final = 4096
"""Bytes of the parameters of a sequence that are read. They take about 50, with scaling factors about 1,500."""
_AFTER_PROFILE: Final = 22
"""Bytes of an `hvcC` property before its units."""


def check_units(data: bytes, begin: int, end: int) -> None:
    """Raise ImageError (`corrupt`) unless network abstraction layer units fill data[begin:end], one of them pixels."""
    position, slices = begin, 0
    while position + _LENGTH + 2 <= end:
        head = int.from_bytes(data[position + _LENGTH : position + _LENGTH + 2])
        kind, layer, temporal = head >> 9, head >> 3 & 63, head & 7
        if kind >= 64 or layer or temporal != 1:
            break
        slices += kind < _SLICES
        position += _LENGTH + int.from_bytes(data[position : position + _LENGTH])
    if position != end or not slices:
        raise ImageError("corrupt", "its compressed data is divided wrongly")


def transfer_of(configuration: bytes) -> int:
    """The transfer characteristics (ITU-T H.273) in the content of an `hvcC` property; 2, unspecified, without them.

    Raises ImageError (`truncated`, or `unsupported_format` for headers that still pictures do not need).
    """
    position = _AFTER_PROFILE
    for _ in range(configuration[position] if len(configuration) > position else 0):
        kind, count = configuration[position + 1] & 63, int.from_bytes(configuration[position + 2 : position + 4])
        position += 3
        for _ in range(count):
            length = int.from_bytes(configuration[position + 1 : position + 3])
            if kind == _SEQUENCE:
                unit = configuration[position + 5 : position + 3 + length]
                return _transfer(Bits(unit[:_MAX_HEADER].replace(b"\0\0\3", b"\0\0"), "big"))
            position += 2 + length
    return UNSPECIFIED


def _transfer(bits: Bits) -> int:
    """That of a sequence parameter set (clause 7.3.2.2)."""

    def skip_numbers(count: int) -> None:
        for _ in range(count):
            _number(bits)

    bits.take(4)
    layers = bits.take(3)
    bits.take(1 + 96)
    if layers:
        sizes = [88 * bits.take(1) + 8 * bits.take(1) for _ in range(8)]
        bits.take(sum(sizes[:layers]))
    skip_numbers(1)
    if _number(bits) == 3:  # 4:4:4
        bits.take(1)
    skip_numbers(2)
    if bits.take(1):  # a part is cut off
        skip_numbers(4)
    skip_numbers(3)
    skip_numbers(3 * (layers + 1 if bits.take(1) else 1))
    skip_numbers(6)
    if bits.take(1) and bits.take(1):
        _skip_scaling_lists(bits)
    bits.take(2)
    if bits.take(1):  # samples without compression
        bits.take(8)
        skip_numbers(2)
        bits.take(1)
    if _number(bits) or bits.take(1):
        raise ImageError("unsupported_format", "a HEIF of a video without a statement about its colours")
    bits.take(2)
    if not bits.take(1):
        return UNSPECIFIED
    if bits.take(1) and bits.take(8) == 255:  # shape of a pixel
        bits.take(32)
    if bits.take(1):
        bits.take(1)
    if not bits.take(1):
        return UNSPECIFIED
    bits.take(4)
    return bits.take(16) & 0xFF if bits.take(1) else UNSPECIFIED


def _skip_scaling_lists(bits: Bits) -> None:
    for size in range(4):
        for _ in range(2 if size == 3 else 6):
            values = min(64, 16 << 2 * size) + (size > 1) if bits.take(1) else 1
            for _ in range(values):
                _number(bits)


def _number(bits: Bits) -> int:
    """A number in exponential Golomb code."""
    zeros = 0
    while not bits.take(1):
        zeros += 1
        if zeros > 32:
            raise ImageError("corrupt", "its header is damaged")
    return (1 << zeros) - 1 + bits.take(zeros)
