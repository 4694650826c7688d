"""Random changes of an image, drawn from a seed."""

from dataclasses import dataclass

import numpy as np
from PIL import Image
from torchvision.transforms.v2 import functional as tv

from batchland.images.preprocess import Pixels

_COLOUR_CHANGES = ("brightness", "contrast", "saturation", "hue")


@dataclass(frozen=True)
class Augmentation:
    """Random changes of an image, uint8 [H, W, 3] to uint8 [H', W', 3], drawn from a seed.

    Works on Pillow images, as the walk-through does: changing the hue takes a third of the time that tensors need.
    """

    crop: float = 1.0
    """Smallest share of either side that is kept; 1 keeps all."""
    horizontal_flip: bool = False
    vertical_flip: bool = False
    brightness: float = 0.0
    """The factor is drawn from 1 - x to 1 + x; the same for contrast and saturation."""
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0
    """The shift is drawn from -x to x; 0.5 is half of the colour circle. Slower than all other changes together."""

    def __call__(self, pixels: Pixels, seed: int) -> Pixels:
        """Return the changed image: the same for the same seed, in any process and thread."""
        rng = np.random.default_rng(seed)
        image = Image.fromarray(pixels)
        if self.crop < 1:  # before the colours, which then have fewer pixels to change
            whole = (image.height, image.width)
            height, width = (max(1, round(side * rng.uniform(self.crop, 1))) for side in whole)
            top, left = (int(rng.integers(side - part + 1)) for side, part in zip(whole, (height, width), strict=True))
            image = tv.crop(image, top, left, height, width)
        if self.horizontal_flip and rng.random() < 0.5:
            image = tv.horizontal_flip(image)
        if self.vertical_flip and rng.random() < 0.5:
            image = tv.vertical_flip(image)
        for index in rng.permutation(len(_COLOUR_CHANGES)):
            image = self._change_colour(image, _COLOUR_CHANGES[index], rng)
        return np.asarray(image)

    def _change_colour(self, image: Image.Image, name: str, rng: np.random.Generator) -> Image.Image:
        strength: float = getattr(self, name)
        if strength == 0:
            return image
        neutral = 0.0 if name == "hue" else 1.0
        factor = float(rng.uniform(neutral - strength, neutral + strength))
        return getattr(tv, f"adjust_{name}")(image, factor)
