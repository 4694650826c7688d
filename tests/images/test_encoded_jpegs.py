"""Which JPEGs a GPU may decode: complete ones of the usual kinds, and none that the CPU would refuse."""

import damage
import pytest
from PIL import Image

from batchland.errors import ImageError
from batchland.images.encoded_jpegs import NO_JPEGS, JpegRows, keep_encoded
from batchland.images.preprocess import PreprocessSpec, decode
from batchland.models.gpu.probe_jpegs import probes

SPEC = PreprocessSpec(height=8, width=8, max_pixels=2_000_000)


def photo(width=320, height=240, mode="RGB"):
    return damage.photo(width, height).convert(mode)


def encoded(image, kind="JPEG", **options):
    return damage.encoded(image, kind, **options)


def turned(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


@pytest.mark.parametrize("checked", [False, True])
@pytest.mark.parametrize(
    "data",
    [
        encoded(photo()),
        encoded(photo(), progressive=True),
        encoded(photo(), subsampling=0),
        encoded(photo(mode="L")),
        encoded(photo(), restart_marker_rows=2),
    ],
    ids=["baseline", "progressive", "444", "grey", "restarts"],
)
def test_usual_jpegs_stay_encoded(data, checked):
    left = keep_encoded(data, SPEC, checked=checked)
    assert left == (data, 320, 240, 1)
    assert left.data is data


@pytest.mark.parametrize("orientation", range(1, 9))
def test_size_is_that_of_the_upright_picture(orientation):
    data = encoded(photo(), exif=turned(orientation))
    left = keep_encoded(data, SPEC, checked=False)
    assert (left.width, left.height, left.orientation) == (320, 240, orientation)
    assert left.upright_size == decode(data, SPEC)[1:]


RGB_JPEG = encoded(photo(), keep_rgb=True, subsampling=0)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"no image",
        encoded(photo(), "PNG"),
        encoded(photo(), "WEBP"),
        encoded(photo(mode="CMYK")),
        RGB_JPEG,
        RGB_JPEG.replace(b"Adobe", b"Odobe"),
        encoded(photo(), "MPO", save_all=True, append_images=[photo()]),
        encoded(photo()) + b"and more",
        encoded(photo())[:-1],
        encoded(photo())[:5000],
        encoded(photo(2000, 1001)),
        encoded(photo(900, 100)),
        encoded(photo(), progressive=True)[:-2] + b"\xff\xda" * 101 + b"\xff\xd9",
    ],
    ids=[
        "empty", "no image", "PNG", "WebP", "CMYK", "RGB", "RGB without Adobe", "MPO", "more after it", "no end",
        "half", "too large", "strip", "scans",
    ],
)  # fmt: skip
def test_other_files_are_left_to_the_cpu(data):
    assert keep_encoded(data, SPEC, checked=False) is None


def test_damage_is_found_only_if_checked():
    good, damaged = probes()
    for data in good:
        assert keep_encoded(data, SPEC, checked=True) is not None
    assert len(damaged) == 12
    for data in damaged:
        with pytest.raises(ImageError):
            decode(data, SPEC)
        assert keep_encoded(data, SPEC, checked=True) is None
    unchecked = [keep_encoded(data, SPEC, checked=False) is not None for data in damaged]
    assert unchecked == [True] * 9 + [False] * 2 + [True]  # a progressive JPEG without its last scans, or with a hole


def test_padding_before_the_end_is_not_damage():
    data = encoded(photo())
    padded = data[:-2] + bytes(30) + data[-2:]
    assert keep_encoded(padded, SPEC, checked=True) == (padded, 320, 240, 1)


def test_rows_of_a_part_are_renumbered_from_zero():
    jpegs = {row: keep_encoded(encoded(photo(100 + row)), SPEC, checked=False) for row in (0, 3, 4, 7)}
    asked = []
    rows = JpegRows(jpegs, asked.append)
    part = rows.between(3, 7)
    assert part.encoded == {0: jpegs[3], 1: jpegs[4]}
    part.decode_on_cpu(1)
    assert asked == [4]
    assert rows.between(5, 7).encoded == {}
    assert NO_JPEGS.between(0, 4).encoded == {}
    assert NO_JPEGS.decode_on_cpu(0) is None
