"""Turn image bytes into pixels, in the same way for training and for scoring.

`fit(decode(data, spec), spec)` is the whole path. Training augments between the two calls; nothing else differs.
Normalisation is not here: mean and standard deviation live inside the ONNX graph.
"""

import re
import warnings
from io import BytesIO
from typing import Annotated, Final, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import simplejpeg

# Each plugin registers its format; without Image.init(), Pillow tries only these.
from PIL import (  # noqa: F401
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    UnidentifiedImageError,
    WebPImagePlugin,
)
from pydantic import BaseModel, ConfigDict, Field, model_validator

from batchland.errors import ErrorCode, ImageError

Pixels = npt.NDArray[np.uint8]

FORMATS: Final = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")
"""Supported formats, recognised by content. Of an MPO (multi-picture JPEG), the first picture is decoded."""

# Warnings of libjpeg after which all pixels are correct; after all others, some are missing or invented.
_HARMLESS_JPEG_WARNINGS: Final = (
    "unknown JFIF revision number",
    "Unknown Adobe color transform code",
    "Application transferred too many scanlines",
    "Inconsistent progression sequence",
    "Corrupt JPEG data: bad ICC marker",
)
_BYTES_BEFORE_THE_END: Final = re.compile("([0-9]+) extraneous bytes before marker 0xd9")
"""Bytes that the decoder did not use: padding, or a sign of damaged data."""
_END_OF_JPEG: Final = b"\xff\xd9"
_MAX_SCANS: Final = 100
"""A progressive JPEG of an encoder has about ten; a crafted one of a few kilobytes can keep a core busy for hours."""
_STRIP_PIXELS: Final = 4_000_000
"""Large pictures become RGB in strips of about this many pixels, so that no second copy of them is made."""
_ORIENTATION_TAG: Final = 0x0112
_PILLOW_FILTERS: Final = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}

# Pillow prints warnings about odd EXIF and TIFF tags; batchland reports a failed image by its ImageError.
warnings.filterwarnings("ignore", module=r"PIL\.")

PositiveInt = Annotated[int, Field(gt=0)]


class PreprocessSpec(BaseModel):
    """How bytes become a model's input: part of the model card, so that scoring cannot differ from training."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

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
    jpeg_scale: Literal["none", "auto"] = "none"
    """`auto` lets libjpeg shrink a large JPEG by 2, 4 or 8 while decoding, never below twice the wanted size."""
    max_pixels: PositiveInt = 100_000_000
    """Pictures of more pixels fail as `too_many_pixels`, before they are decoded."""

    @model_validator(mode="after")
    def _crop_knows_its_side(self) -> "PreprocessSpec":
        if (self.fit == "crop") != (self.shorter_side is not None):
            raise ValueError("shorter_side must be given if fit is 'crop', and only then")
        if self.shorter_side is not None and self.shorter_side < max(self.height, self.width):
            raise ValueError(f"shorter_side must be at least {max(self.height, self.width)}, the size that is cut out")
        return self

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of one fitted picture: (height, width, 3)."""
        return (self.height, self.width, 3)


IMAGENET: Final = PreprocessSpec(fit="crop", shorter_side=256)
"""The usual evaluation transform of ImageNet classifiers: shorter side 256, centre 224 x 224."""


class Decoded(NamedTuple):
    """A decoded picture: RGB uint8 [H, W, 3], and its full size as stored, after orientation, in pixels."""

    pixels: Pixels
    width: int
    height: int


def decode(data: bytes, spec: PreprocessSpec) -> Decoded:
    """Decode image bytes to RGB uint8 [H, W, 3].

    EXIF orientation is applied; greyscale, palette, CMYK and 16-bit become RGB, alpha is laid over white, and of an
    animation the first frame counts. The content decides the format, not a file name. With `spec.jpeg_scale` the pixels
    may be a half, a quarter or an eighth of the full size, which `width` and `height` still give.

    Raises ImageError (`empty`, `not_an_image`, `unsupported_format`, `too_many_pixels`, `truncated`, `corrupt`,
    `out_of_memory`).
    """
    if not data:
        raise ImageError("empty", "the file has no content")
    try:
        return _decode(data, spec)
    except MemoryError as error:
        raise ImageError("out_of_memory", "not enough memory to decode it") from error
    except Image.DecompressionBombError as error:
        raise ImageError("too_many_pixels", str(error).partition(",")[0]) from error  # without Pillow's guess at why
    except UnidentifiedImageError as error:
        raise ImageError(*_unidentified(data)) from error
    except ImageError:
        raise
    except Exception as error:  # parsers of other people's formats raise almost anything on damaged input
        raise ImageError(*_damaged(error)) from error


def fit(pixels: Pixels, spec: PreprocessSpec) -> Pixels:
    """Bring RGB uint8 [H, W, 3] of any size to uint8 [spec.height, spec.width, 3], with antialiasing.

    Raises ImageError (`out_of_memory`).
    """
    try:
        image = Image.fromarray(pixels)
        box = None if spec.shorter_side is None else _centre_box(image.size, spec)
        return np.asarray(image.resize((spec.width, spec.height), _PILLOW_FILTERS[spec.filter], box=box))
    except MemoryError as error:
        raise ImageError("out_of_memory", "not enough memory to resize it") from error


def preprocess(data: bytes, spec: PreprocessSpec) -> Pixels:
    """Image bytes to the model's input, uint8 [spec.height, spec.width, 3]. Raises ImageError, as `decode` does."""
    return fit(decode(data, spec).pixels, spec)


def _decode(data: bytes, spec: PreprocessSpec) -> Decoded:
    with Image.open(BytesIO(data), formats=FORMATS) as image:
        width, height = image.size
        check_claims(image, data, spec)
        pixels = None
        if image.format in ("JPEG", "MPO") and image.mode in ("L", "RGB"):
            pixels = decode_jpeg(data, width, height, _jpeg_divisor(width, height, spec))
        if pixels is None:
            image.load()  # of a TIFF, this applies the orientation as well
            pixels = _rgb_pixels(image)
        orientation = orientation_of(image)
    if pixels.shape[0] * pixels.shape[1] == 0:
        raise ImageError("corrupt", "the picture has no pixels")
    if orientation >= 5:
        width, height = height, width
    return Decoded(_orient(pixels, orientation), width, height)


def check_claims(image: Image.Image, data: bytes, spec: PreprocessSpec) -> None:
    """Refuse, by the header alone, what would take absurd memory or time to decode."""
    width, height = image.size
    if isinstance(image, TiffImagePlugin.TiffImageFile):  # a tile is decoded whole, however small the picture is
        tile = (image.tag_v2.get(TiffImagePlugin.TILEWIDTH, 0), image.tag_v2.get(TiffImagePlugin.TILELENGTH, 0))
        width, height = max((width, height), tile, key=lambda size: size[0] * size[1])
    if width * height > spec.max_pixels:
        raise ImageError("too_many_pixels", f"{width} x {height} pixels, more than max_pixels = {spec.max_pixels}")
    if image.info.get("progressive") and data.count(b"\xff\xda") > _MAX_SCANS:
        raise ImageError("corrupt", f"more than {_MAX_SCANS} scans of a progressive JPEG; no encoder writes so many")


def decode_jpeg(data: bytes, width: int, height: int, divisor: int) -> Pixels | None:
    """Decode with libjpeg-turbo; raises an error if pixels are missing. None for a kind that simplejpeg cannot decode.

    width, height: as Pillow has read them. divisor: of the sides, 1, 2, 4 or 8.
    """
    size = {"min_height": -(-height // divisor), "min_width": -(-width // divisor), "min_factor": divisor}
    try:
        if simplejpeg.decode_jpeg_header(data, strict=False)[:2] != (
            height,
            width,
        ):  # max_pixels was checked with Pillow's size
            raise ImageError("corrupt", "its header gives more than one size")
        pixels: Pixels = simplejpeg.decode_jpeg(data, **size)
    except ValueError as error:
        message = str(error)
        if "subsampling" in message:  # Pillow tries those
            return None
        if not _is_harmless(message, data):
            raise
        pixels = simplejpeg.decode_jpeg(data, strict=False, **size)
    return pixels


def _is_harmless(warning: str, data: bytes) -> bool:
    """Whether every pixel of a JPEG is in place, in spite of what libjpeg says."""
    if left_over := _BYTES_BEFORE_THE_END.search(warning):
        return not data[: data.rfind(_END_OF_JPEG)][-int(left_over[1]) :].strip(b"\0\xff")
    return any(harmless in warning for harmless in _HARMLESS_JPEG_WARNINGS)


def _jpeg_divisor(width: int, height: int, spec: PreprocessSpec) -> int:
    """The largest of 1, 2, 4, 8 that leaves at least twice the wanted size in both directions."""
    if spec.jpeg_scale == "none":
        return 1
    if spec.shorter_side is not None:
        room = min(width, height) / (2 * spec.shorter_side)
    else:
        room = min(width / (2 * spec.width), height / (2 * spec.height))
    return next(divisor for divisor in (8, 4, 2, 1) if divisor <= room or divisor == 1)


def _rgb_pixels(image: Image.Image) -> Pixels:
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
    if image.mode.startswith("I"):  # 16-bit grey, also where Pillow keeps it in 32 bits
        grey = np.clip(np.asarray(image, dtype=np.int64), 0, 0xFFFF) >> 8
        return Image.fromarray(grey.astype(np.uint8)).convert("RGB")
    if image.mode in ("F", "LAB"):
        raise ImageError("unsupported_format", f"pixels of mode {image.mode} have no defined RGB values")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image.convert("RGB")


def orientation_of(image: Image.Image) -> int:
    """EXIF orientation, 1 to 8; 1 where it is absent or its block is garbage."""
    try:
        orientation = image.getexif().get(_ORIENTATION_TAG, 1)
    except Exception:  # as in decode()
        return 1
    return orientation if isinstance(orientation, int) and 1 <= orientation <= 8 else 1


def _orient(pixels: Pixels, orientation: int) -> Pixels:
    """Turn and mirror as EXIF orientation 1 to 8 says."""
    if orientation >= 5:
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)


class ResizeGeometry(NamedTuple):
    """How a picture is fitted: resized as a whole, then cut. All in pixels."""

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


_SIGNATURES: Final = {b"\xff\xd8\xff": "JPEG", b"\x89PNG": "PNG", b"GIF8": "GIF", b"II*\0": "TIFF", b"MM\0*": "TIFF"}
_FOREIGN_SIGNATURES: Final = {
    b"8BPS": "PSD", b"%!PS": "EPS", b"%PDF": "PDF", b"<svg": "SVG", b"<?xml": "SVG", b"\0\0\1\0": "ICO",
    b"\0\0\0\x0cjP": "JPEG 2000", b"\xff\x4f\xff\x51": "JPEG 2000", b"\xff\x0a": "JPEG XL", b"DDS ": "DDS",
    b"II+\0": "BigTIFF", b"MM\0+": "BigTIFF", b"P5": "PNM", b"P6": "PNM",
}  # fmt: skip


def _unidentified(data: bytes) -> tuple[ErrorCode, str]:
    for signature, name in _SIGNATURES.items():
        if data.startswith(signature):
            return "corrupt", f"starts like a {name} file, but its header is damaged"
    if data[4:8] == b"ftyp":
        name = data[8:12].decode("ascii", "replace").strip()
        return "unsupported_format", f"an ISO media file ({name}: HEIF, AVIF or video), not a format that is read here"
    for signature, name in _FOREIGN_SIGNATURES.items():
        if data.startswith(signature):
            return "unsupported_format", f"a {name} file, not a format that is read here"
    return "not_an_image", "the content is not that of an image file"


def _damaged(error: Exception) -> tuple[ErrorCode, str]:
    message = re.sub(r" at 0x[0-9a-f]+", "", str(error).partition("\n")[0])  # same file, same message, in every run
    text = message.lower()
    if any(sign in text for sign in ("truncated", "premature end", "unexpected end")):
        return "truncated", message
    return "corrupt", message or type(error).__name__
