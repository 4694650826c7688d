"""A decoded picture, and the conversion of pixels of any kind to RGB."""

import re
from io import BytesIO
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from batchland.errors import ErrorCode, ImageError
from batchland.images.decode.canvas import picture_canvas
from batchland.system.text import first_line

Pixels = npt.NDArray[np.uint8]
Samples = npt.NDArray[np.integer]

_STRIP_PIXELS: Final = 4_000_000
"""Large pictures are converted in strips of about this many pixels, so that no second copy of them is needed."""
UNSPECIFIED: Final = 2
"""Transfer characteristics (ITU-T H.273) that are not given."""
_HDR: Final = {16: "PQ", 18: "HLG"}
_ADDRESS: Final = re.compile(r" at 0x[0-9a-f]+")
_OF_DECODERS: Final = re.compile(
    r"(decoder|codec|encoder) error -?\d+|could not create decoder object|Generic Error\. Please build .*"
)
_OF_ZLIB: Final = re.compile(r"^Error -?\d+ while decompressing data: ")
_CUT: Final = re.compile(
    r"image file is truncated \(\d+ bytes not processed\)|Failed to decode frame \d+: Truncated data"
)
"""Messages of decoders that people cannot understand."""
_SIGNS_OF_A_CUT: Final = ("truncated", "premature end", "unexpected end", "the file ends")


class Picture(NamedTuple):
    """A decoded picture as stored in the file: not yet turned upright."""

    pixels: Pixels
    """RGB uint8 [H, W, 3]; for some JPEGs at reduced size. May be a view of four channels, see `four_channels`."""
    width: int
    height: int
    """Full size, pixels."""
    orientation: int = 1
    """EXIF orientation, 1 to 8."""
    profile: bytes | None = None
    """ICC profile of the pixels, if the file has one for RGB or grey."""


def four_channels(pixels: Pixels) -> Pixels | None:
    """The four channels, uint8 [H, W, 4], that `pixels` are the first three of; None if there is no fourth."""
    if canvas := picture_canvas(pixels):
        return canvas.pixels
    height, width = pixels.shape[:2]
    whole = pixels.base
    if pixels.strides != (4 * width, 4, 1) or not isinstance(whole, np.ndarray):
        return None
    start, whole_start = (each.__array_interface__["data"][0] for each in (pixels, whole))
    if start != whole_start or whole.nbytes < 4 * height * width:
        return None
    return np.ndarray((height, width, 4), np.uint8, whole)


def check_size(width: int, height: int, max_pixels: int) -> None:
    """Raise ImageError (`too_many_pixels`, or `corrupt` for a side of 0)."""
    if width <= 0 or height <= 0:
        raise ImageError("corrupt", "the picture has no pixels")
    if width * height > max_pixels:
        raise ImageError("too_many_pixels", f"{width} x {height} pixels, more than max_pixels = {max_pixels}")


def check_zeros(compressed: bytes, longest: int) -> None:
    """Raise ImageError (`corrupt`) if compressed pixels hold more than `longest` zero bytes in a row.

    An interrupted download or copy leaves zeros, and some decoders treat them as pixels.
    """
    if bytes(longest + 1) in compressed:
        raise ImageError("corrupt", "a part of the picture is replaced by zeros")


def check_transfer(number: int) -> None:
    """Raise ImageError (`unsupported_format`) for HDR: PQ and HLG of ITU-T H.273 encode brightness differently."""
    if number in _HDR:
        raise ImageError("unsupported_format", f"an HDR picture ({_HDR[number]}), not a kind that is read here")


def open_with_pillow(data: bytes, plugin: str) -> Image.Image:
    """Open an image with one plugin of Pillow, named as in `Image.OPEN`. Raises ImageError (`corrupt`)."""
    try:
        return Image.open(BytesIO(data), formats=(plugin,))
    except UnidentifiedImageError:
        raise ImageError("corrupt", f"starts like a file in {plugin} format, but its header is damaged") from None


def is_decoded(data: bytes, plugin: str) -> bool:
    """Whether that plugin of Pillow decodes a picture from these bytes."""
    try:
        with open_with_pillow(data, plugin) as image:
            image.load()
    except (OSError, SyntaxError, ValueError, EOFError, RuntimeError, ImageError):
        return False
    return True


def damage(error: Exception) -> ImageError:
    """A decoder's error as an ImageError (`truncated` or `corrupt`); the same file always gives the same message."""
    message = _ADDRESS.sub("", first_line(error))
    message = _OF_DECODERS.sub("its compressed data cannot be decoded", message)
    message = _OF_ZLIB.sub("its compressed data cannot be decoded: ", message)
    message = _CUT.sub("the file ends before its last pixel", message)
    truncated = any(sign in message.lower() for sign in _SIGNS_OF_A_CUT)
    code: ErrorCode = "truncated" if truncated else "corrupt"
    return ImageError(code, message if re.search("[a-z]", message) else "its data cannot be decoded")


def grey_to_rgb(grey: Samples) -> Pixels:
    """RGB uint8 [H, W, 3] of grey values 0 to 255 [H, W]."""
    return np.repeat(grey.astype(np.uint8)[:, :, None], 3, axis=2)


def palette_to_rgb(indices: Pixels, palette: Pixels) -> Pixels:
    """RGB uint8 [H, W, 3] of colour numbers [H, W] and a palette [colours, 3]. Raises ImageError (`corrupt`)."""
    if indices.max() >= len(palette):
        raise ImageError("corrupt", "its pixels have colours that its palette lacks")
    image = Image.fromarray(np.ascontiguousarray(indices), "P")
    image.putpalette(palette.tobytes())
    return rgb_pixels(image)


def over_white(colours: Pixels, alpha: Pixels) -> Pixels:
    """RGB uint8 [H, W, 3] of colours laid over white by alpha uint8 [H, W]."""
    return rgb_pixels(Image.fromarray(np.dstack((colours, alpha))))


def rgb_pixels(image: Image.Image) -> Pixels:
    """RGB uint8 [H, W, 3] of an image of Pillow; transparency over white. Raises ImageError (`unsupported_format`)."""
    width, height = image.size
    rows = max(1, _STRIP_PIXELS // max(1, width))
    if height <= rows:
        return np.asarray(_to_rgb(image))
    pixels = np.empty((height, width, 3), np.uint8)
    for top in range(0, height, rows):
        bottom = min(top + rows, height)
        pixels[top:bottom] = np.asarray(_to_rgb(image.crop((0, top, width, bottom))))
    return pixels


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode not in ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr"):
        raise ImageError("unsupported_format", f"pixels of mode {image.mode} have no defined RGB values")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image.convert("RGB")
