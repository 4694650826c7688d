"""Valid images of every supported kind, and ways to damage them. For robustness tests."""

import random
import struct
import zlib
from collections.abc import Callable
from functools import cache
from io import BytesIO

import numpy as np
import pillow_heif
import pillow_jxl  # noqa: F401 - registers the format
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from batchland.errors import ImageError
from batchland.images.preprocess import PreprocessSpec, decode


def photo(width: int = 60, height: int = 40, seed: int = 0) -> Image.Image:
    """A picture with smooth colours, like a photo."""
    small = np.random.default_rng(seed).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = BytesIO()
    image.copy().save(buffer, kind, **options)  # saving changes the image, which would affect the next format
    return buffer.getvalue()


@cache
def valid_images() -> dict[str, bytes]:
    """Small files by name; the first word is the format."""
    rgb = photo()
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "a description"
    text = PngInfo()
    text.add_text("comment", "hello " * 50, zip=True)

    def animated(kind: str) -> bytes:
        return encoded(rgb, kind, save_all=True, append_images=[photo(seed=1), photo(seed=2)])

    def heif(image: Image.Image) -> bytes:
        buffer = BytesIO()
        pillow_heif.from_pillow(image).save(buffer)
        return buffer.getvalue()

    return {
        "jpeg": encoded(rgb, "JPEG"),
        "jpeg progressive": encoded(rgb, "JPEG", progressive=True),
        "jpeg grey": encoded(rgb.convert("L"), "JPEG"),
        "jpeg cmyk": encoded(rgb.convert("CMYK"), "JPEG"),
        "jpeg exif icc": encoded(rgb, "JPEG", exif=exif, icc_profile=b"profile" * 40),
        "jpeg restarts": encoded(rgb, "JPEG", restart_marker_rows=1),
        "jpeg multi-picture": animated("MPO"),
        "png": encoded(rgb, "PNG"),
        "png alpha text": encoded(rgb.convert("RGBA"), "PNG", pnginfo=text, exif=exif),
        "png palette": encoded(rgb.quantize(16), "PNG", transparency=3),
        "png 16-bit": encoded(rgb.convert("I;16"), "PNG"),
        "png one-bit": encoded(rgb.convert("1"), "PNG"),
        "png animated": animated("PNG"),
        "webp": encoded(rgb, "WEBP"),
        "webp lossless alpha": encoded(rgb.convert("RGBA"), "WEBP", lossless=True, exif=exif),
        "webp animated": animated("WEBP"),
        "bmp": encoded(rgb, "BMP"),
        "bmp palette": encoded(rgb.quantize(16), "BMP"),
        "gif": encoded(rgb, "GIF"),
        "gif animated": animated("GIF"),
        "tiff": encoded(rgb, "TIFF", exif=exif),
        "tiff lzw": encoded(rgb, "TIFF", compression="tiff_lzw"),
        "tiff deflate": encoded(rgb, "TIFF", compression="tiff_adobe_deflate"),
        "tiff pages": animated("TIFF"),
        "tiff jpeg": encoded(rgb, "TIFF", compression="jpeg"),
        "tiff cmyk": encoded(rgb.convert("CMYK"), "TIFF"),
        "avif": encoded(rgb, "AVIF"),
        "avif alpha exif": encoded(rgb.convert("RGBA"), "AVIF", exif=exif),
        "heif": heif(rgb),
        "heif alpha": heif(rgb.convert("RGBA")),
        "jxl": encoded(rgb, "JXL"),
        "jxl lossless alpha": encoded(rgb.convert("RGBA"), "JXL", lossless=True),
        "jxl of a jpeg": encoded(Image.open(BytesIO(encoded(rgb, "JPEG"))), "JXL", lossless_jpeg=True),
    }


FORMATS = ("jpeg", "png", "webp", "bmp", "gif", "tiff", "avif", "heif", "jxl")

INTERESTING = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
"""Numbers that break arithmetic."""

Mutation = Callable[[bytearray, int, int, int], None]
"""Change `data` at `offset`; `size` and `value` are parameters of the change."""


def _flip_bit(data: bytearray, offset: int, size: int, value: int) -> None:
    data[offset] ^= 1 << value % 8


def _set_byte(data: bytearray, offset: int, size: int, value: int) -> None:
    data[offset] = value % 256


def _set_number(data: bytearray, offset: int, size: int, value: int) -> None:
    form = ("<I", ">I", "<H", ">H")[size % 4]
    number = INTERESTING[value % len(INTERESTING)] & (0xFFFF if form[1] == "H" else 0xFFFFFFFF)
    data[offset : offset + struct.calcsize(form)] = struct.pack(form, number)


def _cut_out(data: bytearray, offset: int, size: int, value: int) -> None:
    del data[offset : offset + size]


def _insert(data: bytearray, offset: int, size: int, value: int) -> None:
    data[offset:offset] = random.Random(value).randbytes(size)


def _repeat(data: bytearray, offset: int, size: int, value: int) -> None:
    data[offset:offset] = data[offset : offset + size] * (1 + value % 5)


def _move(data: bytearray, offset: int, size: int, value: int) -> None:
    piece = data[offset : offset + size]
    del data[offset : offset + size]
    there = value % (len(data) + 1)
    data[there:there] = piece


def _fill(data: bytearray, offset: int, size: int, value: int) -> None:
    data[offset : offset + size] = bytes([value % 256]) * size


def _truncate(data: bytearray, offset: int, size: int, value: int) -> None:
    del data[offset:]


MUTATIONS: tuple[Mutation, ...] = (
    _flip_bit, _set_byte, _set_number, _cut_out, _insert, _repeat, _move, _fill, _truncate,
)  # fmt: skip


def mutate(data: bytes, changes: list[tuple[int, int, int, int]]) -> bytes:
    """Apply changes of (kind, offset, size, value). Each number is reduced modulo its valid range."""
    changed = bytearray(data)
    for kind, offset, size, value in changes:
        if not changed:
            break
        MUTATIONS[kind % len(MUTATIONS)](changed, offset % len(changed), size, value)
    return with_right_checksums(bytes(changed)) if changes and changes[0][3] % 2 else bytes(changed)


def with_right_checksums(data: bytes) -> bytes:
    """Recompute the checksums of a PNG, so that the damage reaches the decoder. Other data is returned unchanged."""
    if not data.startswith(b"\x89PNG\r\n\x1a\n"):
        return data
    chunks, offset = [data[:8]], 8
    while offset + 12 <= len(data):
        size = int.from_bytes(data[offset : offset + 4])
        body = data[offset + 4 : offset + 8 + size]
        if len(body) < size + 4:
            break
        chunks += [data[offset : offset + 4], body, struct.pack(">I", zlib.crc32(body))]
        offset += size + 12
    return b"".join([*chunks, data[offset:]])


def error_of(data: bytes, max_pixels: int = 10**8) -> tuple[str, str]:
    """Code and message of the error that decoding gives."""
    with pytest.raises(ImageError) as caught:
        decode(data, PreprocessSpec(max_pixels=max_pixels))
    return caught.value.code, str(caught.value)
