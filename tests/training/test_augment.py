"""Augmentation is a function of its seed."""

import numpy as np
import pytest

from batchland.training.augment import Augmentation

PIXELS = np.random.default_rng(3).integers(0, 256, (70, 90, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    "augment",
    [
        Augmentation(horizontal_flip=True),
        Augmentation(vertical_flip=True),
        Augmentation(crop=0.5),
        Augmentation(brightness=0.3),
        Augmentation(contrast=0.2),
        Augmentation(saturation=0.3),
        Augmentation(hue=0.2),
    ],
)
def test_augmentation_is_reproducible_and_copies(augment: Augmentation) -> None:
    pixels = PIXELS.copy()
    before = pixels.copy()
    results = {seed: augment(pixels, seed) for seed in range(8)}
    assert all(np.array_equal(augment(pixels, seed), result) for seed, result in results.items())
    assert any(not np.array_equal(result, before) for result in results.values())
    assert np.array_equal(pixels, before)


def test_flips_and_crops_only_move_pixels() -> None:
    pixels = PIXELS
    flipped = [Augmentation(horizontal_flip=True)(pixels, seed) for seed in range(20)]
    mirrored = sum(np.array_equal(each, pixels[:, ::-1]) for each in flipped)
    assert mirrored + sum(np.array_equal(each, pixels) for each in flipped) == 20
    assert 4 <= mirrored <= 16
    for seed in range(20):
        height, width, _ = (part := Augmentation(crop=0.5)(pixels, seed)).shape
        assert height >= 0.5 * pixels.shape[0]
        assert width >= 0.5 * pixels.shape[1]
        assert any(
            np.array_equal(part, pixels[top : top + height, left : left + width])
            for top in range(pixels.shape[0] - height + 1)
            for left in range(pixels.shape[1] - width + 1)
        )
