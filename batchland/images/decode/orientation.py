"""Read the orientation of a picture from its metadata, and turn it upright."""

import re
from typing import Final

import numpy as np
from PIL import Image

from batchland.images.decode.picture import Pixels

_TAG: Final = 0x0112
_IN_XMP: Final = re.compile(rb'tiff:Orientation(="|>)([0-9])')


def find_orientation(exif: bytes | None, xmp: bytes | None) -> int:
    """EXIF orientation, 1 to 8, of an EXIF block or else of XMP; 1 without one, or if the EXIF block is damaged."""
    found: object = None
    if exif:
        try:
            block = Image.Exif()
            block.load(exif)
            found = block.get(_TAG)
        except Exception:  # parsers of damaged metadata raise almost anything
            return 1
    if found is None and xmp and (match := _IN_XMP.search(xmp)):
        found = int(match[2])
    return found if isinstance(found, int) and 1 <= found <= 8 else 1


def orientation_of(image: Image.Image) -> int:
    """EXIF orientation, 1 to 8, of an image opened by Pillow."""
    try:
        found = image.getexif().get(_TAG, 1)
    except Exception:  # parsers of damaged metadata raise almost anything
        return 1
    return found if isinstance(found, int) and 1 <= found <= 8 else 1


def turn_upright(pixels: Pixels, orientation: int) -> Pixels:
    """Turn and mirror pixels [H, W, 3] as EXIF orientation 1 to 8 says."""
    if orientation >= 5:
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)
