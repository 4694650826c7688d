"""Draw pictures on which two versions of a model are compared."""

import numpy as np

from batchland.images.preprocess import Pixels


def probe_pictures(shape: tuple[int, int, int], count: int) -> Pixels:
    """uint8 [count, *shape], the same every time: half of them noise, half of them patches of colour of several sizes.

    shape: (height, width, 3).
    """
    height, width, _ = shape
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (count, *shape), np.uint8)
    for number in range(0, count, 2):
        patches = rng.integers(0, 256, (number // 2 + 1, number // 2 + 1, 3), np.uint8)
        rows, columns = (np.arange(side) * len(patches) // side for side in (height, width))
        pictures[number] = patches[rows][:, columns]
    return pictures
