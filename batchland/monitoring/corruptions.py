"""Degraded copies of labelled photos, for fitting the estimator of accuracy.

Each family is one cause, in two strengths. Families are left out in turn to measure the error of the estimate.
"""

from collections.abc import Callable
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageEnhance, ImageFilter

from batchland.images.decode.picture import Pixels

Floats = npt.NDArray[Any]
Random = np.random.Generator
Corruption = Callable[[Image.Image, float, Random], Image.Image]


def _pixel_corruption(change: Callable[[Floats, float, Random], Floats]) -> Corruption:
    def corrupt(image: Image.Image, strength: float, rng: Random) -> Image.Image:
        values = change(np.asarray(image, np.float32), strength, rng)
        return Image.fromarray(np.clip(np.rint(values), 0, 255).astype(np.uint8))

    return corrupt


def _blurred(image: Image.Image, strength: float, _: Random) -> Image.Image:
    return image.filter(ImageFilter.GaussianBlur(strength * min(image.size) / 100))


def _coarse(image: Image.Image, strength: float, _: Random) -> Image.Image:
    small = image.resize((max(round(image.width / strength), 1), max(round(image.height / strength), 1)))
    return small.resize(image.size)


def _closer(image: Image.Image, strength: float, rng: Random) -> Image.Image:
    width, height = image.width / strength, image.height / strength
    left, top = rng.random() * (image.width - width), rng.random() * (image.height - height)
    return image.resize(image.size, box=(left, top, left + width, top + height))


def _farther(image: Image.Image, strength: float, _: Random) -> Image.Image:
    canvas = Image.new("RGB", image.size, (118, 118, 118))
    small = image.resize((max(round(image.width / strength), 1), max(round(image.height / strength), 1)))
    canvas.paste(small, ((image.width - small.width) // 2, (image.height - small.height) // 2))
    return canvas


def _tilted(image: Image.Image, strength: float, rng: Random) -> Image.Image:
    return image.rotate(strength * rng.choice([-1, 1]), Image.Resampling.BILINEAR)


def _covered(values: Floats, strength: float, rng: Random) -> Floats:
    values = values.copy()
    height, width = (max(int(side * strength), 1) for side in values.shape[:2])
    top, left = rng.integers(0, values.shape[0] - height + 1), rng.integers(0, values.shape[1] - width + 1)
    values[top : top + height, left : left + width] = 30
    return values


_CAST: Final = np.array([1.0, 0.0, -1.0], np.float32)

FAMILIES: Final[dict[str, tuple[Corruption, tuple[float, float]]]] = {
    "blur": (_blurred, (0.6, 1.6)),
    "coarse": (_coarse, (1.6, 3.0)),
    "noise": (_pixel_corruption(lambda values, by, rng: values + rng.normal(0, by, values.shape)), (8.0, 25.0)),
    "dark": (_pixel_corruption(lambda values, by, _: values * by), (0.7, 0.35)),
    "bright": (_pixel_corruption(lambda values, by, _: values * by + 10), (1.2, 1.8)),
    "fog": (_pixel_corruption(lambda values, by, _: values * (1 - by) + 200 * by), (0.2, 0.55)),
    "contrast": (_pixel_corruption(lambda values, by, _: (values - 128) * by + 128), (1.25, 1.9)),
    "cast": (_pixel_corruption(lambda values, by, _: values * (1 + by * _CAST)), (0.08, 0.3)),
    "pale": (lambda image, by, _: ImageEnhance.Color(image).enhance(by), (0.6, 0.0)),
    "closer": (_closer, (1.25, 2.0)),
    "farther": (_farther, (1.2, 2.0)),
    "tilted": (_tilted, (8.0, 90.0)),
    "covered": (_pixel_corruption(_covered), (0.3, 0.6)),
}
"""For each name, the corruption and its two strengths."""


def corrupted(pixels: Pixels, family: str, level: int, rng: Random) -> Pixels:
    """A copy of a picture, uint8 [H, W, 3], of level 0 or 1 of a family."""
    corrupt, strengths = FAMILIES[family]
    return np.asarray(corrupt(Image.fromarray(pixels), strengths[level], rng))
