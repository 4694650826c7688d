"""BMP: kinds that are not read, damaged headers."""

import struct

import numpy as np
import pytest
from damage import error_of
from picture_files import bmp, samples

from batchland.images.decode.bmp import decode_bmp

RGB = bmp(samples(8, 3)[:, :, ::-1], 24)
PALETTE = np.random.default_rng(0).integers(0, 256, (256, 3), dtype=np.uint8)


def changed(data: bytes, position: int, form: str, value: int) -> bytes:
    packed = struct.pack(form, value)
    return data[:position] + packed + data[position + len(packed) :]


@pytest.mark.parametrize(
    ("data", "code", "message"),
    [
        (changed(RGB, 28, "<H", 48), "unsupported_format",
         "a BMP of 48 bits with compression 0, which is not read here"),
        (changed(RGB, 28, "<H", 64), "unsupported_format",
         "a BMP of 64 bits with compression 0, which is not read here"),
        (changed(RGB, 30, "<I", 4), "unsupported_format",
         "a BMP of 24 bits with compression 4, which is not read here"),
        (changed(bmp(samples(8), 8, palette=PALETTE), 30, "<I", 1), "unsupported_format",
         "a BMP of 8 bits with compression 1, which is not read here"),
        (changed(RGB, 30, "<I", 5), "unsupported_format",
         "a BMP of 24 bits with compression 5, which is not read here"),
        (changed(RGB, 14, "<I", 41), "unsupported_format",
         "a BMP with a header of 41 bytes, not a kind that is read here"),
        (bmp(samples(16), 16, masks=(0xF0, 0x1F, 0xF00)), "unsupported_format",
         "a BMP with bit fields that overlap or have gaps"),
        (bmp(samples(16), 16, masks=(0xF5, 0xA, 0xF00)), "unsupported_format",
         "a BMP with bit fields that overlap or have gaps"),
        (bmp(samples(16), 16, masks=(0x10000, 0xF0, 0xF)), "unsupported_format",
         "a BMP with bit fields that overlap or have gaps"),
        (bmp(samples(16), 16, masks=(0xF00, 0xF0, 0)), "unsupported_format",
         "a BMP without a bit field for each of red, green and blue"),
        (bmp(samples(8), 8, palette=PALETTE[:200]), "corrupt", "its pixels have colours that its palette lacks"),
        *((changed(RGB, 10, "<I", begin), "unsupported_format", "a BMP with pixels that begin within its header")
          for begin in (1, 20, 53)),
        (changed(changed(RGB, 10, "<I", 0), 46, "<I", 2), "unsupported_format",
         "a BMP with pixels that begin within its header"),
        (bmp(samples(16), 16, masks=(0xF800, 0x7E0, 0x1F))[:10] + bytes([60])
         + bmp(samples(16), 16, masks=(0xF800, 0x7E0, 0x1F))[11:], "unsupported_format",
         "a BMP with pixels that begin within its header"),
        (changed(bmp(samples(8), 8, palette=PALETTE), 10, "<I", 54 + 4 * 255), "corrupt",
         "its pixels have colours that its palette lacks"),
        (RGB[:-50], "truncated", "the file ends 50 bytes too early"),
        (RGB[:30], "truncated", "the file ends within its header"),
        (changed(RGB, 18, "<i", 0), "corrupt", "the picture has no pixels"),
        (changed(RGB, 18, "<i", -37), "corrupt", "the picture has no pixels"),
        (changed(RGB, 22, "<i", 2_000_000_000), "too_many_pixels",
         "37 x 2000000000 pixels, more than max_pixels = 100000000"),
    ],
)  # fmt: skip
def test_unsupported_kinds_are_refused(data, code, message):
    assert error_of(data) == (code, message)


@pytest.mark.parametrize("size", [12, 40, 124])
@pytest.mark.parametrize("begin", [0, None], ids=["zero", "header"])
@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_pixels_without_a_position_follow_the_palette(bits, begin, size):
    """Some writers leave the position at 0, or forget the palette in it."""
    values, palette = samples(bits), PALETTE[: 1 << bits]
    data = bmp(values, bits, palette=palette, size=size)
    without = changed(data, 10, "<I", 14 + size if begin is None else begin)
    for each in (data, without):
        np.testing.assert_array_equal(decode_bmp(each, 10**6).pixels, palette[values])


def test_rgb_without_a_position_follows_the_header():
    np.testing.assert_array_equal(decode_bmp(changed(RGB, 10, "<I", 0), 10**6).pixels, samples(8, 3))


def test_a_palette_ends_where_the_pixels_begin():
    """A count of 0 means all colours, but some writers store fewer; what follows them are pixels, not colours."""
    values = samples(8) // 2
    short = changed(bmp(values, 8, palette=PALETTE[:128]), 46, "<I", 0)
    np.testing.assert_array_equal(decode_bmp(short, 10**6).pixels, PALETTE[values])


def test_padding_of_the_last_row_may_be_missing():
    np.testing.assert_array_equal(decode_bmp(RGB[:-1], 10**8).pixels, samples(8, 3))


def test_alpha_that_is_zero_everywhere_is_ignored():
    masks = (0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    words = np.full((2, 2), 0x00102030, np.uint32)
    assert decode_bmp(bmp(words, 32, size=124, masks=masks), 10).pixels.tolist() == [[[0x10, 0x20, 0x30]] * 2] * 2
    words[0, 0] = 0xFF102030
    assert decode_bmp(bmp(words, 32, size=124, masks=masks), 10).pixels.tolist() == [
        [[0x10, 0x20, 0x30], [255, 255, 255]], [[255, 255, 255]] * 2,
    ]  # fmt: skip
