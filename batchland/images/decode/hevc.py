"""Check the lengths of the units of an HEVC picture. Its decoder skips units that it cannot read."""

from typing import Final

from batchland.errors import ImageError

_LENGTH: Final = 4
"""Bytes of the length before each unit, in all files of phones and of x265."""
_SLICES: Final = 32
"""Types of units below this number hold pixels."""


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
