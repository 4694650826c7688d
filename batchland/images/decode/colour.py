"""Convert pixels from the colour space of an ICC profile to sRGB."""

from functools import lru_cache
from io import BytesIO
from typing import Any, Final

import numpy as np
from PIL import Image

from batchland.images.decode.picture import Pixels, check_transfer

_LEVELS: Final = (0, 32, 64, 96, 128, 160, 192, 224, 255)
_TAGS: Final = 132
"""Byte position of the table of tags in a profile."""
_DARK: Final = 96
_LIGHT: Final = 160
"""Levels of 255. A profile is damaged if black becomes lighter than the first, or white darker than the second."""
_SAME: Final = 3
"""Levels of 255. A profile that changes no colour by more than this counts as sRGB: vendors have their own versions."""


def check_profile(profile: bytes | None) -> None:
    """Raise ImageError (`unsupported_format`) for a profile that says that the picture is HDR (ICC.1, `cicpTag`)."""
    at = profile.find(b"cicp", _TAGS) if profile else -1
    if profile and at >= 0:
        begin = int.from_bytes(profile[at + 4 : at + 8])
        content = profile[begin : begin + 12]
        if content.startswith(b"cicp") and len(content) == 12:
            check_transfer(content[9])


def to_srgb(pixels: Pixels, profile: bytes | None) -> Pixels:
    """RGB uint8 [H, W, 3] in sRGB. Unchanged if the profile is missing, sRGB, damaged or not one for RGB."""
    transform = _transform(profile) if profile else None
    return pixels if transform is None else _applied(transform, pixels)


def is_srgb(profile: bytes | None) -> bool:
    """Whether `to_srgb` leaves pixels with this profile as they are."""
    return not profile or _transform(profile) is None


@lru_cache(maxsize=32)
def _transform(profile: bytes) -> Any:
    from PIL import ImageCms  # only specs with colour = "srgb" need it

    try:
        source = ImageCms.ImageCmsProfile(BytesIO(profile))
        if source.profile.xcolor_space.strip() != "RGB":
            return None
        transform = ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), "RGB", "RGB")
    except (OSError, ImageCms.PyCMSError):
        return None
    colours = np.stack(np.meshgrid(_LEVELS, _LEVELS, _LEVELS), axis=-1).reshape(27, 27, 3).astype(np.uint8)
    changed = _applied(transform, colours).astype(int)
    if changed[0, 0].max() > _DARK or changed[-1, -1].min() < _LIGHT:
        return None
    return transform if np.abs(changed - colours).max() > _SAME else None


def _applied(transform: Any, pixels: Pixels) -> Pixels:
    image = Image.fromarray(pixels)
    transform.apply_in_place(image)
    return np.asarray(image)
