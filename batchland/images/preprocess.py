"""Turn image bytes into pixels, in the same way for training and for scoring.

`fit(decode(data, spec), spec)` is the whole path. Training augments between the two calls; nothing else differs.
Normalisation is part of the model: mean and standard deviation are inside the ONNX graph.
"""

import warnings
from functools import partial
from typing import Annotated, Final, Literal, NamedTuple

import numpy as np
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, model_validator

from batchland.errors import ImageError
from batchland.images.decode.bmp import decode_bmp
from batchland.images.decode.colour import check_profile, to_srgb
from batchland.images.decode.container_end import as_truncated
from batchland.images.decode.formats import format_of
from batchland.images.decode.gif import decode_gif
from batchland.images.decode.heif import decode_avif, decode_heif
from batchland.images.decode.jpeg import decode_jpeg
from batchland.images.decode.jpeg_xl import decode_jxl
from batchland.images.decode.orientation import turn_upright
from batchland.images.decode.picture import Picture, damage
from batchland.images.decode.picture import Pixels as Pixels
from batchland.images.decode.png import decode_png
from batchland.images.decode.tiff import decode_tiff
from batchland.images.decode.webp import decode_webp
from batchland.images.resize import resize

FORMATS: Final = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "AVIF")
"""Formats that are always read, as Pillow names them. HEIF and JPEG XL need further packages."""
_DECODERS: Final = {
    "PNG": decode_png,
    "WEBP": decode_webp,
    "BMP": decode_bmp,
    "GIF": decode_gif,
    "TIFF": decode_tiff,
    "AVIF": decode_avif,
    "HEIF": decode_heif,
    "JXL": decode_jxl,
}
"""They raise ImageError, or what their libraries raise; `decode` turns that into ImageError."""
_PILLOW_FILTERS: Final = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}

# Pillow warns of unusual metadata, once for each line of its code. Real problems raise an ImageError for one image.
warnings.filterwarnings("ignore", module=r"PIL\.")

PositiveInt = Annotated[int, Field(gt=0)]


class PreprocessSpec(BaseModel):
    """The preprocessing of a model's input. Part of the model card, so that scoring cannot differ from training."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    height: PositiveInt = 224
    """Rows of the model's input, pixels."""
    width: PositiveInt = 224
    """Columns of the model's input, pixels."""
    fit: Literal["squash", "crop"] = "squash"
    """`squash` resizes to height x width; `crop` resizes the shorter side to `shorter_side`, then cuts the centre."""
    shorter_side: PositiveInt | None = None
    """Pixels; only with `crop`."""
    filter: Literal["bilinear", "bicubic"] = "bilinear"
    """Resampling filter, antialiased."""
    resize: Literal["pillow", "simd"] = "pillow"
    """`pillow` resizes by Pillow; `simd` in the fixed-point arithmetic of fast_image_resize, several times faster."""
    jpeg_scale: Literal["none", "auto"] = "none"
    """`auto` lets libjpeg shrink a large JPEG by 2, 4 or 8 while decoding, never below twice the wanted size."""
    colour: Literal["as_stored", "srgb"] = "as_stored"
    """`srgb` converts pictures with an ICC profile to sRGB; `as_stored` ignores profiles."""
    max_pixels: PositiveInt = 100_000_000
    """Pictures of more pixels fail as `too_many_pixels`, before they are decoded."""

    @model_validator(mode="after")
    def _only_crop_has_a_side(self) -> "PreprocessSpec":
        if (self.fit == "crop") != (self.shorter_side is not None):
            raise ValueError("shorter_side must be given if fit is 'crop', and only then")
        if self.shorter_side is not None and self.shorter_side < max(self.height, self.width):
            raise ValueError(f"shorter_side must be at least {max(self.height, self.width)}, the size that is cut out")
        return self

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of one fitted picture: (height, width, 3)."""
        return (self.height, self.width, 3)


class Decoded(NamedTuple):
    """A decoded picture: RGB uint8 [H, W, 3], and its full size as stored, after orientation, in pixels.

    The pixels may be a view of an array with four channels (see `four_channels`), which `resize` need not copy.
    """

    pixels: Pixels
    width: int
    height: int


def decode(data: bytes, spec: PreprocessSpec, *, reuse: bool = False) -> Decoded:
    """Decode image bytes to RGB uint8 [H, W, 3].

    The content decides the format, not the file's name. The picture is turned upright; grey, palettes, CMYK and 16 bits
    become RGB, transparency is laid over white, and only the first frame or page is read. A file that might be read
    wrongly is refused. With `spec.jpeg_scale` the pixels may be a half, a quarter or an eighth of the
    full size; `width` and `height` are always the full size.

    reuse: the pixels may be in memory that this thread uses again for the next picture.

    Raises ImageError (`empty`, `not_an_image`, `unsupported_format`, `too_many_pixels`, `truncated`, `corrupt`,
    `out_of_memory`).
    """
    if not data:
        raise ImageError("empty", "the file has no content")
    kind = format_of(data)
    try:
        picture = _decode(data, kind, spec, reuse=reuse)
        check_profile(picture.profile)
        pixels = to_srgb(picture.pixels, picture.profile) if spec.colour == "srgb" else picture.pixels
        pixels = turn_upright(pixels, picture.orientation)
    except MemoryError as error:
        raise ImageError("out_of_memory", "not enough memory to decode it") from error
    except Image.DecompressionBombError as error:
        raise ImageError("too_many_pixels", str(error).partition(",")[0]) from error  # without "could be an attack"
    except Exception as error:  # parsers of other people's formats raise almost anything on damaged input
        raise as_truncated(error if isinstance(error, ImageError) else damage(error), data, kind) from error
    size = (picture.width, picture.height)
    return Decoded(pixels, *(size[::-1] if picture.orientation >= 5 else size))


def _decode(data: bytes, kind: str, spec: PreprocessSpec, *, reuse: bool) -> Picture:
    if kind == "JPEG":
        choose = partial(jpeg_divisor, spec=spec)
        return decode_jpeg(data, spec.max_pixels, choose, four_channels=spec.resize == "simd", reuse=reuse)
    return _DECODERS[kind](data, spec.max_pixels)


def fit(pixels: Pixels, spec: PreprocessSpec) -> Pixels:
    """Bring RGB uint8 [H, W, 3] of any size to uint8 [spec.height, spec.width, 3], with antialiasing.

    Raises ImageError (`out_of_memory`).
    """
    height, width = pixels.shape[:2]
    box = (0.0, 0.0, width, height) if spec.shorter_side is None else _centre_box((width, height), spec)
    try:
        if spec.resize == "simd":
            return resize(pixels, spec.height, spec.width, box, spec.filter)
        image = Image.fromarray(pixels)
        return np.asarray(image.resize((spec.width, spec.height), _PILLOW_FILTERS[spec.filter], box=box))
    except MemoryError as error:
        raise ImageError("out_of_memory", "not enough memory to resize it") from error


def preprocess(data: bytes, spec: PreprocessSpec) -> Pixels:
    """Image bytes to the model's input, uint8 [spec.height, spec.width, 3]. Raises ImageError, as `decode` does."""
    return fit(decode(data, spec, reuse=True).pixels, spec)


def jpeg_divisor(width: int, height: int, spec: PreprocessSpec) -> int:
    """The largest of 1, 2, 4, 8 that leaves at least twice the wanted size in both directions."""
    if spec.jpeg_scale == "none":
        return 1
    if spec.shorter_side is not None:
        room = min(width, height) / (2 * spec.shorter_side)
    else:
        room = min(width / (2 * spec.width), height / (2 * spec.height))
    return next(divisor for divisor in (8, 4, 2, 1) if divisor <= room or divisor == 1)


class ResizeGeometry(NamedTuple):
    """Size of the resized picture, and position of the crop in it. All in pixels."""

    width: int
    height: int
    left: int
    top: int
    """Top left corner of the crop, which has the size in the spec."""


def resize_geometry(width: int, height: int, spec: PreprocessSpec) -> ResizeGeometry:
    """How `fit` resizes and crops a picture of this size (for `crop`, rounded as torchvision does)."""
    if spec.shorter_side is None:
        return ResizeGeometry(spec.width, spec.height, 0, 0)
    across, down = (spec.shorter_side * side // min(width, height) for side in (width, height))
    return ResizeGeometry(across, down, round((across - spec.width) / 2), round((down - spec.height) / 2))


def _centre_box(size: tuple[int, int], spec: PreprocessSpec) -> tuple[float, float, float, float]:
    """The part of the source that is left when it is resized and cut."""
    width, height = size
    across, down, left, top = resize_geometry(width, height, spec)
    return (
        left * width / across,
        top * height / down,
        min((left + spec.width) * width / across, width),
        min((top + spec.height) * height / down, height),
    )
