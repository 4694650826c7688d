"""Random changes of a picture, drawn from a seed. Knows nothing of files, data sets or models."""

from dataclasses import dataclass

import numpy as np
from PIL import Image
from torchvision.transforms.v2 import functional as tv

from batchland.images.preprocess import Pixels


@dataclass(frozen=True)
class Augmentation:
    """Random changes of a picture, uint8 [H, W, 3] to uint8 [H', W', 3], drawn from a seed.

    On Pillow's images, as the walk-through: a turn of the hue costs a third of what it does on tensors.
    """

    crop: float = 1.0
    """Smallest share of either side that is kept; 1 keeps all."""
    horizontal_flip: bool = False
    vertical_flip: bool = False
    brightness: float = 0.0
    """Factors are drawn from 1 - x to 1 + x; the same for contrast and saturation."""
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0
    """Turn of the colour circle, drawn from -x to x; 0.5 is half of it. Dear: costs more than all others together."""

    def __call__(self, pixels: Pixels, seed: int) -> Pixels:
        """The same seed gives the same picture, in any process and thread."""
        rng = np.random.default_rng(seed)
        image = Image.fromarray(pixels)
        if self.crop < 1:  # before the colours, so that they have fewer pixels to change
            whole = (image.height, image.width)
            height, width = (max(1, round(side * rng.uniform(self.crop, 1))) for side in whole)
            top, left = (int(rng.integers(side - part + 1)) for side, part in zip(whole, (height, width), strict=True))
            image = tv.crop(image, top, left, height, width)
        if self.horizontal_flip and rng.random() < 0.5:
            image = tv.horizontal_flip(image)
        if self.vertical_flip and rng.random() < 0.5:
            image = tv.vertical_flip(image)
        for place in rng.permutation(4):
            image = self._change_colour(image, int(place), rng)
        return np.asarray(image)

    def _change_colour(self, image: Image.Image, which: int, rng: np.random.Generator) -> Image.Image:
        name = ("brightness", "contrast", "saturation", "hue")[which]
        strength: float = getattr(self, name)
        if strength == 0:
            return image
        change = getattr(tv, f"adjust_{name}")
        middle = 0.0 if name == "hue" else 1.0
        changed: Image.Image = change(image, float(rng.uniform(middle - strength, middle + strength)))
        return changed
