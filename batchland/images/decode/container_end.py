"""Find out whether a WebP, AVIF or HEIF file ends too early. Their decoders do not tell this from other damage."""

from typing import Final

from batchland.errors import ImageError

_MAX_BOXES: Final = 10_000


def as_truncated(error: ImageError, data: bytes, kind: str) -> ImageError:
    """Replace a decoder's `corrupt` by `truncated` if the file ends too early. kind: as `format_of` gives it."""
    ends_early = {"WEBP": _riff_ends_early, "AVIF": _boxes_end_early, "HEIF": _boxes_end_early}.get(kind)
    if error.code != "corrupt" or ends_early is None or not ends_early(data):
        return error
    return ImageError("truncated", "the file ends before its last pixel")


def _riff_ends_early(data: bytes) -> bool:
    return len(data) < 8 + int.from_bytes(data[4:8], "little")


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
