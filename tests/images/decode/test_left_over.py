"""Damage that leaves valid data is found by where the data ends: GIF, WebP and AVIF."""

import random
from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
from damage import encoded, photo
from PIL import Image

from batchland.errors import ImageError
from batchland.images.decode.gif_lzw import check_lzw
from batchland.images.preprocess import PreprocessSpec, decode

SPEC = PreprocessSpec()
BLOCK = 48
"""Bytes."""


def grainy(width: int = 300, height: int = 200) -> Image.Image:
    noise = np.random.default_rng(1).normal(0, 6, (height, width, 3))
    return Image.fromarray((np.asarray(photo(width, height)) + noise).clip(0, 255).astype(np.uint8))


def filled(data: bytes, first: int, second: int) -> bytes:
    return data[:first] + b"\xff" * BLOCK + data[first + BLOCK :]


def exchanged(data: bytes, first: int, second: int) -> bytes:
    one, two = data[first : first + BLOCK], data[second : second + BLOCK]
    return data[:first] + two + data[first + BLOCK : second] + one + data[second + BLOCK :]


def moved(data: bytes, first: int, second: int) -> bytes:
    return data[:first] + data[first + BLOCK : second] + data[first : first + BLOCK] + data[second:]


def repeated(data: bytes, first: int, second: int) -> bytes:
    return data[:second] + data[first : first + BLOCK] + data[second + BLOCK :]


KINDS: tuple[Callable[[bytes, int, int], bytes], ...] = (filled, exchanged, moved, repeated)


@pytest.mark.parametrize(
    ("kind", "options", "missed"),
    [("GIF", {}, 0), ("WEBP", {"quality": 80}, 9), ("AVIF", {"quality": 60, "speed": 9, "autotiling": False}, 8)],
    ids=["GIF", "WEBP", "AVIF"],
)
def test_damage_of_every_kind_is_found(kind, options, missed):
    data = encoded(grainy(), kind, **options)
    expected = decode(data, SPEC).pixels
    randoms = random.Random(5)
    found: Counter[str] = Counter()
    for damage in KINDS * 15:
        first, second = sorted(randoms.sample(range(len(data) // 2, len(data) - 2 * BLOCK), 2))
        damaged = damage(data, first, max(second, first + BLOCK))
        try:
            found["passed"] += not np.array_equal(decode(damaged, SPEC).pixels, expected)
        except ImageError:
            found["found"] += 1
    assert found["passed"] <= missed
    assert found.total() >= 55


def test_damage_is_named():
    data = encoded(grainy(), "WEBP")
    middle = len(data) // 2
    with pytest.raises(ImageError) as caught:
        decode(data[:middle] + b"\xff" * 50 + data[middle + 50 :], SPEC)
    assert (caught.value.code, str(caught.value)) == ("corrupt", "its compressed data goes on after the last pixel")


PICTURES = {
    "photo": grainy(90, 70),
    "one colour": Image.new("RGB", (500, 400), "white"),
    "one pixel": Image.new("RGB", (1, 1)),
    "gradient": Image.linear_gradient("L").convert("RGB"),
    "transparent": Image.merge("RGBA", (*photo(200, 100).split(), Image.linear_gradient("L").resize((200, 100)))),
}


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        *(("GIF", {"colours": colours, "interlace": colours % 3}) for colours in (2, 4, 16, 64, 256)),
        *(("WEBP", {"quality": quality, "method": method}) for quality, method in ((1, 0), (80, 4), (100, 6))),
        ("WEBP", {"lossless": True}),
        *(("AVIF", {"quality": quality, "speed": 10}) for quality in (1, 100)),
        ("AVIF", {"speed": 10, "tile_rows": 1, "tile_cols": 1}),
    ],
    ids=str,
)
def test_good_files_of_all_settings_are_read(kind, options):
    for picture in PICTURES.values():
        image = picture.convert("RGB").quantize(options["colours"]) if kind == "GIF" else picture
        data = encoded(image, kind, **options)
        assert decode(data, SPEC).pixels.shape == (picture.height, picture.width, 3)


def test_only_the_first_frame_of_an_animation_is_checked():
    """Frames that repeat the one before are long runs of zeros."""
    gradient = Image.linear_gradient("L").convert("RGBA")
    data = encoded(gradient, "WEBP", save_all=True, append_images=[gradient.rotate(90)])
    assert decode(data, SPEC).pixels.shape == (256, 256, 3)


def lzw(codes: list[int], width: int) -> bytes:
    """Codes of one width as the stream of a frame of four colours."""
    number = sum(code << width * index for index, code in enumerate(codes))
    content = number.to_bytes((width * len(codes) + 7) // 8, "little")
    blocks = [content[start : start + 255] for start in range(0, len(content), 255)]
    return b"\2" + b"".join(bytes([len(block)]) + block for block in blocks) + b"\0"


def test_pixels_of_an_lzw_stream_are_counted():
    """4 clears the table, 5 ends the picture, 6 is the first string of two pixels. Two pixels more may be padding."""
    for codes, pixels in (([4, 1, 2, 3, 5], 3), ([4, 1, 6, 5], 3), ([4, 1, 6, 4, 1, 6, 5], 6), ([4, 1, 6], 3)):
        check_lzw(lzw(codes, 3), 0, pixels)
        with pytest.raises(ImageError, match="its compressed data goes on after the last pixel"):
            check_lzw(lzw(codes, 3), 0, pixels - 3)
    check_lzw(lzw([4] * 5000, 3), 0, 1)
