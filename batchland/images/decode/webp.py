"""Decode WebP files; of an animation, the first frame."""

from collections.abc import Iterator
from typing import Final

from PIL import WebPImagePlugin  # noqa: F401 - registers the format

from batchland.images.decode.orientation import orientation_of
from batchland.images.decode.picture import Picture, check_size, check_zeros, damage, open_with_pillow, rgb_pixels

_PIXELS: Final = (b"VP8 ", b"VP8L", b"ANMF")
"""Chunks with compressed pixels."""
_PADDING: Final = 64
_PIXELS_PER_ZERO: Final = 8192
"""A zero byte can represent about 10,000 pixels of one colour, at all qualities of libwebp."""


def decode_webp(data: bytes, max_pixels: int) -> Picture:
    """Decode a WebP with transparency over white. Raises ImageError."""
    try:
        with open_with_pillow(data, "WEBP") as image:
            width, height = image.size
            check_size(width, height, max_pixels)
            for content in _compressed(data):
                check_zeros(content, _PADDING + width * height // _PIXELS_PER_ZERO)
            image.load()
            return Picture(rgb_pixels(image), width, height, orientation_of(image), image.info.get("icc_profile"))
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        raise damage(error) from error


def _compressed(data: bytes) -> Iterator[bytes]:
    """The content of each chunk with pixels."""
    position = 12
    while position + 8 <= len(data):
        end = position + 8 + int.from_bytes(data[position + 4 : position + 8], "little")
        if data[position : position + 4] in _PIXELS:
            yield data[position + 8 : end]
        position = end + end % 2
