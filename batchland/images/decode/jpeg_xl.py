"""Decode JPEG XL files by the package pillow-jxl-plugin."""

from typing import Final

import numpy as np
from PIL import Image

from batchland.errors import ImageError
from batchland.images.decode.bits import Bits
from batchland.images.decode.iso_media import boxes
from batchland.images.decode.jpeg import decode_jpeg
from batchland.images.decode.picture import (
    UNSPECIFIED,
    Picture,
    Pixels,
    check_size,
    check_transfer,
    grey_to_rgb,
    over_white,
    rgb_pixels,
)

_CODESTREAM: Final = b"\xff\x0a"
_RATIOS: Final = ((1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))
"""Width to height, by their number in the header."""
_MAX_HEADER: Final = 32_768
"""Bytes. A header with as many channels as are allowed, and the longest names, takes about half of this."""
_MAX_CHANNELS: Final = 16
"""Largest number of channels besides the colours: each takes as much memory as a colour."""
_IGNORED_CHANNELS: Final = frozenset((0, 1, 3, 6, 15, 16))
"""Types of channels beside which colours keep their meaning: alpha, depth, selection, thermal, unknown, optional."""
_ALPHA: Final = 0
_GREY, _XYB = 1, 2
_CUSTOM: Final = 2

# Numbers of variable size: two bits choose one of four pairs of a first value and a count of bits to add to it.
_Choices = tuple[tuple[int, int], ...]
_SIDES: Final[_Choices] = ((1, 9), (1, 13), (1, 18), (1, 30))
_ENUM: Final[_Choices] = ((0, 0), (1, 0), (2, 4), (18, 6))
_WHOLE_BITS: Final[_Choices] = ((8, 0), (10, 0), (12, 0), (1, 6))
_FLOAT_BITS: Final[_Choices] = ((32, 0), (16, 0), (24, 0), (1, 6))
_CHANNELS: Final[_Choices] = ((0, 0), (1, 0), (2, 4), (1, 12))
_REDUCTIONS: Final[_Choices] = ((0, 0), (3, 0), (4, 0), (1, 3))
_NAMES: Final[_Choices] = ((0, 0), (0, 4), (16, 5), (48, 10))
_COORDINATES: Final[_Choices] = ((0, 19), (1 << 19, 19), (1 << 20, 20), (1 << 21, 21))


def decode_jxl(data: bytes, max_pixels: int) -> Picture:
    """Decode a JPEG XL, upright. Raises ImageError (`unsupported_format` if pillow-jxl-plugin is missing)."""
    _check_header(data, max_pixels)
    try:
        from pillow_jxl import Decoder
    except ImportError as error:
        raise ImageError(
            "unsupported_format",
            "a JPEG XL file, which the package pillow-jxl-plugin reads: pip install 'batchland[jxl]'",
        ) from error
    is_jpeg, info, content, profile, _ = Decoder(num_threads=0)(data)
    if is_jpeg:  # a JPEG that was packed without loss
        return decode_jpeg(content, max_pixels, lambda width, height: 1)  # noqa: ARG005
    return Picture(_rgb(info.mode, info.width, info.height, content), info.width, info.height, profile=profile or None)


def _rgb(mode: str, width: int, height: int, content: bytes) -> Pixels:
    """RGB of the decoder's pixels; it gives grey of more than 8 bits as 16 bits, colours always as 8."""
    if mode not in ("L", "LA", "RGB", "RGBA", "I;16"):
        raise ImageError("unsupported_format", f"a JPEG XL with pixels of mode {mode}, which are not read here")
    channels = 1 if mode == "I;16" else len(mode)
    count = width * height * channels
    if len(content) == 2 * count and channels <= 2:
        samples = (np.frombuffer(content, np.uint16) >> 8).astype(np.uint8)
    elif len(content) == count and mode != "I;16":
        samples = np.frombuffer(content, np.uint8)
    else:
        raise ImageError("unsupported_format", "a JPEG XL with pixels of an unknown size, not a kind that is read here")
    samples = samples.reshape(height, width, channels)
    if channels == 1:
        return grey_to_rgb(samples[:, :, 0])
    if channels == 2:
        return over_white(np.repeat(samples[:, :, :1], 3, axis=2), samples[:, :, 1])
    return samples if channels == 3 else rgb_pixels(Image.fromarray(samples))


def _check_header(data: bytes, max_pixels: int) -> None:
    """Check size and kind by the header of the codestream (ISO/IEC 18181-1, SizeHeader and ImageMetadata)."""
    bits = Bits(_codestream(data), "little")
    check_size(*_size(bits), max_pixels)
    if bits.take(1):  # everything else has its usual value
        return
    if bits.take(1):
        bits.take(3)  # the orientation, which the decoder applies
        if bits.take(1):
            _size(bits)  # the size that is meant for display
        if bits.take(2):
            raise ImageError(
                "unsupported_format", "a JPEG XL with a preview or an animation, not a kind that is read here"
            )
    _skip_depth(bits)
    bits.take(1)  # whether 16 bits are enough for all steps
    channels = _number(bits, _CHANNELS)
    if channels > _MAX_CHANNELS:
        raise ImageError("unsupported_format", f"a JPEG XL of {channels} channels besides its colours")
    for _ in range(channels):
        _check_channel(bits)
    bits.take(1)  # whether the decoder converts the colours
    check_transfer(_transfer(bits))


def _number(bits: Bits, choices: _Choices) -> int:
    first, count = choices[bits.take(2)]
    return first + bits.take(count)


def _size(bits: Bits) -> tuple[int, int]:
    """Width and height, pixels."""
    small = bits.take(1)
    height = (bits.take(5) + 1) * 8 if small else _number(bits, _SIDES)
    if ratio := bits.take(3):
        across, down = _RATIOS[ratio - 1]
        return height * across // down, height
    return (bits.take(5) + 1) * 8 if small else _number(bits, _SIDES), height


def _skip_depth(bits: Bits) -> None:
    if bits.take(1):
        _number(bits, _FLOAT_BITS)
        bits.take(4)
    else:
        _number(bits, _WHOLE_BITS)


def _check_channel(bits: Bits) -> None:
    """Refuse channels that change the colours in a way that the decoder leaves to its caller, such as black ink."""
    if bits.take(1):  # alpha of 8 bits
        return
    kind = _number(bits, _ENUM)
    _skip_depth(bits)
    _number(bits, _REDUCTIONS)
    bits.take(8 * _number(bits, _NAMES))
    if kind not in _IGNORED_CHANNELS:
        raise ImageError("unsupported_format", f"a JPEG XL with a channel of type {kind}, which is not read here")
    if kind == _ALPHA and bits.take(1):
        raise ImageError("unsupported_format", "a JPEG XL with premultiplied alpha, not a kind that is read here")


def _transfer(bits: Bits) -> int:
    """The transfer characteristics (ITU-T H.273) of the colours; 2, unspecified, with an ICC profile or a gamma."""
    if bits.take(1):
        return UNSPECIFIED
    has_profile, space = bits.take(1), _number(bits, _ENUM)
    if has_profile or space == _XYB:
        return UNSPECIFIED
    if _number(bits, _ENUM) == _CUSTOM:  # white point
        _skip_coordinates(bits, 1)
    if space != _GREY and _number(bits, _ENUM) == _CUSTOM:  # primaries
        _skip_coordinates(bits, 3)
    return UNSPECIFIED if bits.take(1) else _number(bits, _ENUM)


def _skip_coordinates(bits: Bits, colours: int) -> None:
    for _ in range(2 * colours):
        _number(bits, _COORDINATES)


def _codestream(data: bytes) -> bytes:
    """The codestream's first bytes after its signature. It is bare, or in one or more boxes. Raises ImageError."""
    if data.startswith(_CODESTREAM):
        return data[2 : 2 + _MAX_HEADER]
    found = bytearray()
    for kind, begin, end in boxes(data, 0, len(data)):
        if kind in (b"jxlc", b"jxlp"):
            begin += 4 if kind == b"jxlp" else 0
            found += data[begin : min(end, begin + 2 + _MAX_HEADER - len(found))]
    if not found.startswith(_CODESTREAM):
        raise ImageError("truncated", "the file ends before its picture")
    return bytes(found[2:])
