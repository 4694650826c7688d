"""Decode HEIF (HEIC) and AVIF files. Their orientation is that of the container, not of the EXIF block."""

from typing import Final

import numpy as np
from PIL import AvifImagePlugin, Image  # noqa: F401 - the plugin registers the format

from batchland.errors import ImageError
from batchland.images.decode.iso_media import (
    check_avif_properties,
    check_avif_sizes,
    check_colours,
    check_pictures,
    without_end_of_picture,
)
from batchland.images.decode.orientation import find_orientation
from batchland.images.decode.picture import (
    Picture,
    Pixels,
    check_size,
    grey_to_rgb,
    is_decoded,
    open_with_pillow,
    rgb_pixels,
)

_SPARE: Final = 16
"""Bytes that may be left over, besides zeros. Encoders leave at most 1."""


def decode_avif(data: bytes, max_pixels: int) -> Picture:
    """Decode an AVIF. Raises ImageError."""
    begin = data.find(b"meta")
    if b"clap" in data[begin : begin - 4 + int.from_bytes(data[begin - 4 : begin])]:
        raise ImageError("unsupported_format", "an AVIF that crops its picture, not a kind that is read here")
    check_avif_properties(data)
    with open_with_pillow(data, "AVIF") as image:
        check_size(*image.size, max_pixels)
        check_avif_sizes(data, max_pixels)
        check_colours(data)
        check_pictures(data)
        image.load()
        _check_end(data)
        orientation = find_orientation(image.info.get("exif"))
        return Picture(rgb_pixels(image), *image.size, orientation, image.info.get("icc_profile"))


def _check_end(data: bytes) -> None:
    """Raise ImageError (`corrupt`) if the picture can be decoded without its last bytes.

    Damage shifts where the data ends. The decoder reports only data that ends too early.
    """
    shortened = without_end_of_picture(data, _SPARE)
    if shortened is not None and is_decoded(shortened, "AVIF"):
        raise ImageError("corrupt", "its compressed data goes on after the last pixel")


def decode_heif(data: bytes, max_pixels: int) -> Picture:
    """Decode the primary picture of a HEIF. Raises ImageError (`unsupported_format` if pillow-heif is missing)."""
    try:
        import pillow_heif
    except ImportError as error:
        raise ImageError(
            "unsupported_format", "a HEIF file, which the package pillow-heif reads: pip install 'batchland[heic]'"
        ) from error
    try:
        file = pillow_heif.open_heif(data)
        width, height = file.size
        check_size(width, height, max_pixels)
        check_colours(data)
        check_pictures(data)
        image = file.to_pillow()
        return Picture(_rgb(image), image.width, image.height, profile=file.info.get("icc_profile"))
    except (OSError, SyntaxError, ValueError, EOFError, RuntimeError) as error:
        if "nsupported" in str(error):
            raise ImageError("unsupported_format", f"a HEIF file of a kind that is not read ({error})") from error
        raise


def _rgb(image: Image.Image) -> Pixels:
    """Grey of more than 8 bits is scaled to 16 bits, colours to 8."""
    return grey_to_rgb(np.asarray(image) >> 8) if image.mode == "I;16" else rgb_pixels(image)
