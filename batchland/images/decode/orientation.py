"""Read the orientation of a picture from its metadata, and turn it upright."""

import struct
from typing import Final

import numpy as np
from PIL import Image

from batchland.images.decode.picture import Pixels, four_channels

_TAG: Final = 0x0112
_SIZES: Final = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 7: 1, 9: 4, 10: 8}
"""Bytes of a value by the type of its tag."""
_SHORT: Final = 3
_MAX_TAGS: Final = 64
_MAX_BYTES: Final = 4096
"""Limit for the values in the first directory of an EXIF block."""


def find_orientation(exif: bytes | None) -> int:
    """EXIF orientation, 1 to 8, of an EXIF block; 1 without one, or if it is damaged.

    An orientation in XMP is ignored, as by libvips and OpenCV: programs that turn a picture and delete its
    EXIF block may leave the XMP as it was.
    """
    found: object = None
    if exif:
        try:
            found = _usual_orientation(exif)
            if found is None:
                block = Image.Exif()
                block.load(exif)
                found = block.get(_TAG)
        except Exception:  # parsers of damaged metadata raise almost anything
            return 1
    return found if isinstance(found, int) and 1 <= found <= 8 else 1


def _usual_orientation(exif: bytes) -> int | None:
    """The orientation in an EXIF block that is sound and has it once, as cameras write it; None for all other blocks.

    Pillow reads every block, but takes several times as long, during which no other thread can run Python code.
    """
    block = exif[6:]
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(block[:4])
    if not exif.startswith(b"Exif\0\0") or order is None or len(block) < 10:
        return None
    (start,) = struct.unpack_from(f"{order}I", block, 4)
    if not 8 <= start <= len(block) - 2:
        return None
    (count,) = struct.unpack_from(f"{order}H", block, start)
    end = start + 2 + 12 * count
    if count > _MAX_TAGS or end + 4 > len(block):
        return None
    found, total = [], 0
    for tag, kind, length, value in struct.iter_unpack(f"{order}HHII", block[start + 2 : end]):
        size = _SIZES.get(kind, 0) * length
        total += size
        if size == 0 or total > _MAX_BYTES or (size > 4 and not end <= value <= len(block) - size):
            return None
        if tag == _TAG:
            if (kind, length) != (_SHORT, 1):
                return None
            found.append(value >> 16 if order == ">" else value & 0xFFFF)
    return found[0] if len(found) == 1 else None


def turn_upright(pixels: Pixels, orientation: int) -> Pixels:
    """Turn and mirror pixels [H, W, 3] as EXIF orientation 1 to 8 says."""
    if orientation == 1:
        return pixels
    if (whole := four_channels(pixels)) is not None:
        turned = turn_upright(whole.view(np.uint32), orientation)  # a pixel at a time is faster than byte by byte
        return turned.view(np.uint8)[..., :3]
    if orientation >= 5:
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)
