"""Convert pixels from the colour space of an ICC profile to sRGB."""

from functools import lru_cache
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image

from batchland.images.decode.picture import Pixels


def to_srgb(pixels: Pixels, profile: bytes | None) -> Pixels:
    """RGB uint8 [H, W, 3] in sRGB. Unchanged without a profile, or if it is damaged or not for RGB."""
    transform = _transform(profile) if profile else None
    if transform is None:
        return pixels
    image = Image.fromarray(pixels)
    transform.apply_in_place(image)
    return np.asarray(image)


@lru_cache(maxsize=32)
def _transform(profile: bytes) -> Any:
    from PIL import ImageCms  # only specs with colour = "srgb" need it

    try:
        source = ImageCms.ImageCmsProfile(BytesIO(profile))
        if source.profile.xcolor_space.strip() != "RGB":
            return None
        return ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), "RGB", "RGB")
    except (OSError, ImageCms.PyCMSError):
        return None
