"""Find out whether a WebP, AVIF, HEIF or JPEG XL file ends too early. Their decoders do not say so."""

from typing import Final

from batchland.errors import ImageError

_MAX_BOXES: Final = 10_000


def as_truncated(error: ImageError, data: bytes, kind: str) -> ImageError:
    """Replace a decoder's `corrupt` by `truncated` if the file ends too early. kind: as `format_of` gives it."""
    if error.code == "corrupt" and kind in _ENDS_EARLY and _ENDS_EARLY[kind](data):
        return ImageError("truncated", "the file ends before its last pixel")
    return error


def _riff_ends_early(data: bytes) -> bool:
    return len(data) < 8 + int.from_bytes(data[4:8], "little")


def _jxl_ends_early(data: bytes) -> bool:
    """Only of files with boxes. A codestream does not say how long it is."""
    return data[:1] == b"\0" and _boxes_end_early(data)


def _boxes_end_early(data: bytes) -> bool:
    """ISO/IEC 14496-12: each box begins with its size; 1 means that eight bytes follow, 0 the rest of the file."""
    position = 0
    for _ in range(_MAX_BOXES):
        size = int.from_bytes(data[position : position + 4])
        size = int.from_bytes(data[position + 8 : position + 16]) if size == 1 else size
        position += size
        if size < 8 or position >= len(data):
            break
    return position > len(data)


_ENDS_EARLY: Final = {
    "WEBP": _riff_ends_early,
    "AVIF": _boxes_end_early,
    "HEIF": _boxes_end_early,
    "JXL": _jxl_ends_early,
}
