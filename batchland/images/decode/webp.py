"""Decode WebP files; of an animation, the first frame.

A WebP has no checksum, and every byte may stand for pixels. Damage shifts where the compressed data ends: libwebp
reports data that ends too early, but not bytes that are left over. So each picture is decoded again without its last
bytes, which must fail.
"""

from collections.abc import Iterator
from typing import Final

from PIL import WebPImagePlugin  # noqa: F401 - registers the format

from batchland.errors import ImageError
from batchland.images.decode.orientation import find_orientation
from batchland.images.decode.picture import Picture, check_size, check_zeros, is_decoded, open_with_pillow, rgb_pixels

_LOSSY, _LOSSLESS, _ALPHA, _FRAME = b"VP8 ", b"VP8L", b"ALPH", b"ANMF"
"""Chunks with pixels; of an animation, they are in a chunk for each frame."""
_FLAGS_AT: Final = 20
_HAS_ALPHA: Final = 0x10
"""Position of the flags of an animation, and the one that its canvas begins transparent."""
_PADDING: Final = 64
_PIXELS_PER_ZERO: Final = 8192
"""A zero byte can represent about 10,000 pixels of one colour, at all qualities of libwebp."""
_SPARE: Final = 16
"""Bytes that may be left over, besides zeros. libwebp leaves at most 4."""


def decode_webp(data: bytes, max_pixels: int) -> Picture:
    """Decode a WebP with transparency over white. Raises ImageError."""
    with open_with_pillow(data, "WEBP") as image:
        width, height = image.size
        check_size(width, height, max_pixels)
        _check_first_frame(data, width, height)
        frame = dict(_first_frame(data))
        for kind in (_LOSSY, _LOSSLESS):
            check_zeros(frame.get(kind, b""), _PADDING + width * height // _PIXELS_PER_ZERO)
        image.load()
        _check_end(frame)
        orientation = find_orientation(image.info.get("exif"))
        return Picture(rgb_pixels(image), width, height, orientation, image.info.get("icc_profile"))


def _check_first_frame(data: bytes, width: int, height: int) -> None:
    """Raise ImageError for an opaque animation if its first frame is smaller: the rest is black, for no reason."""
    begin = next((begin for kind, begin, _ in _chunks(data) if kind == _FRAME), None)
    if begin is None or data[_FLAGS_AT] & _HAS_ALPHA:
        return
    across, down = (int.from_bytes(data[at : at + 3], "little") + 1 for at in (begin + 6, begin + 9))
    if (across, down) != (width, height):
        raise ImageError("unsupported_format", "a WebP with a first frame that leaves a part of the picture undefined")


def _check_end(chunks: dict[bytes, bytes]) -> None:
    """Raise ImageError (`corrupt`) if compressed data of a frame is left over."""
    for kind, content in chunks.items():
        shortened = _file_of(chunks | {kind: content.rstrip(b"\0")[:-_SPARE]})
        if shortened is not None and is_decoded(shortened, "WEBP"):
            raise ImageError("corrupt", "its compressed data goes on after the last pixel")


def _first_frame(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Kind and content of the chunks that the first frame is decoded from, transparency first."""
    for kind, begin, end in _chunks(data):
        if kind == _FRAME:
            yield from _first_frame(b"RIFFsizeWEBP" + data[begin + 16 : end])
            return
        if kind in (_ALPHA, _LOSSY, _LOSSLESS):
            yield kind, data[begin:end]
        if kind in (_LOSSY, _LOSSLESS):
            return


def _file_of(chunks: dict[bytes, bytes]) -> bytes | None:
    """A WebP of these chunks; None if its sides are 0."""
    if _ALPHA in chunks:
        width, height = (int.from_bytes(chunks[_LOSSY][at : at + 2], "little") & 0x3FFF for at in (6, 8))
        if width == 0 or height == 0:
            return None
        canvas = b"\x10\0\0\0" + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
        chunks = {b"VP8X": canvas} | chunks
    parts = [
        kind + len(content).to_bytes(4, "little") + content + bytes(len(content) % 2)
        for kind, content in chunks.items()
    ]
    body = b"WEBP" + b"".join(parts)
    return b"RIFF" + len(body).to_bytes(4, "little") + body


def _chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Kind, and begin and end of the content, of each chunk."""
    position = 12
    while position + 8 <= len(data):
        end = position + 8 + int.from_bytes(data[position + 4 : position + 8], "little")
        yield data[position : position + 4], position + 8, end
        position = end + end % 2
