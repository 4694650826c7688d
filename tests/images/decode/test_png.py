"""PNG: transparent colours at every depth, large metadata, checksums, chunks that are not read."""

import struct
import zlib

import numpy as np
import pytest
from damage import encoded, error_of, photo
from picture_files import ADAM7, packed_rows, png, png_chunk, png_rows, samples
from PIL import Image

from batchland.images.decode.png import decode_png

PNG = encoded(photo(40, 30), "PNG")
HEADER_END = 33


def with_chunk(kind: bytes, data: bytes) -> bytes:
    return PNG[:HEADER_END] + png_chunk(kind, data) + PNG[HEADER_END:]


@pytest.mark.parametrize(("colour_type", "bits"), [(0, 1), (0, 2), (0, 4), (0, 8), (2, 8)])
def test_transparent_colour_becomes_white_and_no_other(colour_type, bits):
    """Two neighbours, which differ in the lowest bit only; one of them is transparent."""
    channels = 3 if colour_type == 2 else 1
    values = np.full((2, 4, channels), 0, np.uint16)
    values[0, 1] = 1
    values[1] = (1 << bits) - 1
    rows = b"".join(b"\0" + row.tobytes() for row in packed_rows(values, bits))
    key = struct.pack(f">{channels}H", *[1] * channels)
    pixels = decode_png(png(4, 2, bits, colour_type, rows, (b"tRNS", key)), 100).pixels
    scaled = [value * 255 // ((1 << bits) - 1) for value in (0, 1, (1 << bits) - 1)]
    assert pixels[0, :, 0].tolist() == [scaled[0], 255, scaled[0], scaled[0]]
    assert pixels[1].min() == 255


def test_higher_bits_of_a_transparent_colour_are_ignored():
    rows = b"\0" + bytes([7, 8])
    assert decode_png(png(2, 1, 8, 0, rows, (b"tRNS", b"\1\7")), 10).pixels[0].tolist() == [[255] * 3, [8] * 3]


@pytest.mark.parametrize("interlace", [0, 1])
@pytest.mark.parametrize(
    ("colour_type", "bits"),
    [(0, 1), (0, 2), (0, 4), (0, 8), (0, 16), (2, 8), (2, 16), (3, 1), (3, 8), (4, 8), (4, 16), (6, 8), (6, 16)],
)
def test_rows_are_missing_if_the_compressed_data_ends_early(colour_type, bits, interlace):
    """It is whole, with its checksum, and ends with a row; decoders leave the other rows black. Also if the rest is."""
    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour_type]
    palette = [(b"PLTE", bytes(3 << bits))] if colour_type == 3 else []
    for values in (samples(bits, channels), samples(bits, channels) * 0):
        height, width = values.shape[:2]
        rows = png_rows(values, bits, interlace, 0)
        whole = png(width, height, bits, colour_type, rows, *palette, interlace=interlace)
        assert decode_png(whole, 10**6).pixels.shape == (height, width, 3)
        ends = [len(png_rows(values[:count], bits, 0, 0)) for count in (1, height // 2, height - 1)]
        if interlace:
            passes = [values[y::down, x::across] for x, y, across, down in ADAM7]
            sizes = [len(png_rows(each, bits, 0, 0)) if each.size else 0 for each in passes]
            ends = [sum(sizes[:count]) for count in range(1, 7) if sum(sizes[:count]) < len(rows)]
        for end in ends:
            cut = png(width, height, bits, colour_type, rows[:end], *palette, interlace=interlace)
            assert error_of(cut) == ("truncated", f"it has {end} of {len(rows)} bytes of pixels")


BOMB = zlib.compress(bytes(10**8), 1)
"""A hundred million zeros."""


@pytest.mark.parametrize(
    "metadata",
    [
        (b"zTXt", b"parameters\0\0" + zlib.compress(b"steps: 20, " * 200_000)),
        (b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + b"<x/>" * 500_000),
        (b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(b"<x/>" * 500_000)),
        (b"tEXt", b"workflow\0" + b"{}" * 1_000_000),
        (b"iCCP", b"profile\0\0" + zlib.compress(bytes(range(256)) * 8000)),
        (b"zTXt", b"bomb\0\0" + BOMB),
        (b"iCCP", b"bomb\0\0" + BOMB),
        (b"zTXt", b"damaged\0\0not compressed"),
        (b"sPLT", b"\0" * 10), (b"gAMA", b"\0"), (b"pHYs", b""), (b"acTL", b""),
    ],
    ids=lambda metadata: f"{metadata[0].decode()} {len(metadata[1])}",
)  # fmt: skip
def test_metadata_of_any_size_and_kind_is_skipped(metadata):
    np.testing.assert_array_equal(decode_png(with_chunk(*metadata), 10**8).pixels, np.asarray(photo(40, 30)))


def oriented(kind: bytes, data: bytes) -> int:
    return decode_png(with_chunk(kind, data), 10**8).orientation


def test_orientation_is_that_of_the_exif_chunk():
    """Texts with an EXIF block or XMP are ignored, as by browsers, libvips and OpenCV."""
    exif = Image.Exif()
    exif[0x0112] = 6
    block = exif.tobytes().removeprefix(b"Exif\0\0")
    hexadecimal = f"\nexif\n    {len(block)}\n{block.hex()}\n".encode()
    assert oriented(b"eXIf", block) == 6
    assert oriented(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(hexadecimal)) == 1
    assert oriented(b"iTXt", b'XML:com.adobe.xmp\0\0\0\0\0<x tiff:Orientation="8"/>') == 1
    after = PNG.replace(png_chunk(b"IEND"), png_chunk(b"eXIf", block) + png_chunk(b"IEND"))
    assert decode_png(after, 10**8).orientation == 6


def flipped(data: bytes, position: int) -> bytes:
    return data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :]


def test_checksums_of_used_chunks_are_verified():
    for position in range(PNG.index(b"IDAT") + 4, len(PNG) - 16, 7):
        assert error_of(flipped(PNG, position)) == ("corrupt", "the checksum of its chunk IDAT is wrong")
    exif = with_chunk(b"eXIf", b"MM\0*")
    assert error_of(flipped(exif, exif.index(b"eXIf") + 5)) == ("corrupt", "the checksum of its chunk eXIf is wrong")
    text = with_chunk(b"tEXt", b"comment\0text")
    damaged = flipped(text, text.index(b"tEXt") + 6)
    np.testing.assert_array_equal(decode_png(damaged, 10**8).pixels, np.asarray(photo(40, 30)))


@pytest.mark.parametrize(
    ("data", "code", "message"),
    [
        (PNG[:8] + png_chunk(b"CgBI", b"\0\0\0\0") + PNG[8:], "unsupported_format",
         "a PNG made for iOS (CgBI), not a format that is read here"),
        (with_chunk(b"FRAC", b""), "unsupported_format", "a PNG with an unknown chunk FRAC"),
        (with_chunk(b"cICP", b"\x09\x10\0\1"), "unsupported_format",
         "an HDR picture (PQ), not a kind that is read here"),
        (with_chunk(b"cICP", b"\x09\x12\0\1"), "unsupported_format",
         "an HDR picture (HLG), not a kind that is read here"),
        (with_chunk(b"cICP", b"\x0c\x0d\0\1"), None, None),
        (PNG[:HEADER_END] + PNG[8:], "corrupt", "it has two chunks IHDR"),
        (PNG[:8] + PNG[HEADER_END:], "corrupt", "starts like a PNG file, but its header is damaged"),
        (png(4, 4, 3, 0, bytes(20)), "corrupt", "its header gives an impossible kind of pixels (3 bits, type 0)"),
        (png(4, 4, 8, 5, bytes(20)), "corrupt", "its header gives an impossible kind of pixels (8 bits, type 5)"),
        (png(4, 4, 8, 3, bytes(20)), "corrupt", "it has no palette"),
        (png(4, 1, 8, 3, b"\0\0\1\2\3", (b"PLTE", bytes(9))), "corrupt",
         "its pixels have colours that its palette lacks"),
        (png(1, 1, 8, 0, b"\0\0", (b"tRNS", b"\0")), "corrupt", "its transparent colour is damaged"),
        (png(1, 1, 8, 3, b"\0\0", (b"PLTE", b"\1\2\3"), (b"tRNS", b"\0\0")), "corrupt",
         "its palette has fewer colours than transparencies"),
        (PNG[: PNG.index(b"IDAT") + 100], "truncated", "the file ends within its chunk IDAT"),
        (PNG[:HEADER_END], "truncated", "the file ends before its pixels"),
        (with_chunk(b"IDAT", b""), None, None),
        (PNG[:HEADER_END] + png_chunk(b"IDAT") + png_chunk(b"tEXt", b"a\0b") + PNG[HEADER_END:], "corrupt",
         "its pixels are not in consecutive chunks"),
        (PNG[:HEADER_END] + png_chunk(b"IDAT") * 150_000 + PNG[HEADER_END:], "corrupt",
         "more than 100000 chunks, which no encoder writes"),
    ],
)  # fmt: skip
def test_unsupported_kinds_are_refused(data, code, message):
    if code is None:
        np.testing.assert_array_equal(decode_png(data, 10**8).pixels, np.asarray(photo(40, 30)))
    else:
        assert error_of(data) == (code, message)


@pytest.mark.parametrize(
    ("before", "behind"),
    [
        ([(b"tRNS", b"\0")], [(b"PLTE", b"\1\2\3")]),
        ([(b"PLTE", b"\1\2\3")], [(b"tRNS", b"\0")]),
        ([(b"tRNS", b"\0"), (b"PLTE", b"\1\2\3")], []),
    ],
    ids=["palette behind", "transparency behind", "transparency first"],
)
def test_a_palette_or_transparency_in_the_wrong_place_is_corrupt(before, behind):
    """libpng ignores them there, and Pillow does not."""
    data = png(2, 1, 8, 3, b"\0\0\0", *before)
    end = png_chunk(b"IEND")
    data = data.removesuffix(end) + b"".join(png_chunk(*each) for each in behind) + end
    assert error_of(data) == ("corrupt", "its chunks PLTE, tRNS and IDAT are not in this order")
    right = png(2, 1, 8, 3, b"\0\0\0", (b"PLTE", b"\1\2\3"), (b"tRNS", b"\xff"))
    assert decode_png(right, 10).pixels.tolist() == [[[1, 2, 3]] * 2]


def test_pixels_that_are_complete_need_no_end_chunk():
    without_end = PNG.removesuffix(png_chunk(b"IEND"))
    for data in (without_end, without_end + b"\0garbage" * 5, without_end + png_chunk(b"tEXt", b"comment\0text")[:-6]):
        np.testing.assert_array_equal(decode_png(data, 10**8).pixels, np.asarray(photo(40, 30)))


def test_interlaced_passes_cover_the_picture():
    covered = np.zeros((8, 8), int)
    for x, y, across, down in ADAM7:
        covered[y::down, x::across] += 1
    assert (covered == 1).all()
