"""ICC profiles: converted to sRGB where the specification says so, and only where they are of another colour space."""

import io
import struct

import numpy as np
import pytest
from damage import encoded, photo
from PIL import Image, ImageCms

from batchland.errors import ImageError
from batchland.images.decode.colour import is_srgb, to_srgb
from batchland.images.encoded_jpegs import keep_encoded
from batchland.images.preprocess import PreprocessSpec, decode

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def matrix_profile(*columns: tuple[float, float, float], gamma: float = 2.2) -> bytes:
    """A display profile of three primaries, XYZ at D50, and a gamma."""

    def fixed(value: float) -> bytes:
        return struct.pack(">i", round(value * 65536))

    xyz = [b"XYZ \0\0\0\0" + b"".join(map(fixed, values)) for values in (*columns, (0.9642, 1.0, 0.8249))]
    curve = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256)) + b"\0\0"
    tags = dict(zip((b"rXYZ", b"gXYZ", b"bXYZ", b"wtpt"), xyz, strict=True)) | dict.fromkeys(
        (b"rTRC", b"gTRC", b"bTRC"), curve
    )
    body, table = b"", b""
    start = 128 + 4 + 12 * len(tags)
    for name, content in tags.items():
        table += name + struct.pack(">II", start + len(body), len(content))
        body += content.ljust(-(-len(content) // 4) * 4, b"\0")
    head = struct.pack(">I", start + len(body)) + b"lcms\x02\x10\0\0mntrRGB XYZ " + bytes(12) + b"acsp" + bytes(28)
    head += b"".join(map(fixed, (0.9642, 1.0, 0.8249)))
    return head.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + body


DISPLAY_P3 = matrix_profile((0.5151, 0.2412, -0.0011), (0.2919, 0.6922, 0.0419), (0.1572, 0.0666, 0.7841))
FORMATS = [
    ("JPEG", {"quality": 95}),
    ("PNG", {}),
    ("TIFF", {}),
    ("WEBP", {"lossless": True}),
    ("AVIF", {"quality": 95}),
]


@pytest.mark.parametrize(("kind", "options"), FORMATS)
def test_a_profile_is_applied_in_every_format_and_only_on_request(kind, options):
    image = photo(64, 48)
    plain = decode(encoded(image, kind, **options), PreprocessSpec()).pixels
    tagged = encoded(image, kind, icc_profile=DISPLAY_P3, **options)
    np.testing.assert_array_equal(decode(tagged, PreprocessSpec()).pixels, plain)
    expected = ImageCms.profileToProfile(
        Image.fromarray(plain), ImageCms.ImageCmsProfile(io.BytesIO(DISPLAY_P3)), ImageCms.createProfile("sRGB")
    )
    np.testing.assert_array_equal(decode(tagged, PreprocessSpec(colour="srgb")).pixels, np.asarray(expected))
    assert np.abs(np.asarray(expected).astype(int) - plain).max() > 20


def test_other_profiles_leave_the_pixels_as_they_are():
    pixels = np.asarray(photo(20, 10))
    grey = matrix_profile((0.5, 0.2, 0.0), (0.3, 0.7, 0.0), (0.1, 0.1, 0.8)).replace(b"RGB ", b"GRAY", 1)
    black = matrix_profile((0.0, 0.0, 0.0), (0.0, 0.0, 0.0), (0.0, 0.0, 0.0))
    white = matrix_profile((0.5, 0.2, 0.0), (0.3, 0.7, 0.0), (0.1, 0.1, 0.8), gamma=0)
    for profile in (None, b"", b"garbage" * 100, SRGB, DISPLAY_P3[:200], grey, black, white):
        assert is_srgb(profile)
        np.testing.assert_array_equal(to_srgb(pixels, profile), pixels)
    assert not is_srgb(DISPLAY_P3)


def test_a_profile_for_rgb_in_a_jpeg_of_cmyk_is_ignored():
    image = photo(64, 48).convert("CMYK")
    tagged, plain = (decode(encoded(image, "JPEG", **more), PreprocessSpec(colour="srgb")).pixels
                     for more in ({"icc_profile": DISPLAY_P3}, {}))  # fmt: skip
    np.testing.assert_array_equal(tagged, plain)


def hdr_profile(transfer: int) -> bytes:
    """A profile with a further tag that gives the transfer characteristics, as those of BT.2100 have it."""
    count = int.from_bytes(SRGB[128:132]) + 1
    entries = b"".join(
        SRGB[at : at + 4] + struct.pack(">I", int.from_bytes(SRGB[at + 4 : at + 8]) + 12) + SRGB[at + 8 : at + 12]
        for at in range(132, 132 + 12 * (count - 1), 12)
    )
    entries += struct.pack(">4sII", b"cicp", len(SRGB) + 12, 12)
    body = SRGB[132 + 12 * (count - 1) :] + b"cicp\0\0\0\0\x09" + bytes([transfer]) + b"\0\1"
    return struct.pack(">I", len(SRGB) + 24) + SRGB[4:128] + struct.pack(">I", count) + entries + body


@pytest.mark.parametrize(("kind", "options"), FORMATS)
def test_a_profile_of_hdr_is_refused_in_every_format(kind, options):
    image = photo(64, 48)
    for colour in ("as_stored", "srgb"):
        for transfer, name in ((16, "PQ"), (18, "HLG")):
            data = encoded(image, kind, icc_profile=hdr_profile(transfer), **options)
            with pytest.raises(ImageError) as caught:
                decode(data, PreprocessSpec(colour=colour))
            assert (caught.value.code, str(caught.value)) == (
                "unsupported_format", f"an HDR picture ({name}), not a kind that is read here",
            )  # fmt: skip
        data = encoded(image, kind, icc_profile=hdr_profile(13), **options)
        plain = encoded(image, kind, **options)
        np.testing.assert_array_equal(
            decode(data, PreprocessSpec(colour=colour)).pixels, decode(plain, PreprocessSpec()).pixels
        )


def test_a_gpu_decodes_no_picture_that_has_to_be_converted():
    for profile, spec, kept in (
        (DISPLAY_P3, PreprocessSpec(colour="srgb"), False),
        (DISPLAY_P3, PreprocessSpec(), True),
        (SRGB, PreprocessSpec(colour="srgb"), True),
        (hdr_profile(16), PreprocessSpec(), False),
        (hdr_profile(13), PreprocessSpec(), True),
    ):
        data = encoded(photo(320, 240), "JPEG", icc_profile=profile)
        assert (keep_encoded(data, spec, checked=True) is not None) == kept


def test_cards_without_the_field_are_as_before():
    assert PreprocessSpec.model_validate_json('{"height": 8, "width": 8}').colour == "as_stored"
