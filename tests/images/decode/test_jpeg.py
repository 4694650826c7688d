"""JPEG: warnings that matter and those that do not, cut pictures, scans, kinds that are read and kinds that are not."""

import io
import os
import re
import struct

import numpy as np
import pytest
from damage import encoded, error_of, photo
from picture_files import jpeg, samples
from PIL import Image

from batchland.images.decode.jpeg import decode_jpeg, read_header
from batchland.images.preprocess import PreprocessSpec, decode


def pixels_of(data: bytes) -> np.ndarray:
    return decode_jpeg(data, 10**8, lambda width, height: 1).pixels


def segment(marker: int, content: bytes) -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", len(content) + 2) + content


def with_segments(data: bytes, *segments: bytes) -> bytes:
    return data[:2] + b"".join(segments) + data[2:]


JPEG = encoded(photo(400, 300), "JPEG")
ADOBE = b"Adobe\0\x64\0\0\0\0"


@pytest.mark.parametrize(
    "odd",
    [
        *(JPEG.replace(b"JFIF\0\1\1", b"JFIF\0" + version) for version in (b"\0\0", b"\2\0", b"\x09\1", b"\xff\xff")),
        *(with_segments(JPEG, segment(0xEE, ADOBE + bytes([transform]))) for transform in (7, 3, 255)),
        with_segments(JPEG, segment(0xE2, b"ICC_PROFILE\0\0\0")),
        with_segments(JPEG, segment(0xE2, b"ICC_PROFILE\0")),
        with_segments(JPEG, segment(0xE2, b"ICC_PROFILE\0\1")),
        with_segments(JPEG, segment(0xE2, b"ICC_PROFILE\0\5\2profile")),
        with_segments(JPEG, segment(0xE2, b"ICC_PROFILE\0\1\1profile"), segment(0xE2, b"ICC_PROFILE\0\1\1profile")),
        with_segments(
            JPEG.replace(b"JFIF\0\1\1", b"JFIF\0\x09\x09"),
            segment(0xEE, ADOBE + b"\x07"),
            segment(0xE2, b"ICC_PROFILE\0\0\0"),
        ),
    ],
)
def test_warnings_about_metadata_are_ignored(odd):
    np.testing.assert_array_equal(pixels_of(odd), pixels_of(JPEG))


@pytest.mark.parametrize("before", [JPEG[:20], JPEG[:2], with_segments(JPEG[:2], segment(0xE0, b"JFIF\0\1\1"))])
@pytest.mark.parametrize("transform", [*range(5), 255])
def test_the_colours_of_any_adobe_transform_are_those_of_pillow(before, transform):
    bad_profile = segment(0xE2, b"ICC_PROFILE\0\5\2profile")
    data = before + segment(0xEE, ADOBE + bytes([transform])) + bad_profile + JPEG[20:]
    with Image.open(io.BytesIO(data)) as image:
        np.testing.assert_array_equal(pixels_of(data), np.asarray(image.convert("RGB")))


def test_damage_is_found_in_spite_of_a_warning_about_metadata():
    odd = JPEG.replace(b"JFIF\0\1\1", b"JFIF\0\x09\1")
    assert error_of(odd[: len(odd) // 2] + b"\xff\xd9")[0] == "truncated"


@pytest.mark.parametrize("padding", [b"\0", bytes(16), bytes(64), b"\xff" * 5, b"\0\xff\xff"])
def test_few_padding_bytes_are_ignored(padding):
    np.testing.assert_array_equal(pixels_of(JPEG[:-2] + padding + b"\xff\xd9"), pixels_of(JPEG))


VARIANTS = {
    "usual": {},
    "optimised": {"optimize": True},
    "progressive": {"progressive": True},
    "restarts": {"restart_marker_rows": 2},
    "grey": {"mode": "L"},
    "cmyk": {"mode": "CMYK"},
}


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("share", [0.3, 0.5, 0.7, 0.9])
def test_pictures_with_zeros_at_the_end_fail(variant, share):
    options = dict(VARIANTS[variant])
    for seed in range(4):
        noise = np.random.default_rng(seed).integers(0, 40, (300, 400, 3), dtype=np.uint8)
        image = Image.fromarray((np.asarray(photo(400, 300, seed)) // 2 + noise).astype(np.uint8))
        data = encoded(image.convert(options.get("mode", "RGB")), "JPEG", **{**options, "mode": None})
        cut = int(len(data) * share)
        for run in (200, 5_000, len(data) - cut, 10 * len(data)):
            assert error_of(data[:cut] + bytes(run) + b"\xff\xd9")[0] in ("corrupt", "truncated")


def test_zeros_of_flat_pictures_are_not_damage():
    """In optimised tables the code of a flat block may be all zeros."""
    image = photo(400, 100)
    flat = Image.new("RGB", (400, 2000), "white")
    flat.paste(image)
    data = encoded(flat, "JPEG", optimize=True, quality=70)
    assert bytes(100) in data
    assert (pixels_of(data)[200:] > 250).all()


def test_scans_are_counted_up_to_the_end_marker():
    """Phones append videos, in which bytes may look like scans."""
    data = encoded(photo(320, 240), "JPEG", progressive=True)
    np.testing.assert_array_equal(pixels_of(data + b"\xff\xda" * 200 + os.urandom(1_000_000)), pixels_of(data))


def test_too_many_and_inconsistent_scans_are_refused():
    data = encoded(Image.new("L", (64, 64), 3), "JPEG", progressive=True)
    last = data[data.rindex(b"\xff\xda") : -2]
    assert error_of(data[:-2] + last * 5 + data[-2:]) == (
        "corrupt", "the scans of a progressive JPEG do not follow each other, as no encoder writes",
    )  # fmt: skip


def scans(data: bytes) -> list[int]:
    """Where the scans of a JPEG without metadata begin."""
    return [found.start() for found in re.finditer(rb"\xff\xda", data)]


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_a_progressive_picture_without_its_last_scans_fails(mode):
    """Cut at a scan and closed, it is a blurred picture. Another picture behind it does not help."""
    data = encoded(photo(320, 240).convert(mode), "JPEG", progressive=True)
    assert len(scans(data)) >= 6
    for begin in scans(data)[1:]:
        for behind in (b"", data):
            cut = data[:begin] + b"\xff\xd9" + behind
            assert error_of(cut) == ("truncated", "the last scans of a progressive JPEG are missing")
    middle = scans(data)[2]
    assert error_of(data[:middle] + data[scans(data)[3] :])[0] in ("corrupt", "truncated")
    comment = segment(0xFE, b"\xff\xd9\xff\xda\0\x08\1\1\0\0\0\0")
    if mode != "CMYK":
        np.testing.assert_array_equal(pixels_of(data[:middle] + comment + data[middle:]), pixels_of(data))


def in_three_scans(picture: Image.Image, factors: tuple[int, int] = (1, 1)) -> tuple[bytes, list[bytes]]:
    """Header and scans of a sequential JPEG with each component in a scan, from three grey ones.

    factors: by which the two of colour are smaller.
    """
    smaller = (picture.width // factors[0], picture.height // factors[1])
    sizes = [picture.size, smaller, smaller]
    parts = zip(picture.convert("YCbCr").split(), sizes, strict=True)
    planes = [encoded(plane.resize(size), "JPEG") for plane, size in parts]
    size = struct.pack(">HH", picture.height, picture.width)
    luma = bytes([factors[0] << 4 | factors[1]])
    frame = segment(0xC0, b"\x08" + size + b"\3\1" + luma + b"\0\2\x11\0\3\x11\0")
    tables = planes[0][2 : scans(planes[0])[0]]
    head = b"\xff\xd8" + re.sub(rb"\xff\xc0\0\x0b.{9}", lambda _: frame, tables, flags=re.DOTALL)
    found = []
    for number, plane in enumerate(planes, 1):
        header = segment(0xDA, bytes([1, number, 0, 0, 63, 0]))
        found.append(header + plane[scans(plane)[0] + 10 : -2])
    return head, found


def test_a_picture_in_several_scans_needs_all_components():
    """Without the scans of the colours, libjpeg decodes a grey or tinted picture, without a warning."""
    head, found = in_three_scans(photo(160, 120))
    whole = head + b"".join(found) + b"\xff\xd9"
    with Image.open(io.BytesIO(whole)) as image:
        np.testing.assert_array_equal(pixels_of(whole), np.asarray(image.convert("RGB")))
    assert pixels_of(whole).std(axis=2).max() > 10
    for kept in (found[:1], found[:2], found[1:], [found[0], found[0], found[0]]):
        assert error_of(head + b"".join(kept) + b"\xff\xd9" + whole) == (
            "truncated", "scans of the JPEG are missing: the file ends before the last component",
        )  # fmt: skip


@pytest.mark.parametrize(
    ("factors", "read"),
    [((1, 1), True), ((2, 1), True), ((2, 2), True), ((4, 1), True), ((1, 2), True), ((1, 4), False), ((2, 4), False)],
)
def test_subsamplings_of_pictures_in_several_scans_are_read_or_unsupported(factors, read):
    head, found = in_three_scans(photo(160, 128), factors)
    data = head + b"".join(found) + b"\xff\xd9"
    if not read:
        assert error_of(data)[0] == "unsupported_format"
        return
    with Image.open(io.BytesIO(data)) as image:
        assert np.abs(pixels_of(data).astype(int) - np.asarray(image.convert("RGB"))).max() <= 1


@pytest.mark.parametrize("run", [25, 40, 64, 200])
def test_zeros_within_a_scan_fail(run):
    """The longest run of zeros in 3,846 photos has 7 bytes."""
    place = len(JPEG) // 2
    assert error_of(JPEG[:place] + bytes(run) + JPEG[place + run :]) == (
        "corrupt", "a part of the picture is replaced by zeros",
    )  # fmt: skip


def test_scan_markers_in_metadata_are_ignored():
    data = encoded(photo(320, 240), "JPEG", progressive=True)
    with_comment = with_segments(data, segment(0xFE, b"\xff\xda\0\x08\1\1\0\0\0\0" * 150))
    np.testing.assert_array_equal(pixels_of(with_comment), pixels_of(data))


def replaced_frame(marker: int = 0xC0, bits: int = 8, height: int = 300, components: int = 3) -> bytes:
    start = JPEG.index(b"\xff\xc0")
    content = struct.pack(">BHHB", bits, height, 400, components) + b"".join(
        bytes([i, 0x11, 0]) for i in range(components)
    )
    return JPEG[:start] + segment(marker, content) + JPEG[start + 19 :]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (replaced_frame(bits=12), "a JPEG with 12 bits per sample; only 8 are read"),
        (replaced_frame(0xC3), "a JPEG of a kind that is not read (frame type 0xc3)"),
        (replaced_frame(0xC5), "a JPEG of a kind that is not read (frame type 0xc5)"),
        (replaced_frame(0xCD), "a JPEG of a kind that is not read (frame type 0xcd)"),
        *(
            (replaced_frame(marker), "a JPEG with arithmetic coding, in which missing pixels go unnoticed")
            for marker in (0xC9, 0xCA, 0xCB)
        ),
        (replaced_frame(0xF7), "a JPEG of a kind that is not read (frame type 0xf7)"),
        (replaced_frame(height=0), "a JPEG without a height in its header"),
        (replaced_frame(components=2), "a JPEG with 2 components; only 1, 3 and 4 are read"),
        (replaced_frame(components=4), "a CMYK JPEG that does not say whether its colours are inverted"),
    ],
)
def test_kinds_that_are_not_read_are_unsupported(data, message):
    assert error_of(data) == ("unsupported_format", message)


def test_a_damaged_header_is_corrupt_and_a_cut_one_truncated():
    assert error_of(b"\xff\xd8\xffgarbage") == ("corrupt", "it has an unknown marker 0x67")
    for end in (4, 20, 200):
        assert error_of(JPEG[:end])[0] == "truncated"
    for end in (2, 20, JPEG.index(b"\xff\xda")):
        assert error_of(JPEG[:end] + b"\xff\xd9") == ("truncated", "the file ends before its picture")
    assert error_of(JPEG[:20] + JPEG[JPEG.index(b"\xff\xda") :]) == ("corrupt", "its header has no picture")
    scan = JPEG.index(b"\xff\xda") + 2
    for length in (b"\0\0", b"\0\1", b"\0\2"):
        assert error_of(JPEG[:scan] + length + JPEG[scan + 2 :]) == ("corrupt", "its header is damaged")


def test_messages_are_readable():
    for odd in (JPEG[:300] + b"\xff\xd9", replaced_frame(components=1), JPEG.replace(b"\xff\xc4", b"\xff\xc8")):
        assert re.search("[a-z]{3}", error_of(odd)[1])


@pytest.mark.parametrize("factors", [(3, 1), (4, 2), (1, 4)])
@pytest.mark.parametrize("components", [3, 4])
def test_unusual_subsamplings_are_unsupported(factors, components):
    data = jpeg([samples(8, 1, 200, 150)] * components, [factors, (1, 1), (1, 1), factors][:components])
    assert error_of(with_segments(data, segment(0xEE, ADOBE + b"\0")))[0] == "unsupported_format"


def test_headers_that_take_long_are_refused():
    empty = segment(0xE1, b"")
    for data in (with_segments(JPEG, empty * 1_000_000), with_segments(JPEG, b"\xff\xd0" * 1_000_000)):
        assert error_of(data) == ("corrupt", "more than 10000 segments, which no encoder writes")


def test_metadata_in_many_segments_is_joined():
    exif = Image.Exif()
    exif[0x0112] = 6
    block = exif.tobytes().removeprefix(b"Exif\0\0")
    parts = [block[start : start + 10] for start in range(0, len(block), 10)]
    data = with_segments(JPEG, *(segment(0xE1, b"Exif\0\0" + part) for part in parts))
    assert read_header(data).orientation == 6
    assert decode(data, PreprocessSpec())[1:] == (300, 400)


def test_a_thumbnail_before_the_picture_is_not_decoded():
    thumbnail = encoded(photo(40, 30), "JPEG")
    data = with_segments(JPEG, segment(0xE1, b"Exif\0\0" + thumbnail))
    assert pixels_of(data).shape == (300, 400, 3)
    assert io.BytesIO(data).read(2) == b"\xff\xd8"
