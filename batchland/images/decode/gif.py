"""Decode the first frame of GIF files. Extensions before it are skipped, not read."""

from typing import Final

import numpy as np
from PIL import GifImagePlugin  # noqa: F401 - registers the format

from batchland.errors import ImageError
from batchland.images.decode.gif_lzw import check_lzw
from batchland.images.decode.picture import Picture, Pixels, check_size, open_with_pillow, rgb_pixels

_MAX_BLOCKS: Final = 100_000
"""Blocks of extensions before the first frame: about 25 MB."""
_EXTENSION, _IMAGE, _GRAPHIC_CONTROL = 0x21, 0x2C, 0xF9


def decode_gif(data: bytes, max_pixels: int) -> Picture:
    """Decode the first frame of a GIF on its canvas, with transparency over white. Raises ImageError."""
    if len(data) < 13:
        raise ImageError("truncated", "the file ends within its header")
    width, height = (int.from_bytes(data[start : start + 2], "little") for start in (6, 8))
    check_size(width, height, max_pixels)
    table = 3 << (data[10] & 7) + 1 if data[10] & 0x80 else 0
    control, begin = _find_frame(data, 13 + table)
    left, top, across, down = (int.from_bytes(data[begin + at : begin + at + 2], "little") for at in (1, 3, 5, 7))
    check_size(max(width, left + across), max(height, top + down), max_pixels)
    own_table = 3 << (data[begin + 9] & 7) + 1 if data[begin + 9] & 0x80 else 0
    if not (table or own_table):
        raise ImageError("unsupported_format", "a GIF without a table of colours, not a kind that is read here")
    transparent = control[6] if control and control[3] & 1 else None
    covers = (left, top) == (0, 0) and across >= width and down >= height
    if not covers and transparent is None:
        raise ImageError("unsupported_format", "a GIF with a first frame that leaves a part of the picture undefined")
    with open_with_pillow(data[: 13 + table] + control + data[begin:], "GIF") as image:
        image.load()
        _check_colours(np.asarray(image), (own_table or table) // 3, transparent)
        pixels = rgb_pixels(image)
        size = image.size
    check_lzw(data, begin + 10 + own_table, across * down)
    return Picture(pixels, *size)


def _check_colours(indices: Pixels, colours: int, transparent: int | None) -> None:
    """Raise ImageError (`corrupt`) for pixels beyond the table of colours. Pillow shows them as black or grey."""
    if indices.max() >= colours and (indices[indices != transparent] >= colours).any():
        raise ImageError("corrupt", "its pixels have colours that its palette lacks")


def _find_frame(data: bytes, position: int) -> tuple[bytes, int]:
    """The last graphic control extension before the first frame, and the byte position of the frame."""
    control = b""
    blocks = 0
    while position + 10 <= len(data):
        kind = data[position]
        if kind == _IMAGE:
            return control, position
        blocks += 1
        if kind == 0 and blocks <= _MAX_BLOCKS:  # some writers pad extensions
            position += 1
            continue
        if kind != _EXTENSION:
            raise ImageError("corrupt", "its blocks are damaged")
        begin = position
        position += 2
        while position < len(data) and data[position] and blocks <= _MAX_BLOCKS:
            position += 1 + data[position]
            blocks += 1
        position += 1
        if blocks > _MAX_BLOCKS:
            raise ImageError("corrupt", f"more than {_MAX_BLOCKS} blocks before the picture, which no encoder writes")
        if data[begin + 1] == _GRAPHIC_CONTROL:
            control = data[begin:position]
    raise ImageError("truncated", "the file ends before its picture")
