"""TIFF: pages that are not the picture, kinds that are not read, blocks that are damaged or too many."""

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
import tifffile
from damage import encoded, error_of, photo
from picture_files import HEIGHT, WIDTH, by_tifffile, packed_rows, samples, tiff
from PIL import Image

from batchland.images.decode.tiff import decode_tiff
from batchland.images.preprocess import PreprocessSpec, decode

GREY: dict[int, Any] = {256: WIDTH, 257: HEIGHT, 258: 8, 259: 1, 262: 1, 277: 1, 278: HEIGHT}
ROWS = samples(8).tobytes()


def grey(order: str = "<", rows: bytes = ROWS, **tags: Any) -> bytes:
    """A grey TIFF. tags: `tag_NUMBER=value` or None to leave one out."""
    changed = {**GREY, **{int(name.removeprefix("tag_")): value for name, value in tags.items()}}
    return tiff(order, {number: value for number, value in changed.items() if value is not None}, [rows])


def test_the_plain_file_is_read():
    for order in "<>":
        assert (decode_tiff(grey(order), 10**6).pixels == samples(8)[:, :, None]).all()


NOT_READ = "not a kind of TIFF that is read here"


@pytest.mark.parametrize(
    ("tags", "message"),
    [
        ({"tag_254": 1}, f"a preview or mask on the first page, {NOT_READ}"),
        ({"tag_254": 4}, f"a preview or mask on the first page, {NOT_READ}"),
        ({"tag_255": 2}, f"a preview or mask on the first page, {NOT_READ}"),
        ({"tag_50706": (1, 4, b"\1\4\0\0")}, f"a camera raw file (DNG), {NOT_READ}"),
        ({"tag_262": None}, f"undefined colours, {NOT_READ}"),
        ({"tag_262": 4}, f"pixels of photometric interpretation 4, {NOT_READ}"),
        ({"tag_262": 8, "tag_277": 3}, f"pixels of photometric interpretation 8, {NOT_READ}"),
        ({"tag_262": 32803}, f"a camera raw file, {NOT_READ}"),
        ({"tag_262": 2}, f"1 samples per pixel of photometric interpretation 2, {NOT_READ}"),
        ({"tag_258": 32}, f"samples of 32 bits, {NOT_READ}"),
        ({"tag_258": 0}, f"samples of 0 bits, {NOT_READ}"),
        ({"tag_258": [8, 16, 8], "tag_277": 3, "tag_262": 2}, f"samples of 8, 16 bits, {NOT_READ}"),
        ({"tag_339": 2}, f"samples that are not unsigned whole numbers, {NOT_READ}"),
        ({"tag_339": 3, "tag_258": 16}, f"samples that are not unsigned whole numbers, {NOT_READ}"),
        ({"tag_259": 6}, f"compression 6, {NOT_READ}"),
        ({"tag_259": 50001}, f"compression 50001, {NOT_READ}"),
        ({"tag_259": 34712}, f"compression 34712, {NOT_READ}"),
        ({"tag_317": 2}, f"predictor 2 with samples of 8 bits and compression 1, {NOT_READ}"),
        ({"tag_317": 3, "tag_259": 8}, f"predictor 3 with samples of 8 bits and compression 8, {NOT_READ}"),
        ({"tag_332": 2, "tag_262": 5, "tag_277": 4, "tag_258": [8] * 4},
         f"inks other than cyan, magenta, yellow and black, {NOT_READ}"),
        ({"tag_336": [255, 0], "tag_262": 5, "tag_277": 4, "tag_258": [8] * 4},
         f"inks with a dot range other than the usual one, {NOT_READ}"),
        ({"tag_277": 3, "tag_258": [8] * 3, "tag_338": [1, 2]}, f"more than one alpha sample, {NOT_READ}"),
        ({"tag_277": 2, "tag_258": [8] * 2, "tag_338": 7}, f"further samples of unknown meaning, {NOT_READ}"),
        ({"tag_32997": 5}, f"a volume, or colours of an index, {NOT_READ}"),
    ],
    ids=lambda value: " ".join(f"{name[4:]}={tag}" for name, tag in value.items()) if "tag_" in str(value) else "",
)  # fmt: skip
def test_kinds_that_are_not_read_are_unsupported(tags, message):
    assert error_of(grey(**tags)) == ("unsupported_format", message)


def two_pages(first: tuple[int, int], second: tuple[int, int], **options: Any) -> bytes:
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer) as writer:
        for width, height in (first, second):
            writer.write(samples(8, 3, width, height), photometric="rgb", metadata=None, **options)
    return buffer.getvalue()


def test_a_first_page_that_may_be_a_preview_is_refused():
    assert error_of(two_pages((40, 30), (400, 300)))[0] == "unsupported_format"
    for first, second in (((40, 30), (40, 30)), ((40, 30), (80, 60)), ((400, 300), (40, 30))):
        assert decode_tiff(two_pages(first, second), 10**8)[1:3] == first


def test_a_larger_subpage_makes_the_first_page_a_preview():
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer) as writer:
        writer.write(samples(8, 3, 40, 30), photometric="rgb", metadata=None, subifds=1)
        writer.write(samples(8, 3, 80, 60), photometric="rgb", metadata=None)
    assert error_of(buffer.getvalue()) == (
        "unsupported_format", f"a first page that is the preview of a larger subpage, {NOT_READ}",
    )  # fmt: skip


def test_camera_raw_files_that_look_like_tiffs_are_refused():
    data = grey()
    for signature in (b"CR\2\0", b"IIII"):
        raw = data[:8] + signature + data[12:]
        assert error_of(raw) == ("unsupported_format", f"a camera raw file, {NOT_READ}")


@pytest.mark.parametrize(
    "rows", [packed_rows(samples(12), 12), packed_rows(samples(10), 10), packed_rows(samples(14), 14)]
)
def test_depths_above_8_bits_use_the_whole_range(rows):
    bits = rows.shape[1] * 8 // WIDTH
    pixels = decode_tiff(grey(rows=rows.tobytes(), tag_258=bits), 10**6).pixels
    assert (pixels.min(), pixels.max()) == (0, 255)
    np.testing.assert_array_equal(pixels[:, :, 0], samples(bits) >> (bits - 8))


def test_white_is_zero_is_inverted_at_every_depth():
    for bits in (1, 4, 8, 12, 16):
        rows = packed_rows(samples(bits), bits).tobytes()
        black, white = (decode_tiff(grey(">", rows, tag_258=bits, tag_262=value), 10**6).pixels for value in (1, 0))
        np.testing.assert_array_equal(white, 255 - black)


def test_a_further_sample_that_is_not_declared_must_be_opaque():
    rgb = samples(8, 3)
    tags = {"tag_277": 4, "tag_258": [8] * 4, "tag_262": 2}
    opaque = np.dstack((rgb, np.full((HEIGHT, WIDTH), 255, np.uint8)))
    np.testing.assert_array_equal(decode_tiff(grey(rows=opaque.tobytes(), **tags), 10**6).pixels, rgb)
    opaque[3, 4, 3] = 254
    assert error_of(grey(rows=opaque.tobytes(), **tags)) == (
        "unsupported_format", "a TIFF with a further sample that may be alpha, which its header does not say",
    )  # fmt: skip


def test_old_palettes_of_8_bits_are_read():
    palette = np.random.default_rng(0).integers(0, 256, (3, 256), dtype=np.uint16)
    pixels = decode_tiff(grey(tag_262=3, tag_320=palette.ravel().tolist()), 10**6).pixels
    np.testing.assert_array_equal(pixels, palette.T[samples(8)].astype(np.uint8))


def test_tiles_that_are_listed_as_strips_are_read():
    tiles = by_tifffile(samples(8), photometric="minisblack", tile=(16, 16))
    directory = struct.unpack("<I", tiles[4:8])[0]
    for old, new in ((324, 273), (325, 279)):
        tiles = tiles[:directory] + tiles[directory:].replace(struct.pack("<H", old), struct.pack("<H", new), 1)
    assert (decode_tiff(tiles, 10**6).pixels == samples(8)[:, :, None]).all()


@pytest.mark.parametrize(
    ("position", "code", "message"),
    [
        (0, "unsupported_format", f"a picture that leaves out strips, {NOT_READ}"),  # as GDAL writes empty ones
        (4, "corrupt", "a strip overlaps the header"),
        (10**6, "truncated", "a strip or tile has 0 of 1073 bytes"),
    ],
)
def test_strips_are_never_read_from_the_header(position, code, message):
    data = grey()
    entry = data.index(struct.pack("<HHI", 273, 3, 1))
    changed = data[:entry] + struct.pack("<HHII", 273, 4, 1, position) + data[entry + 12 :]
    assert error_of(changed) == (code, message)


def test_messages_hold_no_number_of_a_library():
    data = grey(rows=b"y" + zlib.compress(ROWS)[1:], tag_259=8)
    assert error_of(data) == ("corrupt", "its compressed data cannot be decoded: incorrect header check")


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (grey(rows=ROWS)[:500], "truncated"),
        (grey(tag_278=5), "corrupt"),  # one strip where six are due
        (grey(tag_278=0), "corrupt"),
        (grey(tag_320=[1, 2, 3], tag_262=3), "corrupt"),
        (grey(rows=zlib.compress(ROWS)[:-100], tag_259=8), "truncated"),
        (grey(rows=zlib.compress(ROWS)[:-6] + bytes(6), tag_259=8), "corrupt"),
        (grey(rows=zlib.compress(ROWS + ROWS), tag_259=8), "corrupt"),
        (b"II*\0" + struct.pack("<I", 4), "corrupt"),
        (b"II*\0" + struct.pack("<I", 10**6), "truncated"),
    ],
    ids=["cut", "strips missing", "no rows", "palette", "deflate cut", "checksum", "too much", "loop", "outside"],
)
def test_damage_is_found(data, code):
    assert error_of(data)[0] == code


def test_jpeg_strips_are_checked_like_jpegs():
    data = encoded(photo(400, 300), "TIFF", compression="jpeg", quality=90)
    assert decode_tiff(data, 10**6).pixels.shape == (300, 400, 3)
    page = tifffile.TiffFile(io.BytesIO(data)).pages[0]
    offset, size = page.dataoffsets[0], page.databytecounts[0]
    middle = offset + size // 2
    zeros = data[:middle] + bytes(offset + size - 2 - middle) + data[offset + size - 2 :]
    assert error_of(zeros)[0] in ("corrupt", "truncated")


@pytest.mark.parametrize("compression", ["group4", "group3", "tiff_ccitt"])
def test_fax_compression_is_not_read(compression):
    data = encoded(Image.fromarray(samples(1, 1, 200, 120).astype(bool)), "TIFF", compression=compression)
    number = {"tiff_ccitt": 2, "group3": 3, "group4": 4}[compression]
    assert error_of(data) == ("unsupported_format", f"compression {number}, {NOT_READ}")


def test_zeros_in_packed_bits_are_damage():
    black_line = np.vstack((samples(8, 1, 600, 200), np.zeros((3, 600), np.uint8)))
    data = encoded(Image.fromarray(black_line), "TIFF", compression="packbits")
    assert decode_tiff(data, 10**6).pixels.shape == (203, 600, 3)
    middle = len(data) // 2
    zeros = data[:middle] + bytes(512) + data[middle + 512 :]
    assert error_of(zeros) == ("corrupt", "a part of the picture is replaced by zeros")


def test_too_many_pieces_are_refused_by_the_header():
    tags = {**GREY, 256: 1000, 257: 1000, 322: 1, 323: 1, 324: (4, 1_000_000, bytes(4)), 325: (4, 1_000_000, bytes(4))}
    data = tiff("<", {number: value for number, value in tags.items() if number != 278}, [b""])
    assert error_of(data) == ("unsupported_format", f"a picture in 1000000 pieces, more than 100000, {NOT_READ}")
    data = tiff("<", {**GREY, 256: 1, 257: 1_000_000, 278: 1}, [b""])
    assert error_of(data) == ("unsupported_format", f"a picture in 1000000 pieces, more than 100000, {NOT_READ}")


def test_memory_is_limited_by_the_header():
    """A strip of zeros is packed a thousandfold."""
    many = {256: 5000, 257: 5000, 258: [16] * 32, 259: 8, 262: 1, 277: 32, 278: 5000, 338: [0] * 31}
    assert error_of(tiff("<", many, [b"x"])) == ("too_many_pixels", "5000 x 5000 pixels of 32 samples of 16 bits")
    wide = {256: 1, 257: 10_000, 258: 8, 259: 8, 262: 1, 277: 1, 322: 1_000_000, 323: 1}
    assert error_of(tiff("<", wide, [b"x"])) == (
        "too_many_pixels", "tiles of 1000000 x 1 pixels for a smaller picture",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("tag", "turned"),
    [((1, 1, b"\6"), True), ((4, 1, b"\6\0\0\0"), True), ((2, 2, b"\6\0"), False), ((7, 1, b"\6"), False),
     ((11, 1, struct.pack("<f", 6)), False)],
    ids=["byte", "long", "text", "undefined", "float"],
)  # fmt: skip
def test_an_orientation_of_another_type_counts_if_it_is_a_whole_number(tag, turned):
    """As for libtiff."""
    assert decode_tiff(grey(tag_274=tag), 10**6).orientation == (6 if turned else 1)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_tag_is_applied(orientation):
    decoded = decode(grey(tag_274=orientation), PreprocessSpec())
    sides = (WIDTH, HEIGHT) if orientation < 5 else (HEIGHT, WIDTH)
    assert decoded[1:] == sides
    corner = {1: (0, 0), 2: (0, -1), 3: (-1, -1), 4: (-1, 0), 5: (0, 0), 6: (0, -1), 7: (-1, -1), 8: (-1, 0)}[
        orientation
    ]
    assert decoded.pixels[corner][0] == samples(8)[0, 0]
