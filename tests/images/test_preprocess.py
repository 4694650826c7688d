"""Decoding of every format and pixel mode, orientation, damaged files, and both kinds of fit."""

import random
import struct
import zlib
from io import BytesIO

import numpy as np
import pytest
from damage import encoded, photo
from PIL import Image, ImageOps
from pydantic import ValidationError
from toys import picture

from batchland.errors import ImageError
from batchland.images.preprocess import PreprocessSpec, decode, fit, preprocess

IMAGENET = PreprocessSpec(fit="crop", shorter_side=256)
SPEC = PreprocessSpec()
CROP = PreprocessSpec(fit="crop", shorter_side=256)


def code_of(data: bytes, spec: PreprocessSpec = SPEC) -> str:
    with pytest.raises(ImageError) as caught:
        decode(data, spec)
    return caught.value.code


@pytest.mark.parametrize(
    ("kind", "options"),
    [("PNG", {}), ("BMP", {}), ("TIFF", {}), ("TIFF", {"compression": "tiff_lzw"}), ("WEBP", {"lossless": True})],
)
def test_lossless_formats_give_exact_pixels(kind, options):
    image = photo()
    decoded = decode(encoded(image, kind, **options), SPEC)
    assert (decoded.width, decoded.height) == (60, 40)
    np.testing.assert_array_equal(decoded.pixels, np.asarray(image))


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}, {"quality": 100}])
def test_jpeg_pixels_are_those_of_pillow(options):
    data = encoded(photo(), "JPEG", **options)
    expected = np.asarray(Image.open(BytesIO(data)).convert("RGB")).astype(int)
    assert np.abs(decode(data, SPEC).pixels - expected).max() <= 2


@pytest.mark.parametrize(
    ("image", "kind", "rgb"),
    [
        (Image.new("L", (4, 4), 100), "JPEG", (100, 100, 100)),
        (Image.new("L", (4, 4), 100), "PNG", (100, 100, 100)),
        (Image.new("1", (4, 4), 1), "PNG", (255, 255, 255)),
        (Image.new("RGB", (4, 4), (10, 200, 30)).quantize(), "PNG", (10, 200, 30)),
        (Image.new("RGBA", (4, 4), (255, 0, 0, 0)), "PNG", (255, 255, 255)),
        (Image.new("RGBA", (4, 4), (255, 0, 0, 128)), "PNG", (255, 127, 127)),
        (Image.new("LA", (4, 4), (0, 0)), "PNG", (255, 255, 255)),
        (Image.new("I;16", (4, 4), 0x8000), "PNG", (128, 128, 128)),
        (Image.new("I;16", (4, 4), 0x8000), "TIFF", (128, 128, 128)),
        (Image.new("CMYK", (4, 4), (0, 255, 255, 0)), "TIFF", (255, 0, 0)),
        (Image.new("CMYK", (4, 4), (0, 255, 255, 0)), "JPEG", (254, 0, 0)),
    ],
    ids=lambda value: value.mode if isinstance(value, Image.Image) else str(value),
)
def test_every_pixel_mode_becomes_rgb(image, kind, rgb):
    pixels = decode(encoded(image, kind), SPEC).pixels
    assert pixels.shape == (4, 4, 3)
    assert pixels.dtype == np.uint8
    assert np.abs(pixels.astype(int) - rgb).max() <= 1


def test_first_frame_of_an_animation_is_decoded():
    frames = [Image.new("RGB", (8, 8), "red"), Image.new("RGB", (8, 8), "blue")]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert decode(data, SPEC).pixels[0, 0].tolist() == [255, 0, 0]


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(kind, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(photo(), kind, exif=exif, **({"lossless": True} if kind == "WEBP" else {}))
    decoded = decode(data, SPEC)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(BytesIO(data))).convert("RGB")).astype(int)
    assert (decoded.height, decoded.width) == expected.shape[:2]
    assert np.abs(decoded.pixels - expected).max() <= 2


def test_first_picture_of_a_multi_picture_jpeg_is_decoded():
    data = encoded(photo(), "MPO", save_all=True, append_images=[photo(seed=1)])
    alone = np.asarray(photo()).astype(int)
    assert np.abs(decode(data, SPEC).pixels - alone).mean() < 5


def test_garbage_in_exif_is_ignored():
    data = encoded(photo(), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff garbage")
    assert decode(data, SPEC).pixels.shape == (40, 60, 3)


def test_garbage_in_an_icc_profile_is_ignored():
    data = encoded(photo(), "JPEG", icc_profile=b"no profile at all" * 100)
    assert decode(data, SPEC).pixels.shape == (40, 60, 3)


def test_content_decides_the_format_and_unread_formats_are_named():
    assert code_of(b"") == "empty"
    assert code_of(b"just some text, named .jpg") == "not_an_image"
    assert code_of(b"\x89PNG, but not really") == "corrupt"
    assert code_of(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n") == "unsupported_format"
    assert code_of(b"\0\0\0\x10ftypisom\0\0\0\0") == "unsupported_format"
    assert code_of(b"<svg xmlns='http://www.w3.org/2000/svg'/>") == "unsupported_format"


def test_float_pixels_are_unsupported():
    assert code_of(encoded(Image.new("F", (4, 4), 0.5), "TIFF")) == "unsupported_format"


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "TIFF"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_truncated_files_fail(kind, share):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    data = encoded(noise, kind)
    assert code_of(data[: int(len(data) * share)]) in ("truncated", "corrupt")


def test_truncated_jpeg_with_an_end_mark_is_truncated():
    data = encoded(photo(400, 300), "JPEG")
    assert code_of(data[: len(data) // 2] + b"\xff\xd9") == "truncated"


def test_few_padding_bytes_before_the_end_of_a_jpeg_are_ignored():
    data = encoded(photo(), "JPEG")
    with_stray_bytes = data[:-2] + b"\0\0\0" + data[-2:]
    np.testing.assert_array_equal(decode(with_stray_bytes, SPEC).pixels, decode(data, SPEC).pixels)


@pytest.mark.parametrize("options", [{"restart_marker_rows": 4}, {"progressive": True}])
def test_holes_of_zeros_in_a_jpeg_are_damage(options):
    """The decoder loses its way in them, and may come out of them with too many bytes, not too few."""
    for seed in range(12):
        data = encoded(photo(400, 300, seed), "JPEG", **options)
        assert code_of(data[:-1500] + bytes(500) + data[-1000:]) in ("corrupt", "truncated")


def test_same_damage_gives_the_same_message():
    data = encoded(photo(), "WEBP")[:-20]
    messages = []
    for _ in range(2):
        with pytest.raises(ImageError) as caught:
            decode(data, SPEC)
        messages.append(str(caught.value))
    assert messages[0] == messages[1]
    assert "0x" not in messages[0]


def test_too_many_pixels_are_refused_before_decoding():
    data = encoded(Image.new("1", (1001, 1000)), "PNG")
    assert code_of(data, PreprocessSpec(max_pixels=1_000_000)) == "too_many_pixels"
    assert decode(data, PreprocessSpec(max_pixels=1_001_000)).pixels.shape == (1000, 1001, 3)


def test_decompression_bomb_is_refused_by_its_header():
    data = bytearray(encoded(Image.new("1", (1, 1)), "PNG"))
    data[16:24] = struct.pack(">II", 40_000, 40_000)  # in the header chunk, whose checksum follows
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    with pytest.raises(ImageError) as caught:
        decode(bytes(data), SPEC)
    assert caught.value.code == "too_many_pixels"
    assert str(caught.value) == "40000 x 40000 pixels, more than max_pixels = 100000000"


def test_flipped_bits_give_pixels_or_a_coded_failure():
    rng = random.Random(0)
    codes = set()
    for kind in ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF"):
        data = encoded(photo(), kind)
        for _ in range(100):
            broken = bytearray(data)
            for _ in range(rng.choice((1, 4, 16))):
                broken[rng.randrange(len(broken))] ^= 1 << rng.randrange(8)
            try:
                assert preprocess(bytes(broken), SPEC).shape == SPEC.shape
            except ImageError as error:
                codes.add(error.code)
    assert codes <= {"truncated", "corrupt", "not_an_image", "unsupported_format", "too_many_pixels", "out_of_memory"}
    assert "corrupt" in codes


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (500, 1), (224, 224), (640, 480), (65_500, 2)])
@pytest.mark.parametrize("spec", [SPEC, CROP], ids=["squash", "crop"])
def test_fit_gives_the_size_of_the_spec(size, spec):
    pixels = np.full((size[1], size[0], 3), (10, 20, 30), np.uint8)
    fitted = fit(pixels, spec)
    assert fitted.shape == (224, 224, 3)
    assert (fitted == (10, 20, 30)).all()


def test_squash_equals_antialiased_bilinear_of_pillow():
    image = photo(500, 375)
    expected = np.asarray(image.resize((224, 224), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(fit(np.asarray(image), SPEC), expected)


@pytest.mark.parametrize("size", [(500, 375), (375, 500), (301, 999), (256, 256), (40, 33), (1000, 750)])
def test_crop_equals_resize_and_centre_crop_of_torchvision(size):
    v2 = pytest.importorskip("torchvision.transforms.v2")
    image = photo(*size)
    expected = np.asarray(v2.Compose([v2.Resize(256), v2.CenterCrop(224)])(image)).astype(int)
    assert np.abs(fit(np.asarray(image), CROP) - expected).max() <= 1


@pytest.mark.parametrize(
    ("size", "divisor"),
    [((895, 2000), 1), ((896, 896), 2), ((1791, 1800), 2), ((1792, 1800), 4), ((4001, 3003), 4), ((3584, 3584), 8)],
)
def test_jpeg_scale_never_goes_below_twice_the_wanted_size(size, divisor):
    data = encoded(photo(*size), "JPEG")
    decoded = decode(data, PreprocessSpec(jpeg_scale="auto"))
    assert (decoded.width, decoded.height) == size
    assert decoded.pixels.shape == (-(-size[1] // divisor), -(-size[0] // divisor), 3)
    whole = preprocess(data, SPEC).astype(int)
    assert np.abs(preprocess(data, PreprocessSpec(jpeg_scale="auto")) - whole).mean() < 1


def test_contradictory_spec_is_rejected():
    for wrong in ({"shorter_side": 256}, {"fit": "crop"}, {"fit": "crop", "shorter_side": 100}, {"height": 0}):
        with pytest.raises(ValidationError):
            PreprocessSpec(**wrong)


def test_preprocess_is_fit_of_decode():
    data = picture((1, 2, 3), (300, 200), "PNG")
    np.testing.assert_array_equal(preprocess(data, SPEC), fit(decode(data, SPEC).pixels, SPEC))
