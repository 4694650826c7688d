"""Shorten the compressed data of an AV1 picture, to find out whether a decoder needs all of it. Read its header."""

from collections.abc import Iterator
from typing import Final, NamedTuple

from batchland.errors import ImageError
from batchland.images.decode.bits import Bits
from batchland.images.decode.picture import UNSPECIFIED

_SEQUENCE: Final = 1
"""Type of units with the header of a sequence."""
_MAX_UNITS: Final = 10_000
"""Largest number of units of a picture. Each tile may have its own; a picture has at most 4,096 tiles."""
_MAX_HEADER: Final = 1024
"""Bytes of this header that are read. It has about 10 bytes; 100 with the largest number of layers."""
_TILES: Final = (4, 6)
"""Types of units with pixels: a group of tiles, a frame with its header."""
_PADDING: Final = 15 << 3 | 2
"""Header of a unit that decoders skip, with a size."""


class _Unit(NamedTuple):
    """An open bitstream unit (OBU): header, size, content."""

    kind: int
    size_at: int
    begin: int
    end: int


def without_last_bytes(data: bytes, begin: int, end: int, spare: int) -> bytes | None:
    """The file without the last `spare` bytes of the last tile of the picture in data[begin:end].

    Trailing zeros are also removed. Positions in the file do not change. None if the last unit with pixels does not
    give its size, or has no room for a padding unit.
    """
    last = None
    for unit in _units(data, begin, end):
        if unit.kind in _TILES:
            last = unit
    if last is None or last.begin == last.size_at or last.end - last.begin < 2:
        return None
    kept = last.begin + max(0, len(data[last.begin : last.end].rstrip(b"\0")) - spare)
    filled = last.end - kept
    size = _leb128(kept - last.begin, last.begin - last.size_at)
    width = 1 if filled < 128 else 4
    padding = bytes([_PADDING]) + _leb128(filled - 1 - width, width) + bytes(filled - 1 - width)
    return data[: last.size_at] + size + data[last.begin : kept] + padding + data[last.end :]


class Sequence(NamedTuple):
    """Facts about the pictures of a sequence, from its header."""

    size: tuple[int, int]
    """Largest width and height, pixels."""
    transfer: int
    """Transfer characteristics (ITU-T H.273); 2, unspecified, if it has none."""


def read_sequence(data: bytes) -> Sequence:
    """Read the header of a sequence in compressed data. Several headers must agree.

    Raises ImageError (`truncated`, `corrupt`).
    """
    found = set()
    for number, unit in enumerate(_units(data, 0, len(data))):
        if number >= _MAX_UNITS:
            raise ImageError("corrupt", f"more than {_MAX_UNITS} units of compressed data, which no encoder writes")
        if unit.kind == _SEQUENCE:
            found.add(_sequence(Bits(data[unit.begin : unit.end][:_MAX_HEADER], "big")))
    if len(found) != 1:
        raise ImageError("corrupt", f"its compressed data has {len(found) or 'no'} headers")
    return found.pop()


def _sequence(bits: Bits) -> Sequence:
    """AV1 specification, clause 5.5."""
    profile, _, is_short = bits.take(3), bits.take(1), bits.take(1)
    if is_short:
        bits.take(5)
    else:
        _skip_layers(bits)
    across, down = bits.take(4) + 1, bits.take(4) + 1
    size = bits.take(across) + 1, bits.take(down) + 1
    if is_short:
        bits.take(3)
    else:
        if bits.take(1):
            bits.take(7)
        bits.take(3 + 4)
        is_ordered = bits.take(1)
        bits.take(2 * is_ordered)
        if (bits.take(1) or bits.take(1)) and not bits.take(1):  # tools for drawings
            bits.take(1)
        bits.take(3 * is_ordered)
    bits.take(3)
    is_deep = bits.take(1)
    bits.take((profile == 2 and is_deep) + (profile != 1))
    return Sequence(size, bits.take(16) & 0xFF if bits.take(1) else UNSPECIFIED)


def _skip_layers(bits: Bits) -> None:
    """Times, and the layers that a decoder may choose from."""
    has_model, delay = 0, 0
    if bits.take(1):
        bits.take(64)
        if bits.take(1):
            while not bits.take(1):
                delay += 1
            bits.take(delay)
        if has_model := bits.take(1):
            delay = bits.take(5) + 1
            bits.take(32 + 10)
    has_delay = bits.take(1)
    for _ in range(bits.take(5) + 1):
        bits.take(12)
        if bits.take(5) > 7:  # the level
            bits.take(1)
        if has_model and bits.take(1):
            bits.take(2 * delay + 1)
        if has_delay and bits.take(1):
            bits.take(4)


def _units(data: bytes, position: int, end: int) -> Iterator[_Unit]:
    """The units, up to the first invalid one."""
    while position < end:
        header = data[position]
        size_at = begin = position + 1 + (header >> 2 & 1)
        size = end - begin
        if header & 2:
            size = 0
            for number, byte in enumerate(data[size_at : size_at + 8]):
                size |= (byte & 0x7F) << 7 * number
                begin += 1
                if byte < 0x80:
                    break
        position = begin + size
        if position > end:
            return
        yield _Unit(header >> 3 & 15, size_at, begin, position)


def _leb128(number: int, width: int) -> bytes:
    """The number in `width` bytes of seven bits each, lowest bits first."""
    return bytes((number >> 7 * at & 0x7F) | (0x80 if at < width - 1 else 0) for at in range(width))
