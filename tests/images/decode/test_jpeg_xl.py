"""JPEG XL: the size in a header that is divided, grey with alpha, HDR, channels that are not read."""

import io
import itertools
import struct

import imagecodecs
import numpy as np
import pytest
from damage import error_of
from picture_files import grey_rgb, over_white, samples
from PIL import Image

from batchland.images.decode.jpeg_xl import decode_jxl

pytest.importorskip("pillow_jxl")


def box(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", 8 + len(content)) + kind + content


def divided(codestream: bytes, *cuts: int, before: bytes = b"") -> bytes:
    """A container with the codestream in several boxes, cut at these positions."""
    edges = [0, *cuts, len(codestream)]
    parts = [codestream[begin:end] for begin, end in itertools.pairwise(edges)]
    numbers = [*range(len(cuts)), 0x80000000 | len(cuts)]
    boxes = [box(b"jxlp", struct.pack(">I", number) + part) for number, part in zip(numbers, parts, strict=True)]
    return box(b"JXL ", b"\r\n\x87\n") + box(b"ftyp", b"jxl \0\0\0\0jxl ") + before + b"".join(boxes)


PICTURE = samples(8, 3, 203, 151)
CODESTREAM = imagecodecs.jpegxl_encode(PICTURE, lossless=True)


@pytest.mark.parametrize("cuts", [(2,), (3,), (4,), (5,), (40,), (1, 2, 3, 4, 5), (2, 2, 3)], ids=str)
def test_the_size_is_checked_wherever_the_codestream_is_divided(cuts):
    data = divided(CODESTREAM, *cuts)
    np.testing.assert_array_equal(decode_jxl(data, 203 * 151).pixels, PICTURE)
    assert error_of(data, 203 * 151 - 1) == ("too_many_pixels", "203 x 151 pixels, more than max_pixels = 30652")


def test_many_boxes_do_not_hide_the_size():
    for count in (9_990, 9_996, 9_997, 9_998, 9_999, 10_000, 20_000):
        data = divided(CODESTREAM, 2, before=box(b"free", b"") * count)
        assert error_of(data, 1000) in (
            ("too_many_pixels", "203 x 151 pixels, more than max_pixels = 1000"),
            ("corrupt", "more than 10000 boxes, which no encoder writes"),
        )


@pytest.mark.parametrize("bits", [8, 9, 10, 12, 16])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_pixels_of_every_depth_are_those_that_were_written(channels, bits):
    values = samples(bits, channels)
    data = imagecodecs.jpegxl_encode(values, lossless=True, bitspersample=bits)
    scaled = np.floor(values * (65535 / ((1 << bits) - 1)) + 0.5).astype(np.uint16) >> 8
    colours = grey_rgb(scaled.reshape(*scaled.shape[:2], -1)[:, :, 0]) if channels <= 2 else scaled[:, :, :3]
    expected = over_white(colours, scaled[:, :, -1]) if channels in (2, 4) else colours
    decoded = decode_jxl(data, 10**6).pixels
    assert decoded.shape == expected.shape
    assert np.abs(decoded.astype(int) - expected).max() <= 1


BY_CJXL = {
    "PQ": "ff0a30300104e4d1230e07000000800802010060004b188b15c2494361be40040087dcb1020000000000000000",
    "HLG": "ff0a30300104e41908f41800000000020802010060004b188b15c2494361be40040087dcb1020000000000000000",
    "grey PQ": "ff0a30300104458f381c00000000020802010044004b188b15c249414e480000000000000000",
    "BT.709": "ff0a303010508a0802010060004b188b15c2494361be40040087dcb1020000000000000000",
}
"""Pictures of 9 x 7 pixels, by the encoder of libjxl 0.7 with `-x color_space=...`."""


@pytest.mark.parametrize("name", BY_CJXL)
def test_hdr_is_refused(name):
    for data in (bytes.fromhex(BY_CJXL[name]), divided(bytes.fromhex(BY_CJXL[name]), 9)):
        if name == "BT.709":
            assert (decode_jxl(data, 100).pixels == (200, 100, 50)).all()
        else:
            message = f"an HDR picture ({name[-3:].strip()}), not a kind that is read here"
            assert error_of(data) == ("unsupported_format", message)


def header(*fields: tuple[int, int]) -> bytes:
    """The header of a picture of 8 x 8 pixels; further fields as value and bits, the lowest bits first."""
    bits = position = 0
    for value, count in ((1, 1), (0, 5), (1, 3), (0, 1), *fields):
        bits |= value << position
        position += count
    return b"\xff\x0a" + bits.to_bytes(64, "little")


DEPTH, ONE_CHANNEL, MANY_CHANNELS = (0, 3), (1, 2), (3, 2)
CUSTOM = ((2, 2), (0, 4))
"""The number 2, as one of two bits and four more: white points and primaries that are given as numbers."""
SEVERAL = "a JPEG XL with a preview or an animation, not a kind that is read here"
XY = ((0, 2), (5, 19), (1, 2), (5, 19))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (((1, 1), (0, 3), (0, 1), (1, 1), (0, 1)), SEVERAL),
        (((1, 1), (0, 3), (0, 1), (0, 1), (1, 1)), SEVERAL),
        (((0, 1), DEPTH, (1, 1), ONE_CHANNEL, (0, 1), (2, 2), (2, 4), DEPTH, (0, 2), (0, 2)),
         "a JPEG XL with a channel of type 4, which is not read here"),
        (((0, 1), DEPTH, (1, 1), ONE_CHANNEL, (0, 1), (0, 2), DEPTH, (0, 2), (1, 2), (3, 4), (0, 24), (1, 1)),
         "a JPEG XL with premultiplied alpha, not a kind that is read here"),
        (((0, 1), DEPTH, (1, 1), MANY_CHANNELS, (4095, 12)), "a JPEG XL of 4096 channels besides its colours"),
        (((0, 1), (1, 1), (1, 2), (4, 4), (1, 1), (0, 2), (0, 1), (0, 1), (0, 1), (0, 2), *CUSTOM, *XY, *CUSTOM,
          *XY, *XY, *XY, (0, 1), (2, 2), (14, 4)), "an HDR picture (PQ), not a kind that is read here"),
        (((0, 1), DEPTH, (1, 1), (0, 2), (0, 1), (0, 1), (0, 1), (0, 2), (1, 2), (1, 2), (0, 1), (3, 2), (0, 6)),
         "an HDR picture (HLG), not a kind that is read here"),
    ],
    ids=["preview", "animation", "black", "premultiplied", "channels", "custom PQ", "HLG"],
)  # fmt: skip
def test_kinds_that_are_not_read_are_unsupported(fields, message):
    """Headers by ISO/IEC 18181-1."""
    assert error_of(header(*fields)) == ("unsupported_format", message)


def test_a_header_that_is_cut_is_truncated():
    for length in (2, 3):
        assert error_of(header((0, 1))[:length]) == ("truncated", "the file ends within its header")
    assert error_of(divided(CODESTREAM[:2])) == ("truncated", "the file ends within its header")
    start = divided(b"")[: 12 + 8 + 12]
    assert error_of(start + b"\0\0\0\1jxlc\0\0\0") == ("truncated", "the file ends before its picture")
    assert error_of(divided(CODESTREAM[:1])) == ("truncated", "the file ends before its picture")


def test_jpegs_that_were_packed_are_read():
    jpeg = imagecodecs.jpeg8_encode(PICTURE, level=90)
    packed = imagecodecs.jpegxl_encode_jpeg(jpeg)
    with Image.open(io.BytesIO(jpeg)) as image:
        assert np.abs(decode_jxl(packed, 10**6).pixels.astype(int) - np.asarray(image)).max() <= 2
