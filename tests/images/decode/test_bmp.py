"""BMP: kinds that are not read, damaged headers, run-length coding that is incomplete or long."""

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


def run_length(body: bytes, width: int = 4, height: int = 2, bits: int = 8) -> bytes:
    table = np.pad(PALETTE[: 1 << bits, ::-1], ((0, 0), (0, 1))).tobytes()
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, bits, 1 if bits == 8 else 2, len(body), 0, 0, 0, 0)
    return struct.pack("<2sIHHI", b"BM", 0, 0, 0, 54 + len(table)) + header + table + body


@pytest.mark.parametrize(
    ("data", "code", "message"),
    [
        (changed(RGB, 28, "<H", 48), "unsupported_format",
         "a BMP of 48 bits with compression 0, which is not read here"),
        (changed(RGB, 28, "<H", 64), "unsupported_format",
         "a BMP of 64 bits with compression 0, which is not read here"),
        (changed(RGB, 30, "<I", 4), "unsupported_format",
         "a BMP of 24 bits with compression 4, which is not read here"),
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


def test_run_length_coding():
    row = bytes([0, 3, 1, 2, 3, 0]) + bytes([1, 9])
    data = run_length(bytes([4, 7, 0, 0]) + row + b"\0\0\0\1")
    np.testing.assert_array_equal(decode_bmp(data, 100).pixels, PALETTE[[[1, 2, 3, 9], [7, 7, 7, 7]]])
    data = run_length(bytes([4, 0x12, 0, 0]) + bytes([0, 3, 0x34, 0x50]) + bytes([1, 0x60]), bits=4)
    np.testing.assert_array_equal(decode_bmp(data, 100).pixels, PALETTE[[[3, 4, 5, 6], [1, 2, 1, 2]]])
    padded = run_length(bytes([4, 0x12, 0, 0, 4, 0x34, 0, 1]), width=3, bits=4)
    np.testing.assert_array_equal(decode_bmp(padded, 100).pixels, PALETTE[[[3, 4, 3], [1, 2, 1]]])


@pytest.mark.parametrize(
    "body",
    [
        b"\4\7\0\0\0\1",
        b"\3\7\0\0\4\7\0\1",
        b"\4\7\0\2\0\0\4\7",
        b"\2\7\0\2\2\0\0\0\4\7",
        b"\4\7\4\7\0\1",
        b"\0\1",
        b"\4\7\0\0\5\7\0\1",
        b"\2\7\0\5abcde\0\0\0\4\7\0\1",
        b"\1\7" * 3 + b"\2\7\0\0\4\7\0\1",
    ],
    ids=[
        "end too early",
        "short row",
        "empty delta",
        "delta",
        "row without end",
        "nothing",
        "long run",
        "long literal",
        "long last run",
    ],
)
def test_run_length_coding_that_leaves_out_pixels_is_refused(body):
    assert error_of(run_length(body)) == (
        "unsupported_format", "a BMP with run-length coding that leaves out pixels or exceeds its rows",
    )  # fmt: skip


def test_run_length_coding_that_ends_early_or_takes_long_is_refused():
    assert error_of(run_length(b"\4\7\0\0\2\7"))[0] == "truncated"
    assert error_of(run_length(b"\4\7\0\0\0\7\1\2"))[0] in ("truncated", "unsupported_format")
    long = run_length((b"\1\7\0\3abc\0" * 1000 + b"\0\0") * 1000, 4000, 4000)
    assert error_of(long) == ("unsupported_format", "a BMP of more than 1000000 runs, which would take too long")


def test_many_short_runs_are_read():
    values = np.tile(np.arange(2000, dtype=np.uint8), (300, 1))
    data = run_length(b"".join(b"".join(bytes([1, value]) for value in row) + b"\0\0" for row in values), 2000, 300)
    np.testing.assert_array_equal(decode_bmp(data, 10**6).pixels, PALETTE[values])
