"""GIF and WebP: the first frame, what surrounds it, and files that are cut."""

import struct

import numpy as np
import pytest
from damage import encoded, error_of, photo
from PIL import Image

from batchland.errors import ImageError
from batchland.images.decode.gif import decode_gif
from batchland.images.decode.webp import decode_webp
from batchland.images.preprocess import PreprocessSpec, decode

COLOURS = bytes([10, 20, 30, 200, 100, 50]) + bytes(256 * 3 - 6)


def gif(canvas: tuple[int, int] = (8, 8), corner: tuple[int, int] = (0, 0), before: bytes = b"") -> bytes:
    """A frame of 8 x 8 pixels of colour 1 on a canvas."""
    image = Image.new("P", (8, 8), 1)
    image.putpalette(COLOURS)
    data = encoded(image, "GIF", optimize=False)
    start = data.index(b",", 13 + 6)
    return (
        data[:6]
        + struct.pack("<HH", *canvas)
        + data[10:start]
        + before
        + b","
        + struct.pack("<HH", *corner)
        + data[start + 5 :]
    )


TRANSPARENT = b"\x21\xf9\4\1\0\0\0\0"


def test_extensions_before_the_frame_are_skipped():
    for before in (
        b"\x21\xfe\5hello\0",
        b"\x21\xff\x0bNETSCAPE2.0\3\1\0\0\0",
        b"\0\0",
        b"\x21\xfe" + b"\xff" + bytes(255) + b"\0",
    ):
        pixels = decode_gif(gif(before=before), 100).pixels
        assert (pixels == (200, 100, 50)).all()


def test_undefined_parts_are_white_if_the_frame_has_transparency_and_refused_otherwise():
    pixels = decode_gif(gif((10, 10), (1, 1), TRANSPARENT), 1000).pixels
    assert (pixels[1:9, 1:9] == (200, 100, 50)).all()
    assert (pixels[0] == 255).all()
    assert error_of(gif((10, 10), (1, 1))) == (
        "unsupported_format", "a GIF with a first frame that leaves a part of the picture undefined",
    )  # fmt: skip


def with_colours(index: int, transparent: int | None, palette: bytes) -> bytes:
    """Pixels of the colour 0, but for one; the table has four colours."""
    image = Image.new("P", (8, 8), 0)
    image.putpixel((3, 2), index)
    image.putpalette(bytes(768))
    data = encoded(image, "GIF", optimize=False)
    assert data[10] & 0x87 == 0x87
    frame = data.index(b",", 13 + 768)
    control = b"" if transparent is None else b"\x21\xf9\4\1\0\0" + bytes([transparent, 0])
    return data[:10] + bytes([data[10] & 0xF8 | 1]) + data[11:13] + palette + control + data[frame:]


@pytest.mark.parametrize("palette", [bytes([10, 20, 30] * 4), bytes([0] * 3 + [1] * 3 + [2] * 3 + [3] * 3)])
def test_pixels_beyond_the_table_of_colours_are_corrupt(palette):
    for index in (4, 7, 200, 255):
        for transparent in (None, 1, 100):
            assert error_of(with_colours(index, transparent, palette)) == (
                "corrupt", "its pixels have colours that its palette lacks",
            )  # fmt: skip
        pixels = decode_gif(with_colours(index, index, palette), 100).pixels
        assert (pixels == 255).all(axis=2).nonzero() == ([2], [3])
    assert decode_gif(with_colours(3, None, palette), 100).pixels[2, 3].tolist() == list(palette[9:])


def test_unsupported_kinds_are_refused():
    assert error_of(gif(before=b"\x21\xfe\0" * 150_000)) == (
        "corrupt", "more than 100000 blocks before the picture, which no encoder writes",
    )  # fmt: skip
    assert error_of(gif(before=b"\x21\xfe" + b"\1a" * 150_000 + b"\0"))[0] == "corrupt"
    assert error_of(gif(before=b"?")) == ("corrupt", "its blocks are damaged")
    assert error_of(gif()[:40])[0] == "truncated"
    assert error_of(gif((65535, 65535)))[0] == "too_many_pixels"
    data = gif()
    without_table = data[:10] + bytes([data[10] & 0x7F]) + data[11:13] + data[data.index(b",", 13) :]
    assert error_of(without_table) == (
        "unsupported_format",
        "a GIF without a table of colours, not a kind that is read here",
    )


def test_half_of_a_frame_is_truncated():
    data = encoded(photo(100, 80), "GIF")
    for end in (b"", b"\0;", bytes(400) + b"\0;"):
        assert error_of(data[: len(data) // 2] + end)[0] == "truncated"


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "AVIF"])
def test_a_file_that_is_cut_is_truncated_in_plain_words(kind):
    data = encoded(photo(100, 80), kind)
    assert decode(data, PreprocessSpec()).pixels.shape == (80, 100, 3)
    for share in (0.5, 0.9):
        with pytest.raises(ImageError) as caught:
            decode(data[: round(len(data) * share)], PreprocessSpec())
        assert (caught.value.code, str(caught.value)) == ("truncated", "the file ends before its last pixel")


def test_a_whole_webp_that_is_damaged_is_corrupt_in_plain_words():
    data = bytearray(encoded(photo(100, 80), "WEBP"))
    data[20:40] = b"\xff" * 20
    with pytest.raises(ImageError) as caught:
        decode(bytes(data), PreprocessSpec())
    assert (caught.value.code, str(caught.value)) == ("corrupt", "its compressed data cannot be decoded")


def test_first_frame_of_an_animated_webp_is_decoded():
    frames = [Image.new("RGB", (20, 10), "red"), Image.new("RGB", (20, 10), "blue")]
    data = encoded(frames[0], "WEBP", save_all=True, append_images=frames[1:], lossless=True)
    assert (decode_webp(data, 1000).pixels == (255, 0, 0)).all()
    with pytest.raises(ImageError) as caught:
        decode_webp(data, 100)
    assert caught.value.code == "too_many_pixels"
    np.testing.assert_array_equal(
        decode_webp(encoded(photo(), "WEBP", lossless=True), 10**6).pixels, np.asarray(photo())
    )


@pytest.mark.parametrize("xmp", [b"<x tiff:Orientation='6'/>", b'<x tiff:Orientation="6"/>'])
@pytest.mark.parametrize("kind", ["WEBP", "AVIF", "JPEG", "TIFF"])
def test_an_orientation_in_xmp_is_ignored(kind, xmp):
    """As by browsers, libvips and OpenCV."""
    image = photo(40, 30)
    info = {"tiffinfo": {700: xmp}} if kind == "TIFF" else {"xmp": xmp}
    assert decode(encoded(image, kind, **info), PreprocessSpec()).pixels.shape == (30, 40, 3)


def animation(flags: int, canvas: tuple[int, int], corner: tuple[int, int], frame: Image.Image) -> bytes:
    """A WebP with a frame of one colour that is shown twice."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return kind + struct.pack("<I", len(content)) + content

    def numbers(*values: int) -> bytes:
        return b"".join(struct.pack("<I", value)[:3] for value in values)

    place = numbers(corner[0] // 2, corner[1] // 2, frame.width - 1, frame.height - 1, 100) + b"\0"
    one = chunk(b"ANMF", place + encoded(frame, "WEBP", lossless=True)[12:])
    size = bytes([flags, 0, 0, 0]) + numbers(canvas[0] - 1, canvas[1] - 1)
    body = b"WEBP" + chunk(b"VP8X", size) + chunk(b"ANIM", b"\0\0\xff\xff\0\0") + one + one
    return chunk(b"RIFF", body)


@pytest.mark.parametrize("corner", [(0, 0), (4, 2), (0, 6), (10, 0)])
def test_the_part_around_the_first_frame_of_a_webp_is_white_if_it_has_transparency_and_refused_otherwise(corner):
    frame = Image.new("RGB", (20, 10), (200, 100, 50))
    pixels = decode_webp(animation(0x12, (30, 16), corner, frame), 1000).pixels
    expected = np.full((16, 30, 3), 255)
    expected[corner[1] : corner[1] + 10, corner[0] : corner[0] + 20] = (200, 100, 50)
    np.testing.assert_array_equal(pixels, expected)
    with pytest.raises(ImageError) as caught:
        decode_webp(animation(0x02, (30, 16), corner, frame), 1000)
    assert (caught.value.code, str(caught.value)) == (
        "unsupported_format", "a WebP with a first frame that leaves a part of the picture undefined",
    )  # fmt: skip
    whole = decode_webp(animation(0x02, (20, 10), (0, 0), frame), 1000).pixels
    np.testing.assert_array_equal(whole, np.asarray(frame))


@pytest.mark.parametrize("lossless", [False, True])
def test_zeros_in_a_webp_are_damage(lossless):
    """As an interrupted download leaves them. libwebp takes zeros for pixels."""
    data = encoded(photo(600, 400), "WEBP", lossless=lossless, quality=95)
    assert decode_webp(data, 10**6).pixels.shape == (400, 600, 3)
    middle = len(data) // 2
    for length in (len(data) - middle, 512):
        with pytest.raises(ImageError, match="a part of the picture is replaced by zeros"):
            decode_webp(data[:middle] + bytes(length) + data[middle + length :], 10**6)


@pytest.mark.parametrize("options", [{"quality": 80}, {"quality": 1, "method": 0}, {"lossless": True}], ids=str)
def test_zeros_of_pictures_of_one_colour_are_not_damage(options):
    image = Image.new("RGB", (3000, 2000), "white")
    data = encoded(image, "WEBP", **options)
    assert decode_webp(data, 10**7).pixels.min() >= 250
