"""Figures about one picture."""

import io
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import laplace

from batchland.images.preprocess import PreprocessSpec, decode
from batchland.images.signals import SIGNAL_DTYPE, SIGNALS, measure, measure_samples, sample


def _picture(height: int = 144, width: int = 216, seed: int = 0) -> np.ndarray:
    """Smooth random colours with some texture."""
    noise = np.random.default_rng(seed)
    coarse = Image.fromarray(noise.integers(0, 256, (6, 9, 3), np.uint8)).resize(
        (width, height), Image.Resampling.BICUBIC
    )
    pixels: np.ndarray = np.clip(
        np.asarray(coarse, np.int16) + noise.integers(-12, 13, (height, width, 3)), 0, 255
    ).astype(np.uint8)
    return pixels


def _values(pixels: np.ndarray) -> dict[str, Any]:
    return dict(zip((signal.name for signal in SIGNALS), measure(pixels), strict=True))


def _jpeg(pixels: np.ndarray, quality: int) -> np.ndarray:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=quality)
    return decode(buffer.getvalue(), PreprocessSpec()).pixels


def test_black_picture() -> None:
    assert _values(np.zeros((100, 120, 3), np.uint8)) == {
        "brightness": 0.0,
        "contrast": 0.0,
        "tone_p01": 0.0,
        "tone_p50": 0.0,
        "tone_p99": 0.0,
        "black_share": 1.0,
        "white_share": 0.0,
        "clipped_share": 1.0,
        "tone_entropy": 0.0,
        "tone_gaps": 0.0,
        "saturation": 0.0,
        "saturation_spread": 0.0,
        "grey_share": 1.0,
        "red_green": 0.0,
        "blue_green": 0.0,
        "colour_width": 0.0,
        "sharpness": -2.0,
        "noise": 0.0,
        "gradient_x": 0.0,
        "gradient_y": 0.0,
        "fineness_x": 0.0,
        "fineness_y": 0.0,
        "blockiness": 0.0,
        "row_bands": 0.0,
        "column_bands": 0.0,
        "flat_share": 1.0,
        "darkest_square": 0.0,
        "difference_hash": 0,
        "thumbnail": bytes(48),
    }


def test_tones_and_colours_of_known_halves() -> None:
    """Left half pure red, right half mid grey: every figure follows from the definition."""
    pixels = np.zeros((72, 144, 3), np.uint8)
    pixels[:, :72] = (255, 0, 0)
    pixels[:, 72:] = 128
    found = _values(pixels)
    red = (77 * 255 >> 8) / 255
    grey = 128 / 255
    assert found["brightness"] == pytest.approx((red + grey) / 2)
    assert found["contrast"] == pytest.approx((grey - red) / 2)
    assert [found[name] for name in ("tone_p01", "tone_p50", "tone_p99")] == pytest.approx([red, red, grey])
    assert [found[name] for name in ("black_share", "white_share", "clipped_share")] == [0.0, 0.0, 0.5]
    assert found["tone_entropy"] == pytest.approx(1.0)
    assert found["tone_gaps"] == pytest.approx(1 - 2 / 129)
    assert [found[name] for name in ("saturation", "saturation_spread", "grey_share")] == pytest.approx([0.5, 0.5, 0.5])
    assert [found["red_green"], found["blue_green"]] == pytest.approx([0.5, 0.0])
    assert found["thumbnail"] == (bytes([255, 0, 0]) * 2 + bytes([128] * 3) * 2) * 4


def test_sharpness_and_gradients_agree_with_scipy() -> None:
    """Of noise, whose squares are like the whole picture."""
    pixels = np.random.default_rng(1).integers(0, 256, (600, 800, 3), np.uint8)
    tones = (pixels.astype(int) @ [77, 150, 29]) >> 8
    found = _values(pixels)
    assert found["sharpness"] == pytest.approx(np.log10(laplace(tones.astype(float)).var()), abs=0.03)
    assert found["gradient_x"] == pytest.approx(np.abs(np.diff(tones, axis=1)).mean(), rel=0.03)
    assert found["gradient_y"] == pytest.approx(np.abs(np.diff(tones, axis=0)).mean(), rel=0.03)


@pytest.mark.parametrize("deviation", [2.0, 5.0, 15.0])
def test_noise_on_a_smooth_picture_is_in_proportion_to_its_deviation(deviation: float) -> None:
    ramp = np.linspace(60, 190, 400)[None, :, None] + np.zeros((300, 400, 3))
    grey = np.random.default_rng(2).normal(0, deviation, (300, 400, 1))
    pixels = np.clip(np.rint(ramp + grey), 0, 255).astype(np.uint8)
    assert _values(pixels)["noise"] == pytest.approx(0.81 * deviation, rel=0.05)


def test_strong_compression_shows_at_the_borders_of_blocks() -> None:
    pixels = _picture()
    assert _values(pixels)["blockiness"] == pytest.approx(0.0, abs=0.15)
    assert _values(_jpeg(pixels, 95))["blockiness"] == pytest.approx(0.0, abs=0.15)
    assert _values(_jpeg(pixels, 5))["blockiness"] > 1.0


def test_blur_lowers_fineness_in_its_direction() -> None:
    pixels = _picture(400, 500)
    smeared = np.mean([np.roll(pixels, step, axis=1) for step in range(6)], axis=0).astype(np.uint8)
    before, after = _values(pixels), _values(smeared)
    assert after["fineness_x"] < before["fineness_x"] - 1
    assert after["fineness_y"] == pytest.approx(before["fineness_y"], abs=0.5)


def test_colour_width_is_the_smaller_deviation_of_two_colour_differences() -> None:
    pixels = np.random.default_rng(5).integers(0, 256, (72, 72, 3), np.uint8)
    wide = pixels.reshape(-1, 3).astype(float)
    variances = np.linalg.eigvalsh(np.cov(wide[:, 0] - wide[:, 1], wide[:, 2] - wide[:, 1], bias=True))
    assert _values(pixels)["colour_width"] == pytest.approx(np.sqrt(variances[0]) / 255, rel=1e-4)
    toned = (pixels[..., :1] * np.array([1.0, 0.8, 0.5])).astype(np.uint8)
    assert _values(toned)["colour_width"] < 0.005


def test_stripes_show_in_their_direction() -> None:
    pixels = _picture()
    striped = pixels.copy()
    striped[::4] = 0
    before, after, turned = _values(pixels), _values(striped), _values(np.rot90(striped))
    assert after["row_bands"] > 10 * before["row_bands"]
    assert after["column_bands"] < 2 * before["column_bands"]
    assert turned["column_bands"] > 10 * before["column_bands"]


def test_a_posterised_picture_has_tone_gaps() -> None:
    pixels = _picture()
    assert _values(pixels)["tone_gaps"] < 0.1
    assert _values(pixels & 0xE0)["tone_gaps"] > 0.9


def test_half_grey_picture_has_flat_squares() -> None:
    pixels = _picture(400, 500)
    pixels[200:] = 128
    assert _values(pixels)["flat_share"] == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("quality", [50, 80, 95])
def test_difference_hash_is_stable_under_encoding_and_differs_between_pictures(quality: int) -> None:
    hashes = {_values(_picture(seed=seed))["difference_hash"] for seed in range(20)}
    assert len(hashes) == 20
    pixels = _picture(seed=3)
    again = _values(_jpeg(pixels, quality))["difference_hash"]
    assert (_values(pixels)["difference_hash"] ^ again).bit_count() <= 3
    assert min((again ^ other).bit_count() for other in hashes - {_values(pixels)["difference_hash"]}) > 8


def test_difference_hash_is_that_of_averaged_cells() -> None:
    """As the usual definition: shrink to 9 x 8 by averaging, compare with the right neighbour."""
    pixels = np.repeat(_picture(144, 144)[..., 1:2], 3, axis=2)
    small = np.asarray(Image.fromarray(pixels[..., 0][1::2, 1::2]).resize((9, 8), Image.Resampling.BOX), int)
    bits = "".join("1" if right > left else "0" for row in small for left, right in pairwise(row))
    found = int(_values(pixels)["difference_hash"])
    assert (found ^ int(bits, 2)).bit_count() <= 2  # cells that round to equal means


def test_thumbnail_is_the_mean_of_each_cell() -> None:
    pixels = _picture(288, 288)
    small = np.asarray(Image.fromarray(pixels).resize((4, 4), Image.Resampling.BOX), int)
    found = np.frombuffer(_values(pixels)["thumbnail"], np.uint8).reshape(4, 4, 3)
    assert np.abs(found - small).max() <= 3


@pytest.mark.parametrize("shape", [(1, 1), (1, 500), (7, 3), (13, 14), (71, 73), (3000, 20)])
def test_every_size_has_finite_values_of_the_declared_types(shape: tuple[int, int]) -> None:
    pixels = np.random.default_rng(3).integers(0, 256, (*shape, 3), np.uint8)
    row = np.array([measure(pixels)], SIGNAL_DTYPE)[0]
    assert all(np.isfinite(row[signal.name]) for signal in SIGNALS if signal.dtype == "float32")
    assert len(measure(pixels)[-1]) == 48


def test_order_in_memory_does_not_matter() -> None:
    for pixels in (_picture(), _picture(9, 60)):
        turned = np.ascontiguousarray(pixels.transpose(1, 0, 2)).transpose(1, 0, 2)
        assert not turned.flags.c_contiguous
        assert measure(turned) == measure(pixels)
        of_four = np.dstack((pixels, pixels[..., 0]))[..., :3]
        assert of_four.strides == (4 * pixels.shape[1], 4, 1)
        assert measure(of_four) == measure(pixels)


def test_picture_of_one_row_is_that_row_repeated() -> None:
    row = np.random.default_rng(4).integers(0, 256, (1, 300, 3), np.uint8)
    assert measure(row)[:-2] == pytest.approx(measure(np.repeat(row, 14, axis=0))[:-2])
    found = _values(row)
    assert found["gradient_y"] == found["row_bands"] == 0.0
    assert found["gradient_x"] > 30


def test_figures_do_not_depend_on_the_pictures_measured_together() -> None:
    pictures = [_picture(40 + 11 * seed, 300 - 9 * seed, seed) for seed in range(21)] + [np.zeros((5, 5, 3), np.uint8)]
    together = measure_samples(np.stack([sample(pixels) for pixels in pictures]))
    for figures, pixels in zip(together, pictures, strict=True):
        assert figures.tobytes() == measure_samples(sample(pixels)[None]).tobytes()
        assert figures.tobytes() == np.array([measure(pixels)], SIGNAL_DTYPE).tobytes()
