"""Decode JPEG XL files by the package pillow-jxl-plugin."""

from typing import Final

import numpy as np
from PIL import Image

from batchland.errors import ImageError
from batchland.images.decode.jpeg import decode_jpeg
from batchland.images.decode.picture import Picture, check_size, damage, grey_to_rgb, rgb_pixels

_CODESTREAM: Final = b"\xff\x0a"
_RATIOS: Final = ((1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))
"""Width to height, by their number in the header."""
_SIZE_BITS: Final = (9, 13, 18, 30)


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
    try:
        is_jpeg, info, content, profile, _ = Decoder(num_threads=0)(data)
    except (OSError, SyntaxError, ValueError, EOFError, RuntimeError) as error:
        raise damage(error) from error
    if is_jpeg:  # a JPEG that was packed without loss
        return decode_jpeg(content, max_pixels, lambda width, height: 1)  # noqa: ARG005
    if info.mode not in ("L", "LA", "RGB", "RGBA", "I;16"):
        raise ImageError("unsupported_format", f"a JPEG XL with pixels of mode {info.mode}, which are not read here")
    image = Image.frombytes(info.mode, (info.width, info.height), content)
    pixels = grey_to_rgb(np.asarray(image) >> 8) if info.mode == "I;16" else rgb_pixels(image)
    return Picture(pixels, info.width, info.height, profile=profile or None)


def _check_header(data: bytes, max_pixels: int) -> None:
    """Check size and kind by the header of the codestream (ISO/IEC 18181-1, SizeHeader and ImageMetadata)."""
    bits = int.from_bytes(_codestream(data)[2:34], "little")

    def take(count: int) -> int:
        nonlocal bits
        value = bits & (1 << count) - 1
        bits >>= count
        return value

    def take_size() -> tuple[int, int]:
        small = take(1)
        height = (take(5) + 1) * 8 if small else take(_SIZE_BITS[take(2)]) + 1
        if ratio := take(3):
            across, down = _RATIOS[ratio - 1]
            return height * across // down, height
        return (take(5) + 1) * 8 if small else take(_SIZE_BITS[take(2)]) + 1, height

    check_size(*take_size(), max_pixels)
    all_default, has_fields = take(1), take(1)
    if all_default or not has_fields:
        return
    take(3)  # the orientation, which the decoder applies
    if take(1):
        take_size()  # the size that is meant for display
    has_preview, is_animation = take(1), take(1)
    if has_preview or is_animation:
        raise ImageError("unsupported_format", "a JPEG XL with a preview or an animation, not a kind that is read here")


def _codestream(data: bytes) -> bytes:
    """The beginning of the codestream, bare or in a container. Raises ImageError (`truncated`)."""
    if data.startswith(_CODESTREAM):
        return data
    position = 0
    while position + 16 <= len(data):
        size, kind = int.from_bytes(data[position : position + 4]), data[position + 4 : position + 8]
        content = position + 8
        if size == 1:
            size, content = int.from_bytes(data[content : content + 8]), content + 8
        if kind in (b"jxlc", b"jxlp"):
            return data[content + (4 if kind == b"jxlp" else 0) :][:64]
        if size < 8:
            break
        position += size
    raise ImageError("truncated", "the file ends before its picture")
