"""The fixed-point resize: the same bytes by the library and by numpy, on every CPU, and close to Pillow's."""

import hashlib
from io import BytesIO

import cykooz_resizer
import numpy as np
import pytest
from cykooz_resizer.rust_lib import RustResizer
from PIL import Image

from batchland.errors import ImageError
from batchland.images import resize as resize_module
from batchland.images.preprocess import PreprocessSpec, decode, fit, preprocess
from batchland.images.resize import resize

EXTENSIONS = [
    extension.value
    for extension in (
        cykooz_resizer.CpuExtensions.none,
        cykooz_resizer.CpuExtensions.sse4_1,
        cykooz_resizer.CpuExtensions.avx2,
    )
]
SIZES = [(375, 500, 224), (100, 37, 224), (33, 2000, 7), (1, 1, 5), (3, 900, 224), (612, 816, 224), (97, 97, 97)]
PILLOW = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


def picture(height: int, width: int, *, smooth: bool) -> np.ndarray:
    rng = np.random.default_rng(height * width)
    if not smooth:
        return rng.integers(0, 256, (height, width, 3), np.uint8)
    small = rng.integers(0, 256, (height // 20 + 1, width // 20 + 1, 3), np.uint8)
    return np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))


def boxes(height: int, width: int) -> list[tuple[float, float, float, float]]:
    return [(0, 0, width, height), (0.13 * width, 0.21 * height, 0.87 * width, 0.79 * height)]


@pytest.mark.parametrize("kind", ["bilinear", "bicubic"])
@pytest.mark.parametrize(("height", "width", "size"), SIZES)
def test_library_and_numpy_give_the_same_bytes_on_every_cpu(height, width, size, kind, monkeypatch):
    for smooth in (True, False):
        pixels = picture(height, width, smooth=smooth)
        for box in boxes(height, width):
            monkeypatch.setattr(resize_module, "_simd_is_exact", lambda: False)
            expected = resize(pixels, size, size, box, kind)
            monkeypatch.setattr(resize_module, "_simd_is_exact", lambda: True)
            for extension in EXTENSIONS:
                resizer = RustResizer()
                resizer.set_cpu_extensions(extension)
                monkeypatch.setattr(resize_module, "_resizer", lambda resizer=resizer: resizer)
                np.testing.assert_array_equal(resize(pixels, size, size, box, kind), expected)


@pytest.mark.parametrize("kind", ["bilinear", "bicubic"])
@pytest.mark.parametrize(("height", "width", "size"), SIZES)
def test_pixels_are_close_to_those_of_pillow(height, width, size, kind):
    """One level for bilinear that shrinks; two for bicubic, and where a picture is enlarged."""
    for smooth in (True, False):
        pixels = picture(height, width, smooth=smooth)
        for box in boxes(height, width):
            expected = np.asarray(Image.fromarray(pixels).resize((size, size), PILLOW[kind], box=box)).astype(int)
            enlarges = size > min(box[2] - box[0], box[3] - box[1])
            levels = 1 if kind == "bilinear" and not enlarges else 2
            assert np.abs(resize(pixels, size, size, box, kind) - expected).max() <= levels


def test_four_channels_give_the_bytes_of_three_without_a_copy(monkeypatch):
    pixels = picture(300, 200, smooth=False)
    box = (10.5, 7.25, 190, 290)
    expected = resize(pixels, 64, 48, box, "bilinear")
    of_four = np.dstack((pixels, pixels[..., 0]))[..., :3]
    monkeypatch.setattr(resize_module, "_copied", lambda pixels, channels: pixels[..., :channels])
    np.testing.assert_array_equal(resize(of_four, 64, 48, box, "bilinear"), expected)


def test_strips_give_the_bytes_of_the_whole_picture(monkeypatch):
    pixels = picture(300, 200, smooth=False)
    whole = resize(pixels, 64, 48, (0, 10.5, 200, 290), "bicubic")
    monkeypatch.setattr(resize_module, "_STRIP_BYTES", 3 * 200 * 7)
    np.testing.assert_array_equal(resize(pixels, 64, 48, (0, 10.5, 200, 290), "bicubic"), whole)


def test_bytes_never_change():
    """Models are trained on these pixels: another version of the library must not change them."""
    pixels = np.resize(np.arange(251, dtype=np.uint8), (375, 500, 3))
    specs = (
        PreprocessSpec(resize="simd"),
        PreprocessSpec(resize="simd", filter="bicubic", fit="crop", shorter_side=256),
        PreprocessSpec(resize="simd", fit="crop", shorter_side=256),
    )
    digests = [hashlib.sha256(fit(pixels, spec).tobytes()).hexdigest()[:16] for spec in specs]
    assert digests == ["41eb26adc18960f2", "2465f1a41071a0ac", "26e686e193168df3"]


def test_library_that_computes_something_else_is_not_used(monkeypatch):
    exact = resize_module._resize_axis

    def wrong(source, target, part, kind):
        exact(source, target, part, kind)
        target.pixels[0, 0, 0] ^= 1

    assert resize_module._simd_is_exact() is True
    monkeypatch.setattr(resize_module, "_resize_axis", wrong)
    resize_module._simd_is_exact.cache_clear()
    try:
        assert resize_module._simd_is_exact() is False
    finally:
        resize_module._simd_is_exact.cache_clear()


def test_library_with_another_interface_is_not_used(monkeypatch):
    monkeypatch.setattr(resize_module, "_resizer", object)
    resize_module._simd_is_exact.cache_clear()
    try:
        assert resize_module._simd_is_exact() is False
    finally:
        resize_module._simd_is_exact.cache_clear()


def test_card_without_the_field_is_resized_by_pillow():
    spec = PreprocessSpec.model_validate({"height": 224, "width": 224, "fit": "squash", "filter": "bilinear"})
    pixels = picture(375, 500, smooth=False)
    by_pillow = np.asarray(Image.fromarray(pixels).resize((224, 224), Image.Resampling.BILINEAR))
    assert spec.resize == "pillow"
    np.testing.assert_array_equal(fit(pixels, spec), by_pillow)
    assert not np.array_equal(fit(pixels, spec.model_copy(update={"resize": "simd"})), by_pillow)


def test_picture_of_the_right_size_is_not_touched():
    pixels = picture(224, 224, smooth=False)
    assert fit(pixels, PreprocessSpec(resize="simd")) is pixels


def test_reused_memory_does_not_change_earlier_pictures():
    """Of one size and of several, also where nothing is resized, turned or cropped."""
    sizes = [(500, 375), (375, 500), (500, 375), (224, 224), (224, 224), (224, 300), (16, 16)] * 3
    for spec in (PreprocessSpec(resize="simd"), PreprocessSpec(resize="simd", fit="crop", shorter_side=256)):
        files = [jpeg(picture(*size, smooth=True), number % 8 + 1) for number, size in enumerate(sizes)]
        together = [preprocess(file, spec) for file in files]
        apart = [fit(decode(file, spec).pixels, spec) for file in files]
        np.testing.assert_array_equal(together, apart)


def jpeg(pixels: np.ndarray, orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", exif=exif)
    return file.getvalue()


def test_strip_that_would_become_huge_is_out_of_memory():
    pixels = np.broadcast_to(np.uint8(0), (10_000_000, 1, 3))
    with pytest.raises(ImageError) as caught:
        fit(pixels, PreprocessSpec(resize="simd"))
    assert caught.value.code == "out_of_memory"
